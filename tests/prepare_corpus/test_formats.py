"""Every format gives the same text, in any encoding, with any line ends and with any characters inside lines."""

import bz2
import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import feather, parquet

from mapnet_cli.config import Source
from mapnet_cli.core.errors import InputError
from mapnet_cli.prepare_corpus.sources import compressed, encodings
from mapnet_cli.prepare_corpus.sources.documents import divisible, read_piece
from mapnet_cli.prepare_corpus.sources.reading import Piece, Reading
from tests.prepare_corpus.corpora import read
from tests.prepare_corpus.test_pieces import real_documents

Documents = list[list[str]]


def rows_of(documents: Documents) -> list[dict[str, Any]]:
    return [{"id": number, "text": "\n".join(lines)} for number, lines in enumerate(documents)]


def json_lines(documents: Documents) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows_of(documents))


def table(documents: Documents, delimiter: str) -> str:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, ["id", "text"], delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows_of(documents))
    return file.getvalue()


def extracted(documents: Documents) -> str:
    return "".join(
        f'<doc id="1" url="u" title="Title">\nTitle\n\n{chr(10).join(lines)}\n\n</doc>\n' for lines in documents
    )


def dump(documents: Documents) -> str:
    page = "  <page>\n <title>T</title>\n <ns>0</ns>\n <revision><text>{}</text></revision>\n  </page>\n"
    return "<mediawiki>\n" + "".join(page.format("\n\n".join(lines)) for lines in documents) + "</mediawiki>\n"


TEXT_FILES: dict[str, tuple[dict[str, str], Callable[[Documents], str]]] = {
    "text": ({"documents": "blank-lines"}, lambda docs: "\n\n".join("\n".join(lines) for lines in docs) + "\n"),
    "jsonl": ({"kind": "jsonl"}, json_lines),
    "array": ({"kind": "jsonl"}, lambda docs: json.dumps(rows_of(docs), ensure_ascii=False)),
    "indented array": ({"kind": "jsonl"}, lambda docs: json.dumps(rows_of(docs), ensure_ascii=False, indent=2)),
    "array of strings": ({"kind": "jsonl"}, lambda docs: json.dumps(["\n".join(lines) for lines in docs])),
    "indented objects": (
        {"kind": "jsonl"},
        lambda docs: "\n".join(json.dumps(row, ensure_ascii=False, indent=1) for row in rows_of(docs)),
    ),
    "csv": ({"kind": "csv"}, lambda docs: table(docs, ",")),
    "csv with semicolons": ({"kind": "csv"}, lambda docs: table(docs, ";")),
    "tsv": ({"kind": "csv"}, lambda docs: table(docs, "\t")),
    "wikiextractor": ({"kind": "wikiextractor"}, extracted),
    "wikiextractor --json": ({"kind": "wikiextractor"}, json_lines),
    "mediawiki": ({"kind": "mediawiki"}, dump),
}
PROSE: Documents = [["A first line, café.", "A second “line”."], ["Another document."], ["The third – and last."]]
ENCODINGS = [
    "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "cp1252",
]  # fmt: skip


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", TEXT_FILES)
def test_encodings_and_line_ends(name: str, encoding: str, end: str, tmp_path: Path) -> None:
    source, write = TEXT_FILES[name]
    content = write(PROSE).replace("\n", end).encode(encoding)
    key = {"encoding": encoding} if encoding == "cp1252" else {}
    lines, problems = read(tmp_path / "f", content, **source, **key)
    assert (real_documents(lines), problems) == (PROSE, [])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
def test_divided_words_are_rejoined_in_every_encoding(encoding: str, end: str, tmp_path: Path) -> None:
    text = "The gov-\nernment is a government.\n\nThe well-\nknown one.\n".replace("\n", end)
    lines, _ = read(tmp_path / "f", text.encode(encoding), paragraphs="blank-lines")
    assert [line for line in lines if line] == ["The government is a government.", "The well-known one."]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_compressed_files_in_other_encodings(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    file = tmp_path / f"f.{'gz' if pack is gzip.compress else 'bz2'}"
    lines, problems = read(file, pack(json_lines(PROSE).encode("utf-16")), kind="jsonl")
    assert (real_documents(lines), problems) == (PROSE, [])


def arrow_stream(path: Path, data: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as out, pa.ipc.new_stream(out, data.schema) as stream:
        stream.write_table(data)


def arrow_file(path: Path, data: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as out, pa.ipc.new_file(out, data.schema) as file:
        file.write_table(data, max_chunksize=2)


BINARY_FILES: dict[str, tuple[str, Callable[[Path, pa.Table], None]]] = {
    "parquet": ("parquet", lambda path, data: parquet.write_table(data, path)),
    "stream": ("arrow", arrow_stream),
    "file": ("arrow", arrow_file),
    "feather": ("arrow", lambda path, data: feather.write_feather(data, path)),
    "uncompressed feather": ("arrow", lambda path, data: feather.write_feather(data, path, compression="uncompressed")),
    "dataset": ("dataset", arrow_stream),
}


def read_table(name: str, path: Path, data: pa.Table, column: str = "text") -> tuple[list[str | None], list[str]]:
    kind, write = BINARY_FILES[name]
    write(path, data)
    return read(path, path.read_bytes(), kind=kind, column=column)


CHARACTERS = {"NEL": "\x85", "LS": "\u2028", "PS": "\u2029", "VT": "\x0b", "FF": "\x0c", "FS": "\x1c"}
"""Characters at which Python's splitlines splits, and which are text inside a line here."""
REMOVED = {"BOM": "\ufeff", "NUL": "\0"}


@pytest.mark.parametrize("character", [*CHARACTERS, *REMOVED])
@pytest.mark.parametrize("name", [*TEXT_FILES, *BINARY_FILES])
def test_characters_inside_lines(name: str, character: str, tmp_path: Path) -> None:
    inside = (CHARACTERS | REMOVED)[character]
    documents = [[f"A first{inside} line.", f"{inside}Another one."], ["A second document."]]
    if name in BINARY_FILES:
        lines, problems = read_table(name, tmp_path / "f", pa.table({"text": ["\n".join(x) for x in documents]}))
    else:
        source, write = TEXT_FILES[name]
        lines, problems = read(tmp_path / "f", write(documents).encode(), **source)
    if name == "mediawiki" and character in ("VT", "FF", "FS"):
        assert real_documents(lines) == [documents[1]]
        assert "invalid XML" in problems[0], "XML has no such characters"
        return
    gone = inside if character in REMOVED else ""
    expected = [[line.replace(gone, "") for line in lines] for lines in documents] if gone else documents
    assert real_documents(lines) == expected
    assert all("NUL" in problem for problem in problems)


@pytest.mark.parametrize("name", ["text", "jsonl", "csv", "tsv", "wikiextractor", "wikiextractor --json"])
def test_concatenated_files_with_byte_order_marks(name: str, tmp_path: Path) -> None:
    source, write = TEXT_FILES[name]
    parts = [write([document]).encode("utf-8-sig") for document in PROSE]
    if name in ("csv", "tsv"):
        parts[1:] = [part.replace(b"id,text\n", b"").replace(b"id\ttext\n", b"") for part in parts[1:]]
    lines, problems = read(tmp_path / "f", b"\n".join(parts), **source)
    assert (real_documents(lines), problems) == (PROSE, [])


@pytest.mark.parametrize("name", BINARY_FILES)
@pytest.mark.parametrize("parts", [1, 2, 5])
def test_rows_of_binary_files_in_shares(name: str, parts: int, tmp_path: Path) -> None:
    kind, write = BINARY_FILES[name]
    write(tmp_path / "f", pa.table({"text": [f"Document {number}." for number in range(7)]}))
    source, reading, lines = Source(kind=kind, path=str(tmp_path / "f")), Reading(), list[str | None]()
    for part in range(parts):
        lines += read_piece(Piece(tmp_path / "f", part, parts), "f", source, "repair", reading)
    assert [line for line in lines if line] == [f"Document {number}." for number in range(7)]
    assert reading.amounts["rows"] == 7
    assert not reading.problems.lines


@pytest.mark.parametrize("name", BINARY_FILES)
def test_an_empty_table_is_reported(name: str, tmp_path: Path) -> None:
    assert read_table(name, tmp_path / "f", pa.table({"text": pa.array([], pa.string())})) == (
        [], ["f: the file has no rows"]
    )  # fmt: skip


NESTED = [{"text": ["One.", "Two."]}, {"text": []}, None]
COLUMNS: dict[str, tuple[pa.Array, str, list[list[str]]]] = {
    "struct": (pa.array([{"text": "One.", "n": 1}, {"text": None, "n": 2}, None]), "data.text", [["One."]]),
    "list": (pa.array([["One.", None, "Two."], [], None]), "data", [["One.", "Two."]]),
    "list of structs": (pa.array([[{"text": "One."}, {"text": "Two."}], []]), "data.text", [["One.", "Two."]]),
    "struct of lists": (pa.array(NESTED), "data.text", [["One.", "Two."]]),
    "fixed lists": (pa.array([["One.", "Two."]], pa.list_(pa.string(), 2)), "data", [["One.", "Two."]]),
    "dictionary": (pa.array(["One.", "Two.", "One."]).dictionary_encode(), "data", [["One."], ["Two."], ["One."]]),
    "binary": (pa.array([b"One.", b"caf\xe9"]), "data", [["One."], ["caf\ufffd"]]),
    "nulls": (pa.nulls(2), "data", []),
}


@pytest.mark.parametrize("name", ["parquet", "stream", "file"])
@pytest.mark.parametrize("case", COLUMNS)
def test_columns_with_text(case: str, name: str, tmp_path: Path) -> None:
    column, path, expected = COLUMNS[case]
    lines, problems = read_table(name, tmp_path / "f", pa.table({"data": column, "id": range(len(column))}), path)
    assert real_documents(lines) == expected
    repaired = ["f: repaired invalid UTF-8 in 1 places, the first at byte 3 of row 1"] * (case == "binary")
    empty = range(len(expected), len(column))
    assert problems == [*(f"f: row {row} has no text" for row in empty), *repaired]


@pytest.mark.parametrize(
    ("column", "path", "message"),
    [
        (pa.array([1]), "data", r"'data' is not text: 'data' has the type int64"),
        (pa.array([True]), "data", r"has the type bool"),
        (pa.array([[1]]), "data", r"has the type list<.*int64>"),
        (pa.array([{"a": "x"}]), "data", r"has the type struct<a: string>; set `column` to data\.a"),
        (pa.array([[{"a": "x"}]]), "data", r"type list<.*>; set `column` to data\.a"),
        (pa.array([{"a": "x"}]), "data.b", r"'data.b' is not text: .*struct<a: string>; set `column` to data\.a"),
        (pa.array([{"a": 1}]), "data.a", r"'data.a' is not text"),
        (pa.array(["x"]), "data.a", r"'data.a' is not text: 'data' has the type string"),
        (pa.array([[("a", "b")]], pa.map_(pa.string(), pa.string())), "data", r"has the type map<"),
        (pa.array([b"1234"], pa.binary(4)), "data", r"has the type fixed_size_binary\[4\]"),
        (pa.array(["x"]), "text", r"there is no column 'text', only data; set `column`"),
    ],
)
@pytest.mark.parametrize("name", ["parquet", "file"])
def test_columns_without_text_are_errors(name: str, column: pa.Array, path: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"^f: .*{message}"):
        read_table(name, tmp_path / "f", pa.table({"data": column}), path)


@pytest.mark.parametrize(
    ("row", "column", "found"),
    [
        ({"meta": {"text": "One."}}, "meta.text", ["One."]),
        ({"meta.text": "One."}, "meta.text", ["One."]),
        ({"text": ["One.", None, "Two."]}, "text", ["One.", "Two."]),
        ({"turns": [{"says": "One."}, {"says": ["Two.", "Three."]}]}, "turns.says", ["One.", "Two.", "Three."]),
        ("One.", "text", ["One."]),
        ({"text": 5}, "text", "has a value of type int instead of text"),
        ({"text": [1]}, "text", "has a value of type int instead of text"),
        ({"text": {"a": "x"}}, "text", "has an object instead of text, with the keys a"),
        ({"text": []}, "text", "has no text"),
        ({"text": "x"}, "text.a", "has no key 'text.a', only text"),
        (5, "text", "has no key 'text': the row is not an object"),
    ],
)
@pytest.mark.parametrize("end", ["\n", " ]"], ids=["lines", "array"])
def test_json_values(row: Any, column: str, found: list[str] | str, end: str, tmp_path: Path) -> None:
    content = json.dumps(row) + end
    lines, problems = read(tmp_path / "f", ("[" * (end == " ]") + content).encode(), kind="jsonl", column=column)
    assert real_documents(lines) == ([found] if isinstance(found, list) else [])
    assert problems == ([f"f: row 0 {found}"] if isinstance(found, str) else [])


@pytest.mark.parametrize(
    ("content", "texts", "problem"),
    [
        ('[{"text": "One."}, {"text": "Tw', ["One."], "not JSON after row 1 (Unterminated string"),
        ('[{"text": "One."} oops {"text": "Two."}]', ["One."], "not JSON after row 1 (Expecting value"),
        ("[" + '{"a":' * 100_000, [], "not JSON after row 0 ("),
        ('[{"text": "One."}][{"text": "Two."}]', ["One.", "Two."], ""),
        ("[]", [], "the file has no rows"),
        ('[{"text": "caf\\ud800."}]', ["caf\ud800."], ""),
    ],
)
def test_arrays_and_their_damage(content: str, texts: list[str], problem: str, tmp_path: Path) -> None:
    lines, problems = read(tmp_path / "f", content.encode(), kind="jsonl")
    assert [line for line in lines if line] == texts
    assert len(problems) == bool(problem)
    assert problem in "".join(problems)


def test_invalid_utf8_in_an_array(tmp_path: Path) -> None:
    content = b'[{"text": "One."},\n{"text": "caf\xe9 \xef\xbf\xbd"}]'
    lines, problems = read(tmp_path / "f", content, kind="jsonl")
    assert [line for line in lines if line] == ["One.", "caf\ufffd \ufffd"]
    assert problems == ["f: repaired invalid UTF-8 in 1 places, the first at byte 3 of row 1"]
    assert read(tmp_path / "f", content, "skip", kind="jsonl") == ([], ["f: skipped, not UTF-8 at byte 3 of row 1"])


def test_a_large_array_is_read_chunk_by_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elements of any length, with every possible position of a chunk's end."""
    from mapnet_cli.prepare_corpus.sources import records

    rows = [{"text": "é\U0001f600\\" * number} for number in range(1, 12)]
    content = json.dumps(rows).encode() + json.dumps(rows, ensure_ascii=False).encode()
    monkeypatch.setattr(encodings, "HEAD", 20)
    for chunk in (*range(1, 40), 1000):
        monkeypatch.setattr(compressed, "CHUNK", chunk)
        lines, problems = read(tmp_path / "f", content, kind="jsonl")
        assert [{"text": line} for line in lines if line] == rows * 2
        assert problems == []
    monkeypatch.setattr(compressed, "CHUNK", 10)
    monkeypatch.setattr(records, "READ", 50)
    lines, problems = read(tmp_path / "f", content, kind="jsonl")
    assert [{"text": line} for line in lines if line] == rows[:2] != []
    assert "characters were skipped" in problems[0]


CSV = [
    ('id,text\n1,"One, two."\n', ["One, two."], []),
    ('id,text\n1,"One\n\ntwo."\n2,Three.\n', ["One", "two.", "Three."], []),
    ('id,text\n1,"He said ""no""."\n', ['He said "no".'], []),
    ('id,text\n1,"Hello" she said.\n2,Bye.\n', ['"Hello" she said.', "Bye."], []),
    ('id,text\n1,"Open.\n2,Two.\n3,"Three, four."\n', ['"Open.', "Two.", "Three, four."], []),
    ("id,text\n1,One, two.\n2,Three.\n", ["Three."], ["f: row 0 has 3 fields, but the header has 2"]),
    ("id,text\n1\n\n2,Three.\n", ["Three."], ["f: row 0 has 1 fields, but the header has 2"]),
    ("id,text\n1,\n2,Three.\n", ["Three."], ["f: row 0 has no text"]),
    ("id,text\n", [], ["f: the file has no rows"]),
    ("", [], ["f: empty file"]),
    ('text\n"One, two."\n\nThree.\n', ["One, two.", "Three."], []),
    ('id\ttext\n1\t"Hello," she said.\n2\tHe said "no"\n', ['"Hello," she said.', 'He said "no"'], []),
    ('id\ttext\n1\t"Stop\n2\tnow"\n', ['"Stop', 'now"'], []),
    ('id\ttext\n1\t"One\ntwo."\n', ["One", "two."], []),
    ("id|text\n1|One, two.\n", ["One, two."], []),
]


@pytest.mark.parametrize(("content", "texts", "problems"), CSV)
def test_csv_and_its_problems(content: str, texts: list[str], problems: list[str], tmp_path: Path) -> None:
    lines, found = read(tmp_path / "f", content.encode(), kind="csv")
    assert ([line for line in lines if line], found) == (texts, problems)


def test_a_csv_without_the_column_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"f: the header has no column 'text': id,body; set `column`"):
        read(tmp_path / "f", b"id,body\n1,x\n", kind="csv")
    assert read(tmp_path / "f.TSV", b"a,text\tb\none\ttwo\n", kind="csv", column="a,text")[0] == ["one", None]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("text", True), ("jsonl", True), ("array", False), ("indented objects", False), ("csv", False),
     ("wikiextractor", True), ("wikiextractor --json", False), ("mediawiki", True)],
)  # fmt: skip
def test_only_utf8_files_of_lines_are_cut(name: str, expected: bool, tmp_path: Path) -> None:
    source, write = TEXT_FILES[name]
    file = tmp_path / "f"
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32-le"):
        file.write_bytes(write(PROSE).encode(encoding))
        assert divisible(Source(path=str(file), **source), file) == (expected and encoding.startswith("utf-8"))
    assert not divisible(Source(path=str(file), encoding="cp1252", **source), file)


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (b"", ""), (b"ab\0c", ""), (b"a\0b", ""), (bytes(400), ""), (b"plain text\n" * 9, ""),
        ("é".encode("utf-16"), "utf-16-le"), ("English and Ελληνικά".encode("utf-16-be"), "utf-16-be"),
        ("text".encode("utf-32-be"), "utf-32-be"), (b"\xff\xfe\0\0", "utf-32-le"), (b"caf\xe9 \xff\xfd" * 9, ""),
    ],
)  # fmt: skip
def test_detection(content: bytes, encoding: str) -> None:
    assert encodings.detect(content) == encoding


def test_invalid_text_in_other_encodings_is_repaired_skipped_or_an_error(tmp_path: Path) -> None:
    content = "Good.\n".encode("utf-16") + b"\x00\xd8" + "Bad.\n".encode("utf-16-le")
    assert read(tmp_path / "f", content) == (
        ["Good.", "\ufffdBad.", None], ["f: repaired invalid UTF-8 in 1 places, the first at byte 9 (line 2)"]
    )  # fmt: skip
    assert read(tmp_path / "f", content + b"\n", encoding="utf-16")[0] == ["Good.", "\ufffdBad.", "\ufffd", None]
    assert read(tmp_path / "f", b"caf\xe9 \x81\n", encoding="cp1252")[0] == ["café \ufffd", None]
    with pytest.raises(InputError, match="not UTF-8 at byte 9"):
        read(tmp_path / "f", content, "fail")
    with pytest.raises(ValueError, match="'cp1253x' is not an encoding"):
        Source(path="x", encoding="cp1253x")
    with pytest.raises(ValueError, match="encoding applies only to text files"):
        Source(path="x", kind="parquet", encoding="cp1252")


def test_feather_v1_is_named(tmp_path: Path) -> None:
    lines, problems = read(tmp_path / "f", b"FEA1" + bytes(404), kind="arrow")
    assert lines == []
    assert problems == ["f: not a readable Arrow file (it is Feather V1: save it as Feather V2 or Parquet)"]
