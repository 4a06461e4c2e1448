"""Sources with a document a row: JSONL, Parquet, Arrow files of `datasets`."""

import json
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from mapnet_cli.core import InputError
from mapnet_cli.prepare_corpus.sources.reading import READ, Lines, Piece, Reading, printable, repaired

BATCH = 16
"""Rows of a Parquet file that are unpacked together; one may hold a book."""
CUT = 1 << 16
"""Characters of a row that are made into lines together."""
OFFSETS: dict[str, Literal["i", "q"]] = {"string": "i", "binary": "i", "large_string": "q", "large_binary": "q"}
"""Arrow's types of text, and of what type the places are at which a column's values end."""

Row = tuple[int, Any]
"""A row's number and what its column holds: a string, a memoryview of UTF-8, or something that isn't text."""


def documents(rows: Iterable[Row], name: str, reading: Reading) -> Lines:
    """Yields each row's lines and None after it; a row that holds no text or too much of it is a problem.

    Bad UTF-8 is repaired with U+FFFD.
    """
    bad, first = 0, -1
    for number, value in rows:
        if isinstance(value, (str, memoryview)) and len(value) > READ:
            unit = "characters" if isinstance(value, str) else "bytes"
            reading.problems.add(f"{name}: row {number:,} has {len(value):,} {unit} and was left out")
            continue
        text = value
        if isinstance(value, memoryview):
            try:
                text = str(value, "utf-8")
            except UnicodeDecodeError:
                text, places = repaired(bytes(value))
                bad, first = bad + places, number if first < 0 else first
        if not isinstance(text, str) or not text.strip():
            reading.problems.add(f"{name}: row {number:,} has no text")
            continue
        text = text.replace("\0", "")
        yield from text.splitlines() if len(text) <= CUT else _lines(text)
        yield None
    if bad:
        reading.problems.add(f"{name}: repaired {bad:,} places that are not UTF-8, the first in row {first:,}")


def first_bad(rows: Iterable[Row]) -> str:
    """Returns in which row the first bytes that are not UTF-8 stand, or "" if there are none."""
    for number, value in rows:
        if isinstance(value, memoryview) and len(value) <= READ:
            try:
                str(value, "utf-8")
            except UnicodeDecodeError as error:
                return f"byte {error.start:,} of row {number:,}"
    return ""


def _lines(text: str) -> Iterator[str]:
    """Yields the lines of a long text, a few at a time: a list of short lines takes many times the text's memory."""
    begin = 0
    while begin < len(text):
        end = text.find("\n", begin + CUT) + 1 or len(text)
        yield from text[begin:end].splitlines()
        begin = end


def jsonl(lines: Iterable[str], name: str, key: str, reading: Reading) -> Iterator[Row]:
    """Yields what each line's object holds under the key; a line that is not such an object is a problem."""
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            reading.problems.add(f"{name}: row {number:,} is not JSON ({error})")
            continue
        if isinstance(row, dict) and key in row:
            reading.with_key += 1
            yield number, row[key]
        else:
            reading.without_key += 1
            reading.other_keys = reading.other_keys or _instead(row)
            reading.problems.add(f"{name}: row {number:,} has no key {key!r}{_instead(row)}")


def require_key(key: str, place: str, reading: Reading) -> None:
    """Raises InputError if rows of JSONL were read and none of them has the key."""
    if reading.without_key and not reading.with_key:
        raise InputError(f"{place}: no row has the key {key!r}{reading.other_keys}; set its `column`")


def _instead(row: Any) -> str:
    if not isinstance(row, dict):
        return ": the row is no object"
    return printable(f", only {', '.join(row)[:200]}") if row else ""


def parquet(piece: Piece, name: str, column: str, reading: Reading) -> Iterator[Row]:
    """Yields the column of the row groups that are the piece's; raises InputError if there is no such column."""
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        file = ParquetFile(piece.path, pre_buffer=False, buffer_size=1 << 20)
    except (ArrowException, OSError) as error:
        if piece.part == 0:
            reading.problems.add(f"{name}: not a readable Parquet file ({_first_line(error)})")
        return
    with file:
        _require(column, file.schema_arrow.names, name)
        count = file.num_row_groups
        groups = list(range(count * piece.part // piece.parts, count * (piece.part + 1) // piece.parts))
        number = sum(file.metadata.row_group(group).num_rows for group in range(groups[0])) if groups else 0
        total = sum(file.metadata.row_group(group).num_rows for group in groups)
        first = number
        try:
            for batch in file.iter_batches(BATCH, row_groups=groups, columns=[column]):
                for value in _values(batch.column(0)):
                    reading.share = (number - first) / total
                    yield number, value
                    number += 1
        except (ArrowException, OSError) as error:
            reading.problems.add(f"{name}: damaged after row {number:,} ({_first_line(error)})")


def arrow(piece: Piece, name: str, column: str, reading: Reading) -> Iterator[Row]:
    """Yields the column of the piece's rows of an Arrow file that `datasets` wrote; raises InputError as `parquet`.

    The file is mapped into memory, so nothing is read of a row until somebody wants it.
    """
    from pyarrow import ArrowException, ipc, memory_map

    total = 0
    try:
        with memory_map(str(piece.path)) as file:
            batches = ipc.open_stream(file)
            _require(column, batches.schema.names, name)
            for batch in batches:
                total += batch.num_rows
    except (ArrowException, OSError) as error:
        if piece.part == piece.parts - 1:
            what = f"damaged after row {total:,}" if total else "not a readable Arrow file"
            reading.problems.add(f"{name}: {what} ({_first_line(error)})")
    begin, end = total * piece.part // piece.parts, total * (piece.part + 1) // piece.parts
    number = 0
    if begin == end:
        return
    with memory_map(str(piece.path)) as file:
        for batch in ipc.open_stream(file):
            own = batch.column(column)[max(begin - number, 0) : max(end - number, 0)]
            for place, value in enumerate(_values(own), max(begin, number)):
                reading.share = (place - begin) / (end - begin)
                yield place, value
            number += batch.num_rows
            if number >= end:
                return


def _values(column: Any) -> Iterator[Any]:
    """Yields a memoryview of each string's or binary value's bytes, of any other value None.

    Nothing is copied: a Python string would take up to four times the room. And Parquet's text need not be UTF-8.
    """
    kind = str(column.type)
    if kind.startswith("dictionary"):
        yield from _values(column.dictionary_decode())
    elif kind.endswith("_view"):
        yield from _values(column.cast(f"large_{kind.removesuffix('_view')}"))
    elif kind not in OFFSETS or not len(column):
        yield from [None] * len(column)
    else:
        _, offsets, data = column.buffers()
        ends = memoryview(offsets).cast(OFFSETS[kind])[column.offset :]
        text = memoryview(data or b"")
        valid = column.is_valid().to_pylist() if column.null_count else [True] * len(column)
        for place, there in enumerate(valid):
            yield text[ends[place] : ends[place + 1]] if there else None


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _require(column: str, names: list[str], name: str) -> None:
    if column not in names:
        raise InputError(f"{name}: there is no column {column!r}, only {', '.join(names)}; set its `column`")
