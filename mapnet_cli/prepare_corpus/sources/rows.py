"""Documents from rows, and the readers of Parquet and Arrow files.

The text of a row is in a column or, below it, at a path of keys such as `meta.text`.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from mapnet_cli.config import Source
from mapnet_cli.core import InputError, arrow_batches
from mapnet_cli.prepare_corpus.sources.encodings import BOM
from mapnet_cli.prepare_corpus.sources.reading import READ, Lines, Piece, Reading, printable

BATCH = 16  # Parquet rows decoded together; a single row may contain a whole book
CUT = 1 << 16  # approximate number of characters of a long row that are split into lines together
LISTS = ("list<", "large_list<", "fixed_size_list<", "dictionary<")
"""Names of Arrow's types whose elements may be text. Casting a list_view loses elements (pyarrow 26)."""


class NoText(str):
    """Why a row has no text, to be said after "row N"."""


Row = tuple[int, Any]  # index of a row and its text: a string, a memoryview of UTF-8 bytes, None or NoText


def documents(rows: Iterable[Row], name: str, reading: Reading, whole: bool = False) -> Lines:
    """Yields the lines of each row, followed by None; rows without text or with too much text are problems.

    Invalid UTF-8 is repaired. `whole` says that the rows are those of a whole file, which has at least one.
    """
    before = (reading.amounts["rows"], reading.problems.count)
    for number, value in rows:
        reading.amounts["rows"] += 1
        text, why = value, "has no text"
        if isinstance(value, NoText):
            text, why = None, value
        elif value is not None and len(value) > READ:
            unit = "characters" if isinstance(value, str) else "bytes"
            text, why = None, f"has {len(value):,} {unit} and was skipped"
        elif isinstance(value, memoryview):
            try:
                text = str(value, "utf-8")
            except UnicodeDecodeError as error:
                text = reading.repaired(bytes(value), f"byte {error.start:,} of row {number:,}")
        text = text.replace("\0", "").replace(BOM, "") if text else ""
        if not text.strip():
            reading.problems.add(f"{name}: row {number:,} {why}")
            reading.amounts["lost rows"] += 1
            continue
        yield from _lines(text)
        yield None
    reading.report_repairs(name)
    if whole and before == (reading.amounts["rows"], reading.problems.count):
        reading.problems.add(f"{name}: the file has no rows")


def _lines(text: str) -> Iterator[str]:
    """Yields the lines of a text; a long one is split part by part, since a list of short lines takes more memory."""
    begin = 0
    while begin < len(text):
        end = text.find("\n", begin + CUT) + 1 or len(text)
        # lines end in LF, CRLF or CR as in a file, and nowhere else
        yield from text[begin:end].replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")
        begin = end


def text_at(row: Any, column: str) -> Any:
    """Returns the text of a row of nested values (dicts and lists), a string, None or NoText; raises KeyError.

    The strings of a list are joined by line feeds. `column` is a key, or keys with dots between them.
    """
    return _as_text(row[column] if isinstance(row, dict) and column in row else _below(row, column.split(".")))


def _below(value: Any, keys: list[str]) -> Any:
    for place, key in enumerate(keys):
        if isinstance(value, list):
            return [_below(item, keys[place:]) for item in value]
        if value is None:
            return None
        if not isinstance(value, dict):
            raise KeyError(key)
        value = value[key]
    return value


def _as_text(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return memoryview(value)
    if isinstance(value, list):
        parts = [part for item in value if (part := _as_text(item)) is not None]
        if wrong := next((part for part in parts if isinstance(part, NoText)), None):
            return wrong
        if any(isinstance(part, memoryview) for part in parts):
            return memoryview(b"\n".join(parts))
        return "\n".join(parts)
    if isinstance(value, dict):
        return NoText(f"has an object instead of text, with the keys {describe(value)}")
    return NoText(f"has a value of type {type(value).__name__} instead of text")


def describe(names: Iterable[str]) -> str:
    """Returns names as text for messages."""
    return printable(", ".join(names)[:200])


def parquet(piece: Piece, name: str, source: Source, reading: Reading, encoding: str = "") -> Iterator[Row]:
    """Yields the text of the rows in the row groups of the piece; raises InputError if the column has no text."""
    from pyarrow.parquet import ParquetFile

    try:
        file = ParquetFile(piece.path, pre_buffer=False, buffer_size=1 << 20)
        top = _require_text(source.column, file.schema_arrow, name)
    except _damage() as error:
        if piece.part == 0:
            reading.lose(f"{name}: not a readable Parquet file ({_first_line(error)})", piece.size, unread=True)
        return
    reading.amounts["bytes"] += piece.end - piece.begin
    with file:
        count = file.num_row_groups
        groups = list(range(count * piece.part // piece.parts, count * (piece.part + 1) // piece.parts))
        begin = sum(file.metadata.row_group(group).num_rows for group in range(groups[0])) if groups else 0
        end = begin + sum(file.metadata.row_group(group).num_rows for group in groups)
        columns = (batch.column(0) for batch in file.iter_batches(BATCH, row_groups=groups, columns=[top]))
        yield from _values(columns, begin, end, top, name, source, reading)


def arrow(piece: Piece, name: str, source: Source, reading: Reading, encoding: str = "") -> Iterator[Row]:
    """Yields the text of the rows of the piece, of a memory-mapped file or stream; raises InputError like `parquet`."""
    total, top, last = 0, "", piece.part == piece.parts - 1
    try:
        batches = arrow_batches(piece.path)
        top = _require_text(source.column, next(batches), name)
        for batch in batches:
            total += batch.num_rows
    except _damage() as error:
        if total and last:
            reading.problems.add(f"{name}: damaged after row {total:,} ({_first_line(error)})")
        elif last:
            reading.lose(f"{name}: not a readable Arrow file ({_first_line(error)})", piece.size)
    reading.amounts["bytes"] += piece.end - piece.begin
    begin, end = total * piece.part // piece.parts, total * (piece.part + 1) // piece.parts

    def columns() -> Iterator[Any]:
        number = 0
        for batch in islice(arrow_batches(piece.path), 1, None):
            yield batch.column(top)[max(begin - number, 0) : max(end - number, 0)]
            number += batch.num_rows
            if number >= end:
                return

    if begin < end:
        yield from _values(columns(), begin, end, top, name, source, reading)


def _values(
    columns: Iterator[Any], begin: int, end: int, top: str, name: str, source: Source, reading: Reading
) -> Iterator[Row]:
    """Yields the text of the rows from `begin` to `end`, which are the values of the columns."""
    number = begin
    try:
        for column in columns:
            for value in _texts(column, top, source.column):
                reading.share = (number - begin) / (end - begin)
                yield number, value
                number += 1
    except _damage() as error:
        reading.problems.add(f"{name}: damaged after row {number:,} ({_first_line(error)})")
        reading.amounts.update({"rows": end - number, "lost rows": end - number})


def _texts(column: Any, top: str, path: str) -> Iterator[Any]:
    """Returns the text in each value of a column, a memoryview or None; in nested values, as `text_at` does.

    Nothing is copied, since a Python string takes up to four times the memory and Parquet text may be invalid UTF-8.
    Raises ArrowInvalid for a damaged column, which would lead outside of the file.
    """
    column.validate()
    is_text = _is_text(column.type)
    column = column.cast(_as_binary(column.type))
    column.validate(full=True)
    if not is_text:
        return (text_at({top: value.as_py()}, path) for value in column)
    _, offsets, data = column.buffers()
    ends, text = memoryview(offsets or b"").cast("q")[column.offset :], memoryview(data or b"")
    valid = enumerate(column.is_valid().to_pylist())
    return (text[ends[index] : ends[index + 1]] if is_valid else None for index, is_valid in valid)


def _is_text(kind: Any) -> bool:
    return str(kind).removeprefix("large_").removesuffix("_view") in ("string", "binary", "null")


def _as_binary(kind: Any) -> Any:
    """Returns a nested type with binary values for strings, which may be invalid UTF-8."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_as_binary(field.type)) for field in kind])
    if str(kind).startswith(LISTS):
        inner = _as_binary(kind.value_type)
        return inner if pa.types.is_dictionary(kind) else pa.large_list(inner)
    return pa.large_binary() if _is_text(kind) else kind


def _require_text(column: str, schema: Any, name: str) -> str:
    """Returns the top-level column of a path; raises InputError, which names the type, if there is no text in it."""
    from pyarrow import types

    top, *keys = [column] if column in schema.names else column.split(".")
    if top not in schema.names:
        raise InputError(f"{name}: there is no column {column!r}, only {describe(schema.names)}; set `column`")
    kind = schema.field(top).type
    for key in [*keys, ""]:
        while str(kind).startswith(LISTS):
            kind = kind.value_type
        if types.is_struct(kind) and key in (names := [field.name for field in kind]):
            kind = kind.field(key).type
        elif key or not _is_text(kind):
            fields = f"; set `column` to {top}.{names[0]}, for example" if types.is_struct(kind) and names else ""
            raise InputError(f"{name}: {column!r} is not text: {top!r} has the type {schema.field(top).type}{fields}")
    return top


def _damage() -> tuple[type[Exception], ...]:
    """Returns what pyarrow raises for damaged files."""
    from pyarrow import ArrowException

    return ArrowException, OSError, UnicodeError


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
