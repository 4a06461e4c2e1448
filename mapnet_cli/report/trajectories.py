"""Score and held-out losses vs. pretraining cost, and the cost of reaching a given value.

The paper (section 4.2) claims that MAP-Net reaches the score of BERT at 1,000k steps after 600k steps.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mapnet_cli.core import Cell, Checkpoint, Column, Table, build_table, number_cell, short_steps
from mapnet_cli.report.differences import LOSS, SCORE, Difference, Differences
from mapnet_cli.report.labels import label, model_cell
from mapnet_cli.report.load import Results
from mapnet_cli.report.scores import PRIMARY, Scores, mean, spread

SAME_COST = 0.01
"""Relative tolerance for equal costs; steps are integers, so costs rarely match exactly."""


class CurvePoint(NamedTuple):
    """A checkpoint: the cost of one pretraining run up to it, and a value with its standard deviation over seeds."""

    steps: float
    flops: float
    hours: float
    value: float
    sd: float


def score_trajectory(results: Results, scores: Scores, method: str, seeds: set[int]) -> list[CurvePoint]:
    """Returns the average score over `seeds` at each checkpoint that has runs for all fine-tuning seeds."""
    tuned = results.config.finetune.seeds
    wanted = {(own, fine) for own in seeds for fine in tuned}
    points = []
    for step in results.config.fine_tuned_steps(method):
        rows = _checkpoints(results, method, step, seeds)
        columns = [scores.cells[method, step, column.name].by_seed or {} for column in scores.columns]
        if rows and not any(wanted - column.keys() for column in columns):
            averages = {run: mean(column[run] for column in columns) for run in sorted(wanted)}
            value = mean(mean(averages[own, fine] for fine in tuned) for own in sorted(seeds))
            points.append(_point(step, rows, value, spread(averages.values()) or 0.0))
    return points


def scored_seeds(results: Results, scores: Scores, method: str) -> set[int]:
    """Returns the pretraining seeds whose last fine-tuned checkpoint of the method has all runs in all columns."""
    config = results.config
    last = config.fine_tuned_steps(method)[-1]
    cells = [scores.cells[method, last, column.name].by_seed or {} for column in scores.columns]
    return {
        own
        for own in config.seeds_of(method)
        if all((own, fine) in cell for cell in cells for fine in config.finetune.seeds)
    }


def loss_trajectory(results: Results, name: str, method: str, seeds: set[int]) -> list[CurvePoint]:
    """Returns the mean of a held-out loss over `seeds` at each checkpoint that all of them have."""
    points = []
    for step in results.config.milestone_steps(method):
        rows = _checkpoints(results, method, step, seeds)
        losses = [row.validation[name] for row in rows if name in row.validation]
        if losses and len(losses) == len(seeds):
            points.append(_point(step, rows, mean(losses), spread(losses) or 0.0))
    return points


def seeds_with(results: Results, name: str, method: str) -> set[int]:
    """Returns the pretraining seeds of a method whose last checkpoint has the given held-out loss."""
    last = results.checkpoints_at(method, results.config.last_step(method))
    return {row.pretrain_seed for row in last if name in row.validation}


def at_equal_cost(results: Results, scores: Scores, method: str, step: int, cost: str) -> float | None:
    """Returns the first method's average score at the same `cost` ("flops" or "hours") as `method` at `step`.

    Interpolates linearly over the pretraining seeds that both have; None outside the first method's checkpoints.
    """
    first = results.config.methods[0]
    seeds = scored_seeds(results, scores, method) & scored_seeds(results, scores, first)
    points = {point.steps: point for point in score_trajectory(results, scores, method, seeds)}
    curve = [(getattr(point, cost), point.value) for point in score_trajectory(results, scores, first, seeds)]
    return interpolate(curve, getattr(points[step], cost)) if step in points else None


def interpolate(curve: Sequence[tuple[float, float]], cost: float) -> float | None:
    """Returns the value of a curve at a cost, None outside its points."""
    if not curve:
        return None
    (least, start), (most, end) = curve[0], curve[-1]
    if not (1 - SAME_COST) * least <= cost <= (1 + SAME_COST) * most:
        return None
    for (left, low), (right, high) in itertools.pairwise(curve):
        if left <= cost <= right:
            return low + (cost - left) / (right - left) * (high - low) if right > left else low
    return start if cost < least else end


def _checkpoints(results: Results, method: str, step: int, seeds: set[int]) -> list[Checkpoint]:
    """Returns one checkpoint per seed, [] if any is missing."""
    rows = [row for seed in sorted(seeds) if (row := results.checkpoints.get((method, seed, step)))]
    return rows if len(rows) == len(seeds) else []


def _point(step: int, rows: Sequence[Checkpoint], value: float, sd: float) -> CurvePoint:
    hours = mean(row.seconds for row in rows) / 3600
    return CurvePoint(step, mean(row.flops for row in rows), hours, value, sd)


Costs = tuple[float, float, float]
"""Steps, FLOPs and hours."""


def reached(curve: Sequence[CurvePoint], value: float, sign: int = 1) -> tuple[Costs, bool] | None:
    """Returns the cost at which a curve first reaches a value, and whether that is only an upper bound.

    Interpolates linearly; returns None if the value is never reached. `sign` is -1 if lower values are better.
    """
    if curve and sign * curve[0].value >= sign * value:
        return curve[0][:3], True
    for left, right in itertools.pairwise(curve):
        if sign * right.value >= sign * value:
            share = (value - left.value) / (right.value - left.value)
            steps, flops, hours = (a + share * (b - a) for a, b in zip(left[:3], right[:3], strict=True))
            return (steps, flops, hours), False
    return None


@dataclass(frozen=True)
class _Row:
    """Cost at which a method reaches the first method's final value, if its own is better beyond the noise."""

    method: str
    measure: str
    form: str
    end: CurvePoint
    """The first method's last point."""
    own: float
    difference: Difference | None
    found: tuple[Costs, bool] | None

    @property
    def why_not(self) -> str:
        """Why no cost is given, "" if one is."""
        if self.difference is None or self.difference.interval is None:
            return "fewer than 3 seeds"
        if not self.difference.beyond_noise:
            return "within the noise"
        return "" if self.difference.better and self.found else "not reached"


def target_table(results: Results, scores: Scores, differences: Differences, signed: str) -> Table:
    """Returns the cost at which each method reaches the first method's final score and held-out loss.

    A noisy value is reached by chance at some early checkpoint, so a cost is only given where the final difference to
    the first method is beyond the noise. Rows are left out until both methods have their final value.
    """
    config = results.config
    several = len(config.fine_tuned_steps()) > 1
    first = label(config.methods[0]) if config.methods else "first method"
    rows = [_score_row(results, scores, differences, method) for method in config.methods[1:] if several]
    rows += [_loss_row(results, differences, method) for method in config.methods[1:]]
    columns: list[Column[_Row]] = [
        Column("Model", lambda row: model_cell(row.method)),
        Column("Measure", lambda row: row.measure),
        Column(f"{first} at its end", lambda row: number_cell(row.end.value, row.form)),
        Column("At its own end", lambda row: number_cell(row.own, row.form)),
        Column("Reached at step", lambda row: _cell(row, lambda costs: (costs[0], short_steps(round(costs[0]))))),
        Column(f"Steps (% of {first})", lambda row: _cell(row, lambda costs: _share(row, costs, 0))),
        Column(f"FLOPs (% of {first})", lambda row: _cell(row, lambda costs: _share(row, costs, 1))),
        Column(f"Time (% of {first})", lambda row: _cell(row, lambda costs: _share(row, costs, 2))),
    ]
    note = (
        "Linear interpolation between checkpoints, over the pretraining seeds that both methods have; given only where "
        'the final difference is beyond the noise. "At most": the first checkpoint already reaches the value.'
    )
    title = f"When a method reaches the final value of {first}"
    return build_table("target", title, columns, (row for row in rows if row), (note,), signed)


def _score_row(results: Results, scores: Scores, differences: Differences, method: str) -> _Row | None:
    config, pair = results.config, (method, results.config.methods[0])
    seeds = set.intersection(*(scored_seeds(results, scores, name) for name in pair))
    curves = [score_trajectory(results, scores, name, seeds) for name in pair]
    last = [config.fine_tuned_steps(name)[-1] for name in pair]
    return _filled(method, SCORE, "{:.2f}", curves, last, 1, differences.get((SCORE, method, last[0], pair[1])))


def _loss_row(results: Results, differences: Differences, method: str) -> _Row | None:
    pair = (method, results.config.methods[0])
    seeds = set.intersection(*(seeds_with(results, PRIMARY, name) for name in pair))
    curves = [loss_trajectory(results, PRIMARY, name, seeds) for name in pair]
    last = [results.config.last_step(name) for name in pair]
    return _filled(method, LOSS, "{:.3f}", curves, last, -1, differences.get((LOSS, method, last[0], pair[1])))


def _filled(
    method: str,
    measure: str,
    form: str,
    curves: Sequence[Sequence[CurvePoint]],
    last: Sequence[int],
    sign: int,
    difference: Difference | None,
) -> _Row | None:
    """Returns a row from the curves of a method and the first method, None unless both reach their last step."""
    if not all(curve and curve[-1].steps == step for curve, step in zip(curves, last, strict=True)):
        return None
    ours, end = curves[0], curves[1][-1]
    return _Row(method, measure, form, end, ours[-1].value, difference, reached(ours, end.value, sign))


def _share(row: _Row, costs: Costs, number: int) -> tuple[float, str]:
    share = costs[number] / row.end[number]
    return share, f"{share:.0%}"


def _cell(row: _Row, value: Callable[[Costs], tuple[float, str]]) -> Cell:
    if row.why_not or row.found is None:
        return Cell(row.why_not, None)
    costs, at_most = row.found
    data, text = value(costs)
    return Cell(("at most " if at_most else "") + text, data)
