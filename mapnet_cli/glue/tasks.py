"""The GLUE tasks: their columns, labels, files and official row counts, and where their data is."""

import re
from dataclasses import dataclass
from pathlib import Path

from mapnet_cli.config import Config
from mapnet_cli.core import AbsentError, InputError, is_hub


@dataclass(frozen=True)
class Split:
    """One of a task's sets. `names` are the names that its file goes by, without suffix; `hub` is the hub's."""

    names: tuple[str, ...]
    rows: int
    """The official number."""
    hub: str
    older: int = 0
    """The number in an older official file."""


TRAIN, DEV, TEST = ("train",), ("dev", "validation", "valid", "val"), ("test",)


@dataclass(frozen=True)
class GlueTask:
    """One training and its sets: "train", and "dev" and "test" with a metric's suffix ("-mm": MNLI's mismatched)."""

    name: str
    texts: tuple[str, ...]
    """Columns of the official files."""
    label: str
    labels: tuple[str, ...]
    """The classes in order of their ids, which is the hub's order; empty for regression."""
    splits: dict[str, Split]
    hub: str
    """The hub's name of it."""
    hub_texts: tuple[str, ...]
    """The columns where they are named as on the hub; the label is "label" there."""
    hub_labels: tuple[str, ...] = ()
    """The classes' names on the hub, where the official files have other ones."""
    columns: tuple[str, ...] = ()
    """Of a file without a header line."""
    skips_broken: bool = False
    """QQP's files hold lines with a wrong number of fields, which everybody leaves out; they are counted."""

    @property
    def regression(self) -> bool:
        return not self.labels

    @property
    def dev(self) -> dict[str, str]:
        """Returns the dev splits by their metrics' suffix."""
        return {split.removeprefix("dev"): split for split in self.splits if split.startswith("dev")}


BINARY = ("0", "1")
ENTAILMENT = ("entailment", "not_entailment")
MNLI_LABELS = ("entailment", "neutral", "contradiction")
LARGEST_SCORE = 5.0
"""STS-B's scores go from 0 to this."""
PAIR = ("sentence1", "sentence2")


def _splits(train: int, dev: int, test: int, older_train: int = 0) -> dict[str, Split]:
    return {
        "train": Split(TRAIN, train, "train", older_train),
        "dev": Split(DEV, dev, "validation"),
        "test": Split(TEST, test, "test"),
    }


_MATCHED, _MISMATCHED = (
    tuple(f"{name}_{kind}" for name in (*DEV, *TEST)) for kind in ("matched", "mismatched")
)  # fmt: skip

TASKS = {
    task.name: task
    for task in (
        GlueTask(
            "CoLA", ("sentence",), "label", BINARY, _splits(8551, 1043, 1063), "cola", ("sentence",),
            hub_labels=("unacceptable", "acceptable"), columns=("source", "label", "star", "sentence"),
        ),
        GlueTask(
            "SST-2", ("sentence",), "label", BINARY, _splits(67349, 872, 1821), "sst2", ("sentence",),
            hub_labels=("negative", "positive"),
        ),
        GlueTask(
            "MRPC", ("#1 String", "#2 String"), "Quality", BINARY, _splits(3668, 408, 1725), "mrpc", PAIR,
            hub_labels=("not_equivalent", "equivalent"),
        ),
        GlueTask("STS-B", PAIR, "score", (), _splits(5749, 1500, 1379), "stsb", PAIR),
        GlueTask(
            "QQP", ("question1", "question2"), "is_duplicate", BINARY, _splits(363846, 40430, 390965, 363849), "qqp",
            ("question1", "question2"), hub_labels=("not_duplicate", "duplicate"), skips_broken=True,
        ),
        GlueTask(
            "MNLI", PAIR, "gold_label", MNLI_LABELS,
            {
                "train": Split(TRAIN, 392702, "train"),
                "dev": Split(_MATCHED[:-1], 9815, "validation_matched"),
                "dev-mm": Split(_MISMATCHED[:-1], 9832, "validation_mismatched"),
                "test": Split(_MATCHED[-1:], 9796, "test_matched"),
                "test-mm": Split(_MISMATCHED[-1:], 9847, "test_mismatched"),
            },
            "mnli", ("premise", "hypothesis"),
        ),
        GlueTask(
            "QNLI", ("question", "sentence"), "label", ENTAILMENT, _splits(104743, 5463, 5463), "qnli",
            ("question", "sentence"),
        ),
        GlueTask("RTE", PAIR, "label", ENTAILMENT, _splits(2490, 277, 3000), "rte", PAIR),
        GlueTask(
            "WNLI", PAIR, "label", BINARY, _splits(635, 71, 146), "wnli", PAIR,
            hub_labels=("not_entailment", "entailment"),
        ),
        GlueTask(
            "AX", PAIR, "label", MNLI_LABELS, {"test": Split(("AX", "diagnostic", "test"), 1104, "test")}, "ax",
            ("premise", "hypothesis"),
        ),
    )
}  # fmt: skip


def task_location(config: Config, task: str) -> str | Path:
    """Returns the folder or zip file that holds a task, or the hub's id as it stands in the config.

    In a folder of tasks a task is found by its name in any case, with or without "-" and the suffixes
    of GLUE's own zip files ("SST-2", "sst2", "QNLIv2.zip"). Raises AbsentError where it isn't there.
    """
    key, data = data_key(config, task)
    if is_hub(data):
        return data
    root = Path(data)
    if not root.exists():
        raise AbsentError(f"{key}: {root} does not exist; name the folder with GLUE's tasks")
    if root.is_file():
        return root
    children = sorted(p for p in root.iterdir() if not p.name.startswith("."))
    found = [p for p in children if p.is_dir() and short_name(p.name) == short_name(task)]
    found = found or [p for p in children if p.suffix == ".zip" and short_name(p.stem) == short_name(task)]
    if len(found) > 1:
        raise InputError(f"{key}: {root} has {task} twice, {' and '.join(p.name for p in found)}: which one?")
    if found:
        return found[0]
    if task in config.finetune.task_data or any(names_task(p.name, task) for p in children):
        return root  # the task's own folder, or files that carry its name
    raise AbsentError(
        f"{key}: {root} has no {task}, neither a folder nor a zip file; take it out of finetune.tasks, name its place "
        f'with finetune.task_data.{task}, or set finetune.data = "probe"'
    )


def data_key(config: Config, task: str) -> tuple[str, str]:
    """Returns the config key that says where a task is, and its value."""
    finetune = config.finetune
    if task in finetune.task_data:
        return f"finetune.task_data.{task}", finetune.task_data[task]
    return "finetune.data", finetune.data


def short_name(name: str) -> str:
    """Returns what all spellings of a task's name have in common."""
    short = re.sub(r"(v2|clean)$", "", name.lower().replace("-", "").replace("_", ""))
    return "ax" if short == "diagnostic" else short


def names_task(file: str, task: str) -> bool:
    """Returns whether a file among those of other tasks carries this one's name, as qqp.train.jsonl does."""
    first = re.split(r"[._]", file, maxsplit=1)[0]
    return Path(file).suffix in (".tsv", ".jsonl", ".parquet") and short_name(first) == short_name(task)


def is_test_file(name: str) -> bool:
    """Returns whether a file holds a test set, which no score depends on."""
    return bool(re.search(r"(^|[._-])(test|diagnostic|AX)", name))
