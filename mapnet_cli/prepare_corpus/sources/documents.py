"""Reading the sources: files to lines, with document boundaries and a list of what was wrong.

Nothing larger than a line, a row or a page of a dump is held in memory.
"""

from collections.abc import Callable, Iterator
from itertools import islice

from mapnet_cli.config import Source
from mapnet_cli.core import InputError, hub_rows
from mapnet_cli.prepare_corpus.sources import rows, wikipedia
from mapnet_cli.prepare_corpus.sources.compressed import DamagedInput
from mapnet_cli.prepare_corpus.sources.reading import (
    OVERLONG,
    READ,
    Line,
    Lines,
    Piece,
    Problems,
    Reading,
    raw_lines,
    repaired,
)
from mapnet_cli.text import python_docs as cpython_prose

BLANKS = b" \t\r\f\v"


def read_piece(piece: Piece, name: str, source: Source, on_bad_utf8: str, reading: Reading) -> Lines:
    """Yields the lines of the documents that begin in a piece; `name` is what a problem calls it.

    Raises InputError at bytes that are not UTF-8 if `on_bad_utf8` is "fail", where the column is missing, and if the
    file changes.
    """
    piece.require_unchanged(name)
    if on_bad_utf8 != "repair" and (place := _first_bad(piece, source)):
        if on_bad_utf8 == "fail":
            raise InputError(f"{name}: not UTF-8 at {place}; corpus.on_bad_utf8 can also be repair or skip")
        reading.problems.add(f"{name}: skipped, not UTF-8 at {place}")
    elif source.kind in ROWS:
        yield from rows.documents(ROWS[source.kind](piece, name, source.column, reading), name, reading)
    else:
        yield from _documents(piece, name, source, reading)
    piece.require_unchanged(name)


ROWS = {"parquet": rows.parquet, "dataset": rows.arrow}
"""Kinds whose files aren't read as lines."""


def _documents(piece: Piece, name: str, source: Source, reading: Reading) -> Lines:
    lines = _decoded(_share(piece, _opens(source), name, reading), piece, name, reading.problems)
    if source.kind == "wikiextractor":
        yield from wikipedia.wikiextractor(lines, name, reading)
    elif source.kind == "mediawiki":
        yield from wikipedia.mediawiki(lines, name, reading, whole=piece.parts == 1)
    elif source.kind == "jsonl":
        yield from rows.documents(rows.jsonl(lines, name, source.column, reading), name, reading)
    else:
        yield from _text(lines, source)


def _text(lines: Iterator[str], source: Source) -> Lines:
    if source.paragraphs == "blank-lines":
        yield from _unwrapped(lines)
    elif source.documents == "blank-lines":
        yield from (line if line.strip() else None for line in lines)
    else:
        yield from lines
    yield None


def read_hub(source: Source, part: int, parts: int, name: str, reading: Reading) -> Lines:
    """Yields the rows of one of `parts` parts of a data set of the hub as documents, over the network."""
    found = hub_rows(source.path, source.name or None, source.split, source.column, part, parts)
    yield from rows.documents(islice(found, source.limit or None), name, reading)


def read_cpython(part: int, parts: int, limit: int) -> Lines:
    """Yields the prose of a part of the running Python's documents that the probe tasks don't use."""
    corpus = (document for document in cpython_prose.harvest(part, parts) if not document.held_out)
    for document in islice(corpus, limit or None):
        for docstring in document.docstrings:
            for paragraph in cpython_prose.paragraphs(docstring.text):
                yield paragraph
                yield ""
        yield None


Opens = Callable[[bytes], bool]
"""Whether a line can be the first of a piece that begins in the middle of a file: a document begins there."""
DOCUMENT_OPENS: dict[str, Opens] = {
    "jsonl": lambda raw: True,
    "wikiextractor": lambda raw: raw.startswith(b"<doc "),
    "mediawiki": lambda raw: raw.lstrip(BLANKS).startswith(b"<page>"),
}
TEXT_OPENS: dict[str, Opens] = {
    "file": lambda raw: False,
    "blank-lines": lambda raw: not raw.strip(BLANKS),
}


def _opens(source: Source) -> Opens:
    return DOCUMENT_OPENS.get(source.kind) or TEXT_OPENS[source.documents]


def _share(piece: Piece, opens: Opens, name: str, reading: Reading) -> Iterator[Line]:
    """Yields the lines from the first document that begins in the piece to the first that begins after it."""
    begin, end = piece.begin, piece.end
    inside, length = piece.part == 0, end - begin + 1
    try:
        for line in raw_lines(piece):
            if line.place >= end and (not inside or opens(line.raw)):
                return
            inside = inside or opens(line.raw)
            if inside:
                share = (line.place + 1 - begin) / length
                reading.share = share if share < 1.0 else 1.0
                yield line
    except DamagedInput as error:
        reading.problems.add(f"{name}: damaged or truncated ({error}); what stands before that was read")


def _first_bad(piece: Piece, source: Source) -> str:
    """Returns where the piece's first bytes that are not UTF-8 stand, or "" if there are none."""
    if source.kind in ROWS:
        return rows.first_bad(ROWS[source.kind](piece, piece.path.name, source.column, Reading()))
    place = _Place(piece)
    for line in _share(piece, _opens(source), "", Reading()):
        try:
            line.raw.decode("utf-8")
        except UnicodeDecodeError as error:
            return place.of(line, error.start)
        place.move(line)
    return ""


class _Place:
    """Where a reader is in a piece, in words."""

    def __init__(self, piece: Piece) -> None:
        self._first = piece.part == 0
        self.offset = self.number = 0

    def move(self, line: Line) -> None:
        self.offset += len(line.raw) + line.unread + 1
        self.number += 1

    def of(self, line: Line, index: int) -> str:
        """Returns what a message calls a byte of the line that comes next."""
        if self._first:
            return f"byte {self.offset + index:,} (line {self.number + 1:,})"
        return f"a line after byte {line.place:,}"


def _decoded(lines: Iterator[Line], piece: Piece, name: str, problems: Problems) -> Iterator[str]:
    """Yields lines without BOM, NUL and line ends (LF, CRLF or CR); repairs bad UTF-8 with U+FFFD.

    An endless line is left out: "" stands in its place.
    """
    bad = nuls = 0
    first_bad = first_nul = ""
    place = _Place(piece)
    for line in lines:
        if line.unread:
            problems.add(f"{name}: {place.of(line, 0)}: the line has over {READ:,} bytes and was left out")
        try:
            text = line.raw.decode("utf-8")
        except UnicodeDecodeError as error:
            first_bad = first_bad or place.of(line, error.start)
            text, places = repaired(line.raw)
            bad += places
        if "\0" in text:
            first_nul = first_nul or place.of(line, line.raw.index(b"\0"))
            nuls += text.count("\0")
            text = text.replace("\0", "")
        if place.number == 0 and piece.part == 0:
            text = text.removeprefix("\ufeff")
        place.move(line)
        yield from text.rstrip("\r").split("\r")
    if place.number == 0 and piece.part == 0:
        problems.add(f"{name}: empty file")
    if bad:
        problems.add(f"{name}: repaired {bad:,} places that are not UTF-8, the first at {first_bad}")
    if nuls:
        problems.add(f"{name}: removed {nuls:,} NUL bytes, the first at {first_nul}")


def _unwrapped(lines: Iterator[str]) -> Lines:
    """Yields hard-wrapped paragraphs as one line each: their lines up to the next blank line.

    A hyphen at a line's end stays (in books that have been through a proof-reader it is the
    word's own), without a space after it.
    """
    paragraph = ""
    for line in lines:
        line = line.strip()
        if not line or len(paragraph) > OVERLONG:  # as long as that it is dropped, and counted, by the clean-up
            if paragraph:
                yield paragraph
            yield ""
            paragraph = line
        else:
            hyphenated = line[0].islower() and len(paragraph) > 1 and paragraph[-1] == "-" and paragraph[-2].isalpha()
            paragraph += line if hyphenated or not paragraph else f" {line}"
    if paragraph:
        yield paragraph
