"""GLUE's tasks and metrics by name, and where a task's data lies: what lineage, fine-tuning and report share."""

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mapnet_cli.config import Config
from mapnet_cli.errors import InputError, UsageError
from mapnet_cli.hub import is_hub

TASKS = ("CoLA", "SST-2", "MRPC", "STS-B", "QQP", "MNLI", "QNLI", "RTE")
TEST_ONLY = ("WNLI", "AX")
"""Sets that are predicted for GLUE's server but not trained on."""
GLUE_COLUMNS = 9
METRICS = {"STS-B": ("pearson", "spearman"), "MNLI": ("accuracy",)}
"""What fine-tuning records of a task; BINARY_METRICS where it isn't named."""
BINARY_METRICS = ("accuracy", "f1", "mcc")
DEFAULT_METRICS = {"CoLA": "mcc", "STS-B": "pearson"}
UNTRAINED = "untrained"
"""The row of the encoder that was never pretrained."""


@dataclass(frozen=True)
class GridRun:
    """One fine-tuning run. An import and the untrained encoder are methods of pretraining seed 0 and step 0."""

    method: str
    pretrain_seed: int
    step: int
    task: str
    batch_size: int
    lr: float
    seed: int


def grid(config: Config) -> Iterator[GridRun]:
    """Yields every run of the config: encoders x tasks x settings x seeds (Table 2).

    A checkpoint's runs stand together, so that workers load it once.
    """
    finetune = config.finetune
    for method, pretrain_seed, step in fine_tuned(config):
        for task in finetune.tasks:
            for batch_size in finetune.batch_sizes:
                for lr in finetune.learning_rates:
                    for seed in finetune.seeds:
                        yield GridRun(method, pretrain_seed, step, task, batch_size, lr, seed)


def fine_tuned(config: Config) -> list[tuple[str, int, int]]:
    """Returns (method, pretraining seed, step) of every encoder of the grid.

    An import's are (its name, 0, 0), the untrained encoder's (UNTRAINED, 0, 0).
    """
    pretrain = config.pretrain
    milestones = [(m, s, step) for m in config.methods for s in pretrain.seeds for step in pretrain.milestone_steps()]
    return milestones + [(name, 0, 0) for name in other_rows(config)]


def other_rows(config: Config) -> tuple[str, ...]:
    """Returns the rows of Table 3 that no method of the config pretrains: imports, and the untrained encoder."""
    return (*config.imports, *([UNTRAINED] if config.finetune.untrained else []))


def metrics_by_task(config: Config) -> dict[str, str]:
    """Returns the metric that scores each task of the config."""
    chosen = config.finetune.metrics
    finetune = config.finetune
    for key, known in {
        "tasks": TASKS,
        "metrics": TASKS,
        "from_mnli": TASKS,
        "subsets": (*TASKS, *TEST_ONLY),
        "task_data": (*TASKS, *TEST_ONLY),
    }.items():
        for task in (tasks := getattr(finetune, key)):
            if task not in known:
                where = f"{key}.{task}" if isinstance(tasks, dict) else key
                raise UsageError(f"finetune.{where}: there is no task {task!r}{nearest(task, known)}")
    for task, metric in chosen.items():
        known = METRICS.get(task, BINARY_METRICS)
        if metric not in known:
            raise unknown_metric(task, metric, known)
    return {task: chosen.get(task, DEFAULT_METRICS.get(task, "accuracy")) for task in config.finetune.tasks}


def unknown_metric(task: str, metric: str, known: Iterable[str]) -> UsageError:
    return UsageError(
        f"finetune.metrics.{task}: there is no metric {metric!r} for {task}{nearest(metric, list(known))}"
    )


def nearest(name: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(name, known, 1, 0.4)
    return f"; did you mean {near[0]!r}?" if near else f"; choose one of {', '.join(known)}"


def task_location(config: Config, task: str) -> str | Path:
    """Returns the folder or zip file that holds a task, or the hub's id as it stands in the config.

    In a folder of tasks a task is found by its name in any case, with or without "-" and the suffixes
    of GLUE's own zip files ("SST-2", "sst2", "QNLIv2.zip"). Raises InputError where it isn't there.
    """
    data = config.finetune.task_data.get(task, config.finetune.data)
    if is_hub(data):
        return data
    root = Path(data)
    key = f"finetune.task_data.{task}" if task in config.finetune.task_data else "finetune.data"
    if not root.exists():
        raise InputError(f"{key}: {root} does not exist")
    if root.is_file():
        return root
    children = sorted(p for p in root.iterdir() if not p.name.startswith("."))
    found = [p for p in children if p.is_dir() and short_name(p.name) == short_name(task)]
    found = found or [p for p in children if p.suffix == ".zip" and short_name(p.stem) == short_name(task)]
    if len(found) > 1:
        raise InputError(f"{key}: {root} has {task} twice, {' and '.join(p.name for p in found)}: which one?")
    if found:
        return found[0]
    if task in config.finetune.task_data or any(_names_task(p.name, task) for p in children):
        return root  # the task's own folder, or files that carry its name
    raise InputError(
        f"{key}: {root} has no {task}, neither a folder nor a zip file; take it out of finetune.tasks, name its place "
        f'with finetune.task_data.{task}, or set finetune.data = "probe"'
    )


def short_name(name: str) -> str:
    """Returns what all spellings of a task's name have in common."""
    short = re.sub(r"(v2|clean)$", "", name.lower().replace("-", "").replace("_", ""))
    return "ax" if short == "diagnostic" else short


def _names_task(file: str, task: str) -> bool:
    first = re.split(r"[._]", file, maxsplit=1)[0]
    return Path(file).suffix in (".tsv", ".jsonl") and short_name(first) == short_name(task)


def is_test_file(name: str) -> bool:
    """Returns whether a file holds a test set, which no score depends on."""
    return bool(re.search(r"(^|[._-])(test|diagnostic|AX)", name))
