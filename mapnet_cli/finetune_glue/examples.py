"""From rows to examples, strictly: a row that doesn't fit is an error that names its place, never dropped."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mapnet_cli.core import InputError
from mapnet_cli.finetune_glue.readers import LABEL_NAME, open_split
from mapnet_cli.glue import LARGEST_SCORE, TASKS, GlueTask


@dataclass(frozen=True)
class Examples:
    """One set's rows: the texts of each row, and its label (class id, or score / 5; 0 where none was asked for)."""

    texts: list[tuple[str, ...]]
    labels: list[float]
    where: str = ""
    broken: int = 0

    def __len__(self) -> int:
        return len(self.texts)

    def first(self, count: int) -> "Examples":
        return replace(self, texts=self.texts[:count], labels=self.labels[:count])


def read_examples(location: str | Path, task: GlueTask, split: str, labelled: bool = True) -> Examples:
    """Returns a set of a task. Raises InputError naming file and line; `labelled` is off for test sets."""
    found = open_split(location, task, split)
    texts, labels = [], []
    chosen = None if found.columns is None else _columns(task, found.columns, f"{found.where}:1", labelled)
    for where, row in found.rows:
        chosen = chosen or _columns(task, row, where, labelled)
        of_texts, of_label = chosen
        texts.append(tuple(_text(row, name, where) for name in of_texts))
        labels.append(_label(task, row, of_label, where) if labelled else 0.0)
    if not texts:
        raise InputError(f"{found.where} has no rows")
    return Examples(texts, labels, found.where, found.broken)


def check_count(task: GlueTask, split: str, examples: Examples, subset: bool) -> bool:
    """Returns whether a set has the official number of rows; raises InputError if it must and doesn't.

    A subset may have any number but that of another set of the task: those files are swapped.
    """
    official, rows = task.splits[split], len(examples)
    if rows in (official.rows, official.older or official.rows):
        return True
    own = [name for name, other in task.splits.items() if other.rows == rows and not name.startswith("test")]
    if subset and not own:
        return False
    others = [f"{t.name}'s {name}" for t in TASKS.values() for name, s in t.splits.items() if s.rows == rows]
    guess = "it has more" if rows > official.rows else "is the file cut short?"
    if others:
        guess = f"that is the number of {' or '.join(others)} set: are files swapped?"
    allow = f'if it is meant to be so, add "{task.name}" to finetune.subsets, and every table will say so'
    raise InputError(
        f"{examples.where}: {rows:,} rows where GLUE's {task.name} has {official.rows:,} in its {split} set ({guess})"
        + ("" if subset else f"; {allow}")
    )


def _columns(task: GlueTask, row: Collection[str], where: str, labelled: bool) -> tuple[tuple[str, ...], str]:
    """Returns the names of texts and label among the columns: the official files', or the hub's."""
    choices: Sequence[tuple[tuple[str, ...], str]] = ((task.texts, task.label), (task.hub_texts, "label"))
    for texts, label in [*choices, (task.texts, "label"), (task.hub_texts, task.label)]:
        if all(name in row for name in texts) and (not labelled or label in row):
            return texts, label
    wanted = [*task.texts, task.label] if labelled else list(task.texts)
    others = [t for t in TASKS.values() if t is not task and all(name in row for name in (*t.texts, t.label))]
    longest = max((len(t.texts) for t in others), default=0)
    names = " or ".join(t.name for t in others if len(t.texts) == longest)
    whose = f"those of {names}" if others else "is it another task's file"
    raise InputError(
        f"{where}: {task.name} needs the columns {', '.join(wanted)}, but there are: "
        f"{', '.join(filter(None, row)) or 'none'} ({whose}?)"
    )


def _text(row: Mapping[str, Any], name: str, where: str) -> str:
    if not isinstance(value := row.get(name), str):
        raise InputError(f"{where}: {name!r} must be a text, not {value!r}")
    return value


def _label(task: GlueTask, row: Mapping[str, Any], name: str, where: str) -> float:
    """Returns a class id or score / 5. Classes are names, the official files' or the hub's, or the hub's numbers."""
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
