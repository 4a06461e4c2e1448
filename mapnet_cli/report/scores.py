"""Aggregation of fine-tuning runs into the numbers of Table 3 (section 4.1.2 of the paper).

1. The score of a run is its task's metric times 100 at its best epoch (or its last, `finetune.epoch`).
2. The score of a setting (batch size, learning rate) is the mean over its fine-tuning seeds.
3. The score of a column is that of its best setting (ties: the first in the grid), averaged over pretraining seeds.
4. The average is over the columns: the nine of GLUE, or those of the config's tasks.

The paper doesn't specify the following:

- The two MNLI columns are scores of one model: epoch and setting are chosen on the matched dev set for both.
- A failed run counts with its last finished epoch, regardless of `finetune.epoch`. If it finished
  none, it counts as the majority baseline, or as 0 if that isn't recorded. It is always flagged.
  Excluding it would reward settings that diverge.
- While runs are missing, only the settings with the most finished seeds are considered, so that one
  lucky early run can't represent a whole setting.
- The standard deviation of a column is the sample standard deviation over the runs behind its mean;
  that of an average is over the per-seed averages over the columns.
"""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from mapnet_cli.config import Config
from mapnet_cli.glue import (
    Grid,
    GridKey,
    RunScore,
    ScoreColumn,
    Seeds,
    Setting,
    baseline_scores,
    best_setting,
    columns_of,
    fine_tuned,
    metrics_by_task,
)
from mapnet_cli.report.load import Results, runs_of_a_task

PRIMARY = "validation_loss_single"
"""The held-out loss that methods are compared by: with one [MASK] per sentence, it favours no mask rate."""
PRIMARY_NAME = "one mask per sentence"
AVERAGE = "Average"


@dataclass(frozen=True)
class TaskScore:
    """Score of one column at (method, step); None if no run is finished."""

    mean: float | None = None
    sd: float | None = None
    best: float | None = None
    """Mean of the same runs at their best epochs."""
    last: float | None = None
    """Mean of the same runs at their last epochs."""
    by_seed: Mapping[Seeds, float] | None = None
    """Scores behind the mean, by (pretraining seed, fine-tuning seed)."""
    settings: tuple[tuple[int, Setting], ...] = ()
    """(pretraining seed, chosen setting) pairs."""
    failed_counted: int = 0
    """Number of failed runs behind the mean."""
    runs: int = 0
    """Number of finished runs in the whole grid, including failed ones."""
    failed: int = 0
    missing: int = 0

    @property
    def n(self) -> int:
        return len(self.by_seed or {})


@dataclass(frozen=True)
class Average:
    """Average over columns at (method, step), and the pretraining cost averaged over pretraining seeds."""

    mean: float | None
    sd: float | None
    best: float | None
    last: float | None
    columns: int
    """Number of columns with a score."""
    runs: int
    failed: int
    failed_counted: int
    missing: int
    tokens: float | None = None
    flops: float | None = None
    hours: float | None = None
    held_out_loss: float | None = None
    """The PRIMARY one."""


@dataclass(frozen=True)
class Scores:
    """All scores of a config. Cells are keyed by (method, step, column), averages by (method, step).

    Imports and the untrained encoder are keyed as methods at step 0.
    """

    columns: tuple[ScoreColumn, ...]
    metrics: Mapping[str, str]
    grids: Mapping[GridKey, Grid]
    cells: Mapping[tuple[str, int, str], TaskScore]
    averages: Mapping[tuple[str, int], Average]
    baselines: Mapping[tuple[str, str], float]
    """Keyed by (baseline, column)."""

    def at(self, method: str, step: int, column: str) -> "TaskScore | Average":
        """Returns the score in a column, or their average for AVERAGE."""
        return self.averages[method, step] if column == AVERAGE else self.cells[method, step, column]

    def baseline(self, name: str, column: str) -> float | None:
        """Returns a baseline's score, of AVERAGE None if it is unknown for any column."""
        if column != AVERAGE:
            return self.baselines.get((name, column))
        values = [self.baselines.get((name, column.name)) for column in self.columns]
        return None if None in values else _mean_or_none(values)


def score(results: Results) -> Scores:
    """Returns all scores that can be computed from the records."""
    config = results.config
    metrics = metrics_by_task(config)
    columns = columns_of(metrics, results.tasks.values())
    baselines, grids = baseline_scores(results.baselines, columns), results.grids
    rows = dict.fromkeys((method, step) for method, _, step in fine_tuned(config))
    cells = {
        (method, step, column.name): _task_score(config, grids, method, step, column)
        for method, step in rows
        for column in columns
    }
    averages = {
        (method, step): _average(results, {c: cells[method, step, c.name] for c in columns}, method, step)
        for method, step in rows
    }
    return Scores(columns, metrics, grids, cells, averages, baselines)


def mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)


def spread(values: Iterable[float]) -> float | None:
    """Returns the sample standard deviation, None for fewer than two values."""
    values = list(values)
    return statistics.stdev(values) if len(values) > 1 else None


def _task_score(
    config: Config, grids: Mapping[GridKey, Grid], method: str, step: int, column: ScoreColumn
) -> TaskScore:
    chosen: dict[Seeds, RunScore] = {}
    settings, means = [], []
    all_runs: list[RunScore] = []
    pretrain_seeds = [seed for name, seed, at in fine_tuned(config) if (name, at) == (method, step)]
    for pretrain_seed in pretrain_seeds:
        grid = grids.get((method, pretrain_seed, step, column.name), {})
        all_runs += [s for seeds in grid.values() for s in seeds.values()]
        setting = best_setting(grids.get((method, pretrain_seed, step, column.chooser), {}))
        if setting is not None:
            settings.append((pretrain_seed, setting))
            means.append(list(grid[setting].values()))
            chosen |= {(pretrain_seed, seed): s for seed, s in grid[setting].items()}
    counts = TaskScore(
        runs=len(all_runs),
        failed=sum(s.failed for s in all_runs),
        missing=runs_of_a_task(config) * len(pretrain_seeds) - len(all_runs),
    )
    if not chosen:
        return counts
    return replace(
        counts,
        mean=mean(mean(s.counted for s in group) for group in means),
        sd=spread(s.counted for s in chosen.values()),
        best=mean(mean(s.best for s in group) for group in means),
        last=mean(mean(s.last for s in group) for group in means),
        by_seed={seeds: s.counted for seeds, s in chosen.items()},
        settings=tuple(settings),
        failed_counted=sum(s.failed for s in chosen.values()),
    )


def _average(results: Results, cells: Mapping[ScoreColumn, TaskScore], method: str, step: int) -> Average:
    distinct = [cell for column, cell in cells.items() if column.chooser == column.name]  # MNLI's columns share runs
    scored = [cell for cell in cells.values() if cell.by_seed]
    shared = set.intersection(*(set(cell.by_seed or {}) for cell in scored)) if scored else set()
    costs = results.checkpoints_at(method, step)
    return Average(
        mean=_mean_or_none(cell.mean for cell in scored),
        sd=spread(mean((cell.by_seed or {})[seeds] for cell in scored) for seeds in sorted(shared)),
        best=_mean_or_none(cell.best for cell in scored),
        last=_mean_or_none(cell.last for cell in scored),
        columns=len(scored),
        runs=sum(cell.runs for cell in distinct),
        failed=sum(cell.failed for cell in distinct),
        failed_counted=sum(cell.failed_counted for cell in distinct),
        missing=sum(cell.missing for cell in distinct),
        tokens=_mean_or_none(c.tokens for c in costs),
        flops=_mean_or_none(c.flops for c in costs),
        hours=_mean_or_none(c.seconds / 3600 for c in costs),
        held_out_loss=_mean_or_none(c.validation.get(PRIMARY) for c in costs),
    )


def _mean_or_none(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known else None
