"""The GLUE tasks: columns, labels, files, official row counts, and data locations."""

import re
from dataclasses import dataclass
from pathlib import Path

from mapnet_cli.config import Config
from mapnet_cli.core import AbsentError, InputError, is_hub


@dataclass(frozen=True)
class Split:
    """One split of a task. `names` are possible file names without suffix, `hub` is its name on the Hub."""

    names: tuple[str, ...]
    rows: int
    """Official number of rows."""
    hub: str
    older: int = 0
    """Number of rows in an older official file, 0 if there is none."""


TRAIN, DEV, TEST = ("train",), ("dev", "validation", "valid", "val"), ("test",)


@dataclass(frozen=True)
class GlueTask:
    """One task and its splits: "train", and "dev" and "test" with a metric suffix ("-mm" for MNLI mismatched)."""

    name: str
    texts: tuple[str, ...]
    """Text columns of the official files."""
    label: str
    labels: tuple[str, ...]
    """Class names in the order of their ids, which is the Hub's order; empty for regression."""
    splits: dict[str, Split]
    hub: str
    """Name on the Hub."""
    hub_texts: tuple[str, ...]
    """Text columns on the Hub, where the label column is "label"."""
    hub_labels: tuple[str, ...] = ()
    """Class names on the Hub, if the official files have different ones."""
    columns: tuple[str, ...] = ()
    """Columns of official files without a header line."""
    skips_broken: bool = False
    """Whether lines with a wrong number of fields are skipped and counted, as is usual for QQP's files."""

    @property
    def regression(self) -> bool:
        return not self.labels

    @property
    def dev(self) -> dict[str, str]:
        """Returns the dev splits by metric suffix."""
        return {split.removeprefix("dev"): split for split in self.splits if split.startswith("dev")}


BINARY = ("0", "1")
ENTAILMENT = ("entailment", "not_entailment")
MNLI_LABELS = ("entailment", "neutral", "contradiction")
LARGEST_SCORE = 5.0
"""Maximum STS-B score; the minimum is 0."""
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
    """Returns the folder or zip file of a task, or the Hub id from the config.

    In a folder of tasks, names match in any case, with or without "-" and the suffixes of GLUE's own zip files
    ("SST-2", "sst2", "QNLIv2.zip"). Raises AbsentError if the task isn't found.
    """
    key, data = data_key(config, task)
    if is_hub(data):
        return data
    root = Path(data)
    if not root.exists():
        raise AbsentError(f"{key}: {root} does not exist; set it to a folder with GLUE data")
    if root.is_file():
        return root
    children = sorted(p for p in root.iterdir() if not p.name.startswith("."))
    found = [p for p in children if p.is_dir() and short_name(p.name) == short_name(task)]
    found = found or [p for p in children if p.suffix == ".zip" and short_name(p.stem) == short_name(task)]
    if len(found) > 1:
        raise InputError(f"{key}: {root} has {task} twice, {' and '.join(p.name for p in found)}: keep one of them")
    if found:
        return found[0]
    if task in config.finetune.task_data or any(names_task(p.name, task) for p in children):
        return root  # the task's own folder, or files with its name
    raise AbsentError(
        f"{key}: {root} has no folder or zip file for {task}; remove it from finetune.tasks, set its location with "
        f'finetune.task_data.{task}, or set finetune.data = "probe"'
    )


def data_key(config: Config, task: str) -> tuple[str, str]:
    """Returns the config key that sets a task's location, and its value."""
    finetune = config.finetune
    if task in finetune.task_data:
        return f"finetune.task_data.{task}", finetune.task_data[task]
    return "finetune.data", finetune.data


def short_name(name: str) -> str:
    """Returns the normalised form of a task's name, the same for all spellings."""
    short = re.sub(r"(v2|clean)$", "", name.lower().replace("-", "").replace("_", ""))
    return "ax" if short == "diagnostic" else short


def names_task(file: str, task: str) -> bool:
    """Returns whether a file in a folder shared by several tasks belongs to this one, as qqp.train.jsonl to QQP."""
    first = re.split(r"[._]", file, maxsplit=1)[0]
    return Path(file).suffix in (".tsv", ".jsonl", ".parquet") and short_name(first) == short_name(task)


def is_test_file(name: str) -> bool:
    """Returns whether a file contains a test set, on which no score depends."""
    return bool(re.search(r"(^|[._-])(test|diagnostic|AX)", name))
