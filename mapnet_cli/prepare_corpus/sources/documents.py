"""Reads sources as lines with document boundaries, and records problems with the input.

At most one line, row or dump page is in memory at a time.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from mapnet_cli.config import Source
from mapnet_cli.core import InputError, hub_rows
from mapnet_cli.prepare_corpus.sources import books, rows, wikipedia
from mapnet_cli.prepare_corpus.sources.compressed import DamagedInput
from mapnet_cli.prepare_corpus.sources.reading import (
    READ,
    Line,
    Lines,
    Piece,
    Reading,
    raw_lines,
    repaired,
    repairs,
)
from mapnet_cli.text import python_docs

BLANKS = b" \t\r\f\v"


def read_piece(piece: Piece, name: str, source: Source, on_bad_utf8: str, reading: Reading) -> Lines:
    """Yields the lines of the documents that begin in a piece; `name` is its name in messages.

    Raises InputError if the file changes, if the column is missing, and for invalid UTF-8 if `on_bad_utf8` is "fail".
    """
    return _without_marks(_lines_of(piece, name, source, on_bad_utf8, reading), source, reading)


def _without_marks(lines: Lines, source: Source, reading: Reading) -> Lines:
    """Removes the marks of books, unless the source has marks of another kind."""
    if source.kind in ("cpython", "wikiextractor", "mediawiki"):
        return lines
    if source.gutenberg:
        lines = books.without_licence(lines, reading)
    return (line and books.without_marks(line, reading.markup) for line in lines) if source.book_marks else lines


def _lines_of(piece: Piece, name: str, source: Source, on_bad_utf8: str, reading: Reading) -> Lines:
    piece.require_unchanged(name)
    reading.fallback = "" if on_bad_utf8 in ("repair", "skip", "fail") else on_bad_utf8
    if on_bad_utf8 in ("skip", "fail") and (where := _first_bad(piece, source)):
        if on_bad_utf8 == "fail":
            raise InputError(f"{name}: not UTF-8 at {where}; set corpus.on_bad_utf8 to repair, skip or an encoding")
        reading.problems.add(f"{name}: skipped, not UTF-8 at {where}")
    elif source.kind in ROWS:
        yield from rows.documents(ROWS[source.kind](piece, name, source.column, reading), name, reading)
    else:
        end = KINDS[source.kind].end
        lines = _decoded(_share(piece, source, name, reading), piece, name, end, reading)
        yield from KINDS[source.kind].documents(lines, piece, name, source, reading)
    piece.require_unchanged(name)


def _text(lines: Iterator[str], piece: Piece, name: str, source: Source, reading: Reading) -> Lines:
    if source.paragraphs == "blank-lines":
        words = reading.words or books.Words([piece]) if source.hyphens == "rejoin" else None
        yield from books.unwrapped(lines, words, reading.markup)
    elif source.documents == "blank-lines":
        yield from (line if line.strip() else None for line in lines)
    else:
        yield from lines
    yield None


def _jsonl(lines: Iterator[str], piece: Piece, name: str, source: Source, reading: Reading) -> Lines:
    return rows.documents(rows.jsonl(lines, name, source.column, reading), name, reading)


def _wikiextractor(lines: Iterator[str], piece: Piece, name: str, source: Source, reading: Reading) -> Lines:
    return wikipedia.wikiextractor(lines, name, reading)


def _mediawiki(lines: Iterator[str], piece: Piece, name: str, source: Source, reading: Reading) -> Lines:
    return wikipedia.mediawiki(lines, name, reading, whole=piece.parts == 1)


Opens = Callable[[bytes], bool]
"""Returns whether a document begins at a line, so that a piece from the middle of a file may begin there."""


def _text_opens(source: Source) -> Opens | None:
    return None if source.documents == "file" else lambda raw: not raw.strip(BLANKS)


@dataclass(frozen=True)
class Kind:
    """A kind of source whose files are text, possibly compressed."""

    documents: Callable[[Iterator[str], Piece, str, Source, Reading], Lines]
    """Yields the lines of the documents in a piece's decoded lines, with None after each document."""
    opens: Callable[[Source], Opens | None] = lambda source: None
    """Returns which lines begin a document, None if a file is one document."""
    end: bytes = b"\n"
    """What ends a line, or a record with its end."""
    suffixes: tuple[str, ...] = ()
    """Suffixes of the files that are read from a folder, compressed or not, in any case; empty: all files."""


KINDS = {
    "text": Kind(_text, _text_opens),
    "jsonl": Kind(_jsonl, lambda source: lambda raw: True, suffixes=(".jsonl", ".ndjson", ".json")),
    "wikiextractor": Kind(_wikiextractor, lambda source: lambda raw: raw.startswith(b"<doc ")),
    "mediawiki": Kind(_mediawiki, lambda source: lambda raw: True, b"</page>", (".xml",)),
}
ROWS = {"parquet": rows.parquet, "dataset": rows.arrow}
"""Readers of the kinds whose files aren't text."""


def suffixes_of(kind: str) -> tuple[str, ...]:
    """Returns the suffixes of the files that a kind reads from a folder, empty for all files."""
    return (".parquet",) if kind == "parquet" else KINDS[kind].suffixes if kind in KINDS else ()


def divisible(source: Source) -> bool:
    """Returns whether the files of a source can be read from the middle."""
    return source.kind in ROWS or KINDS[source.kind].opens(source) is not None


def read_hub(source: Source, part: int, parts: int, name: str, reading: Reading) -> Lines:
    """Yields the rows of one of `parts` parts of a data set as documents, streamed from the Hub."""
    found = hub_rows(source.path, source.name or None, source.split, source.column, part, parts)
    yield from _without_marks(rows.documents(islice(found, source.limit or None), name, reading), source, reading)


def read_cpython(part: int, parts: int, limit: int) -> Lines:
    """Yields the prose of one part of Python's own docstrings, without the documents held out for the probe tasks."""
    corpus = (document for document in python_docs.harvest(part, parts) if not document.held_out)
    for document in islice(corpus, limit or None):
        for docstring in document.docstrings:
            for paragraph in python_docs.paragraphs(docstring.text):
                yield paragraph
                yield ""
        yield None


def _share(piece: Piece, source: Source, name: str, reading: Reading) -> Iterator[Line]:
    """Yields the lines of the documents that begin in the piece."""
    begin, end = piece.begin, piece.end
    opens = KINDS[source.kind].opens(source) or (lambda raw: False)
    inside, length = piece.part == 0, end - begin + 1
    try:
        for line in raw_lines(piece, KINDS[source.kind].end):
            if line.offset >= end and (not inside or opens(line.raw)):
                return
            inside = inside or opens(line.raw)
            if inside:
                share = (line.offset + 1 - begin) / length
                reading.share = share if share < 1.0 else 1.0
                yield line
    except DamagedInput as error:
        reading.problems.add(f"{name}: damaged or truncated ({error}); the text before that was read")


def _first_bad(piece: Piece, source: Source) -> str:
    """Returns the position of the piece's first invalid UTF-8 in words, or "" if there is none."""
    if source.kind in ROWS:
        return rows.first_bad(ROWS[source.kind](piece, piece.path.name, source.column, Reading()))
    position = _Position(piece, KINDS[source.kind].end)
    for line in _share(piece, source, "", Reading()):
        try:
            line.raw.decode("utf-8")
        except UnicodeDecodeError as error:
            return position.describe(line, error.start)
        position.advance(line)
    return ""


class _Position:
    """Position of a reader in a piece, for messages."""

    def __init__(self, piece: Piece, end: bytes) -> None:
        self._first, self._ends_included = piece.part == 0, end != b"\n"
        self.offset = self.number = 0

    def advance(self, line: Line) -> None:
        self.offset += len(line.raw) + line.unread + (not self._ends_included)
        self.number += line.raw.count(b"\n") if self._ends_included else 1

    def describe(self, line: Line, index: int) -> str:
        """Returns the position of a byte of the next line as text."""
        if self._first:
            return f"byte {self.offset + index:,} (line {self.number + line.raw[:index].count(10) + 1:,})"
        return f"a line after byte {line.offset:,}"


def _decoded(lines: Iterator[Line], piece: Piece, name: str, end: bytes, reading: Reading) -> Iterator[str]:
    """Yields lines without BOM, NUL and line ends (LF, CRLF or CR), with invalid UTF-8 repaired.

    A line of more than READ bytes is replaced by "".
    """
    bad = nuls = 0
    first_bad = first_nul = ""
    problems = reading.problems
    position = _Position(piece, end)
    what = "line" if end == b"\n" else "page"
    for line in lines:
        if line.unread:
            problems.add(f"{name}: {position.describe(line, 0)}: the {what} has over {READ:,} bytes and was skipped")
        try:
            text = line.raw.decode("utf-8")
        except UnicodeDecodeError as error:
            first_bad = first_bad or position.describe(line, error.start)
            text, count = repaired(line.raw, reading.fallback)
            bad += count
        if "\0" in text:
            first_nul = first_nul or position.describe(line, line.raw.index(b"\0"))
            nuls += text.count("\0")
            text = text.replace("\0", "")
        if position.offset == 0 and piece.part == 0:
            text = text.removeprefix("\ufeff")
        position.advance(line)
        yield from text.rstrip("\r").split("\r") if what == "line" else [text]
    if position.offset == 0 and piece.part == 0:
        problems.add(f"{name}: empty file")
    if bad:
        problems.add(f"{name}: {repairs(bad, reading.fallback)}, the first at {first_bad}")
    if nuls:
        problems.add(f"{name}: removed {nuls:,} NUL bytes, the first at {first_nul}")
