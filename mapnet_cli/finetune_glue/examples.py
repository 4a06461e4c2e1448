"""Strict conversion of rows to examples: an invalid row raises an error with its location and is never dropped."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mapnet_cli.core import AbsentError, InputError
from mapnet_cli.finetune_glue.readers import open_split
from mapnet_cli.glue import TASKS, GlueTask, plain

ID_COLUMNS = ("index", "idx", "id")


@dataclass(frozen=True)
class Examples:
    """The texts of one split and their labels: class ids, scores scaled to 0 to 1, or 0 if read without labels."""

    texts: list[tuple[str, ...]]
    labels: list[float]
    where: str = ""
    ids: list[str] = field(default_factory=list)
    """The ids of the rows in the data, or their positions, from 0, if it has no unique ids; none for a training set."""
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)

    def first(self, count: int) -> "Examples":
        return replace(self, texts=self.texts[:count], labels=self.labels[:count], ids=self.ids[:count])


def read_examples(location: str | Path, task: GlueTask, split: str, labelled: bool = True) -> Examples:
    """Returns one split of a task. Raises InputError with file and line. `labelled` is False for test sets."""
    found, class_ids = open_split(location, task, split), task.class_ids
    texts, labels, ids, notes, empty = [], [], dict[str, str](), list[str](), 0
    columns: tuple[tuple[str, ...], str, str] | None = None
    for where, row in found.rows:
        if columns is None:
            columns = _columns(task, row, found.where, labelled)
            notes += _numbering(task, class_ids, row.get(columns[1])) if labelled else []
        text_columns, label_column, id_column = columns
        texts.append(tuple(_text(row, name, where) for name in text_columns))
        empty += not all(text.strip() for text in texts[-1])
        labels.append(_label(task, class_ids, row.get(label_column), where) if labelled else 0.0)
        if split != "train":
            name = str(row.get(id_column) if id_column else len(texts) - 1)
            if not labelled and task.name in TASKS and not name.isdecimal():
                raise InputError(f"{where}: {id_column!r} must be a whole number, not {name!r}")
            if (first := ids.setdefault(name, where)) is not where and not labelled:
                raise InputError(f"{where}: {id_column!r} is {name}, as in {first}; the ids of a test set must differ")
    if not texts:
        raise InputError(f"{found.where} has no rows")
    if task.regression and labelled and task.data.range is None and max(labels) * task.range[1] <= 1:
        raise InputError(
            f"{found.where}: no score is above 1, but {task.name}'s range is 0 to 5; if these are on a scale from 0 to "
            f"1, set finetune.task_data.{task.name}.range = [0, 1], else [0, 5]"
        )
    if found.skipped:
        notes.append(
            f"{len(found.skipped)} malformed lines skipped, the first is {found.skipped[0].rpartition(':')[2]}"
        )
    notes += [f"{empty} rows with an empty text"] if empty else []
    unique = list(ids) if split == "train" or len(ids) == len(texts) else list(map(str, range(len(texts))))
    return Examples(texts, labels, found.where, unique, tuple(notes))


def training_and_dev_sets(location: str | Path, task: GlueTask, subset: bool) -> Iterator[tuple[str, Examples]]:
    """Yields the training and dev sets by split; a subset may lack dev sets but the first. Raises InputError."""
    for split in ("train", *task.dev.values()):
        try:
            yield split, read_examples(location, task, split)
        except AbsentError as error:
            if split in ("train", "dev"):
                raise
            if not subset:
                allow = f'if there is none, add "{task.name}" to finetune.subsets; its column is then left out'
                raise AbsentError(f"{error}; {allow}") from None


def checked_sets(location: str | Path, task: GlueTask, subset: bool) -> Iterator[tuple[str, Examples]]:
    """Yields `training_and_dev_sets` whose numbers of rows are right. Raises InputError for others."""
    for split, examples in training_and_dev_sets(location, task, subset):
        check_count(task, split, examples, subset)
        yield split, examples


def check_count(task: GlueTask, split: str, examples: Examples, subset: bool) -> bool:
    """Returns whether a split has the official number of rows. Raises InputError if it must and doesn't.

    A subset may have any number of rows except that of another split of the task, which means swapped files. Any
    number is right for a task that isn't GLUE's.
    """
    official, rows = task.splits[split], len(examples)
    if rows in (official.rows or rows, official.older or official.rows):
        return True
    same_task = [name for name, other in task.splits.items() if other.rows == rows and not name.startswith("test")]
    if subset and not same_task:
        return False
    others = [f"{t.name}'s {name}" for t in TASKS.values() for name, s in t.splits.items() if s.rows == rows]
    guess = "too many" if rows > official.rows else "is the file truncated?"
    if others:
        guess = f"this is the size of {' or '.join(others)} set: are files swapped?"
    allow = f'if this is intended, add "{task.name}" to finetune.subsets; every table will then mention it'
    raise InputError(
        f"{examples.where}: {rows:,} rows, but GLUE's {task.name} has {official.rows:,} in its {split} set ({guess})"
        + ("" if subset else f"; {allow}")
    )


def _columns(task: GlueTask, row: Mapping[str, Any], where: str, labelled: bool) -> tuple[tuple[str, ...], str, str]:
    """Returns the names of the text columns, the label column and the column of ids ("" if there is none)."""
    names = {str(name).strip().lower(): name for name in row} | {name: name for name in row}

    def known(wanted: Iterable[str]) -> list[str]:
        return [names[name] if name in names else names[name.lower()] for name in wanted if name.lower() in names]

    texts = next((found for wanted in task.text_columns if len(found := known(wanted)) == len(wanted)), [])
    labels = known(task.label_columns)
    if texts and (labels or not labelled):
        return tuple(texts), labels[0] if labels else "", next(iter(known(ID_COLUMNS)), "")
    others = [t for t in TASKS.values() if t.name != task.name and all(name in row for name in (*t.texts, t.label))]
    longest = max((len(t.texts) for t in others), default=0)
    likely = " or ".join(t.name for t in others if len(t.texts) == longest)
    hint = f"is this a file of {likely}?" if others else "is this another task's file?"
    if len(row) == 1 and any(mark in next(iter(names)) for mark in "\t;,|"):
        hint = "columns must be separated by tabs in .tsv, by commas in .csv."
    wanted = [*task.texts, *([task.label_columns[0]] if labelled else [])]
    raise InputError(
        f"{where}: {task.name} needs the columns {', '.join(wanted)}, but found: "
        f"{', '.join(map(str, filter(None, row))) or 'none'} ({hint} Otherwise name its columns in "
        f"finetune.task_data.{task.name}.text and .label)"
    )


def _text(row: Mapping[str, Any], name: str, where: str) -> str:
    if not isinstance(value := row.get(name), str):
        raise InputError(f"{where}: {name!r} must be a string, not {value!r}")
    return value


def _label(task: GlueTask, class_ids: Mapping[str, int], value: Any, where: str) -> float:
    """Returns a class id, or a score scaled to the range from 0 to 1."""
    if task.regression:
        low, high = task.range
        try:
            score = float("nan" if isinstance(value, bool) else value)
        except (TypeError, ValueError):
            score = float("nan")
        if not low <= score <= high:
            wanted = f"a number from {low:g} to {high:g}"
            raise InputError(f"{where}: {task.name}'s score must be {wanted}, not {value!r}")
        return (score - low) / (high - low)
    class_id = class_ids.get(plain(value)) if isinstance(value, str | int | float) else None
    if class_id is None:
        wanted = f"one of {', '.join(class_ids)} (finetune.task_data.{task.name}.labels sets others)"
        raise InputError(f"{where}: {task.name}'s label must be {wanted}, not {value!r}")
    return float(class_id)


def _numbering(task: GlueTask, class_ids: Mapping[str, int], label: Any) -> list[str]:
    """Returns a note on the order of classes that the data only numbers, unless the config sets it."""
    if task.regression or task.data.labels or task.labels[0].isdecimal() or not plain(label).isdecimal():
        return []
    order = ", ".join(f"{number} = {task.labels[class_ids[str(number)]]}" for number in range(len(task.labels)))
    return [f"classes are numbered, read as {order} (finetune.task_data.{task.name}.labels sets another order)"]
