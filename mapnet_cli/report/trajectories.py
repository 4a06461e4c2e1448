"""A method's score and held-out losses over its checkpoints, with what each checkpoint cost."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from mapnet_cli.core.records import Checkpoint
from mapnet_cli.report.load import Results
from mapnet_cli.report.scores import Scores, mean, spread

SAME_COST = 0.01
"""Costs that differ by less are equal: steps are whole numbers."""


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
