"""A method's score and held-out losses over what its checkpoints cost, and what it takes to reach a value.

The paper's claim (section 4.2) is that MAP-Net after 600k steps has the score of BERT after 1,000k.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from mapnet_cli.core import Cell, Checkpoint, Column, Table, build_table, number_cell
from mapnet_cli.report.load import Results, signature
from mapnet_cli.report.notes import MID_SCHEDULE, hours_notes, label, model_cell, on_what, partial_note
from mapnet_cli.report.scores import Scores, mean, spread

SAME_COST = 0.01
"""Costs that differ by less are equal: steps are whole numbers."""
REFITTED = "validation_loss_refit"
LOSSES = {"validation_loss": "held-out loss", REFITTED: "held-out loss, refitted"}
LINEAR = (
    "Linear between checkpoints; at most: its first checkpoint has the value already. Over the pretraining seeds that"
    " both methods have."
)
NOISE = "A score that is mostly noise reaches any value early: see where the first method itself has its last score."
ONE_SCORE = "No rows of scores: they take several fine-tuned checkpoints (finetune.milestones)."


class Place(NamedTuple):
    """A checkpoint: what one pretraining up to it cost, and a value with its standard deviation over seeds."""

    steps: float
    flops: float
    hours: float
    value: float
    sd: float


def score_trajectory(results: Results, scores: Scores, method: str, seeds: set[int]) -> list[Place]:
    """Returns the average score over some pretraining seeds, for each checkpoint with runs of all fine-tuning seeds."""
    tuned = results.config.finetune.seeds
    wanted = {(own, fine) for own in seeds for fine in tuned}
    places = []
    for step in results.config.fine_tuned_steps(method):
        rows = _checkpoints(results, method, step, seeds)
        columns = [scores.cells[method, step, column.name].by_seed or {} for column in scores.columns]
        if rows and not any(wanted - column.keys() for column in columns):
            averages = {run: mean(column[run] for column in columns) for run in sorted(wanted)}
            value = mean(mean(averages[own, fine] for fine in tuned) for own in sorted(seeds))
            places.append(_place(step, rows, value, spread(averages.values()) or 0.0))
    return places


def scored_seeds(results: Results, scores: Scores, method: str) -> set[int]:
    """Returns the pretraining seeds of a method whose last fine-tuned checkpoint has every run in every column."""
    config = results.config
    last = config.fine_tuned_steps(method)[-1]
    cells = [scores.cells[method, last, column.name].by_seed or {} for column in scores.columns]
    return {
        own
        for own in config.seeds_of(method)
        if all((own, fine) in cell for cell in cells for fine in config.finetune.seeds)
    }


def loss_trajectory(results: Results, name: str, method: str, seeds: set[int]) -> list[Place]:
    """Returns the mean of a held-out loss over some pretraining seeds, for each checkpoint that all of them have."""
    places = []
    for step in results.config.milestone_steps(method):
        rows = _checkpoints(results, method, step, seeds)
        losses = [row.validation[name] for row in rows if name in row.validation]
        if losses and len(losses) == len(seeds):
            places.append(_place(step, rows, mean(losses), spread(losses) or 0.0))
    return places


def seeds_with(results: Results, name: str, method: str) -> set[int]:
    """Returns the pretraining seeds of a method whose last checkpoint has a held-out loss."""
    last = results.trained(method, results.config.last_step(method))
    return {row.pretrain_seed for row in last if name in row.validation}


def at_equal_cost(results: Results, scores: Scores, method: str, step: int, cost: str) -> float | None:
    """Returns the first method's average score at the same `cost` ("flops" or "hours") as `method` at `step`.

    Over the pretraining seeds that both have; linear between the first method's checkpoints, None outside them.
    """
    first = results.config.methods[0]
    seeds = scored_seeds(results, scores, method) & scored_seeds(results, scores, first)
    here = {place.steps: place for place in score_trajectory(results, scores, method, seeds)}
    curve = [(getattr(place, cost), place.value) for place in score_trajectory(results, scores, first, seeds)]
    return _at(curve, getattr(here[step], cost)) if step in here and curve else None


def _at(curve: Sequence[tuple[float, float]], cost: float) -> float | None:
    (least, start), (most, end) = curve[0], curve[-1]
    if not (1 - SAME_COST) * least <= cost <= (1 + SAME_COST) * most:
        return None
    for (left, low), (right, high) in itertools.pairwise(curve):
        if left <= cost <= right:
            return low + (cost - left) / (right - left) * (high - low) if right > left else low
    return start if cost < least else end


def _checkpoints(results: Results, method: str, step: int, seeds: set[int]) -> list[Checkpoint]:
    """Returns a checkpoint for each seed, nothing unless all are there."""
    rows = [row for seed in sorted(seeds) if (row := results.checkpoints.get((method, seed, step)))]
    return rows if len(rows) == len(seeds) else []


def _place(step: int, rows: Sequence[Checkpoint], value: float, sd: float) -> Place:
    hours = mean(row.seconds for row in rows) / 3600
    return Place(step, mean(row.flops for row in rows), hours, value, sd)


Costs = tuple[float, float, float]
"""Steps, FLOPs and hours."""


def reached(curve: Sequence[Place], value: float, sign: int = 1) -> tuple[Costs, bool] | None:
    """Returns what a curve first has a value at, and whether it may have had it before.

    Linear between the curve's places; None where it never has the value. `sign` is -1 where less is better.
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
    """What a method needs for the first method's last value; None while either has no value at its last step."""

    method: str
    measure: str
    form: str
    end: Place | None = None
    """The first method's last."""
    own: float | None = None
    found: tuple[Costs, bool] | None = None
    """None also where the value isn't reached."""


def target_table(results: Results, scores: Scores) -> Table:
    """Returns, for score and held-out losses, what each method needs to reach the first method's last value."""
    config = results.config
    several = len(config.fine_tuned_steps()) > 1
    rows = [_score_row(results, scores, method) for method in config.methods if several]
    rows += [_loss_row(results, name, method) for name in LOSSES for method in config.methods]
    first = f"{label(config.methods[0])}'s" if config.methods else "the first method's"
    columns: list[Column[_Row]] = [
        Column("Model", lambda row: model_cell(row.method)),
        Column("Measure", lambda row: row.measure),
        Column(f"{first} last", lambda row: number_cell(row.end.value if row.end else None, row.form)),
        Column("Own last", lambda row: number_cell(row.own, row.form)),
        Column("Reached at step", lambda row: _step_cell(row)),
        Column(f"of {first} steps", lambda row: _share_cell(row, 0)),
        Column(f"of {first} FLOPs", lambda row: _share_cell(row, 1)),
        Column(f"of {first} hours", lambda row: _share_cell(row, 2)),
    ]
    title = f"What it takes to reach {first} last value{on_what(results)}"
    notes = (LINEAR, MID_SCHEDULE, *hours_notes(results), NOISE if several else ONE_SCORE, *partial_note(results))
    return build_table("target", title, columns, rows, notes, signature(results, scores.metrics))


def _score_row(results: Results, scores: Scores, method: str) -> _Row:
    pair = (method, results.config.methods[0])
    seeds = set.intersection(*(scored_seeds(results, scores, whose) for whose in pair))
    curves = [score_trajectory(results, scores, whose, seeds) for whose in pair]
    return _row(_Row(method, "score", "{:.2f}"), curves, [results.config.fine_tuned_steps(m)[-1] for m in pair], 1)


def _loss_row(results: Results, name: str, method: str) -> _Row:
    pair = (method, results.config.methods[0])
    seeds = set.intersection(*(seeds_with(results, name, whose) for whose in pair))
    curves = [loss_trajectory(results, name, whose, seeds) for whose in pair]
    return _row(_Row(method, LOSSES[name], "{:.3f}"), curves, [results.config.last_step(m) for m in pair], -1)


def _row(row: _Row, curves: Sequence[Sequence[Place]], last: Sequence[int], sign: int) -> _Row:
    """Fills a row from a method's curve and the first method's, where both have a value at their last step."""
    if not all(curve and curve[-1].steps == step for curve, step in zip(curves, last, strict=True)):
        return row
    ours, end = curves[0], curves[1][-1]
    return replace(row, end=end, own=ours[-1].value, found=reached(ours, end.value, sign))


def _step_cell(row: _Row) -> Cell | None:
    if row.end and not row.found:
        return Cell("not reached", None)
    return _at_most(row, row.found[0][0], "{:,.0f}") if row.found else None


def _share_cell(row: _Row, cost: int) -> Cell | None:
    return _at_most(row, row.found[0][cost] / row.end[cost], "{:.0%}") if row.end and row.found else None


def _at_most(row: _Row, value: float, form: str) -> Cell:
    return Cell(("at most " if row.found and row.found[1] else "") + form.format(value), value)
