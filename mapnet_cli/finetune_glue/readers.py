"""The files of a task's splits: tables in a folder or a zip file, data sets saved by `datasets`, and the Hub.

core/table_files.py reads the tables, examples.py validates the rows.
"""

import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mapnet_cli import core
from mapnet_cli.config import short_name
from mapnet_cli.glue import GlueTask, OwnTask, divided

MRPC_RAW = {"train": "msr_paraphrase_train.txt", "test": "msr_paraphrase_test.txt"}
"""Files of Microsoft's original corpus. GLUE's dev set consists of the pairs of its training file in DEV_IDS."""
DEV_IDS = "dev_ids.tsv"
PART = re.compile(r"-\d{5}-of-\d{5}$")
"""End of a Parquet file's stem: the Hub splits large sets into several files."""
Files = dict[str, Any]  # a `Path` or `zipfile.Path` for each name


@dataclass
class Rows:
    """The rows of one split. `skipped` are the locations of malformed lines, complete once all rows have been read."""

    where: str
    rows: Iterator[core.TableRow]
    skipped: list[str] = field(default_factory=list)


def open_split(location: str | Path, task: GlueTask, split: str) -> Rows:
    """Returns the rows of a split. Raises AbsentError if it doesn't exist, InputError if it can't be read."""
    if isinstance(task.data, OwnTask):
        where = f"{task.name}'s {split} set"
        rows = enumerate(task.data.rows(location, split), 1)
        return Rows(where, ((f"{where}, row {number:,}", dict(row)) for number, row in rows))
    on_hub, names = task.splits[split].hub, task.splits[split].names
    if isinstance(location, str):
        dataset, where = core.load_hub_split(location, task.hub or None, on_hub), f"{location} {task.hub} {split}"
        batches = (batch for table in dataset.with_format("arrow").iter(1000) for batch in table.to_batches())
        return Rows(where, core.arrow_rows(batches, dataset.features.arrow_schema, where))
    for saved in (location / name for name in (on_hub, *names)):
        if (saved / "state.json").exists():
            return Rows(str(saved), core.saved_rows(saved))
    files = _files(location)
    found = _find(files, task, split)
    if not found and task.name == "MRPC" and split in {"dev", *MRPC_RAW}:
        return _mrpc(location, files, task, split)
    if not found:
        wanted, others = " or ".join(f"{name}.tsv" for name in names), ", ".join(core.TABLE_FORMATS[1:])
        packed = next(
            (f": unpack {f}" for f in files if Path(f).suffix in core.COMPRESSED and f.split(".")[0] in names), ""
        )
        raise core.AbsentError(f"{location} has no {wanted} (or {others}) for {task.name}{packed}")
    return _rows(found, task, split)


def _files(location: Path) -> Files:
    """Returns the files of a folder or a zip file, without original/, where GLUE's zips store the raw data."""
    if location.is_dir():
        return {path.name: path for path in sorted(location.iterdir()) if path.is_file() and path.name[0] != "."}
    with core.readable(str(location), "is neither a folder nor a readable zip file"):
        archive = zipfile.ZipFile(location)
    members = [zipfile.Path(archive, name) for name in sorted(archive.namelist()) if not name.endswith("/")]
    kept = [p for p in members if p.name[0] != "." and not {"original", "__MACOSX"} & set(p.at.split("/"))]
    if len(kept) > len({path.name for path in kept}):
        raise core.InputError(f"{location} contains several tasks: unpack it, or use one zip file per task")
    return {path.name: path for path in kept}


def _rows(files: Sequence[Any], task: GlueTask, split: str) -> Rows:
    """Returns the rows of a file or of all its parts, which may have no header if the task's files don't."""
    found = Rows(str(files[0]), iter(()))
    skipped = found.skipped if task.skips_broken and not split.startswith("test") else None
    known = {column.lower() for columns in task.text_columns for column in columns}

    def unnamed(first: Sequence[str]) -> Sequence[str]:
        return () if known & {column.lower() for column in first} else task.columns

    def rows() -> Iterator[core.TableRow]:
        for file in files:
            suffix = Path(file.name).suffix.replace(".txt", ".tsv")
            with core.readable(str(file)):
                yield from core.table_rows(file.open("rb"), str(file), suffix, unnamed, skipped)

    found.rows = rows()
    return found


def _find(files: Files, task: GlueTask, split: str) -> list[Any]:
    """Returns the file of a split, such as train.tsv or qqp.train.jsonl, or all parts of a Parquet file."""
    wanted, found = task.splits[split].names, dict[str, list[Any]]()
    for name, file in files.items():
        whole, suffix = PART.sub("", Path(name).stem), Path(name).suffix
        named = any(short_name(one) == short_name(task.name) and rest in wanted for one, rest in divided(whole))
        if suffix in core.TABLE_FORMATS and (whole in wanted or named):
            found.setdefault(whole + suffix, []).append(file)
    if len(found) > 1:
        names = " and ".join(file.name for parts in found.values() for file in parts)
        raise core.InputError(
            f"{next(iter(files.values())).parent} has {names} for {task.name}'s {split} set: keep one"
        )
    return next(iter(found.values()), [])


def _mrpc(location: Path, files: Files, task: GlueTask, split: str) -> Rows:
    """Returns a split from Microsoft's files. The dev set is the training file's pairs in DEV_IDS (or dev.tsv)."""
    raw = MRPC_RAW["test" if split == "test" else "train"]
    if raw not in files:
        raise core.AbsentError(f"{location} has neither {split}.tsv of MRPC nor {raw}")
    found = _rows([files[raw]], task, split)
    if split == "test":
        return found
    if DEV_IDS in files:
        with files[DEV_IDS].open("rb") as file:
            pairs = {tuple(line.split()[:2]) for _, line in core.text_lines(file, str(files[DEV_IDS]))}
    elif split == "train" and (dev := _find(files, task, "dev")):
        pairs = {_pair(row) for row in _rows(dev, task, "dev").rows}
        found.where += f" without the pairs of {dev[0].name}"
    else:
        raise core.InputError(
            f"{location} has {raw}, but no list of its pairs that are in GLUE's dev set: add {DEV_IDS} (or dev.tsv)"
        )
    found.rows = (row for row in found.rows if (_pair(row) in pairs) == (split == "dev"))
    return found


def _pair(row: core.TableRow) -> tuple[str, ...]:
    return str(row[1].get("#1 ID")), str(row[1].get("#2 ID"))
