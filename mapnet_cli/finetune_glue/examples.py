"""Strict conversion of rows to examples: an invalid row raises an error with its location and is never dropped."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mapnet_cli.core import AbsentError, InputError
from mapnet_cli.finetune_glue.readers import LABEL_NAME, open_split
from mapnet_cli.glue import LARGEST_SCORE, TASKS, GlueTask


@dataclass(frozen=True)
class Examples:
    """The texts and labels of one split. A label is a class id or score / 5, or 0 for splits read without labels."""

    texts: list[tuple[str, ...]]
    labels: list[float]
    where: str = ""
    broken: int = 0

    def __len__(self) -> int:
        return len(self.texts)

    def first(self, count: int) -> "Examples":
        return replace(self, texts=self.texts[:count], labels=self.labels[:count])


def read_examples(location: str | Path, task: GlueTask, split: str, labelled: bool = True) -> Examples:
    """Returns one split of a task. Raises InputError with file and line. `labelled` is False for test sets."""
    found = open_split(location, task, split)
    texts, labels = [], []
    chosen = None if found.columns is None else _columns(task, found.columns, f"{found.where}:1", labelled)
    for where, row in found.rows:
        chosen = chosen or _columns(task, row, where, labelled)
        text_columns, label_column = chosen
        texts.append(tuple(_text(row, name, where) for name in text_columns))
        labels.append(_label(task, row, label_column, where) if labelled else 0.0)
    if not texts:
        raise InputError(f"{found.where} has no rows")
    return Examples(texts, labels, found.where, found.broken)


def training_and_dev_sets(location: str | Path, task: GlueTask, subset: bool) -> Iterator[tuple[str, Examples]]:
    """Yields the training set and the dev sets by the name of their split. Raises InputError like `read_examples`.

    A subset may lack dev sets other than the first, which is MNLI's matched one.
    """
    for split in ("train", *task.dev.values()):
        try:
            yield split, read_examples(location, task, split)
        except AbsentError as error:
            if split in ("train", "dev"):
                raise
            if not subset:
                allow = f'if there is none, add "{task.name}" to finetune.subsets; its column is then left out'
                raise AbsentError(f"{error}; {allow}") from None


def check_count(task: GlueTask, split: str, examples: Examples, subset: bool) -> bool:
    """Returns whether a split has the official number of rows. Raises InputError if it must and doesn't.

    A subset may have any number of rows except that of another split of the task, which means swapped files.
    """
    official, rows = task.splits[split], len(examples)
    if rows in (official.rows, official.older or official.rows):
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


def _columns(task: GlueTask, row: Collection[str], where: str, labelled: bool) -> tuple[tuple[str, ...], str]:
    """Returns the names of the text and label columns, as in the official files or on the Hub."""
    choices: Sequence[tuple[tuple[str, ...], str]] = ((task.texts, task.label), (task.hub_texts, "label"))
    for texts, label in [*choices, (task.texts, "label"), (task.hub_texts, task.label)]:
        if all(name in row for name in texts) and (not labelled or label in row):
            return texts, label
    wanted = [*task.texts, task.label] if labelled else list(task.texts)
    others = [t for t in TASKS.values() if t is not task and all(name in row for name in (*t.texts, t.label))]
    longest = max((len(t.texts) for t in others), default=0)
    names = " or ".join(t.name for t in others if len(t.texts) == longest)
    hint = f"is this a file of {names}?" if others else "is this another task's file?"
    raise InputError(
        f"{where}: {task.name} needs the columns {', '.join(wanted)}, but found: "
        f"{', '.join(filter(None, row)) or 'none'} ({hint})"
    )


def _text(row: Mapping[str, Any], name: str, where: str) -> str:
    if not isinstance(value := row.get(name), str):
        raise InputError(f"{where}: {name!r} must be a string, not {value!r}")
    return value


def _label(task: GlueTask, row: Mapping[str, Any], name: str, where: str) -> float:
    """Returns a class id or score / 5. Accepts official class names, the Hub's class names, and the Hub's class ids."""
    value = row.get(LABEL_NAME, row.get(name))
    if task.regression:
        try:
            score = float(value)
        except (TypeError, ValueError):
            score = -1.0
        if not 0 <= score <= LARGEST_SCORE:
            wanted = f"a number from 0 to {LARGEST_SCORE:g}"
            raise InputError(f"{where}: {task.name}'s score must be {wanted}, not {value!r}")
        return score / LARGEST_SCORE
    for names in (task.labels, task.hub_labels):
        if value in names:
            return float(names.index(value))
    if type(value) is int and 0 <= value < len(task.labels):
        return float(value)
    raise InputError(
        f"{where}: {task.name}'s label must be one of {', '.join(task.labels + task.hub_labels)}, not {value!r}"
    )
