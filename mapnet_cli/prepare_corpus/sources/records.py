"""Readers of text files with one document per record: JSON Lines, JSON arrays and objects, CSV and TSV."""

import codecs
import csv
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain
from typing import Any

from mapnet_cli.config import Source
from mapnet_cli.core import InputError
from mapnet_cli.prepare_corpus.sources.compressed import DamagedInput
from mapnet_cli.prepare_corpus.sources.encodings import BOM
from mapnet_cli.prepare_corpus.sources.reading import READ, Piece, Reading, text_chunks
from mapnet_cli.prepare_corpus.sources.rows import NoText, Row, describe, text_at

_DECODE = json.JSONDecoder().raw_decode
_SPACE = re.compile(r"[ \t\n\r]*")
_BETWEEN = re.compile(rf"[\s,\[\]{BOM}]*")  # what may stand between the values of one or several arrays
_ESCAPED = re.compile("[\udc80-\udcff]")  # Invalid bytes in text that was decoded with "surrogateescape"


def json_lines(lines: Iterable[str], column: str, reading: Reading) -> Iterator[Row]:
    """Yields the text at the key `column` of the JSON object in each line."""
    for number, line in enumerate(lines):
        if line.strip():
            try:
                found = list(_objects(line))
            except (ValueError, RecursionError) as error:
                yield number, NoText(f"is not JSON ({error})")
            else:
                yield from ((number, _text(row, column, reading)) for row in found)


def _objects(line: str) -> Iterator[Any]:
    """Yields the value of a line, or its objects, where files without a last line end were joined."""
    end = 0
    while (space := _SPACE.match(line, end)) and space.end() < len(line):
        if end and line[space.end()] != "{":
            raise json.JSONDecodeError("Extra data", line, space.end())
        row, end = _DECODE(line, space.end())
        yield row


def json_values(piece: Piece, name: str, source: Source, reading: Reading, encoding: str) -> Iterator[Row]:
    """Yields the text of each element of a file's arrays, or of its objects, which may span lines.

    At most about READ characters are kept in memory. What follows invalid JSON is not read.
    """
    rest, number, enough, failure = "", 0, 0, ""
    texts = _decoded(piece, name, encoding, reading)
    for text in chain(texts, [""]):
        rest += text
        if text and len(rest) < enough:
            continue
        at = 0
        while match := _BETWEEN.match(rest, at):  # always matches
            at = match.end()
            if at == len(rest):
                break
            try:
                row, at = _DECODE(rest, at)
            except (ValueError, RecursionError) as error:  # or the value is incomplete
                failure = str(error)
                break
            value = _text(row, source.column, reading)
            if isinstance(value, str) and not value.isascii() and _ESCAPED.search(value):
                with suppress(UnicodeEncodeError):  # other surrogates were escaped in the JSON
                    value = memoryview(value.encode("utf-8", "surrogateescape"))
            yield number, value
            number += 1
        rest = rest[at:]
        enough = min(2 * len(rest), READ)  # an incomplete value is parsed again, each time with twice the text
        if len(rest) > READ:
            break
    if rest:
        lost = len(rest) + sum(map(len, texts))
        reading.lose(f"{name}: not JSON after row {number:,} ({failure}); {lost:,} characters were skipped", lost)


def _decoded(piece: Piece, name: str, encoding: str, reading: Reading) -> Iterator[str]:
    """Yields a file's text; invalid UTF-8 becomes lone surrogates."""
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    try:
        for offset, chunk in text_chunks(piece, encoding):
            reading.share = min(1.0, offset / max(1, piece.size))
            reading.amounts["bytes"] += len(chunk)
            if text := decoder.decode(chunk):
                yield text
    except DamagedInput as error:
        reading.problems.add(f"{name}: damaged or truncated ({error}); the text before that was read")
    yield decoder.decode(b"", final=True)


def _text(row: Any, column: str, reading: Reading) -> Any:
    """Returns the text of a parsed row like `text_at`; a row that is a string is text itself."""
    try:
        found = row if isinstance(row, str) else text_at(row, column)
    except KeyError:
        keys = (f", only {describe(row)}" if row else "") if isinstance(row, dict) else ": the row is not an object"
        reading.without_key += 1
        reading.other_keys = reading.other_keys or keys
        return NoText(f"has no key {column!r}{keys}")
    reading.with_key += 1
    return found


def require_key(key: str, config_key: str, reading: Reading) -> None:
    """Raises InputError if JSON rows were read and none of them has the key."""
    if reading.without_key and not reading.with_key:
        raise InputError(f"{config_key}: no row has the key {key!r}{reading.other_keys}; set `column`")


def csv_rows(lines: Iterator[str], name: str, column: str, tabs: bool) -> Iterator[Row]:
    """Yields the text in a column of CSV or TSV, whose delimiter is the one that cuts the column out of the header.

    Fields may be quoted and then span lines. Where quotes don't match, they are text, and each line is a row. Raises
    InputError if the header lacks the column.
    """
    csv.field_size_limit(READ)
    header = next((line for line in lines if line.strip()), None)
    if header is None:
        return
    for mark in "\t,;|" if tabs else ",;\t|":
        names = _fields(header, mark)
        if column in names:
            break
    else:
        raise InputError(f"{name}: the header has no column {column!r}: {describe([header])}; set `column`")
    taken: list[str] = []

    def taking() -> Iterator[str]:
        for line in lines:
            taken.append(line)
            yield f"{line}\n"

    reader, place, width, number = csv.reader(taking(), delimiter=mark, strict=True), names.index(column), len(names), 0
    while True:
        taken.clear()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error:
            fields = []
        # two unpaired quotes in a TSV look like one field of several lines
        unpaired = mark == "\t" and len(taken) > 1 and all(line.count(mark) == width - 1 for line in taken)
        valid = len(fields) == width and not unpaired
        for row in [fields] if valid else [_fields(line, mark, width) for line in taken if line]:
            wrong = NoText(f"has {len(row)} fields, but the header has {width}")
            yield number, row[place] if len(row) == width else wrong
            number += 1


def _fields(line: str, mark: str, width: int = 0) -> list[str]:
    """Returns the fields of a line; quotes are text if they don't match, or if that gives `width` fields."""
    literal = line.split(mark)
    try:
        fields = next(csv.reader([line], delimiter=mark, strict=True), [])
    except csv.Error:
        return literal
    return literal if len(fields) != width == len(literal) else fields
