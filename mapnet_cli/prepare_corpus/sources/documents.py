"""Reads sources as lines with document boundaries, and records problems with the input.

At most one line, row or dump page is in memory at a time.
"""

import re
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from mapnet_cli.config import Source
from mapnet_cli.core import InputError, Registry, hub_rows, reading_input
from mapnet_cli.prepare_corpus.sources import books, records, rows, wikipedia
from mapnet_cli.prepare_corpus.sources.compressed import STREAMS, DamagedInput, packing
from mapnet_cli.prepare_corpus.sources.encodings import BOM
from mapnet_cli.prepare_corpus.sources.reading import READ, Line, Lines, Piece, Reading, head, raw_lines, suffix_of
from mapnet_cli.text import python_docs


def read_piece(piece: Piece, name: str, source: Source, on_bad_utf8: str, reading: Reading) -> Lines:
    """Yields the lines of the documents that begin in a piece; `name` is its name in messages.

    Raises InputError if the file changes or can't be read, if the column is missing or has no text, and for invalid
    UTF-8 if `on_bad_utf8` is "fail".
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
    fallback = "" if on_bad_utf8 in ("repair", "skip", "fail") else on_bad_utf8
    with reading_input(name):
        piece.require_unchanged(name)
        kind, (read_rows, encoding) = KINDS[source.kind], _layout(piece, source)

        def found(reading: Reading) -> Iterator[Any]:
            reading.fallback = fallback
            if read_rows:
                rows_ = read_rows(piece, name, source, reading, encoding)
                return rows.documents(rows_, name, reading, piece.parts == 1)
            return _decoded(_share(piece, source, name, reading, encoding), piece, name, kind.end, reading)

        trial = Reading()
        tried = found(trial) if on_bad_utf8 in ("skip", "fail") else ()
        where = next((trial.invalid for _ in tried if trial.invalid), "")  # of the first invalid UTF-8
        if where and on_bad_utf8 == "fail":
            raise InputError(f"{name}: not UTF-8 at {where}; set corpus.on_bad_utf8 to repair, skip or an encoding")
        if where:
            reading.lose(f"{name}: skipped, not UTF-8 at {where}", piece.end - piece.begin, unread=True)
        elif kind.documents and not read_rows:
            yield from kind.documents(found(reading), piece, name, source, reading)
        else:
            yield from found(reading)
        piece.require_unchanged(name)


def _text(lines: Iterator[str], piece: Piece, name: str, source: Source, reading: Reading) -> Lines:
    if source.paragraphs == "blank-lines":
        words = reading.words or books.Words([piece], source.encoding) if source.hyphens == "rejoin" else None
        yield from books.unwrapped(lines, words, reading.markup)
    elif source.documents == "blank-lines":
        yield from (line if line.strip() else None for line in lines)
    else:
        yield from lines
    yield None


def _jsonl(lines: Iterator[str], piece: Piece, name: str, source: Source, reading: Reading) -> Lines:
    return rows.documents(records.json_lines(lines, source.column, reading), name, reading, piece.parts == 1)


def _csv(lines: Iterator[str], piece: Piece, name: str, source: Source, reading: Reading) -> Lines:
    tabs = suffix_of(piece.path) in TABS
    return rows.documents(records.csv_rows(lines, name, source.column, tabs), name, reading, piece.parts == 1)


def _wikiextractor(lines: Iterator[str], piece: Piece, name: str, source: Source, reading: Reading) -> Lines:
    first = next((line for line in lines if line.strip()), "")
    lines = chain([first], lines)
    if piece.parts == 1 and _is_json(source, first):  # the output of --json
        found = _jsonl(lines, piece, name, source, reading)
        return (line and wikipedia.without_markup(line, reading.markup) for line in found)
    return wikipedia.wikiextractor(lines, name, reading)


RowReader = Callable[[Piece, str, Source, Reading, str], Iterator[rows.Row]]
"""Yields the rows of a piece of a file that isn't read line by line; the last argument is the file's encoding."""


class Kind(NamedTuple):
    """A kind of source, whose files are either text, possibly compressed, or made of rows."""

    documents: Callable[[Iterator[str], Piece, str, Source, Reading], Lines] | None = None
    """Yields the lines of the documents in a piece's decoded lines, with None after each document."""
    opens: Callable[[bytes], bool] | None = None
    """Returns whether a document begins at a line, so that a piece may begin there; None if a file is one document."""
    end: bytes = b"\n"  # of a line, or of a record, whose part it is
    suffixes: tuple[str, ...] = ()  # of the files read from a folder, compressed or not, in any case; empty: all
    bare: bool = False  # whether files without a suffix are read, too, from a folder that has no other files to read
    rows: RowReader | None = None


TABS = (".tsv", ".tab")
WHOLE_JSON = {"jsonl": re.compile(r"\s*(?:\[|\{[ \t]*[\r\n])"), "wikiextractor": re.compile(r'\s*\{\s*"')}
"""Beginnings of files that can only be read as a whole: arrays, objects of several lines, WikiExtractor's --json."""
_OWN = {
    "text": Kind(_text, lambda raw: not raw.strip(b" \t\r\f\v")),
    "jsonl": Kind(_jsonl, lambda raw: True, suffixes=(".jsonl", ".ndjson", ".json"), bare=True),
    "csv": Kind(_csv, suffixes=(".csv", *TABS)),
    "wikiextractor": Kind(_wikiextractor, lambda raw: raw.startswith(b"<doc ")),
    "mediawiki": Kind(wikipedia.mediawiki, lambda raw: True, b"</page>", (".xml",)),
    "parquet": Kind(suffixes=(".parquet",), rows=rows.parquet),
    "arrow": Kind(suffixes=(".arrow", ".feather", ".ipc"), rows=rows.arrow),
    "dataset": Kind(rows=rows.arrow),
}
KINDS = Registry("sources", Kind, ("documents", "rows"), _OWN)


def divisible(source: Source, path: Path) -> bool:
    """Returns whether a file can be read from the middle."""
    kind = KINDS[source.kind]
    if kind.rows:
        return True
    one_document = kind.opens is None or (source.kind == "text" and source.documents == "file")
    if source.encoding or packing(path) in STREAMS or one_document:
        return False
    encoding, beginning = head(path, "")
    return not (encoding or _is_json(source, beginning))


def _is_json(source: Source, beginning: str) -> bool:
    """Returns whether a file with this beginning is JSON that can only be read as a whole."""
    pattern = WHOLE_JSON.get(source.kind)
    return pattern is not None and pattern.match(beginning) is not None


def _layout(piece: Piece, source: Source) -> tuple[RowReader | None, str]:
    """Returns the reader of a piece that isn't read line by line, or None, and the file's encoding, "" for UTF-8."""
    read_rows = KINDS[source.kind].rows
    if read_rows or piece.parts > 1:
        return read_rows, ""
    encoding, beginning = head(piece.path, source.encoding)
    return records.json_values if source.kind == "jsonl" and _is_json(source, beginning) else None, encoding


def read_hub(source: Source, part: int, parts: int, name: str, reading: Reading) -> Lines:
    """Yields the rows of one of `parts` parts of a data set as documents, streamed from the Hub."""
    found = hub_rows(source.path, source.name or None, source.split, part, parts, source.column)

    def text(row: dict[str, Any]) -> Any:
        try:
            return rows.text_at(row, source.column)
        except KeyError:
            only = f"there is no column {source.column!r}, only {rows.describe(row)}"
            raise InputError(f"{source.path}: {only}; set `column`") from None

    texts = ((number, text(row)) for number, row in islice(found, source.limit or None))
    yield from _without_marks(rows.documents(texts, name, reading), source, reading)


def read_cpython(part: int, parts: int, limit: int) -> Lines:
    """Yields the prose of one part of Python's own docstrings, without the documents held out for the probe tasks."""
    corpus = (document for document in python_docs.harvest(part, parts) if not document.held_out)
    for document in islice(corpus, limit or None):
        for docstring in document.docstrings:
            for paragraph in python_docs.paragraphs(docstring):
                yield paragraph
                yield ""
        yield None


def _share(piece: Piece, source: Source, name: str, reading: Reading, encoding: str) -> Iterator[Line]:
    """Yields the lines of the documents that begin in the piece."""
    begin, end = piece.begin, piece.end
    opens = KINDS[source.kind].opens or (lambda raw: False)
    inside, length, at = piece.part == 0, end - begin + 1, begin
    try:
        for line in raw_lines(piece, KINDS[source.kind].end, encoding):
            if line.offset >= end and (not inside or opens(line.raw)):
                return
            inside = inside or opens(line.raw)
            if inside:
                at = line.offset + 1
                share = (at - begin) / length
                reading.share = share if share < 1.0 else 1.0
                yield line
    except DamagedInput as error:
        reading.lose(f"{name}: damaged or truncated ({error}); the text before that was read", max(0, end - at), True)


def _decoded(lines: Iterator[Line], piece: Piece, name: str, end: bytes, reading: Reading) -> Iterator[str]:
    """Yields lines without byte order marks, NUL and CR, with invalid UTF-8 repaired; "" for over READ bytes."""
    nuls, first_nul, offset, number, problems = 0, "", 0, 1, reading.problems
    what = "line" if end == b"\n" else "page"
    for line in lines:
        if line.unread:
            where = _place(piece, line, offset, number, 0)
            reading.lose(f"{name}: {where}: the {what} has over {READ:,} bytes and was skipped", line.unread)
        try:
            text = line.raw.decode("utf-8")
        except UnicodeDecodeError as error:
            text = reading.repaired(line.raw, _place(piece, line, offset, number, error.start))
        if "\0" in text:
            first_nul = first_nul or _place(piece, line, offset, number, line.raw.index(b"\0"))
            nuls += text.count("\0")
            text = text.replace("\0", "")
        if not text.isascii():
            text = text.replace(BOM, "")  # files may have been concatenated
        offset += len(line.raw) + line.unread + (what == "line")
        number += line.raw.count(b"\n") + (what == "line")
        yield from text.rstrip("\r").split("\r") if what == "line" else [text]
    reading.amounts["bytes"] += offset
    if offset == 0 and piece.part == 0:
        problems.add(f"{name}: empty file")
    reading.report_repairs(name)
    if nuls:
        problems.add(f"{name}: removed {nuls:,} NUL bytes, the first at {first_nul}")


def _place(piece: Piece, line: Line, offset: int, number: int, index: int) -> str:
    """Returns the position of a byte of a line in words; the line is at `offset` of the piece's text, `number`."""
    if piece.part:
        return f"a line after byte {line.offset:,}"
    return f"byte {offset + index:,} (line {number + line.raw[:index].count(10):,})"
