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

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean, stdev

from mapnet_cli import glue
from mapnet_cli.report.load import Results, runs_of_a_task

AVERAGE = "Average"
COSTS = ("tokens", "flops", "seconds")
SCORE, LOSS = "average score", "held-out loss"
"""Measures by which methods are compared, beside columns and sets of minimal pairs."""


@dataclass(frozen=True)
class Score:
    """Score at (method, step) in a column, or averaged over the columns.

    `mean` is None if no run is finished; of an average, if any column has none.
    """

    mean: float | None = None
    sd: float | None = None
    by_seed: Mapping[glue.Seeds, float] = field(default_factory=dict)
    """Scores behind the mean, by (pretraining seed, fine-tuning seed)."""
    settings: tuple[tuple[int, glue.Setting], ...] = ()  # (pretraining seed, chosen setting) pairs of a column
    failed: int = 0  # number of failed runs behind the mean
    missing: int = 0  # number of missing runs of the whole grid


@dataclass(frozen=True)
class Scores:
    """All scores of a config.

    Cells are keyed by (method, step, column), the averages with column AVERAGE. Imports and the untrained encoder are
    keyed as methods at step 0.
    """

    columns: tuple[glue.ScoreColumn, ...]
    metrics: Mapping[str, str]
    cells: Mapping[tuple[str, int, str], Score]
    baselines: Mapping[tuple[str, str], float]  # keyed by (baseline, column)

    @property
    def titles(self) -> list[str]:
        """AVERAGE, unless there is one column, and the columns' names."""
        return [AVERAGE] * (len(self.columns) != 1) + [column.name for column in self.columns]

    def baseline(self, name: str, column: str) -> float | None:
        """Returns a baseline's score; of AVERAGE, None if it is unknown for any column."""
        if column != AVERAGE:
            return self.baselines.get((name, column))
        return mean_or_none([self.baselines.get((name, one.name)) for one in self.columns], len(self.columns))


def score(results: Results) -> Scores:
    """Returns all scores that can be computed from the records."""
    metrics = glue.metrics_by_task(results.config)
    columns = glue.columns_of(metrics, results.tasks.values())
    cells: dict[tuple[str, int, str], Score] = {}
    for method, step in dict.fromkeys((method, step) for method, _, step in glue.fine_tuned(results.config)):
        found = {column: _task_score(results, method, step, column) for column in columns}
        cells |= {(method, step, column.name): cell for column, cell in found.items()}
        cells[method, step, AVERAGE] = _average(found)
    return Scores(columns, metrics, cells, glue.baseline_scores(results.baselines, columns))


def spread(values: Iterable[float]) -> float | None:
    """Returns the sample standard deviation, None for fewer than two values."""
    values = list(values)
    return stdev(values) if len(values) > 1 else None


def mean_or_none(values: Collection[float | None], least: int = 1) -> float | None:
    """Returns the mean of the known values, None if there are fewer than `least`."""
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) >= least else None


def cost(results: Results, method: str, step: int, name: str) -> float | None:
    """Returns one of COSTS of one pretraining run up to a step, the mean over its seeds."""
    return mean_or_none([getattr(row, name) for row in results.checkpoints_at(method, step)])


def values(results: Results, scores: Scores, method: str, step: int, measure: str) -> dict[int, list[float]]:
    """Returns the values of a measure by pretraining seed: SCORE, LOSS or the accuracy on a set of minimal pairs.

    Of a score there is one value per fine-tuning seed, if all of these have scores in all columns.
    """
    if measure == SCORE:
        tuned, found = results.config.finetune.seeds, scores.cells[method, step, AVERAGE].by_seed
        seeds = (seed for seed in results.config.seeds_of(method) if all((seed, fine) in found for fine in tuned))
        return {seed: [found[seed, fine] for fine in tuned] for seed in seeds}
    if measure == LOSS:
        losses = ((row.pretrain_seed, row.validation.get(results.loss)) for row in results.checkpoints_at(method, step))
        return {seed: [loss] for seed, loss in losses if loss is not None}
    pairs = (row for row in results.pair_scores if (row.method, row.step, row.data) == (method, step, measure))
    return {row.pretrain_seed: [100 * row.accuracy] for row in pairs}


def _task_score(results: Results, method: str, step: int, column: glue.ScoreColumn) -> Score:
    chosen: dict[glue.Seeds, glue.RunScore] = {}
    settings, means, finished = [], [], 0
    seeds = [seed for name, seed, at in glue.fine_tuned(results.config) if (name, at) == (method, step)]
    for seed in seeds:
        grid, chooser = (results.grids.get((method, seed, step, name), {}) for name in (column.name, column.chooser))
        finished += sum(map(len, grid.values()))
        if (setting := glue.best_setting(glue.counted_scores(chooser))) is not None:
            settings.append((seed, setting))
            means.append(fmean(run.counted for run in grid[setting].values()))
            chosen |= {(seed, fine): run for fine, run in grid[setting].items()}
    missing = runs_of_a_task(results.config) * len(seeds) - finished
    if not chosen:
        return Score(missing=missing)
    by_seed = {place: run.counted for place, run in chosen.items()}
    failed = sum(run.failed for run in chosen.values())
    return Score(fmean(means), spread(by_seed.values()), by_seed, tuple(settings), failed, missing)


def _average(cells: Mapping[glue.ScoreColumn, Score]) -> Score:
    distinct = [cell for column, cell in cells.items() if column.chooser == column.name]  # MNLI's columns share runs
    missing, failed = (sum(getattr(cell, name) for cell in distinct) for name in ("missing", "failed"))
    if not cells or not all(cell.by_seed for cell in cells.values()):
        return Score(missing=missing)
    shared = set.intersection(*(set(cell.by_seed) for cell in cells.values()))
    by_seed = {seeds: fmean(cell.by_seed[seeds] for cell in cells.values()) for seeds in sorted(shared)}
    centre = mean_or_none([cell.mean for cell in cells.values()])
    return Score(centre, spread(by_seed.values()), by_seed, (), failed, missing)
