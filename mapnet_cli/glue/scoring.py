"""Metrics of predictions, and a run's score in a column: choice of metric and epoch, and the score of a failed run.

The rules are in the docstring of report/scores.py; the report and the model card of an export both follow them.
Undefined metrics (such as the correlation of a constant prediction) are 0.
"""

import math
import statistics
import warnings
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mapnet_cli.config import Config
from mapnet_cli.core import Baseline, EpochScores, FinetuneRun, TaskFacts, derive_seed
from mapnet_cli.glue.grid import metrics_by_task, unknown_metric
from mapnet_cli.glue.tasks import TASKS, GlueTask

Setting = tuple[int, float]  # batch size and learning rate
Seeds = tuple[int, int]  # pretraining seed and fine-tuning seed
GridKey = tuple[str, int, int, str]  # method, pretraining seed, step, column
Floats = npt.NDArray[np.float32]
Halves = list[tuple[dict[str, float], dict[str, float]]]
SPLITS = 5  # number of random splits of a dev set into halves, the same for all runs of a task
DIGITS = 6  # decimal places of the stored metrics of a half


@dataclass(frozen=True)
class ScoreColumn:
    """One column of the per-task table. `chooser` is the column whose scores select epoch and setting."""

    name: str
    task: str
    metric: str
    chooser_metric: str
    chooser: str


@dataclass(frozen=True)
class RunScore:
    """Score of one run in one column, 0 to 100. `counted` enters the mean and is from `epoch` (0: from none)."""

    counted: float
    failed: bool
    epoch: int


Grid = Mapping[Setting, Mapping[int, RunScore]]
"""The runs of one checkpoint in one column, by setting and fine-tuning seed."""


def best_setting(values: Mapping[Setting, Collection[float]]) -> Setting | None:
    """Returns the setting with the best mean among those with the most values, or None. Ties go to the first one."""
    most = max(map(len, values.values()), default=0)
    means = {setting: statistics.fmean(found) for setting, found in values.items() if most and len(found) == most}
    return max(means, key=lambda setting: round(means[setting], 9), default=None)


def counted_scores(grid: Grid) -> dict[Setting, list[float]]:
    """Returns the scores of each setting's runs."""
    return {setting: [run.counted for run in seeds.values()] for setting, seeds in grid.items()}


def subsets(facts: Iterable[TaskFacts]) -> list[str]:
    """Returns the tasks whose data differs from GLUE's official data; probe tasks are not included."""
    return [task.task for task in facts if not task.official and not task.probe]


def rows_used(config: Config, facts: Iterable[TaskFacts]) -> str:
    """Returns how the data differs from GLUE, such as "subset: RTE; first 9 training rows"; "" if it doesn't."""
    parts = [f"subset: {', '.join(names)}"] if (names := subsets(facts)) else []
    parts += [f"not GLUE: {', '.join(own)}"] if (own := [t for t in config.finetune.tasks if t not in TASKS]) else []
    if count := config.finetune.max_train_examples:
        parts.append(f"first {count:,} training rows")
    return "; ".join(parts)


def columns_of(metrics: Mapping[str, str], facts: Iterable[TaskFacts] = ()) -> tuple[ScoreColumn, ...]:
    """Returns the columns of tasks with the given metrics; `facts` of their data say which dev sets there aren't."""
    columns, absent = [], {split for task in facts for split in task.absent}
    for task, metric in metrics.items():
        name = "MNLI-m" if task == "MNLI" else task
        columns.append(ScoreColumn(name, task, metric, metric, name))
        if task == "MNLI" and "dev-mm" not in absent:
            columns.append(ScoreColumn("MNLI-mm", task, f"{metric}-mm", metric, name))
    return tuple(columns)


def baseline_scores(baselines: Iterable[Baseline], columns: tuple[ScoreColumn, ...]) -> dict[tuple[str, str], float]:
    """Returns the baselines' scores by (baseline name, column)."""
    return {
        (row.name, column.name): 100 * row.metrics[column.metric]
        for row in baselines
        for column in columns
        if column.task == row.task and column.metric in row.metrics
    }


def run_grids(
    runs: Iterable[FinetuneRun],
    config: Config,
    columns: tuple[ScoreColumn, ...],
    baselines: Mapping[tuple[str, str], float],
) -> dict[GridKey, dict[Setting, dict[int, RunScore]]]:
    """Returns every run's score by (method, pretraining seed, step, column), setting and seed."""
    grids: dict[GridKey, dict[Setting, dict[int, RunScore]]] = defaultdict(lambda: defaultdict(dict))
    for run in runs:
        for column in columns:
            if column.task == run.task:
                scored = _run_score(run, column, config, baselines.get(("majority", column.name), 0.0))
                place = (run.method, run.pretrain_seed, run.step, column.name)
                grids[place][run.batch_size, run.lr][run.seed] = scored
    return grids


def _run_score(run: FinetuneRun, column: ScoreColumn, config: Config, fallback: float) -> RunScore:
    if not run.epochs:
        return RunScore(fallback, True, 0)
    chosen = run.epochs[-1]
    if not run.failure and config.finetune.epoch == "best":
        chosen = max(run.epochs, key=lambda epoch: _metric(epoch, column.task, column.chooser_metric))
    return RunScore(_metric(chosen, column.task, column.metric), bool(run.failure), chosen.epoch)


def one_class(metrics: Mapping[str, float], suffix: str = "") -> bool:
    """Returns whether metrics (0 if undefined) are those of equal predictions; False if only accuracy is known."""
    if f"pearson{suffix}" in metrics:
        return metrics[f"pearson{suffix}"] == metrics[f"spearman{suffix}"] == 0
    if metrics.get(f"mcc{suffix}", 1.0) != 0:
        return False
    accuracy, f1 = metrics[f"accuracy{suffix}"], metrics.get(f"f1{suffix}", 0.0)
    return f1 == 0 or math.isclose(f1, 2 * accuracy / (1 + accuracy))  # with the positive class alone, F1 follows


@dataclass(frozen=True)
class TaskResult:
    """The best setting of one encoder on one task."""

    setting: Setting
    scores: Mapping[ScoreColumn, Mapping[int, RunScore]]  # the setting's runs by column and seed
    doubts: tuple[str, ...]  # why scores mean little, each with its column


def task_result(runs: Collection[FinetuneRun], config: Config, baselines: Iterable[Baseline]) -> TaskResult | None:
    """Returns the result of one encoder's runs on one task, None without runs."""
    if not runs:
        return None
    task = next(iter(runs)).task
    columns = columns_of({task: metrics_by_task(config)[task]})
    recorded = {metric for run in runs for epoch in run.epochs for metric in epoch.metrics}
    columns = columns[:1] + tuple(column for column in columns[1:] if column.metric in recorded)
    known = baseline_scores(baselines, columns)
    grids = {column: grid for (*_, column), grid in run_grids(runs, config, columns, known).items()}
    if (setting := best_setting(counted_scores(grids[columns[0].name]))) is None:
        return None
    scores = {column: grids[column.name][setting] for column in columns}
    own = [run for run in runs if (run.batch_size, run.lr) == setting]
    epochs = {(run.seed, epoch.epoch): epoch.metrics for run in own for epoch in run.epochs}
    doubts = []
    for column, by_seed in scores.items():
        suffix = "-mm" if column.metric.endswith("-mm") else ""
        counted = [epochs[seed, scored.epoch] for seed, scored in by_seed.items() if scored.epoch]
        if constant := sum(one_class(metrics, suffix) for metrics in counted):
            many = f"{constant} of {len(own)} runs predict"
            doubts.append(f"{column.name}: {many} one class (or value) for all examples")
        mean, bag = statistics.fmean(s.counted for s in by_seed.values()), known.get(("bag of words", column.name))
        if bag is not None and mean <= bag:
            doubts.append(f"{column.name}: not above the bag of words ({mean:.2f} against {bag:.2f})")
    return TaskResult(setting, scores, tuple(doubts))


def _metric(epoch: EpochScores, task: str, metric: str) -> float:
    if metric not in epoch.metrics:
        raise unknown_metric(task, metric, [name for name in epoch.metrics if not name.endswith("-mm")])
    return 100 * epoch.metrics[metric]


def score(task: GlueTask, predicted: Floats, labels: Floats) -> dict[str, float]:
    """Returns every metric of the task. Predictions and labels are class ids, or scores / 5 for regression."""
    values = _regression(predicted, labels) if task.regression else _classes(len(task.labels), predicted, labels)
    return {name: values[name] for name in task.metrics}


def _regression(predicted: Floats, labels: Floats) -> dict[str, float]:
    from scipy.stats import pearsonr, spearmanr

    if len(labels) < 2:
        return {"pearson": 0.0, "spearman": 0.0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constant predictions
        found = {"pearson": pearsonr(predicted, labels), "spearman": spearmanr(predicted, labels)}
    return {name: float(np.nan_to_num(result.statistic)) for name, result in found.items()}


def _classes(classes: int, predicted: Floats, labels: Floats) -> dict[str, float]:
    """Returns the metrics from the confusion matrix, as scikit-learn does in many times the time."""
    pairs = labels.astype(np.int64) * classes + predicted.astype(np.int64)
    counts = np.bincount(pairs, minlength=classes**2).reshape(classes, classes)  # true class by predicted class
    right, truth, guessed, rows = counts.diagonal(), counts.sum(1), counts.sum(0), float(len(labels))
    f1 = 2 * right / np.maximum(truth + guessed, 1)
    spread = math.sqrt(float(rows**2 - truth @ truth) * float(rows**2 - guessed @ guessed))
    return {
        "accuracy": float(right.sum() / max(rows, 1)),
        "f1": float(f1[1]),
        "macro_f1": float(f1[truth + guessed > 0].mean()) if rows else 0.0,
        "mcc": float(rows * right.sum() - truth @ guessed) / spread if spread else 0.0,
    }


def score_halves(task: GlueTask, predicted: Floats, labels: Floats) -> Halves:
    """Returns every metric on both halves of a dev set, for each of SPLITS random splits."""

    def rounded(rows: npt.NDArray[np.int64]) -> dict[str, float]:
        return {name: round(value, DIGITS) for name, value in score(task, predicted[rows], labels[rows]).items()}

    found: Halves = []
    for split in range(SPLITS):
        order = np.random.default_rng(derive_seed(split, "dev halves", task.name)).permutation(len(labels))
        found.append((rounded(order[: len(order) // 2]), rounded(order[len(order) // 2 :])))
    return found
