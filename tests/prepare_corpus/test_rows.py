"""Sources with a document a row: what is text, and how what isn't is named."""

import json
import time
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from mapnet_cli import hub
from mapnet_cli.config import Source
from mapnet_cli.errors import InputError
from mapnet_cli.prepare_corpus.documents import read_hub, read_piece
from mapnet_cli.prepare_corpus.pieces import Piece
from mapnet_cli.prepare_corpus.reading import Reading
from tests.prepare_corpus.corpora import read, read_shares


def test_jsonl_and_what_is_wrong_with_its_lines(tmp_path: Path) -> None:
    rows = [
        json.dumps({"text": "one\ntwo", "id": 1}), '{"text": "cut', json.dumps({"body": "x", "id": 2}), "[1]", "",
        json.dumps({"text": None}), json.dumps({"text": " "}), json.dumps({"text": "\ud800 x\0y"}),
    ]  # fmt: skip
    lines, problems = read(tmp_path / "f", "\n".join(rows).encode(), kind="jsonl")
    assert lines == ["one", "two", None, "\ud800 xy", None]
    assert problems[0].startswith("f: row 1 is not JSON (Unterminated string")
    assert problems[1:] == [
        "f: row 2 has no key 'text', only body, id",
        "f: row 3 has no key 'text'",
        "f: row 5 has no text",
        "f: row 6 has no text",
    ]
    assert read(tmp_path / "f", b'{"body": "x"}\n', kind="jsonl", column="body")[0] == ["x", None]


def parquet_file(path: Path, texts: list[str | None], rows: int) -> Path:
    parquet.write_table(pa.table({"id": list(range(len(texts))), "text": texts}), path, row_group_size=rows)
    return path


def test_parquet_by_row_groups(tmp_path: Path) -> None:
    texts = ["one\ntwo", None, "three", "four", "five", ""]
    file = parquet_file(tmp_path / "f.parquet", texts, 2)
    for parts in (1, 2, 3, 5):
        lines, reading = read_shares(file, parts, kind="parquet")
        assert lines == ["one", "two", None, "three", None, "four", None, "five", None]
        assert reading.problems.lines == ["f: row 1 has no text", "f: row 5 has no text"]
    source = Source(kind="parquet", path=str(file), column="body")
    with pytest.raises(InputError, match="no column 'body', only id, text"):
        list(read_piece(Piece(file), "f", source, "repair", Reading()))


def test_damaged_parquet_is_named(tmp_path: Path) -> None:
    file = parquet_file(tmp_path / "f.parquet", [f"text number {n}" for n in range(100)], 10)
    whole = file.read_bytes()
    assert "not a readable Parquet file" in read(file, whole[:-100], kind="parquet")[1][0]
    broken = bytearray(whole)
    broken[len(whole) // 4 : len(whole) // 4 + 200] = bytes(200)
    lines, problems = read(file, bytes(broken), kind="parquet")
    assert lines.count(None) < 100
    assert "damaged after row" in problems[0]


def test_rows_of_a_dataset_on_disk_are_documents(tmp_path: Path) -> None:
    from datasets import Dataset

    texts = ["one\ntwo", "", "three\u0000"]
    Dataset.from_dict({"text": texts, "title": ["a", "b", "c"]}).save_to_disk(str(tmp_path / "set"))
    (file,) = (tmp_path / "set").glob("*.arrow")
    for parts in (1, 2, 5):
        lines, reading = read_shares(file, parts, kind="dataset")
        assert lines == ["one", "two", None, "three", None]
        assert reading.problems.lines == ["f: row 1 has no text"]
    source = Source(kind="dataset", path=str(tmp_path / "set"), column="body")
    with pytest.raises(InputError, match=r"no column 'body', only text, title"):
        list(read_piece(Piece(file), "f", source, "repair", Reading()))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub, as far as this process knows, at an address where nobody answers."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", constants.HF_HUB_OFFLINE)  # put back afterwards
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")


def test_without_a_network_the_hub_is_an_error_within_seconds(offline: None) -> None:
    start = time.monotonic()
    source = Source(kind="dataset", path="hub:somebody/prose")
    with pytest.raises(InputError, match=r"hub:somebody/prose: the hub can't be reached.*save_to_disk\(FOLDER\)"):
        list(read_hub(source, 0, 4, "f", Reading()))
    assert time.monotonic() - start < 15


def test_rows_of_the_hub_stream_in_parts(offline: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets` takes a folder of the id's name for the data set; it streams it as it would from the hub."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "somebody" / "prose"
    folder.mkdir(parents=True)
    for number in range(3):
        parquet_file(folder / f"train-{number:05}.parquet", [f"{number} {row}" for row in range(4)], 2)
    everything = [f"{number} {row}" for number in range(3) for row in range(4)]
    for parts in (1, 2, 3, 8):
        found = [hub.rows("hub:somebody/prose", None, "train", "text", part, parts) for part in range(parts)]
        assert [text for rows in found for _, text in rows] == everything
    source = Source(kind="dataset", path="hub:somebody/prose", limit=2)
    assert list(read_hub(source, 0, 1, "f", Reading())) == ["0 0", None, "0 1", None]
    with pytest.raises(InputError, match="no column 'body', only id, text"):
        list(hub.rows("hub:somebody/prose", None, "train", "body", 0, 1))
