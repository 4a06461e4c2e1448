"""Readers of tables: TSV, CSV, JSON Lines, JSON arrays, Parquet, and data sets saved by `datasets`, in bounded memory.

Rows are read as they are used, and none is dropped: an InputError names the file and the line that can't be read.
"""

import codecs
import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from mapnet_cli.core.errors import InputError
from mapnet_cli.core.user_files import LONGEST, json_object, json_value, readable, text_lines

TABLE_FORMATS = (".tsv", ".csv", ".jsonl", ".json", ".parquet")
BATCH, CHUNK = 1000, 1 << 16  # rows decoded together, and characters of a JSON array that are read together
LARGE_GROUP, SHORT_ROW, LONG_ROW = 1 << 26, 1 << 12, 1 << 17
"""Bytes of a Parquet row group that is not decoded in batches, and of a row of such a group on average: short ones are
decoded a few together, long ones refused, since a page, which is decompressed as a whole, may have a thousand."""
ARROW_FILE = b"ARROW1"  # what Arrow's file format (Feather V2) begins with; a stream follows after two more bytes
_SCALARS = re.compile(
    r"(large_)?string(_view)?|u?int\d+|(half|)float|double|bool|null|decimal\d+\(.*|dictionary<values=.*"
)
"""Arrow's types that are read."""

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


def not_blank(rows: Iterable[tuple[int, T]], where: str) -> Iterator[tuple[int, T]]:
    """Yields the rows without blank ones, which may only be the last. Elsewhere, raises InputError."""
    blank = 0
    for number, row in rows:
        if row and blank:
            raise InputError(f"{where}:{blank}: a blank line before the last row")
        if row:
            yield number, row
        blank = blank or (0 if row else number)


def saved_files(folder: Path) -> list[Path]:
    """Returns the Arrow files of a data set saved by `datasets`, in its order. Raises InputError.

    Others in the folder are ignored: `map` and `filter` store their caches next to the data.
    """
    state = folder / "state.json"
    try:
        names = [str(entry["filename"]) for entry in json_object(state).get("_data_files") or ()]
    except (TypeError, KeyError):
        raise InputError(f"{state} is malformed: `_data_files` must list objects with a `filename`") from None
    for name in names:
        if Path(name).name != name or name.startswith("."):
            raise InputError(f"{state} lists {name!r}, which is not the name of a data file in its folder")
        if not (folder / name).is_file():
            raise InputError(f"{folder / name} is missing, but is listed in {state}")
    return [folder / name for name in names]


def saved_rows(folder: Path) -> Iterator[TableRow]:
    """Yields the rows of a data set saved by `datasets`. Nothing that its columns name is opened. Raises InputError."""
    with readable(str(folder)):
        for path in saved_files(folder):
            batches = arrow_batches(path)
            yield from arrow_rows(batches, next(batches), str(path))


def arrow_batches(path: Path) -> Iterator[Any]:
    """Yields the schema and the record batches of an Arrow stream, or of the stream inside an Arrow file."""
    from pyarrow import ArrowInvalid, ipc, memory_map

    with memory_map(str(path)) as file:
        beginning = file.read(len(ARROW_FILE))
        if beginning.startswith(b"FEA1"):
            raise ArrowInvalid("it is Feather V1: save it as Feather V2 or Parquet")
        file.seek(8 if beginning == ARROW_FILE else 0)
        stream = ipc.open_stream(file)
        yield stream.schema
        yield from stream


def arrow_rows(batches: Iterable[Any], schema: Any, where: str) -> Iterator[TableRow]:
    """Yields the rows of record batches: text, numbers and truth values; for any other value, its type.

    The schema's metadata may have the class names of `datasets`. Raises InputError for a value that is too long.
    """
    names, classes, before = _unique(schema.names, where), _class_names(schema, where), 0
    for batch in batches:
        columns = (_values(batch, schema.field(name), where) for name in names)
        for number, values in enumerate(zip(*columns, strict=False), before + 1):
            row = dict(zip(names, values, strict=True))
            for column, labels in classes.items():
                if isinstance(class_id := row.get(column), int) and 0 <= class_id < len(labels):
                    row[column] = labels[class_id]
            yield f"{where} row {number}", row
        before += batch.num_rows


def _values(batch: Any, field: Any, where: str) -> Iterator[Any]:
    """Returns the values of a column, or its type again and again if it isn't read."""
    from pyarrow import compute

    if not _SCALARS.fullmatch(str(field.type)):
        return repeat(field.type)
    column = batch.column(field.name)
    column.validate(full=True)  # a damaged one would lead outside of the file
    texts = getattr(column, "dictionary", column)
    if "string" in str(texts.type) and len(texts):
        longest = compute.max(compute.binary_length(texts.cast("large_string"))).as_py()
        if (longest or 0) > LONGEST:
            raise InputError(f"{where}: a value of {field.name!r} is longer than {LONGEST >> 20} MB")
    return (value.as_py() for value in column)


def _class_names(schema: Any, where: str) -> dict[str, list[Any]]:
    """Returns the names of classes by column, from the metadata that `datasets` writes. Raises InputError."""
    features = json_value((schema.metadata or {}).get(b"huggingface", "{}"), where)
    for key in ("info", "features"):
        features = (features.get(key) or {}) if isinstance(features, dict) else None
    if not isinstance(features, dict):
        raise InputError(f"{where}: the metadata of `datasets` is malformed")
    labels = {c: f for c, f in features.items() if isinstance(f, dict) and f.get("_type") == "ClassLabel"}
    return {column: names for column, label in labels.items() if isinstance(names := label.get("names"), list)}


def _delimited(
    file: BinaryIO, where: str, suffix: str, unnamed: Unnamed, skipped: list[str] | None
) -> Iterator[TableRow]:
    lines = text_lines(file, where)
    rows = not_blank(_csv(lines, where) if suffix == ".csv" else _tsv(lines), where)
    for first, header in rows:  # once: the inner loop takes the others
        columns = unnamed(header) or header
        rows = rows if columns is header else chain([(first, header)], rows)
        _unique(columns, f"{where}:{first}")
        for number, fields in rows:
            if len(fields) == len(columns):
                yield f"{where}:{number}", dict(zip(columns, fields, strict=True))
            elif skipped is None:
                raise InputError(f"{where}:{number}: {len(fields)} fields, but there are {len(columns)} columns")
            else:
                skipped.append(f"{where}:{number}")


def _unique(columns: Sequence[str], where: str) -> Sequence[str]:
    if len(set(columns)) < len(columns):
        raise InputError(f"{where}: two columns have the same name: {', '.join(columns)}")
    return columns


def _tsv(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, list[str]]]:
    for number, line in lines:
        text = line.removesuffix("\n").removesuffix("\r")
        yield number, text.split("\t") if text.strip(" ") else []


def _csv(lines: Iterable[tuple[int, str]], where: str) -> Iterator[tuple[int, list[str]]]:
    size = 0

    def counted() -> Iterator[str]:
        nonlocal size
        for number, line in lines:
            size += len(line)
            if size > LONGEST:
                raise InputError(f"{where}:{number}: the row is longer than {LONGEST >> 20} MB: is a quote missing?")
            yield line

    csv.field_size_limit(LONGEST)
    reader = csv.reader(counted(), strict=True)
    try:
        for fields in reader:
            size = 0
            yield reader.line_num, fields if len(fields) > 1 or "".join(fields).strip(" ") else []
    except csv.Error as error:
        raise InputError(f"{where}:{reader.line_num}: not CSV ({error})") from None


def _json(file: BinaryIO, where: str, suffix: str) -> Iterator[tuple[str, Any]]:
    """Yields the values of a JSON file: of an array in .json, else of each line."""
    start = file.read(CHUNK) if suffix == ".json" else b""
    if start:
        file.seek(0)
    if start.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"[":
        yield from _array(file, where)
        return
    lines = text_lines(file, where)
    for number, line in not_blank(((number, line.strip()) for number, line in lines), where):
        yield f"{where}:{number}", json_value(line, f"{where}:{number}")


def _array(file: BinaryIO, where: str) -> Iterator[tuple[str, Any]]:
    """Yields the objects of a JSON array, which is not in memory as a whole. Raises InputError."""
    decode, rest, number, failure = json.JSONDecoder().raw_decode, "", 0, "it ends too early"
    utf8 = codecs.getincrementaldecoder("utf-8-sig")()
    try:
        while len(rest) <= LONGEST and (data := file.read(max(CHUNK, len(rest)))):  # doubled for an incomplete object
            rest, at = rest + utf8.decode(data), 0
            while begins := re.compile(r"\s*,\s*(?=\S)" if number else r"\s*\[\s*(?=[^\s\]])").match(rest, at):
                try:
                    value, at = decode(rest, begins.end())
                except (ValueError, RecursionError) as error:
                    failure = str(error)
                    break
                number += 1
                yield f"{where} row {number}", value
            rest = rest[at:]
    except UnicodeDecodeError as error:
        failure = str(error)
    if len(rest) > LONGEST:
        failure = f"it is longer than {LONGEST >> 20} MB"
    if not re.fullmatch(r"\s*\]\s*" if number else r"\s*\[\s*\]\s*", rest):
        raise InputError(f"{where} row {number + 1}: not JSON ({failure})")


def _parquet(file: BinaryIO, where: str) -> Iterator[TableRow]:
    from pyarrow.parquet import ParquetFile

    with readable(where, "is not a readable Parquet file"):
        table = ParquetFile(file, buffer_size=CHUNK, pre_buffer=False)
        schema = table.schema_arrow
        kept = [field.name for field in schema if _SCALARS.fullmatch(str(field.type))]
        texts = [field.name for field in schema if "string" in str(field.type)]
        small = ParquetFile(file, metadata=table.metadata, read_dictionary=texts)  # keeps a repeated value once
        for group in range(table.num_row_groups):
            size, rows = table.metadata.row_group(group).total_byte_size, table.metadata.row_group(group).num_rows
            if size > LARGE_GROUP and size > LONG_ROW * rows:
                raise InputError(f"{where} has rows of {size / rows / 1e6:.1f} MB: that is too long")
            count = BATCH if size <= LARGE_GROUP else 16 if size <= SHORT_ROW * rows else 1
            batches = (small if size <= LARGE_GROUP else table).iter_batches(count, [group], kept)
            yield from arrow_rows(batches, schema, where)
