"""Readers of sources with one document per row: JSONL, Parquet, and Arrow files written by `datasets`."""

import json
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from mapnet_cli.core import InputError
from mapnet_cli.prepare_corpus.sources.reading import READ, Lines, Piece, Reading, printable, repaired, repairs

BATCH = 16
"""Parquet rows decoded together; a single row may contain a whole book."""
CUT = 1 << 16
"""Approximate number of characters of a long row that are split into lines together."""
OFFSETS: dict[str, Literal["i", "q"]] = {"string": "i", "binary": "i", "large_string": "q", "large_binary": "q"}
"""Arrow's text types and the format character of their offsets."""

Row = tuple[int, Any]
"""Index of a row and its value: a string, a memoryview of UTF-8 bytes, or something that isn't text."""


def documents(rows: Iterable[Row], name: str, reading: Reading) -> Lines:
    """Yields the lines of each row, followed by None; rows without text or with too much text are problems.

    Invalid UTF-8 is repaired.
    """
    bad, first = 0, -1
    for number, value in rows:
        if isinstance(value, (str, memoryview)) and len(value) > READ:
            unit = "characters" if isinstance(value, str) else "bytes"
            reading.problems.add(f"{name}: row {number:,} has {len(value):,} {unit} and was skipped")
            continue
        text = value
        if isinstance(value, memoryview):
            try:
                text = str(value, "utf-8")
            except UnicodeDecodeError:
                text, count = repaired(bytes(value), reading.fallback)
                bad, first = bad + count, number if first < 0 else first
        if not isinstance(text, str) or not text.strip():
            reading.problems.add(f"{name}: row {number:,} has no text")
            continue
        text = text.replace("\0", "")
        yield from text.splitlines() if len(text) <= CUT else _lines(text)
        yield None
    if bad:
        reading.problems.add(f"{name}: {repairs(bad, reading.fallback)}, the first in row {first:,}")


def first_bad(rows: Iterable[Row]) -> str:
    """Returns the position of the first invalid UTF-8 in words, or "" if there is none."""
    for number, value in rows:
        if isinstance(value, memoryview) and len(value) <= READ:
            try:
                str(value, "utf-8")
            except UnicodeDecodeError as error:
                return f"byte {error.start:,} of row {number:,}"
    return ""


def _lines(text: str) -> Iterator[str]:
    """Yields the lines of a long text, split part by part, since a list of short lines takes far more memory."""
    begin = 0
    while begin < len(text):
        end = text.find("\n", begin + CUT) + 1 or len(text)
        yield from text[begin:end].splitlines()
        begin = end


def jsonl(lines: Iterable[str], name: str, key: str, reading: Reading) -> Iterator[Row]:
    """Yields the value of the key in each line's JSON object; lines without it are problems."""
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
            reading.other_keys = reading.other_keys or _describe_keys(row)
            reading.problems.add(f"{name}: row {number:,} has no key {key!r}{_describe_keys(row)}")


def require_key(key: str, config_key: str, reading: Reading) -> None:
    """Raises InputError if JSONL rows were read and none of them has the key."""
    if reading.without_key and not reading.with_key:
        raise InputError(f"{config_key}: no row has the key {key!r}{reading.other_keys}; set `column`")


def _describe_keys(row: Any) -> str:
    if not isinstance(row, dict):
        return ": the row is not an object"
    return printable(f", only {', '.join(row)[:200]}") if row else ""


def parquet(piece: Piece, name: str, column: str, reading: Reading) -> Iterator[Row]:
    """Yields the column's values in the row groups of the piece; raises InputError if the column is missing."""
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
    """Yields the column's values in the rows of the piece; raises InputError like `parquet`.

    The file, in the stream format of `datasets`, is memory-mapped, so a value is only read when it is used.
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
            for index, value in enumerate(_values(own), max(begin, number)):
                reading.share = (index - begin) / (end - begin)
                yield index, value
            number += batch.num_rows
            if number >= end:
                return


def _values(column: Any) -> Iterator[Any]:
    """Yields the bytes of each string or binary value as a memoryview, and None for any other value.

    Nothing is copied, since a Python string takes up to four times the memory and Parquet text may be invalid UTF-8.
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
        for index, is_valid in enumerate(valid):
            yield text[ends[index] : ends[index + 1]] if is_valid else None


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _require(column: str, names: list[str], name: str) -> None:
    if column not in names:
        raise InputError(f"{name}: there is no column {column!r}, only {', '.join(names)}; set `column`")
