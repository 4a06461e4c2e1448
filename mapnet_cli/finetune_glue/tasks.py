"""The GLUE tasks: their official files, columns, labels and row counts, and a strict reader.

A row that doesn't fit is an error with its file and line, never dropped; quotes are text.
"""

from dataclasses import dataclass, field
from pathlib import Path

from mapnet_cli.errors import InputError


@dataclass(frozen=True)
class GlueTask:
    """One training and its dev sets. `dev` maps a metric's suffix to a file ("-mm": MNLI's mismatched set)."""

    name: str
    texts: tuple[str, ...]
    label: str
    labels: tuple[str, ...]
    """The classes in order of their ids; empty for regression."""
    rows: dict[str, int]
    """Official row counts by file."""
    dev: dict[str, str] = field(default_factory=lambda: {"": "dev.tsv"})
    train: str = "train.tsv"
    columns: tuple[str, ...] = ()
    """Of a file without a header line."""
    skips_broken: bool = False
    """QQP's files hold lines with a wrong number of fields, which everybody leaves out; they are counted."""

    @property
    def regression(self) -> bool:
        return not self.labels


BINARY = ("0", "1")
ENTAILMENT = ("entailment", "not_entailment")
LARGEST_SCORE = 5.0
"""STS-B's scores go from 0 to this."""

TASKS = {
    task.name: task
    for task in (
        GlueTask(
            "CoLA", ("sentence",), "label", BINARY, {"train.tsv": 8551, "dev.tsv": 1043},
            columns=("source", "label", "star", "sentence"),
        ),
        GlueTask("SST-2", ("sentence",), "label", BINARY, {"train.tsv": 67349, "dev.tsv": 872}),
        GlueTask("MRPC", ("#1 String", "#2 String"), "Quality", BINARY, {"train.tsv": 3668, "dev.tsv": 408}),
        GlueTask("STS-B", ("sentence1", "sentence2"), "score", (), {"train.tsv": 5749, "dev.tsv": 1500}),
        GlueTask(
            "QQP", ("question1", "question2"), "is_duplicate", BINARY, {"train.tsv": 363846, "dev.tsv": 40430},
            skips_broken=True,
        ),
        GlueTask(
            "MNLI", ("sentence1", "sentence2"), "gold_label", ("contradiction", "entailment", "neutral"),
            {"train.tsv": 392702, "dev_matched.tsv": 9815, "dev_mismatched.tsv": 9832},
            dev={"": "dev_matched.tsv", "-mm": "dev_mismatched.tsv"},
        ),
        GlueTask("QNLI", ("question", "sentence"), "label", ENTAILMENT, {"train.tsv": 104743, "dev.tsv": 5463}),
        GlueTask("RTE", ("sentence1", "sentence2"), "label", ENTAILMENT, {"train.tsv": 2490, "dev.tsv": 277}),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Examples:
    """One file's rows: the texts of each row, and its label (class id, or score / 5)."""

    texts: list[tuple[str, ...]]
    labels: list[float]
    broken: int = 0


def read_examples(folder: Path, task: GlueTask, file: str) -> Examples:
    """Reads one TSV file of a task. Raises InputError naming file and line."""
    path = folder / file
    lines = _lines(path, task)
    if task.columns:
        header, first = list(task.columns), 1
    else:
        header, first = (lines[0].split("\t") if lines else []), 2
        lines = lines[1:]
    missing = [name for name in (*task.texts, task.label) if name not in header]
    if missing:
        raise InputError(
            f"{path}: {task.name} needs the columns {', '.join(missing)}, but line 1 has: "
            f"{', '.join(filter(None, header)) or 'nothing'} (is it another task's file?)"
        )
    examples = Examples([], [])
    broken = 0
    for number, line in enumerate(lines, first):
        fields = line.split("\t")
        if len(fields) != len(header):
            if task.skips_broken:
                broken += 1
                continue
            raise InputError(
                f"{path}:{number}: {len(fields)} fields where the {len(header)} of {task.name} are expected"
            )
        row = dict(zip(header, fields, strict=True))
        examples.texts.append(tuple(row[name] for name in task.texts))
        examples.labels.append(_label(task, row[task.label], f"{path}:{number}"))
    if not examples.texts:
        raise InputError(f"{path} has no rows")
    return Examples(examples.texts, examples.labels, broken)


def _lines(path: Path, task: GlueTask) -> list[str]:
    if not path.exists():
        raise InputError(
            f"{path} does not exist: finetune.data must be a folder in GLUE's layout with {task.name}/{path.name}, or "
            'take the task out of finetune.tasks, or set finetune.data = "probe"'
        )
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(f"{path}:{line}: not UTF-8 (byte 0x{data[error.start]:02x})") from None
    # only \n ends a row: str.splitlines would also cut at form feeds and Unicode separators inside a text
    lines = text.split("\n")
    if lines and not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def _label(task: GlueTask, text: str, where: str) -> float:
    if task.regression:
        try:
            score = float(text)
        except ValueError:
            score = -1.0
        if not 0 <= score <= LARGEST_SCORE:
            raise InputError(f"{where}: {task.name}'s score must be a number from 0 to {LARGEST_SCORE:g}, not {text!r}")
        return score / LARGEST_SCORE
    if text not in task.labels:
        raise InputError(f"{where}: {task.name}'s label must be one of {', '.join(task.labels)}, not {text!r}")
    return float(task.labels.index(text))
