"""From fine-tuning runs to the numbers of Table 3, as section 4.1.2 of the paper aggregates them.

1. A run scores its task's metric times 100 at its best epoch (or its last, `finetune.epoch`).
2. A setting (batch size, learning rate) scores the mean over its fine-tuning seeds.
3. A column scores its best setting; of equal ones the first of the grid. Several pretraining seeds are averaged.
4. The average is over the columns: GLUE's nine, or those of the config's tasks.

Where the paper is silent:

- MNLI's two columns are one model: the matched dev set chooses epoch and setting for both.
- A failed run counts with its last finished epoch, whatever `finetune.epoch` says. If it finished
  none it counts as the majority baseline, or as 0 where that isn't recorded. It is always flagged:
  leaving it out would reward a setting for diverging.
- While runs are missing, only the settings with the most finished seeds compete, so that one lucky
  early run can't stand for a whole setting.
- A column's spread is the sample standard deviation over the runs behind its mean; an average's
  is that of the per-seed averages over the columns.
"""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from mapnet_cli.config import Config
from mapnet_cli.glue import (
    Grid,
    Place,
    RunScore,
    ScoreColumn,
    Seeds,
    Setting,
    baseline_scores,
    best_setting,
    columns_of,
    fine_tuned,
    metrics_by_task,
    run_grids,
)
from mapnet_cli.report.load import Results, runs_of_a_task


@dataclass(frozen=True)
class TaskScore:
    """One column's score at (method, step); None where no run is finished."""

    mean: float | None = None
    sd: float | None = None
    best: float | None = None
    """Mean of the same runs at their best epochs."""
    last: float | None = None
    """Mean of the same runs at their last epochs."""
    by_seed: Mapping[Seeds, float] | None = None
    """The scores behind the mean."""
    settings: tuple[tuple[int, Setting], ...] = ()
    """The chosen setting of each pretraining seed."""
    failed_counted: int = 0
    """Failed runs behind the mean."""
    runs: int = 0
    """Finished runs of the whole grid, failed ones included."""
    failed: int = 0
    missing: int = 0

    @property
    def n(self) -> int:
        return len(self.by_seed or {})


@dataclass(frozen=True)
class Average:
    """The average over columns at (method, step), and what the checkpoint cost, averaged over pretraining seeds."""

    mean: float | None
    sd: float | None
    best: float | None
    last: float | None
    columns: int
    """Columns with a score; an average over fewer than all says so."""
    runs: int
    failed: int
    failed_counted: int
    missing: int
    tokens: float | None = None
    flops: float | None = None
    hours: float | None = None
    validation_loss: float | None = None


@dataclass(frozen=True)
class Scores:
    """All scores of a config. Cells are keyed by (method, step, column), averages by (method, step).

    An import is keyed as a method at step 0.
    """

    columns: tuple[ScoreColumn, ...]
    metrics: Mapping[str, str]
    grids: Mapping[Place, Grid]
    cells: Mapping[tuple[str, int, str], TaskScore]
    averages: Mapping[tuple[str, int], Average]
    baselines: Mapping[tuple[str, str], float]
    """By (baseline, column)."""

    def baseline_average(self, name: str) -> float | None:
        """Returns a baseline's average over the columns, None unless it is known for all of them."""
        values = [self.baselines.get((name, column.name)) for column in self.columns]
        return None if None in values else _mean_or_none(values)


def score(results: Results) -> Scores:
    """Returns every score that the records allow.

    Raises UsageError, naming the key and the nearest right name, if `finetune.metrics` or
    `finetune.tasks` names what doesn't exist.
    """
    config = results.config
    metrics = metrics_by_task(config)
    columns = columns_of(metrics)
    baselines = baseline_scores(results.baselines, columns)
    grids = run_grids(results.runs, results.config, columns, baselines)
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
    """Returns the sample standard deviation, None of fewer than two values."""
    values = list(values)
    return statistics.stdev(values) if len(values) > 1 else None


def _task_score(config: Config, grids: Mapping[Place, Grid], method: str, step: int, column: ScoreColumn) -> TaskScore:
    chosen: dict[Seeds, RunScore] = {}
    settings, means = [], []
    everything: list[RunScore] = []
    pretrain_seeds = [seed for name, seed, at in fine_tuned(config) if (name, at) == (method, step)]
    for pretrain_seed in pretrain_seeds:
        grid = grids.get((method, pretrain_seed, step, column.name), {})
        everything += [s for seeds in grid.values() for s in seeds.values()]
        setting = best_setting(grids.get((method, pretrain_seed, step, column.chooser), {}))
        if setting is not None:
            settings.append((pretrain_seed, setting))
            means.append(list(grid[setting].values()))
            chosen |= {(pretrain_seed, seed): s for seed, s in grid[setting].items()}
    counts = TaskScore(
        runs=len(everything),
        failed=sum(s.failed for s in everything),
        missing=runs_of_a_task(config) * len(pretrain_seeds) - len(everything),
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
    trainings = [cell for column, cell in cells.items() if column.chooser == column.name]  # MNLI's two are one
    scored = [cell for cell in cells.values() if cell.by_seed]
    shared = set.intersection(*(set(cell.by_seed or {}) for cell in scored)) if scored else set()
    costs = results.trained(method, step)
    return Average(
        mean=_mean_or_none(cell.mean for cell in scored),
        sd=spread(mean((cell.by_seed or {})[seeds] for cell in scored) for seeds in sorted(shared)),
        best=_mean_or_none(cell.best for cell in scored),
        last=_mean_or_none(cell.last for cell in scored),
        columns=len(scored),
        runs=sum(cell.runs for cell in trainings),
        failed=sum(cell.failed for cell in trainings),
        failed_counted=sum(cell.failed_counted for cell in trainings),
        missing=sum(cell.missing for cell in trainings),
        tokens=_mean_or_none(c.tokens for c in costs),
        flops=_mean_or_none(c.flops for c in costs),
        hours=_mean_or_none(c.seconds / 3600 for c in costs),
        validation_loss=_mean_or_none(c.validation_loss for c in costs),
    )


def _mean_or_none(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known else None
