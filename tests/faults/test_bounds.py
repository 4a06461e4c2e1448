"""Data for GLUE tasks and minimal pairs that holds a value or row of 100 MB: a typed error in under 500 MB of memory.

Measured in a subprocess. Also: what a hostile data set, zip or model names is never opened.
"""

import io
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from mapnet_cli.core import InputError, hub
from mapnet_cli.finetune_glue.examples import read_examples
from mapnet_cli.glue import TASKS
from mapnet_cli.minimal_pairs.readers import read_paradigms
from tests.faults.trials import TRIALS
from tests.prepare_corpus.corpora import saved_data_set

SIZE = 100 << 20
WRONG = r"is not the name of a data file in its folder|is missing"
MEASURE = """
import re, sys
from pathlib import Path
from mapnet_cli.core import InputError, hub
from mapnet_cli.finetune_glue.examples import read_examples
from mapnet_cli.glue import TASKS
from mapnet_cli.minimal_pairs.readers import read_paradigms

path = Path(sys.argv[2])
try:
    read_examples(path, TASKS["SST-2"], "dev") if sys.argv[1] == "glue" else read_paradigms(path)
except InputError as error:
    print(error, file=sys.stderr)
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def rows(indices: list[int], size: int = SIZE, **settings: Any) -> bytes:
    """A Parquet file with long rows."""
    texts = ["a" * size, "b" * size][: 1 + max(indices)]
    sentences = pa.DictionaryArray.from_arrays(pa.array(indices), pa.array(texts, pa.large_string()))
    out = io.BytesIO()
    table = pa.table({"sentence": sentences, "label": [0] * len(indices)})
    parquet.write_table(table, out, compression="zstd", **settings)
    return out.getvalue()


MEMBERS: dict[str, tuple[Callable[[], bytes], str]] = {
    "line.tsv": (lambda: b"sentence\tlabel\n" + b"a" * SIZE, "the line is longer than 16 MB"),
    "row.csv": (
        lambda: b"sentence,label\n" + (b'"' + (b"a" * 1000 + b"\n") * 8000 + b'",') * 12,
        "the row is longer than",
    ),
    "line.jsonl": (lambda: b'{"sentence":[' + b"[]," * (SIZE // 3), "the line is longer than 16 MB"),
    "lists.jsonl": (lambda: b'{"x":[' + b"[]," * 5_000_000 + b"1]}\n", r"needs the columns|is missing"),
    "array.json": (lambda: b'[{"sentence":"' + b"a" * SIZE, "longer than 16 MB"),
    "row.parquet": (lambda: rows([0]), "rows of 104.9 MB"),
    "rows.parquet": (lambda: rows([0, 1, 0], use_dictionary=False), "rows of 104.9 MB"),
    "lone.parquet": (lambda: rows([0] * 50), "rows of 2.1 MB"),
    "value.parquet": (lambda: rows([0] * 9, SIZE // 2), "a value of 'sentence' is longer than 16 MB"),
    "repeated.parquet": (lambda: rows([0] * 500 + [1] * 500, dictionary_pagesize_limit=1 << 30), "rows of 0.2 MB"),
}


@pytest.mark.slow
# Elsewhere only getrusage tells a peak, which a process inherits from pytest. CI runs on Linux.
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux, whose /proc has the peak memory")
@pytest.mark.parametrize("name", [*MEMBERS][:: 4 if TRIALS == 1 else 1])
def test_a_value_of_100_mb_takes_less_than_500_mb(name: str, tmp_path: Path) -> None:
    make, message = MEMBERS[name]
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr(f"dev{Path(name).suffix}", make())
    for reader in ("glue", "pairs")[: 1 if name.endswith(".json") else 2]:
        command = [sys.executable, "-c", MEASURE, reader, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=True)
        assert re.search(message, done.stderr), done.stderr
        assert int(done.stdout) < 500_000, f"{reader}: {done.stdout} kB"


def test_many_short_pairs_are_refused_before_they_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a-b.txt").write_text("a\n" * 100)
    assert len(read_paradigms(tmp_path)[0].pairs) == 50
    monkeypatch.setattr("mapnet_cli.minimal_pairs.readers.MOST", 10_000)
    with pytest.raises(InputError, match=r"a-b\.txt:\d+: more than 0 MB of pairs"):
        read_paradigms(tmp_path)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A saved data set with images that are a path and a file on the Hub; `datasets` itself would open both."""
    (tmp_path / "secret.png").write_bytes(b"secret")
    folder = tmp_path / "data" / "validation"
    image = {"sentence": "b", "label": 1, "image": {"bytes": None, "path": "hf://datasets/a/b/c.png"}}
    rows = [{"sentence": "a", "label": 0, "image": {"bytes": b"", "path": str(tmp_path / "secret.png")}}, image]
    kinds = {"image": {"_type": "Image"}, "label": {"names": ["0", "1"], "_type": "ClassLabel"}}
    saved_data_set(folder, rows, kinds)
    return folder


def test_nothing_that_a_saved_data_set_names_is_opened(saved: Path) -> None:
    """In a process of its own, which reports every file and socket that it opens."""
    script = (
        "import sys\nfrom pathlib import Path\nfrom mapnet_cli.finetune_glue.examples import read_examples\n"
        "from mapnet_cli.glue import TASKS\n"
        "seen = lambda event, args: event.startswith('socket.') or (event == 'open' and 'secret' in str(args[0]))\n"
        "sys.addaudithook(lambda event, args: print(event, args) if seen(event, args) else None)\n"
        "print(read_examples(Path(sys.argv[1]), TASKS['SST-2'], 'dev').texts)\n"
    )
    command = [sys.executable, "-c", script, str(saved.parent)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert (done.stdout, done.returncode) == ("[('a',), ('b',)]\n", 0), done.stderr


def test_columns_of_the_hub_that_are_not_read_are_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Streamed from a file here; decoding the image would fail."""
    from datasets import Dataset, Features, Image, Value, load_dataset

    image = {"bytes": b"no image", "path": None}
    kinds = Features({"meta": {"text": Value("string")}, "image": Image()})
    file = str(tmp_path / "a.parquet")
    Dataset.from_list([{"meta": {"text": "a"}, "image": image}], features=kinds.copy()).to_parquet(file)
    stream = load_dataset("parquet", data_files=file, split="train", streaming=True, features=kinds)
    monkeypatch.setattr(hub, "load_hub_split", lambda *args, **settings: stream)
    assert list(hub.hub_rows("hub:a/b", None, "train", 0, 1, "meta.text")) == [(0, {"meta": {"text": "a"}})]


def test_an_image_is_not_text(saved: Path) -> None:
    task = TASKS["SST-2"]
    own = type(task)(**vars(task) | {"texts": ("image",), "data": task.data.model_copy(update={"text": "image"})})
    with pytest.raises(InputError, match=r"row 1: 'image' must be a string, not StructType\(struct<bytes: binary"):
        read_examples(saved.parent, own, "dev")


@pytest.mark.parametrize("name", ["../../secret.arrow", "/etc/hostname", ".hidden.arrow", ""])
def test_a_data_set_names_no_file_outside_of_its_folder(name: str, saved: Path) -> None:
    from mapnet_cli.config import Source
    from mapnet_cli.prepare_corpus.slices import input_slices
    from tests.conftest import small_config

    state = json.loads((saved / "state.json").read_text())
    (saved / "state.json").write_text(json.dumps(state | {"_data_files": [{"filename": name}]}))
    with pytest.raises(InputError, match=WRONG):
        read_examples(saved.parent, TASKS["SST-2"], "dev")
    config = small_config()
    source = Source(kind="dataset", path=str(saved), column="sentence")
    corpus = config.corpus.model_copy(update={"sources": (source,)})
    with pytest.raises(InputError, match=WRONG):
        input_slices(config.model_copy(update={"corpus": corpus}))
