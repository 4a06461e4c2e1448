"""Readers of a task's rows: TSV, JSONL and Parquet files in folders or zip files, `datasets`, and the Hub.

Only file names and formats are handled here; examples.py validates the contents.
"""

import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from mapnet_cli.core import AbsentError, InputError, load_hub_split
from mapnet_cli.glue import GlueTask, short_name

Row = tuple[str, Mapping[str, Any]]
"""Location for error messages, and values by column."""
MRPC_RAW = {"train": "msr_paraphrase_train.txt", "test": "msr_paraphrase_test.txt"}
"""Files of Microsoft's original corpus. GLUE's dev set consists of the pairs of its training file in DEV_IDS."""
DEV_IDS = "dev_ids.tsv"
LABEL_NAME = "the label's name"
"""Extra column with the class name, for data sets that name their classes."""
PART = re.compile(r"-\d{5}-of-\d{5}$")
"""End of a Parquet file's stem: the Hub splits large sets into several files."""


@dataclass
class Rows:
    """The rows of one split, and their columns if the file has a header.

    `broken` is the number of malformed lines skipped, valid once all rows have been read.
    """

    where: str
    rows: Iterator[Row]
    columns: tuple[str, ...] | None = None
    broken: int = 0


def open_split(location: str | Path, task: GlueTask, split: str) -> Rows:
    """Returns the rows of a split. Raises AbsentError if it doesn't exist, InputError if it can't be read."""
    if isinstance(location, str):
        return _from_datasets(
            load_hub_split(location, task.hub, task.splits[split].hub), f"{location} {task.hub} {split}"
        )
    if (location / "dataset_dict.json").exists():
        return _load_saved(location, task.splits[split].hub)
    files: Files = ZipFiles(location) if location.is_file() else Folder(location)
    names = _find(files, task, split)
    if not names and task.name == "MRPC" and split in {"dev", *MRPC_RAW}:
        return _mrpc(files, task, split)
    if not names:
        wanted = " or ".join(f"{n}.tsv" for n in task.splits[split].names)
        raise AbsentError(f"{location} has no {wanted} (or .jsonl, .parquet) for {task.name}")
    if names[0].endswith(".parquet"):
        return Rows(files.where(names[0]), _parquet_rows(files, names))
    if names[0].endswith(".jsonl"):
        return Rows(files.where(names[0]), _json_rows(files.read(names[0]), files.where(names[0])))
    return _tsv(files, names[0], task)


class Files(Protocol):
    """Files by name, in a folder or a zip file."""

    path: Path
    names: list[str]

    def where(self, name: str) -> str:
        """Returns a file's path for error messages."""

    def read(self, name: str) -> bytes: ...


class Folder:
    """The files of a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names = sorted(p.name for p in path.iterdir() if p.is_file() and not p.name.startswith("."))

    def where(self, name: str) -> str:
        return str(self.path / name)

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()


class ZipFiles:
    """The files of a task's zip file. original/, where GLUE's zips store the raw data, is ignored."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                members = [Path(name) for name in archive.namelist() if not name.endswith("/")]
        except (zipfile.BadZipFile, OSError) as error:
            raise InputError(f"{path} is not a readable zip file: {error}") from None
        kept = [p for p in members if not {"original", "__MACOSX"} & set(p.parts) and not p.name.startswith(".")]
        self.names = sorted({p.name for p in kept})
        self._members = {p.name: p.as_posix() for p in kept}
        if len(kept) > len(self.names):
            raise InputError(f"{path} contains several tasks: unpack it, or use one zip file per task")

    def where(self, name: str) -> str:
        return f"{self.path}:{self._members[name]}"

    def read(self, name: str) -> bytes:
        try:
            with zipfile.ZipFile(self.path) as archive:
                return archive.read(self._members[name])
        except (zipfile.BadZipFile, OSError, EOFError) as error:
            raise InputError(f"{self.where(name)} can't be read: {error}") from None


def _find(files: Files, task: GlueTask, split: str) -> list[str]:
    """Returns the file of a split, such as train.tsv or qqp.train.jsonl, or all parts of a Parquet file."""
    wanted, found = task.splits[split].names, []
    for name in files.names:
        stem, _, suffix = name.rpartition(".")
        stem = PART.sub("", stem)
        prefix, *rest = re.split(r"[._]", stem, maxsplit=1)
        named = short_name(prefix) == short_name(task.name) and rest and rest[0] in wanted
        if suffix in ("tsv", "jsonl", "parquet") and (stem in wanted or named):
            found.append(name)
    if len({PART.sub("", name.removesuffix(".parquet")) for name in found}) > 1:
        raise InputError(f"{files.path} has {' and '.join(found)} for {task.name}'s {split} set: keep one of them")
    return found


def _tsv(files: Files, name: str, task: GlueTask) -> Rows:
    """Reads a TSV file. Quotes are literal, only line feeds end rows. A file without header has the task's columns."""
    where = files.where(name)
    lines = _lines(files.read(name), where)
    columns, first = tuple(lines[0].split("\t")) if lines else (), 2
    if task.columns and not {*task.texts, *task.hub_texts} & set(columns):
        columns, first = task.columns, 1
    rows = Rows(where, iter(()), columns)
    rows.rows = _tsv_rows(rows, lines[first - 1 :], columns, first, task)
    return rows


def _tsv_rows(rows: Rows, lines: list[str], columns: tuple[str, ...], first: int, task: GlueTask) -> Iterator[Row]:
    for number, line in enumerate(lines, first):
        fields = line.split("\t")
        if len(fields) == len(columns):
            yield f"{rows.where}:{number}", dict(zip(columns, fields, strict=True))
        elif task.skips_broken:
            rows.broken += 1
        else:
            raise InputError(f"{rows.where}:{number}: {len(fields)} fields, but {task.name} needs {len(columns)}")


def _lines(data: bytes, where: str) -> list[str]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(f"{where}:{line}: not UTF-8 (byte 0x{data[error.start]:02x})") from None
    # not str.splitlines, which would also split at form feeds and Unicode line separators inside a field
    lines = text.split("\n")
    if lines and not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def _json_rows(data: bytes, where: str) -> Iterator[Row]:
    for number, line in enumerate(_lines(data, where), 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{where}:{number}: not JSON ({error})") from None
        if not isinstance(row, dict):
            raise InputError(f"{where}:{number}: not a JSON object but {line[:40]!r}")
        yield f"{where}:{number}", row


def _parquet_rows(files: Files, names: list[str]) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    for name in names:
        try:
            rows = parquet.read_table(pyarrow.BufferReader(files.read(name))).to_pylist()
        except (pyarrow.ArrowInvalid, OSError) as error:
            raise InputError(f"{files.where(name)} is not a readable Parquet file: {error}") from None
        for number, row in enumerate(rows, 1):
            yield f"{files.where(name)} row {number}", row


def _mrpc(files: Files, task: GlueTask, split: str) -> Rows:
    """Returns a split from Microsoft's files. The dev set is the training file's pairs in DEV_IDS (or dev.tsv)."""
    raw = MRPC_RAW["test" if split == "test" else "train"]
    if raw not in files.names:
        raise AbsentError(f"{files.path} has neither {split}.tsv of MRPC nor {raw}")
    rows = _tsv(files, raw, task)
    if split == "test":
        return rows
    if DEV_IDS in files.names:
        pairs: set[Any] = {tuple(line.split("\t")[:2]) for line in _lines(files.read(DEV_IDS), files.where(DEV_IDS))}
    elif split == "train" and (dev := _find(files, task, "dev")):
        pairs = {(row.get("#1 ID"), row.get("#2 ID")) for _, row in _tsv(files, dev[0], task).rows}
        rows.where += f" without the pairs of {dev[0]}"
    else:
        raise InputError(
            f"{files.path} has {raw}, but no list of its pairs that are in GLUE's dev set: add {DEV_IDS} (or dev.tsv)"
        )
    rows.rows = filter(partial(_in_set, pairs=pairs, wanted=split == "dev"), rows.rows)
    return rows


def _in_set(row: Row, pairs: set[Any], wanted: bool) -> bool:
    return ((row[1].get("#1 ID"), row[1].get("#2 ID")) in pairs) == wanted


def _load_saved(folder: Path, split: str) -> Rows:
    import datasets

    try:
        found = datasets.load_from_disk(str(folder))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} can't be read as a data set: {error}") from None
    if split not in found:
        raise AbsentError(f"{folder} has no split {split!r}; it has {', '.join(found)}")
    return _from_datasets(found[split], f"{folder} {split}")


def _from_datasets(dataset: Any, where: str) -> Rows:
    """Returns the rows, with class names if the data set names its classes."""
    label = dataset.features.get("label")
    names = getattr(label, "names", None)

    def rows() -> Iterator[Row]:
        for number, row in enumerate(dataset, 1):
            class_id, named = row.get("label"), {}
            if names and isinstance(class_id, int) and 0 <= class_id < len(names):
                named = {LABEL_NAME: names[class_id]}
            yield f"{where} row {number}", row | named

    return Rows(where, rows())
