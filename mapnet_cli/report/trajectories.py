"""Score and held-out loss against pretraining cost, and the cost of reaching a given value.

The paper (section 4.2) claims that MAP-Net reaches the score of BERT at 1,000k steps after 600k steps.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mapnet_cli.core import short_steps
from mapnet_cli.report.differences import LOSS, SCORE, Differences
from mapnet_cli.report.labels import label
from mapnet_cli.report.load import Results
from mapnet_cli.report.scores import AVERAGE, PRIMARY, Scores, mean, spread

SAME_COST = 0.01
"""Relative tolerance for equal costs; steps are integers, so costs rarely match exactly."""


class CurvePoint(NamedTuple):
    """A checkpoint: the cost of one pretraining run up to it, and a value with its standard deviation over seeds."""

    steps: float
    flops: float
    seconds: float
    value: float
    sd: float


def score_trajectory(results: Results, scores: Scores, method: str, seeds: set[int]) -> list[CurvePoint]:
    """Returns the average score over `seeds` at each checkpoint that has runs for all fine-tuning seeds."""
    wanted = {(own, fine) for own in seeds for fine in results.config.finetune.seeds}
    values: dict[int, list[float]] = {}
    for step in results.config.fine_tuned_steps(method):
        found = scores.cells[method, step, AVERAGE]
        if wanted and wanted <= found.by_seed.keys():
            values[step] = [found.by_seed[place] for place in sorted(wanted)]
    return _curve(results, method, seeds, values)


def scored_seeds(results: Results, scores: Scores, method: str) -> set[int]:
    """Returns the pretraining seeds whose last fine-tuned checkpoint of the method has all runs in all columns."""
    found = scores.cells[method, results.config.fine_tuned_steps(method)[-1], AVERAGE]
    tuned = results.config.finetune.seeds
    return {own for own in results.config.seeds_of(method) if all((own, fine) in found.by_seed for fine in tuned)}


def loss_trajectory(results: Results, method: str, seeds: set[int]) -> list[CurvePoint]:
    """Returns the mean of the PRIMARY held-out loss over `seeds` at each checkpoint that all of them have."""
    values = {}
    for step in results.config.milestone_steps(method):
        rows = [row for row in results.checkpoints_at(method, step) if row.pretrain_seed in seeds]
        values[step] = [row.validation[PRIMARY] for row in rows if PRIMARY in row.validation]
    return _curve(results, method, seeds, {s: found for s, found in values.items() if len(found) == len(seeds)})


def seeds_with_loss(results: Results, method: str) -> set[int]:
    """Returns the pretraining seeds of a method whose last checkpoint has the PRIMARY held-out loss."""
    last = results.checkpoints_at(method, results.config.last_step(method))
    return {row.pretrain_seed for row in last if PRIMARY in row.validation}


def _curve(results: Results, method: str, seeds: set[int], values: dict[int, list[float]]) -> list[CurvePoint]:
    points = []
    for step, found in values.items():
        rows = [row for row in results.checkpoints_at(method, step) if row.pretrain_seed in seeds]
        if rows and len(rows) == len(seeds):
            costs = (mean(row.flops for row in rows), mean(row.seconds for row in rows))
            points.append(CurvePoint(step, *costs, mean(found), spread(found) or 0.0))
    return points


def at_equal_cost(results: Results, scores: Scores, method: str, step: int, cost: str) -> float | None:
    """Returns the first method's average score at the same `cost` ("flops" or "seconds") as `method` at `step`.

    Interpolates linearly over the pretraining seeds that both have; None outside the first method's checkpoints.
    """
    first = results.config.methods[0]
    seeds = scored_seeds(results, scores, method) & scored_seeds(results, scores, first)
    points = {point.steps: point for point in score_trajectory(results, scores, method, seeds)}
    curve = [(getattr(point, cost), point.value) for point in score_trajectory(results, scores, first, seeds)]
    if step not in points or not curve:
        return None
    at, ((least, start), (most, end)) = getattr(points[step], cost), (curve[0], curve[-1])
    if not (1 - SAME_COST) * least <= at <= (1 + SAME_COST) * most:
        return None
    for (left, low), (right, high) in itertools.pairwise(curve):
        if left <= at <= right:
            return low + (at - left) / (right - left) * (high - low) if right > left else low
    return start if at < least else end


def reached(curve: Sequence[CurvePoint], value: float, sign: int = 1) -> tuple[tuple[float, float, float], bool] | None:
    """Returns steps, FLOPs and seconds at which a curve first reaches a value, and whether that is an upper bound.

    Interpolates linearly; returns None if the value is never reached. `sign` is -1 if lower values are better.
    """
    if curve and sign * curve[0].value >= sign * value:
        return curve[0][:3], True
    for left, right in itertools.pairwise(curve):
        if sign * right.value >= sign * value:
            share = (value - left.value) / (right.value - left.value)
            steps, flops, seconds = (a + share * (b - a) for a, b in zip(left[:3], right[:3], strict=True))
            return (steps, flops, seconds), False
    return None


def reading(results: Results, scores: Scores, differences: Differences) -> Iterator[str]:
    """Yields at what cost each method reaches the first method's final score and held-out loss.

    A noisy value is reached by chance at some early checkpoint, so this is only said where the final difference to the
    first method is beyond the noise.
    """
    config, unsaid = results.config, []
    for method, measure in itertools.product(config.methods[1:], (SCORE, LOSS)):
        first, by_score = config.methods[0], measure == SCORE
        last = config.fine_tuned_steps(method)[-1] if by_score else config.last_step(method)
        difference = differences.get((measure, method, last, first))
        if difference is None or not difference.better:
            unsaid += [label(method)] if difference and difference.mean else []
            continue
        pair = (method, first)
        if by_score:
            seeds = set.intersection(*(scored_seeds(results, scores, name) for name in pair))
            ours, theirs = (score_trajectory(results, scores, name, seeds) for name in pair)
        else:
            seeds = set.intersection(*(seeds_with_loss(results, name) for name in pair))
            ours, theirs = (loss_trajectory(results, name, seeds) for name in pair)
        if theirs and len(ours) > 1 and (found := reached(ours, theirs[-1].value, 1 if by_score else -1)):
            costs, at_most = found
            shares = [f"{own / end:.0%}" for own, end in zip(costs, theirs[-1][:3], strict=True)]
            yield (
                f"{label(method)} reaches {label(first)}'s final {measure} ({theirs[-1].value:.2f}) at "
                f"{'most at ' * at_most}step {short_steps(round(costs[0]))}: {shares[0]} of its steps, {shares[1]} of "
                f"its FLOPs and {shares[2]} of its time."
            )
    if unsaid:
        names = ", ".join(dict.fromkeys(unsaid))
        yield (
            f"At what cost {names} would reach {label(config.methods[0])}'s final values isn't said where the "
            "difference isn't beyond the noise."
        )
