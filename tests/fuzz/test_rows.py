"""Damaged and odd files of every format with rows or lines: read, named or refused, never a crash, nothing silent."""

import json
import re
import tempfile
from pathlib import Path

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from mapnet_cli.config import Source
from mapnet_cli.core import InputError
from mapnet_cli.prepare_corpus.sources.documents import divisible, read_piece
from mapnet_cli.prepare_corpus.sources.encodings import recoded
from mapnet_cli.prepare_corpus.sources.reading import Piece, Reading
from tests.prepare_corpus.corpora import FUZZ
from tests.prepare_corpus.test_formats import BINARY_FILES, ENCODINGS, TEXT_FILES
from tests.prepare_corpus.test_pieces import real_documents

NO_ROWS = ("text", "wikiextractor", "mediawiki")
CHARACTERS = st.sampled_from('ab é\u2028\x85\x0b\t,;|"\\{}[]<>\ufeff\U0001f600')
LINES = st.lists(st.text(CHARACTERS, min_size=1, max_size=12), min_size=1, max_size=3)
DOCUMENTS = st.lists(LINES, min_size=1, max_size=4)
MUTATIONS = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 3), st.binary(max_size=4)), max_size=4)
FOLDER = tempfile.TemporaryDirectory()  # not a fixture, which coverage-guided fuzzing (guided.py) doesn't know
FILE = Path(FOLDER.name) / "f"


def mutated(content: bytes, mutations: list[tuple[int, int, bytes]]) -> bytes:
    """Replaces some bytes at some places by others."""
    for place, length, new in mutations:
        place %= len(content) + 1
        content = content[:place] + new + content[place + length :]
    return content


def read_all(file: Path, source: Source, parts: int = 1) -> tuple[list[list[str]], Reading]:
    found, lines = Reading(), list[str | None]()
    for part in range(parts):
        lines += read_piece(Piece(file, part, parts), "f", source, "repair", found)
    return real_documents(lines), found


@FUZZ
@given(st.sampled_from([*TEXT_FILES]), DOCUMENTS, MUTATIONS, st.sampled_from(ENCODINGS), st.integers(1, 4))
def test_text_files(
    name: str,
    documents: list[list[str]],
    mutations: list[tuple[int, int, bytes]],
    encoding: str,
    parts: int,
) -> None:
    """Every row gives a document or a problem, and shares give what the whole file gives."""
    keys, write = TEXT_FILES[name]
    FILE.write_bytes(mutated(write(documents).encode(encoding, "replace"), mutations))
    source = Source(path=str(FILE), **keys)
    try:
        found, whole = read_all(FILE, source)
    except InputError as error:
        assert "column" in str(error)
        return
    if name not in NO_ROWS and name != "wikiextractor --json":
        assert whole.amounts["rows"] - whole.amounts["lost rows"] >= len(found)
        assert whole.problems.count >= whole.amounts["lost rows"]
        assert found or whole.problems.count
    if divisible(source, FILE) and not re.search(rb"[\0\r]", FILE.read_bytes()):  # which change what a line begins with
        assert read_all(FILE, source, parts)[0] == found


@FUZZ
@given(DOCUMENTS, st.sampled_from(["jsonl", "array", "csv", "csv with semicolons", "tsv"]))
def test_every_format_gives_the_same_text(documents: list[list[str]], name: str) -> None:
    keys, write = TEXT_FILES[name]
    if name == "tsv":  # a line with as many tabs as a row looks like one
        documents = [[line.replace("\t", " ") for line in lines] for lines in documents]
    FILE.write_bytes(write(documents).encode())
    found, whole = read_all(FILE, Source(path=str(FILE), **keys))
    plain = [[line.replace("\ufeff", "") for line in lines] for lines in documents]
    assert found == real_documents([line for lines in plain for line in [*lines, None]])
    assert whole.amounts["rows"] == len(documents)


@FUZZ
@given(st.sampled_from([*BINARY_FILES]), DOCUMENTS, MUTATIONS, st.booleans(), st.integers(1, 3))
def test_binary_files(
    name: str, documents: list[list[str]], mutations: list[tuple[int, int, bytes]], nested: bool, parts: int
) -> None:
    kind, write = BINARY_FILES[name]
    texts = [lines if nested else "\n".join(lines) for lines in documents]
    FILE.unlink(missing_ok=True)  # it may be mapped into memory
    write(FILE, pa.table({"text": texts}))
    changed = mutated(FILE.read_bytes(), mutations)
    FILE.unlink()
    FILE.write_bytes(changed)
    try:
        found, whole = read_all(FILE, Source(kind=kind, path=str(FILE)), parts)
    except InputError as error:
        assert "column" in str(error) or "is not text" in str(error)
        return
    assert found or whole.problems.count


@FUZZ
@given(st.lists(st.sampled_from(["[", "]", "{", "}", ",", ":", '"text"', '"a', "1", "é", "\n", " ", "\\u", "null"])))
def test_json_of_any_form(tokens: list[str]) -> None:
    """The text of each value that a reference parser finds in a well-formed array; a problem otherwise."""
    content = "".join(tokens)
    FILE.write_text(content, encoding="utf-8")
    found, whole = read_all(FILE, Source(kind="jsonl", path=str(FILE)))
    assert found or whole.problems.count or not content.strip(" \n")
    try:
        expected = json.loads(content)
    except ValueError:
        return
    if isinstance(expected, list) and not any(isinstance(row, list) for row in expected):
        assert whole.amounts["rows"] == len(expected)


@FUZZ
@given(st.text(st.sampled_from("ab\r\n\x85é")), st.lists(st.integers(1, 5)), st.sampled_from(["utf-8", "utf-16-le"]))
def test_line_ends_across_chunks(text: str, cuts: list[int], encoding: str) -> None:
    content, chunks = text.encode(encoding), []
    for cut in [*cuts, len(content)]:
        chunks.append((0, content[:cut]))
        content = content[cut:]
    joined = b"".join(chunk for _, chunk in recoded(iter(chunks), encoding)).decode()
    assert joined == text.replace("\r\n", "\n").replace("\r", "\n")


@FUZZ
@given(st.text(st.sampled_from('ab"\t\n ,'), max_size=40), st.sampled_from([",", "\t"]))
def test_csv_of_any_form(text: str, mark: str) -> None:
    """No line's text is lost without a problem."""
    FILE.write_text(f"id{mark}text\n{text}", encoding="utf-8")
    found, whole = read_all(FILE, Source(kind="csv", path=str(FILE)))
    assert whole.amounts["rows"] - whole.amounts["lost rows"] >= len(found)
    if not whole.problems.count:
        assert found
    letters = sum(letter in "ab" for letter in text)
    kept = sum(letter in "ab" for lines in found for line in lines for letter in line)
    assert kept <= letters
