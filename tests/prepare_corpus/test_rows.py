"""Sources with one document per row: which values are text, and how other values are reported."""

import gzip
import json
import re
import shutil
import time
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from mapnet_cli.config import Source
from mapnet_cli.core.errors import InputError
from mapnet_cli.core.hub import hub_rows
from mapnet_cli.prepare_corpus.paragraphs import read_slice
from mapnet_cli.prepare_corpus.slices import input_slices
from mapnet_cli.prepare_corpus.sources import rows
from mapnet_cli.prepare_corpus.sources.documents import read_hub, read_piece
from mapnet_cli.prepare_corpus.sources.reading import Piece, Reading
from tests.prepare_corpus.corpora import corpus_config, read, read_shares


def test_jsonl_and_its_problems(tmp_path: Path) -> None:
    rows = [
        json.dumps({"text": "one\ntwo", "id": 1}), '{"text": "cut', json.dumps({"body": "x", "id": 2}), "[1]", "",
        json.dumps({"text": None}), json.dumps({"text": " "}), json.dumps({"text": "\ud800 x\0y"}),
    ]  # fmt: skip
    lines, problems = read(tmp_path / "f", "\n".join(rows).encode(), kind="jsonl")
    assert lines == ["one", "two", None, "\ud800 xy", None]
    assert problems[0].startswith("f: row 1 is not JSON (Unterminated string")
    assert problems[1:] == [
        "f: row 2 has no key 'text', only body, id",
        "f: row 3 has no key 'text': the row is not an object",
        "f: row 5 has no text",
        "f: row 6 has no text",
    ]
    assert read(tmp_path / "f", b'{"body": "x"}\n', kind="jsonl", column="body")[0] == ["x", None]


def test_files_joined_without_a_line_end_keep_all_rows(tmp_path: Path) -> None:
    joined = b'{"text": "One."}{"text": "Two."} {"text": "Three."}\n{"text": "Four."} 5\n'
    lines, problems = read(tmp_path / "f", joined, kind="jsonl")
    assert lines == ["One.", None, "Two.", None, "Three.", None]
    assert problems == ["f: row 1 is not JSON (Extra data: line 1 column 19 (char 18))"]


def read_whole(source: Source, slice_mb: float = 1.0) -> tuple[list[str | None], list[str]]:
    """Returns the lines and problems of a source, read in slices."""
    lines, problems = [], []
    for part in input_slices(corpus_config(source, slice_mb=slice_mb)):
        reading = Reading()
        lines += list(read_slice(part, "repair", reading, lambda progress: None))
        problems += reading.problems.lines
    return lines, problems


def test_no_row_with_the_key_is_an_error(tmp_path: Path) -> None:
    for number, key in enumerate(("body", "text", "body")):
        (tmp_path / f"{number}.jsonl").write_text(json.dumps({"id\ud800": number, key: f"row {number}"}) + "\n")
    source = Source(kind="jsonl", path=str(tmp_path))
    lines, problems = read_whole(source)
    assert lines == ["row 1", None]
    assert problems == [
        f"corpus.sources.0: {n}.jsonl: row 0 has no key 'text', only id\\ud800, body" for n in (0, 2)
    ]  # fmt: skip
    expected = r"corpus.sources.0: no row has the key 'texts', only id\ud800, body; set `column`"
    with pytest.raises(InputError, match=re.escape(expected)):
        read_whole(source.model_copy(update={"column": "texts"}))
    (tmp_path / "1.jsonl").write_text("no JSON")
    (tmp_path / "0.jsonl").write_text("")
    (tmp_path / "2.jsonl").write_text("")
    assert len(read_whole(source)[1]) == 3, "there are no rows"


def test_only_files_of_the_right_kind_are_read_from_a_folder(tmp_path: Path) -> None:
    row = json.dumps({"text": "one"}) + "\n"
    (tmp_path / "a.JSONL.GZ").write_bytes(gzip.compress(row.encode()))
    for name in ("b.ndjson", "c.json", "d.jsonl"):
        (tmp_path / name).write_text(row)
    for name in ("README.md", "e.jsonl.zip", "caf\udce9.txt"):
        (tmp_path / name).write_text("no row")
    lines, problems = read_whole(Source(kind="jsonl", path=str(tmp_path)), 0.00001)
    assert lines.count("one") == 4
    assert problems == [
        "corpus.sources.0: skipped 3 files that are not *.jsonl or *.ndjson or *.json: README.md, caf\\udce9.txt, "
        "e.jsonl.zip"
    ]
    with pytest.raises(InputError, match=r"has no \*\.xml files"):
        read_whole(Source(kind="mediawiki", path=str(tmp_path)))
    assert read_whole(Source(kind="jsonl", path=str(tmp_path / "README.md"))) == (
        [], ["corpus.sources.0: README.md: row 0 is not JSON (Expecting value: line 1 column 1 (char 0))"]
    )  # fmt: skip
    with pytest.raises(InputError, match=r"e\.jsonl\.zip is an archive.*: unpack it"):
        read_whole(Source(path=str(tmp_path)))
    (tmp_path / "e.jsonl.zip").rename(tmp_path / "e.Tar.gz")
    with pytest.raises(InputError, match=r"e\.Tar\.gz is an archive.*: unpack it"):
        read_whole(Source(kind="wikiextractor", path=str(tmp_path)))
    (tmp_path / "e.Tar.gz").unlink()
    assert "corpus.sources.0: caf\\udce9.txt: empty file" not in read_whole(Source(path=str(tmp_path)))[1]
    (tmp_path / "caf\udce9.txt").write_bytes(b"")
    assert "corpus.sources.0: caf\\udce9.txt: empty file" in read_whole(Source(path=str(tmp_path)))[1]


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


def test_damaged_parquet_is_reported(tmp_path: Path) -> None:
    file = parquet_file(tmp_path / "f.parquet", [f"text number {n}" for n in range(100)], 10)
    whole = file.read_bytes()
    assert "not a readable Parquet file" in read(file, whole[:-100], kind="parquet")[1][0]
    broken = bytearray(whole)
    broken[len(whole) // 4 : len(whole) // 4 + 200] = bytes(200)
    lines, problems = read(file, bytes(broken), kind="parquet")
    assert lines.count(None) < 100
    assert "damaged after row" in problems[0]
    footer = bytearray(whole)
    footer[-60:-10] = bytes(50)
    for content in (bytes(footer), b"", b"PAR1", b"no Parquet file" * 99):
        assert "f: not a readable Parquet file (" in read(file, content, kind="parquet")[1][0]


def test_damaged_arrow_is_reported(tmp_path: Path) -> None:
    texts = [f"text number {n}" for n in range(100)]
    file = tmp_path / "f.arrow"
    with pa.OSFile(str(file), "wb") as out, pa.ipc.new_stream(out, pa.schema({"text": pa.string()})) as stream:
        for begin in range(0, 100, 10):
            stream.write_table(pa.table({"text": texts[begin : begin + 10]}))
    whole = file.read_bytes()
    assert read(file, whole, kind="dataset") == ([line for text in texts for line in (text, None)], [])
    file.write_bytes(whole[: len(whole) // 2])
    lines, reading = read_shares(file, 3, kind="dataset")
    found = [line for line in lines if line]
    assert found == texts[: len(found)]
    assert 20 < len(found) < 60
    (problem,) = reading.problems.lines
    assert problem.startswith(f"f: damaged after row {len(found)} (")
    for content in (b"", whole[:9], b"no Arrow file" * 99):
        lines, problems = read(file, content, kind="dataset")
        assert lines == []
        assert problems[0].startswith("f: not a readable Arrow file (")


def bad_texts() -> pa.Array:
    """Returns strings that are partly invalid UTF-8, as some writers produce them."""
    return pa.array([b"good", b"caf\xe9 \xef\xbf\xbd", None, b"\xff\xfe", b"more"]).view(pa.string())


@pytest.mark.parametrize("kind", ["parquet", "dataset"])
def test_invalid_utf8_in_a_column_is_repaired_skipped_or_an_error(kind: str, tmp_path: Path) -> None:
    file, table = tmp_path / "f", pa.table({"text": bad_texts()})
    if kind == "parquet":
        parquet.write_table(table, file)
    else:
        with pa.OSFile(str(file), "wb") as out, pa.ipc.new_stream(out, table.schema) as stream:
            stream.write_table(table)
    content = file.read_bytes()
    lines, problems = read(file, content, kind=kind)
    assert lines == ["good", None, "caf\ufffd \ufffd", None, "\ufffd\ufffd", None, "more", None]
    assert problems == ["f: row 2 has no text", "f: repaired invalid UTF-8 in 3 places, the first at byte 3 of row 1"]
    assert read(file, content, "skip", kind=kind) == ([], ["f: skipped, not UTF-8 at byte 3 of row 1"])
    with pytest.raises(InputError, match=r"f: not UTF-8 at byte 3 of row 1; set corpus.on_bad_utf8"):
        read(file, content, "fail", kind=kind)


@pytest.mark.parametrize("kind", ["string", "large_string", "string_view", "binary", "large_binary", "binary_view"])
def test_text_of_every_arrow_type(kind: str) -> None:
    column = pa.array(["", "abc", None, "déf", "x"]).cast(getattr(pa, kind)())
    found = [value and bytes(value).decode() for value in rows._texts(column[1:4], "a", "a")]
    assert found == ["abc", None, "déf"]
    assert list(rows._texts(column[:0], "a", "a")) == []


def test_an_overlong_row_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "READ", 10)
    file = parquet_file(tmp_path / "f.parquet", ["0123456789", "01234567890", "short"], 3)
    lines, problems = read(file, file.read_bytes(), kind="parquet")
    assert lines == ["0123456789", None, "short", None]
    assert problems == ["f: row 1 has 11 bytes and was skipped"]
    found = [(0, "0123456789"), (1, "01234567890")]
    reading = Reading()
    assert list(rows.documents(found, "f", reading)) == ["0123456789", None], "a row from the Hub"
    assert reading.problems.lines == ["f: row 1 has 11 characters and was skipped"]


def test_long_rows_are_split_into_the_same_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "a\r\n\nb\rc\u2028\n\x85d\n" * 30 + "end"
    lines = [*["a", "", "b", "c\u2028", "\x85d"] * 30, "end"]
    for cut in range(1, 9):
        monkeypatch.setattr(rows, "CUT", cut)
        assert list(rows.documents([(0, text)], "f", Reading())) == [*lines, None]


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


def saved(folder: Path, *texts: str) -> None:
    from datasets import Dataset

    Dataset.from_dict({"text": list(texts)}).save_to_disk(str(folder), num_shards=2)


def test_caches_next_to_a_data_set_are_not_read(tmp_path: Path) -> None:
    from datasets import Dataset, load_from_disk

    saved(tmp_path / "set", "one", "two", "three", "four")
    source = Source(kind="dataset", path=str(tmp_path / "set"))
    whole = ["one", None, "two", None, "three", None, "four", None]
    loaded = load_from_disk(str(tmp_path / "set"))
    loaded.map(lambda row: {"text": row["text"].upper()})
    loaded.filter(lambda row: row["text"] == "one")
    assert len(list((tmp_path / "set").glob("cache-*.arrow"))) == 2
    assert read_whole(source) == (whole, [])
    state = json.loads((tmp_path / "set" / "state.json").read_text())
    state["_data_files"].reverse()
    (tmp_path / "set" / "state.json").write_text(json.dumps(state))
    assert read_whole(source) == ([*whole[4:], *whole[:4]], []), "in the data set's own order"
    second = tmp_path / "set" / state["_data_files"][1]["filename"]
    second.rename(tmp_path / "bare.arrow")
    with pytest.raises(InputError, match=rf"{second.name} is missing, but is listed in .*state\.json"):
        read_whole(source)
    shutil.rmtree(tmp_path / "set")
    (tmp_path / "more").mkdir()
    Dataset.from_dict({"text": ["five"]}).save_to_disk(str(tmp_path / "more" / "a"))
    assert read_whole(source.model_copy(update={"path": str(tmp_path)}))[0] == [*whole[:4], "five", None]


def test_one_of_several_splits_is_read(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    splits = {name: Dataset.from_dict({"text": [name]}) for name in ("train", "test")}
    DatasetDict(splits).save_to_disk(str(tmp_path / "set"))
    source = Source(kind="dataset", path=str(tmp_path / "set"))
    assert read_whole(source) == (["train", None], [])
    assert read_whole(source.model_copy(update={"split": "test"})) == (["test", None], [])
    with pytest.raises(InputError, match=r"corpus.sources.0.split: .*set has no split 'dev', only train, test"):
        read_whole(source.model_copy(update={"split": "dev"}))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Points the Hub client at an address where no server responds."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", constants.HF_HUB_OFFLINE)  # restored afterwards
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")


def test_an_unreachable_hub_is_an_error_within_seconds(offline: None) -> None:
    start = time.monotonic()
    source = Source(kind="dataset", path="hub:somebody/prose")
    with pytest.raises(InputError, match=r"hub:somebody/prose: the Hub can't be reached.*save_to_disk\(FOLDER\)"):
        list(read_hub(source, 0, 4, "f", Reading()))
    assert time.monotonic() - start < 15


def test_hub_rows_are_streamed_in_parts(offline: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets` uses a local folder named like the id, and streams it as it would from the Hub."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "somebody" / "prose"
    folder.mkdir(parents=True)
    for number in range(3):
        parquet_file(folder / f"train-{number:05}.parquet", [f"{number} {row}" for row in range(4)], 2)
    everything = [f"{number} {row}" for number in range(3) for row in range(4)]
    for parts in (1, 2, 3, 8):
        found = [hub_rows("hub:somebody/prose", None, "train", part, parts, "text") for part in range(parts)]
        assert [row["text"] for rows in found for _, row in rows] == everything
    source = Source(kind="dataset", path="hub:somebody/prose", limit=2)
    assert list(read_hub(source, 0, 1, "f", Reading())) == ["0 0", None, "0 1", None]
    with pytest.raises(InputError, match="no column 'body', only id, text"):
        list(read_hub(source.model_copy(update={"column": "body"}), 0, 1, "f", Reading()))
