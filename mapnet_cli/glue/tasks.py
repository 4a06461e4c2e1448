"""The tasks, GLUE's and users' own: columns, labels, metrics, files, official row counts, and data locations."""

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import model_validator

from mapnet_cli.config import Config, TaskData, short_name
from mapnet_cli.core import TABLE_FORMATS, AbsentError, InputError, Registry, UsageError, did_you_mean, hub_hint, is_hub

_UNSET = TaskData()
FILES = {"train": ("train",), "dev": ("dev", "validation", "valid", "val"), "test": ("test",)}
"""Possible names of a split's file, without suffix."""
DEFAULT_METRICS = {"CoLA": "mcc"}
LARGEST_SCORE = 5.0  # maximum STS-B score; the minimum is 0
USUAL_TEXTS = (
    ("sentence1", "sentence2"), ("premise", "hypothesis"), ("text1", "text2"), ("text_a", "text_b"), ("sentence",),
    ("text",),
)  # fmt: skip
USUAL_LABELS = ("label", "labels", "gold_label", "target", "class")  # names of columns that any task's files may have


class OwnTask(TaskData):
    """A task of a plugin: what [finetune.task_data.NAME] sets, which overrides it, and a function that reads the rows.

    The function gets the task's file or folder ("" without a path in the config) and "train", "dev" or "test".
    """

    rows: Callable[[str | Path, str], Iterable[Mapping[str, Any]]]

    @model_validator(mode="after")
    def _check_complete(self) -> "OwnTask":
        if not (self.text and (self.labels or self.range)):
            raise ValueError("text, and labels or range, must be set")
        return self


OWN_TASKS = Registry("tasks", OwnTask, ("rows",), {})


@dataclass(frozen=True)
class Split:
    """One split of a task. `names` are possible file names without suffix, `hub` is its name on the Hub."""

    names: tuple[str, ...]
    rows: int  # official number of rows; 0 for a task that isn't GLUE's
    hub: str
    older: int = 0  # number of rows in an older official file, 0 if there is none


@dataclass(frozen=True)
class GlueTask:
    """One task and its splits: "train", and "dev" and "test" with a metric suffix ("-mm" for MNLI mismatched)."""

    name: str
    texts: tuple[str, ...]  # text columns of the official files
    label: str
    labels: tuple[str, ...]  # class names in the order of their ids, which is the Hub's order; empty for regression
    splits: dict[str, Split]
    hub: str
    hub_texts: tuple[str, ...]  # text columns on the Hub, where the label column is "label"
    hub_labels: tuple[str, ...] = ()  # class names on the Hub, if the official files have different ones
    columns: tuple[str, ...] = ()  # columns of official files without a header line
    skips_broken: bool = False
    """Whether lines with a wrong number of fields are skipped and counted, as is usual for QQP's files. Never in a
    test set."""
    data: TaskData = _UNSET  # the user's settings of location, columns and labels

    @property
    def regression(self) -> bool:
        return not self.labels

    @property
    def range(self) -> tuple[float, float]:
        """Returns the smallest and the largest score."""
        return self.data.range or (0.0, LARGEST_SCORE)

    @property
    def text_columns(self) -> list[tuple[str, ...]]:
        """Returns the possible names of the text columns, by preference."""
        if self.data.text:
            return [self.texts]
        return [self.texts, self.hub_texts, *(names for names in USUAL_TEXTS if len(names) == len(self.texts))]

    @property
    def label_columns(self) -> list[str]:
        """Returns the possible names of the label column, by preference."""
        if self.data.label:
            return [self.data.label]
        return [self.label, *USUAL_LABELS, *(["score"] if self.regression else [])]

    @property
    def class_ids(self) -> dict[str, int]:
        """Returns the id of each class by its names and its number in the data, in the form that `plain` returns.

        If task_data.labels are the task's own names, they only give the order of the numbers; else they replace them.
        """
        names = [plain(name) for name in self.data.labels or self.labels]
        ids = {plain(name): n for known in (self.labels, self.hub_labels) for n, name in enumerate(known)}
        ids |= {"false": 0, "true": 1} if self.labels == ("0", "1") else {}
        numbered = any(name.isdecimal() for name in names)
        if self.data.labels and (numbered or names[0] not in ids):
            ids = dict(zip(names, range(len(names)), strict=True))
        return ids if numbered else ids | {str(number): ids[name] for number, name in enumerate(names)}

    @property
    def metrics(self) -> tuple[str, ...]:
        """Returns the names of the metrics that fine-tuning records."""
        if self.regression:
            return "pearson", "spearman"
        if len(self.labels) == 2:
            return "accuracy", "f1", "mcc"
        return "accuracy", "macro_f1", "mcc"

    @property
    def metric(self) -> str:
        """Returns the metric that is the task's score, unless finetune.metrics sets another."""
        return self.data.metric or DEFAULT_METRICS.get(self.name, "pearson" if self.regression else "accuracy")

    def shown(self, value: float) -> str:
        """Returns a class's name for its id, or a score for a value scaled to the range from 0 to 1."""
        if not self.regression:
            return self.labels[int(value)]
        low, high = self.range
        return f"{min(max(low + (high - low) * value, low), high):.6f}"

    @property
    def dev(self) -> dict[str, str]:
        """Returns the dev splits by metric suffix."""
        return {split.removeprefix("dev"): split for split in self.splits if split.startswith("dev")}


def _task(name: str, row: dict[str, Any]) -> GlueTask:
    """Returns a task from its columns, labels, numbers of rows by split, and names on the Hub."""
    rows, splits = row.pop("rows"), dict[str, Split]()
    older, own = row.pop("older_rows", {}), row.pop("files", {})
    for split, count in rows.items():
        kind, end = split.removesuffix("-mm"), ""
        if "dev-mm" in rows and kind != "train":
            end = "_mismatched" if split.endswith("-mm") else "_matched"
        names = own.get(split) or [file + end for file in FILES[kind]]
        on_hub = ("validation" if kind == "dev" else kind) + end
        splits[split] = Split(tuple(names), count, on_hub, older.get(split, 0))
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
    return GlueTask(name, splits=splits, **values)


TASKS = {
    name: _task(name, row)
    for name, row in tomllib.loads((files(__package__) / "tasks.toml").read_text("utf-8")).items()
}


def plain(value: object) -> str:
    """Returns a class name in lower case with "_" for spaces and hyphens, and "1" for 1.0 and "1.0"."""
    text = re.sub(r"[\s_-]+", "_", str(value).strip().lower())
    return re.sub(r"^(\d+)\.0+$", r"\1", text)


def task_data(config: Config, name: str) -> TaskData:
    """Returns the settings of a task: those of finetune.task_data, over those of a plugin."""
    data = config.finetune.task_data.get(name, _UNSET)
    if name not in OWN_TASKS:
        return data
    return OWN_TASKS[name].model_copy(update={key: getattr(data, key) for key in data.model_fields_set})


def get_task(config: Config, name: str) -> GlueTask:
    """Returns a task of GLUE, or one of the user's own, with the columns and labels of finetune.task_data."""
    data = task_data(config, name)
    texts = (data.text,) if isinstance(data.text, str) else data.text
    if name not in TASKS:
        labels, rows = list(map(str, data.labels)), dict.fromkeys(FILES, 0)
        own = {"texts": texts, "label": data.label or "label", "labels": labels, "hub": "", "hub_texts": texts}
        return _task(name, {**own, "rows": rows, "data": data})
    return replace(TASKS[name], texts=texts if data.text else TASKS[name].texts, data=data)


def check_task_data(name: str, data: TaskData) -> None:
    """Raises UsageError if the settings in finetune.task_data don't fit a task or, for a new one, are incomplete."""
    key, labels = f"finetune.task_data.{name}", data.labels
    if name not in TASKS:
        if not data.text or not (labels or data.range) or not re.fullmatch(r"[\w-]+", name):
            own = "; a task of your own needs text, and labels or range, and a name of letters, digits, - and _"
            raise UsageError(f"{key}: there is no task {name!r}{did_you_mean(name, TASKS)}{own}")
    elif data.text and isinstance(data.text, str) != (len(TASKS[name].texts) == 1):
        raise UsageError(f"{key}.text: {name} has {len(TASKS[name].texts)} columns with text")
    elif (labels and len(labels) != len(TASKS[name].labels)) or (data.range and not TASKS[name].regression):
        expected = f"{len(TASKS[name].labels)} labels" if TASKS[name].labels else "a range"
        raise UsageError(f"{key}: {name} has {expected}, {', '.join(TASKS[name].labels) or 'from 0 to 5'}")
    if len(set(map(plain, labels))) < len(labels):
        raise UsageError(f"{key}.labels: two names are the same but for case, spaces and hyphens")
    known = [label for label in labels if plain(label) in TASKS[name].class_ids] if name in TASKS else []
    if 0 < len(known) < len(labels) and not str(known[0]).isdecimal():
        raise UsageError(f"{key}.labels: {name} has {', '.join(map(str, known))}, but not the others")


def task_location(config: Config, task: str) -> str | Path:
    """Returns the folder or zip file of a task, the Hub id from the config, or "" for a plugin without a path.

    In a folder of tasks, names match in any case, with or without "-" and the suffixes of GLUE's own zip files
    ("SST-2", "sst2", "QNLIv2.zip"). Raises AbsentError if the task isn't found.
    """
    key, data = data_key(config, task)
    if is_hub(data) or (task in OWN_TASKS and not data):
        return data
    root = Path(data)
    if not root.exists():
        raise AbsentError(
            f"{key}: {root} does not exist; set it to a folder with GLUE data{hub_hint(data)}; without any, set "
            'finetune.data = "probe", or finetune.tasks = [] for no fine-tuning'
        )
    if root.is_file():
        return root
    children = sorted(p for p in root.iterdir() if not p.name.startswith("."))
    found = [p for p in children if p.is_dir() and short_name(p.name) == short_name(task)]
    found = found or [p for p in children if p.suffix == ".zip" and short_name(p.stem) == short_name(task)]
    if len(found) > 1:
        raise InputError(f"{key}: {root} has {task} twice, {' and '.join(p.name for p in found)}: keep one of them")
    if found:
        return found[0]
    if key != "finetune.data" or any(names_task(p.name, task) for p in children):
        return root  # the task's own folder, or files with its name
    raise AbsentError(
        f"{key}: {root} has no folder or zip file for {task}; remove it from finetune.tasks, set its location with "
        f'finetune.task_data.{task}, or set finetune.data = "probe"'
    )


def data_key(config: Config, task: str) -> tuple[str, str]:
    """Returns the config key that sets a task's location, and its value, "" for a plugin without a path."""
    finetune = config.finetune
    if task in finetune.task_data and (path := finetune.task_data[task].path):
        return f"finetune.task_data.{task}", path
    return "finetune.data", "" if task in OWN_TASKS else finetune.data


def names_task(file: str, task: str) -> bool:
    """Returns whether a file in a folder shared by several tasks belongs to this one, as qqp.train.jsonl to QQP."""
    return Path(file).suffix in TABLE_FORMATS and short_name(task) in (short_name(name) for name, _ in divided(file))


def divided(file: str) -> list[tuple[str, str]]:
    """Returns every (task, rest) that a file's name may consist of: ("qqp", "train.jsonl"), ("qqp.train", "jsonl")."""
    return [(file[: mark.start()], file[mark.end() :]) for mark in re.finditer(r"[._]", file)]


def is_test_file(name: str) -> bool:
    """Returns whether a file contains a test set, on which no score depends."""
    return bool(re.search(r"(^|[._-])(test|diagnostic|AX)", name))
