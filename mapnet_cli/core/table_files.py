"""Readers of tables with columns: TSV, CSV, JSON Lines, JSON arrays, Parquet, and data sets of `datasets`.

Rows are read as they are used, and none is dropped: an InputError names the file and the line that can't be read.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any, BinaryIO, TypeVar

from mapnet_cli.core.errors import InputError

TABLE_FORMATS = (".tsv", ".csv", ".jsonl", ".json", ".parquet")
LONGEST = 1 << 24
"""Maximum size of a line, in bytes."""
BATCH = 1000
"""Rows decoded together."""

TableRow = tuple[str, dict[str, Any]]
"""Location for error messages, and values by column. Class ids are replaced by their names if the file has names."""
Unnamed = Callable[[Sequence[str]], Sequence[str]]
"""Returns the columns of a file without a header for its first row, nothing if that is a header."""
T = TypeVar("T")


def table_rows(
    file: BinaryIO, where: str, suffix: str, unnamed: Unnamed = lambda first: (), skipped: list[str] | None = None
) -> Iterator[TableRow]:
    """Yields the rows of a file of one of TABLE_FORMATS, and closes it. Quotes are text in TSV, syntax in CSV.

    The locations of TSV and CSV rows with a wrong number of fields are added to `skipped`; without it they are errors.
    """
    with file:
        if suffix == ".parquet":
            yield from _parquet(file, where)
        elif suffix in (".json", ".jsonl"):
            for place, row in _json(file, where, suffix):
                if not isinstance(row, dict):
                    raise InputError(f"{place}: not a JSON object but {str(row)[:40]!r}")
                yield place, row
        else:
            yield from _delimited(file, where, suffix, unnamed, skipped)


def text_lines(file: BinaryIO, where: str) -> Iterator[tuple[int, str]]:
    """Yields the lines of UTF-8 text with their numbers, from 1, and their ends. Only line feeds end lines."""
    for number, line in enumerate(iter(partial(file.readline, LONGEST), b""), 1):
        if len(line) == LONGEST:
            raise InputError(f"{where}:{number}: the line is longer than {LONGEST >> 20} MB")
        try:
            yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{where}:{number}: not UTF-8 (byte 0x{error.object[error.start]:02x})") from None


def not_blank(rows: Iterable[tuple[int, T]], where: str) -> Iterator[tuple[int, T]]:
    """Yields the rows without blank ones, which may only be the last. Elsewhere, raises InputError."""
    blank = 0
    for number, row in rows:
        if row and blank:
            raise InputError(f"{where}:{blank}: a blank line before the last row")
        if row:
            yield number, row
        blank = blank or (0 if row else number)


def arrow_rows(batches: Iterable[Any], schema: Any, where: str) -> Iterator[TableRow]:
    """Yields the rows of Arrow tables. The schema's metadata may have the class names of `datasets`."""
    features = json.loads((schema.metadata or {}).get(b"huggingface", "{}")).get("info", {}).get("features", {})
    described = ((column, feature) for column, feature in features.items() if isinstance(feature, dict))
    classes = {column: feature["names"] for column, feature in described if feature.get("_type") == "ClassLabel"}
    for number, row in enumerate(chain.from_iterable(batch.to_pylist() for batch in batches), 1):
        for column, names in classes.items():
            if isinstance(class_id := row.get(column), int) and 0 <= class_id < len(names):
                row[column] = names[class_id]
        yield f"{where} row {number}", row


def _delimited(
    file: BinaryIO, where: str, suffix: str, unnamed: Unnamed, skipped: list[str] | None
) -> Iterator[TableRow]:
    lines = text_lines(file, where)
    rows = not_blank(_csv(lines, where) if suffix == ".csv" else _tsv(lines), where)
    for first, header in rows:  # once: the inner loop takes the others
        columns = unnamed(header) or header
        rows = rows if columns is header else chain([(first, header)], rows)
        if len(set(columns)) < len(columns):
            raise InputError(f"{where}:{first}: two columns have the same name: {', '.join(columns)}")
        for number, fields in rows:
            if len(fields) == len(columns):
                yield f"{where}:{number}", dict(zip(columns, fields, strict=True))
            elif skipped is None:
                raise InputError(f"{where}:{number}: {len(fields)} fields, but there are {len(columns)} columns")
            else:
                skipped.append(f"{where}:{number}")


def _tsv(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, list[str]]]:
    for number, line in lines:
        text = line.removesuffix("\n").removesuffix("\r")
        yield number, text.split("\t") if text.strip(" ") else []


def _csv(lines: Iterable[tuple[int, str]], where: str) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(LONGEST)
    reader = csv.reader((line for _, line in lines), strict=True)
    try:
        for fields in reader:
            yield reader.line_num, fields if len(fields) > 1 or "".join(fields).strip(" ") else []
    except csv.Error as error:
        raise InputError(f"{where}:{reader.line_num}: not CSV ({error})") from None


def _json(file: BinaryIO, where: str, suffix: str) -> Iterator[tuple[str, Any]]:
    """Yields the values of a JSON file: of an array in .json, else of each line."""
    data = file.read() if suffix == ".json" else b""
    place = where
    try:
        if data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"[":
            for number, value in enumerate(json.loads(data.decode("utf-8-sig")), 1):
                yield f"{where} row {number}", value
            return
        lines = text_lines(io.BytesIO(data) if data else file, where)
        for number, line in not_blank(((number, line.strip()) for number, line in lines), where):
            place = f"{where}:{number}"
            yield place, json.loads(line)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise InputError(f"{place}: not JSON ({error})") from None


def _parquet(file: BinaryIO, where: str) -> Iterator[TableRow]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(file) as table:
            yield from arrow_rows(table.iter_batches(BATCH), table.schema_arrow, where)
    except (ArrowException, OSError) as error:
        raise InputError(f"{where} is not a readable Parquet file: {error}") from None
