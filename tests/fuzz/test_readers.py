"""Damaged and hostile files of GLUE tasks, minimal pairs, models and configs: read, or refused with a typed error.

Records of mapnet itself: unchanged, or a DamagedError.
"""

import io
import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from mapnet_cli.config.loading import resolve
from mapnet_cli.core import (
    Artifacts,
    DamagedError,
    InputError,
    MapnetError,
    Marker,
    UsageError,
    record_checksum,
    write_json,
)
from mapnet_cli.finetune_glue.examples import read_examples
from mapnet_cli.glue import TASKS
from mapnet_cli.huggingface.import_encoder import import_folder
from mapnet_cli.lineage.digests import Digests
from mapnet_cli.minimal_pairs.readers import read_paradigms
from mapnet_cli.prepare_corpus.slices import input_slices
from tests.conftest import small_config
from tests.fuzz.test_rows import mutated
from tests.huggingface.hf_folders import save_bert
from tests.prepare_corpus.corpora import FUZZ, saved_data_set

ROWS = [{"sentence": f"It rained {n}.", "label": str(n % 2), "good": "a b.", "bad": "b a."} for n in range(4)]
LINES = [list(ROWS[0]), *(list(row.values()) for row in ROWS)]
MODEL_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
PLACES = st.integers(0, 2000)
MUTATIONS = st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 3), st.binary(max_size=4)), max_size=4)
TEMPORARY = tempfile.TemporaryDirectory()  # not a fixture, which coverage-guided fuzzing (guided.py) doesn't know
FOLDER = Path(TEMPORARY.name)
ODD: list[Any] = [
    None, True, -1, 0, 3, 10**30, 1e308, "", "x" * 300, "\ud800", "../../x", "/etc/passwd", [], {}, [[[]]], [None],
    {"a": None}, ["a"], {"_type": "ClassLabel"},
]  # fmt: skip


def parquet_bytes() -> bytes:
    out = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(ROWS), out)
    return out.getvalue()


TABLES: dict[str, Callable[[], bytes]] = {
    ".tsv": lambda: "".join("\t".join(fields) + "\n" for fields in LINES).encode(),
    ".csv": lambda: "".join(",".join(f'"{field}"' for field in fields) + "\n" for fields in LINES).encode(),
    ".jsonl": lambda: "".join(json.dumps(row) + "\n" for row in ROWS).encode(),
    ".json": lambda: json.dumps(ROWS, indent=1).encode(),
    ".parquet": parquet_bytes,
    ".txt": lambda: b"bad one .\ngood one .\n" * 3,
}


def with_odd(value: Any, place: int, odd: Any) -> Any:
    """Replaces one of the values inside a JSON value, the `place`-th in its order (counted again from its end)."""
    found: list[tuple[Any, Any]] = []

    def walk(inner: Any) -> None:
        for key in list(inner) if isinstance(inner, dict) else range(len(inner)):
            found.append((inner, key))
            if isinstance(inner[key], dict | list):
                walk(inner[key])

    walk(value)
    if found:
        inner, key = found[place % len(found)]
        inner[key] = odd
    return value


def emptied(name: str) -> Path:
    """Returns an empty folder, without what an earlier example left in it."""
    shutil.rmtree(FOLDER / name, ignore_errors=True)
    (FOLDER / name).mkdir()
    return FOLDER / name


def read_all(path: Path) -> None:
    """Reads a path as a GLUE task and as minimal pairs; errors must be the user's files', not mapnet's."""
    for read in (lambda: read_examples(path, TASKS["SST-2"], "dev"), lambda: read_paradigms(path)):
        with suppress(InputError):
            read()


@FUZZ
@given(st.sampled_from([*TABLES]), MUTATIONS, st.booleans(), MUTATIONS)
def test_tables(
    suffix: str, inner: list[tuple[int, int, bytes]], zipped: bool, outer: list[tuple[int, int, bytes]]
) -> None:
    content = mutated(TABLES[suffix](), inner)
    path = FOLDER / "data.zip" if zipped else FOLDER / "tables"
    if zipped:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"dev{suffix}", content)
        path.write_bytes(mutated(out.getvalue(), outer))
    else:
        path.mkdir(exist_ok=True)
        for file in path.iterdir():
            file.unlink()
        (path / f"dev{suffix}").write_bytes(content)
    read_all(path)


@FUZZ
@given(st.sampled_from(["data.arrow", "state.json", "dataset_dict.json"]), MUTATIONS, PLACES, st.sampled_from(ODD))
def test_saved_data_sets(name: str, bytes_: list[tuple[int, int, bytes]], place: int, odd: Any) -> None:
    root = emptied("saved")
    saved_data_set(root / "validation", ROWS)
    (root / "dataset_dict.json").write_text('{"splits": ["validation"]}')
    file = root / name if name == "dataset_dict.json" else root / "validation" / name
    content = file.read_bytes()
    if name != "data.arrow" and place % 2:
        content = json.dumps(with_odd(json.loads(content), place // 2, odd)).encode()
    file.unlink()
    file.write_bytes(mutated(content, bytes_))
    read_all(root)
    config = small_config(f'corpus.sources=[{{kind="dataset", path="{root}", column="sentence", split="validation"}}]')
    with suppress(InputError):
        input_slices(config)


@cache
def model() -> dict[str, bytes]:
    """The files of a small model."""
    root = emptied("model")
    save_bert(root)
    assert {path.name for path in root.iterdir()} == {*MODEL_FILES}
    return {path.name: path.read_bytes() for path in root.iterdir()}


@FUZZ
@given(st.sampled_from(MODEL_FILES), MUTATIONS, PLACES, st.sampled_from(ODD))
def test_models(name: str, bytes_: list[tuple[int, int, bytes]], place: int, odd: Any) -> None:
    root = emptied("hf")
    for file, content in model().items():
        (root / file).write_bytes(content)
    content = model()[name]
    if name.endswith(".json") and place % 2:
        content = json.dumps(with_odd(json.loads(content), place // 2, odd)).encode()
    (root / name).write_bytes(mutated(content, bytes_))
    with suppress(InputError, UsageError):
        import_folder(Artifacts(root / "artifacts"), root, "it")


@FUZZ
@given(
    st.sampled_from(
        ["pretrain.steps = 10\n", '[method.x]\nstrategy = "mapnet"\n[method.x.proposal]\nuniform_mix = 0.5']
    ),
    MUTATIONS,
    st.sampled_from(["", "9" * 5000, "0x" + "f" * 5000, "[" * 3000, '"' * 3, "a = {" * 2000, "\ud800"]),
    PLACES,
)
def test_configs(text: str, bytes_: list[tuple[int, int, bytes]], odd: str, place: int) -> None:
    place %= len(text)
    content = (text[:place] + odd + text[place:]).encode(errors="surrogatepass")
    (FOLDER / "c.toml").write_bytes(mutated(content, bytes_))
    for given_ in ((FOLDER / "c.toml", []), (None, [mutated(content, bytes_).decode(errors="replace")])):
        with suppress(UsageError):
            resolve(None, *given_, {})


@FUZZ
@given(MUTATIONS, PLACES, st.sampled_from(ODD), st.booleans())
def test_records_of_mapnet(bytes_: list[tuple[int, int, bytes]], place: int, odd: Any, structured: bool) -> None:
    """A marker and the remembered hashes are read as they were written, or damaged."""
    artifacts = Artifacts(FOLDER / "artifacts")
    marker = Marker("pretrain/x", "f" * 64, {"steps": [1, 2], "name": "é"}, {"pretrain/x/a": "0" * 64})
    artifacts.publish(marker)
    seen = {"a": {"digest": "d", "files": {}}}
    write_json(artifacts.path("inputs.json"), seen | {"checksum": record_checksum(seen)})
    for name, read in {
        "pretrain/x.json": lambda: artifacts.require("pretrain/x"),
        "inputs.json": lambda: Digests(artifacts).remembered("a"),
    }.items():
        content = artifacts.path(name).read_bytes()
        if structured:
            content = json.dumps(with_odd(json.loads(content), place, odd)).encode()
        content = mutated(content, bytes_)
        artifacts.path(name).write_bytes(content)
        try:
            found: object = read()
        except DamagedError:
            continue
        except MapnetError:
            raise AssertionError(f"{name}: not called damaged") from None
        assert found in (marker, "d"), (name, content)
