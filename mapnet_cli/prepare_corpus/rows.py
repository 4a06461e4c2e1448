"""Sources with a document a row: JSONL, Parquet, Arrow files of `datasets`."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from mapnet_cli.errors import InputError
from mapnet_cli.prepare_corpus.pieces import Piece
from mapnet_cli.prepare_corpus.reading import Lines, Reading

BATCH = 16
"""Rows of a Parquet file that are unpacked together; one may hold a book."""

Row = tuple[int, Any]
"""A row's number and what its column holds."""


def documents(rows: Iterable[Row], name: str, reading: Reading) -> Lines:
    """Yields each row's lines and None after it; a row that holds no text is a problem."""
    for number, text in rows:
        if not isinstance(text, str) or not text.strip():
            reading.problems.add(f"{name}: row {number:,} has no text")
            continue
        yield from text.replace("\0", "").splitlines()
        yield None


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
        if not isinstance(row, dict) or key not in row:
            reading.problems.add(f"{name}: row {number:,} has no key {key!r}{_instead(row)}")
            continue
        yield number, row[key]


def _instead(row: Any) -> str:
    return f", only {', '.join(row)[:200]}" if isinstance(row, dict) and row else ""


def parquet(piece: Piece, name: str, column: str, reading: Reading) -> Iterator[Row]:
    """Yields the column of the row groups that are the piece's; raises InputError if there is no such column."""
    from pyarrow import ArrowInvalid
    from pyarrow.parquet import ParquetFile

    try:
        file = ParquetFile(piece.path, pre_buffer=False, buffer_size=1 << 20)
    except ArrowInvalid as error:
        if piece.part == 0:
            reading.problems.add(f"{name}: not a readable Parquet file ({str(error).splitlines()[0]})")
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
                for text in batch.column(0).to_pylist():
                    reading.share = (number - first) / total
                    yield number, text
                    number += 1
        except (ArrowInvalid, OSError) as error:
            reading.problems.add(f"{name}: damaged after row {number:,} ({str(error).splitlines()[0]})")


def arrow(piece: Piece, name: str, column: str, reading: Reading) -> Iterator[Row]:
    """Yields the column of an Arrow file that `datasets` wrote; Arrow's text is UTF-8 by its format."""
    from datasets import Dataset

    rows = Dataset.from_file(str(piece.path))
    _require(column, rows.column_names, name)
    begin, end = len(rows) * piece.part // piece.parts, len(rows) * (piece.part + 1) // piece.parts
    for number, row in enumerate(rows.select(range(begin, end)).select_columns(column), begin):
        reading.share = (number - begin) / (end - begin)
        yield number, row[column]


def _require(column: str, names: list[str], name: str) -> None:
    if column not in names:
        raise InputError(f"{name}: there is no column {column!r}, only {', '.join(names)}; set its `column`")
