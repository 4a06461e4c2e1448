"""What lies in a user's folder: sources of text, GLUE tasks and minimal pairs, for `mapnet init`."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from mapnet_cli.config import Config
from mapnet_cli.core import MARKS, MapnetError, UsageError, arrow_batches, read_json, table_rows
from mapnet_cli.finetune_glue.readers import open_split
from mapnet_cli.glue import TASKS, names_task, task_location
from mapnet_cli.prepare_corpus.sources.documents import KINDS, TABS
from mapnet_cli.prepare_corpus.sources.reading import head, suffix_of

TEXT = (".txt", ".text", ".md", ".rst", "")
ROWS = ("jsonl", "csv", "parquet", "arrow")
NO_TEXT = ("readme", "license", "licence", "copying", "changelog")
USUAL = ("text", "content", "body", "article", "document", "sentence")
"""Usual names of the column with the text; else, the column with the longest value in the first row is taken."""
PAIRS = re.compile(r"(blimp|zorro)([._-].*)?", re.IGNORECASE)
MOST_SOURCES = 30
WRAPPED = 100  # maximum length of a line in hard-wrapped text, in characters


@dataclass(frozen=True)
class FoundSource:
    """Files of one kind; `path` is the folder that has no others, or the only file."""

    kind: str
    path: Path
    files: tuple[Path, ...]


@dataclass
class Found:
    config: Config
    file: Path  # the config file that is to be written; a folder that it will be in can't be a source as a whole
    sources: list[tuple[FoundSource, dict[str, str]]] = field(default_factory=list)
    """With the keys that their files need besides kind and path."""
    glue: Path | None = None
    tasks: list[str] = field(default_factory=list)
    subsets: list[str] = field(default_factory=list)  # tasks whose numbers of rows aren't GLUE's
    pairs: list[Path] = field(default_factory=list)
    unused: list[Path] = field(default_factory=list)
    special: set[Path] = field(default_factory=set)
    """Tasks and pairs; a folder that has some, at any depth, can't be a source as a whole."""

    def look_into(self, root: Path) -> None:
        """Adds what is in a folder. Raises UsageError if its files are mixed with too many others."""
        parts, self.unused = self._sources(root)
        if len(parts) > MOST_SOURCES:
            mixed = f"{root} has {len(parts):,} files beside those of other kinds, or beside the config"
            raise UsageError(f"{mixed}: move each kind into a folder of its own")
        for part in parts:
            settings = _settings(part)
            if settings is None:
                self.unused += part.files
            else:
                self.sources.append((part, settings))

    def _sources(self, folder: Path) -> tuple[list[FoundSource], list[Path]]:
        """Returns the sources at and below a folder, and the files that are none; adds tasks and pairs."""
        children = sorted(path for path in folder.iterdir() if path.name[0] != ".")
        if not MARKS.isdisjoint(path.name for path in children):
            return [], []
        if any((folder / name).exists() for name in ("dataset_dict.json", "state.json")):
            return [FoundSource("dataset", folder, tuple(sorted(folder.rglob("*.arrow"))))], []
        pairs = [path for path in children if PAIRS.fullmatch(path.name)]
        self.pairs += pairs
        self.special |= {*pairs, *self._tasks(folder, children)}
        parts, left = list[FoundSource](), list[Path]()
        for path in children:
            if path in self.special:
                continue
            if path.is_dir():
                inner, rest = self._sources(path)
                parts, left = parts + inner, left + rest
            elif kind := _kind(path):
                parts.append(FoundSource(kind, path, (path,)))
            else:
                left.append(path)
        merged, kinds = list[FoundSource](), dict.fromkeys(part.kind for part in parts)
        has_special = any(path.is_relative_to(folder) for path in self.special)
        has_config = self.file.absolute().parent.resolve().is_relative_to(folder.resolve())
        for kind in kinds:
            mine, suffixes = [part for part in parts if part.kind == kind], KINDS[kind].suffixes
            files = tuple(file for part in mine for file in part.files)
            # a source whose files have a suffix may have other files beside them
            apart = len(mine) > 1 and suffixes and not any(suffix_of(path) in suffixes for path in left)
            alone = len(kinds) == 1 and not left and not has_config
            whole = (apart or alone) and not has_special and "dataset" not in kinds and len(files) > 1
            merged += [FoundSource(kind, folder, files)] if whole else mine
        return merged, left

    def _tasks(self, folder: Path, children: Iterable[Path]) -> set[Path]:
        """Adds the GLUE tasks of a folder, and returns their folders and files."""
        places = set[Path]()
        finetune = self.config.finetune.model_copy(update={"data": str(folder)})
        config = self.config.model_copy(update={"finetune": finetune})
        for name, task in TASKS.items():
            try:
                place = Path(task_location(config, name))
                if place in children:
                    places.add(place)
                else:
                    places.update(path for path in children if names_task(path.name, name))
                official = all(
                    sum(1 for _ in open_split(place, task, split).rows) in {facts.rows, facts.older} - {0}
                    for split, facts in task.splits.items()
                    if not split.startswith("test")
                )
            except MapnetError:  # no such task, or no training set
                continue
            if name not in ("WNLI", "AX") and self.glue in (None, folder):  # as in the paper
                self.glue = folder
                self.tasks.append(name)
                self.subsets += [] if official else [name]
        return places


def _kind(path: Path) -> str:
    """Returns the kind of a file of text, "" for any other file."""
    suffix = suffix_of(path)
    if path.stem.lower() in NO_TEXT or path.stat().st_size == 0:
        return ""
    if kind := next((kind for kind in ROWS if suffix in KINDS[kind].suffixes), ""):
        return kind
    start = head(path, "")[1] if suffix in (*TEXT, ".xml") else ""
    if suffix == ".xml":
        return "mediawiki" if "<mediawiki" in start[:2000] else ""
    extracted = start.startswith("<doc ") or re.match(r'\s*\{\s*"id": .*"title": ', start)
    text = start.strip() and (suffix or "\ufffd" not in start)
    return "wikiextractor" if extracted else "text" if text else ""


def _settings(source: FoundSource) -> dict[str, str] | None:
    """Returns the keys that a source needs besides kind and path, None if it has no text."""
    if source.kind == "text":
        starts = [head(file, "")[1].splitlines()[:-1] for file in source.files[:20]]
        after = [b.strip() != "" for lines in starts for a, b in pairwise(lines) if a.strip()]
        wrapped = sum(after) > 0.5 * len(after) and all(len(line) <= WRAPPED for lines in starts for line in lines)
        return {"paragraphs": "blank-lines"} if wrapped and after else {}
    if source.kind not in (*ROWS, "dataset"):
        return {}
    settings, saved = {}, source.path / "dataset_dict.json"
    if saved.is_file() and "train" not in (splits := read_json(saved).get("splits") or ["train"]):
        settings["split"] = splits[0]
    try:
        texts = {name: value for name, value in _first_row(source).items() if isinstance(value, str)}
    except (MapnetError, ValueError, OSError, StopIteration):  # pyarrow's errors are ValueErrors
        return None
    if not texts:
        return None
    column = next((name for name in USUAL if name in texts), max(texts, key=lambda name: len(texts[name])))
    return settings if column == "text" else settings | {"column": column}


def _first_row(source: FoundSource) -> dict[str, Any]:
    path, suffix = source.files[0], suffix_of(source.files[0])
    if not path.name.lower().endswith(suffix):  # compressed: taken to have the usual column
        return {"text": ""}
    if source.kind in ("arrow", "dataset"):
        return next(row for batch in islice(arrow_batches(path), 1, None) for row in batch.slice(0, 1).to_pylist())
    suffix = ".tsv" if suffix in TABS else suffix.replace(".ndjson", ".jsonl")
    with path.open("rb") as file:
        return next(table_rows(file, str(path), suffix))[1]
