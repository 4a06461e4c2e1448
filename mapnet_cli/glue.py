"""GLUE's tasks and metrics by name: what fine-tuning records, and which metric scores a task."""

import difflib
from collections.abc import Iterable

from mapnet_cli.config import Config
from mapnet_cli.errors import UsageError

TASKS = ("CoLA", "SST-2", "MRPC", "STS-B", "QQP", "MNLI", "QNLI", "RTE")
GLUE_COLUMNS = 9
METRICS = {"STS-B": ("pearson", "spearman"), "MNLI": ("accuracy",)}
"""What fine-tuning records of a task; BINARY_METRICS where it isn't named."""
BINARY_METRICS = ("accuracy", "f1", "mcc")
DEFAULT_METRICS = {"CoLA": "mcc", "STS-B": "pearson"}


def fine_tuned(config: Config) -> list[tuple[str, int, int]]:
    """Returns (method, pretraining seed, step) of every encoder of the grid; an import's are (its name, 0, 0)."""
    pretrain = config.pretrain
    milestones = [(m, s, step) for m in config.methods for s in pretrain.seeds for step in pretrain.milestone_steps()]
    return milestones + [(name, 0, 0) for name in config.imports]


def metrics_by_task(config: Config) -> dict[str, str]:
    """Returns the metric that scores each task of the config."""
    chosen = config.finetune.metrics
    for task in (*config.finetune.tasks, *chosen):
        if task not in TASKS:
            key = f"finetune.metrics.{task}" if task in chosen else "finetune.tasks"
            raise UsageError(f"{key}: there is no task {task!r}{nearest(task, TASKS)}")
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
