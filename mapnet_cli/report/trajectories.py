"""Score and held-out loss against pretraining cost, and the cost of reaching a given value.

The paper (section 4.2) claims that MAP-Net reaches the score of BERT at 1,000k steps after 600k steps.
"""

import itertools
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np

from mapnet_cli.core import few
from mapnet_cli.report.differences import Differences, final
from mapnet_cli.report.labels import label
from mapnet_cli.report.load import Results
from mapnet_cli.report.scores import LOSS, SCORE, Scores, spread, values

SAME_COST = 0.01  # relative tolerance for equal costs; steps are integers, so costs rarely match exactly


class CurvePoint(NamedTuple):
    """A checkpoint: the cost of one pretraining run up to it, and a value with its standard deviation over seeds."""

    steps: float
    flops: float
    seconds: float
    value: float
    sd: float


def trajectory(results: Results, scores: Scores, method: str, measure: str, other: str = "") -> list[CurvePoint]:
    """Returns SCORE or LOSS at each checkpoint, over the pretraining seeds that have it at the last one.

    With another method, over the seeds that both have. Checkpoints that lack one of these seeds are left out.
    """
    config, points = results.config, []
    steps = config.fine_tuned_steps if measure == SCORE else config.milestone_steps
    ends = (values(results, scores, name, steps(name)[-1], measure) for name in (method, other or method))
    seeds = set.intersection(*map(set, ends))
    for step in steps(method) if seeds else ():
        found = values(results, scores, method, step, measure)
        rows = [row for row in results.checkpoints_at(method, step) if row.pretrain_seed in seeds]
        if seeds <= found.keys() and len(rows) == len(seeds):
            behind = [value for seed in sorted(seeds) for value in found[seed]]
            costs = (fmean(row.flops for row in rows), fmean(row.seconds for row in rows))
            points.append(CurvePoint(step, *costs, fmean(behind), spread(behind) or 0.0))
    return points


def at_equal_cost(results: Results, scores: Scores, method: str, step: int) -> dict[str, float]:
    """Returns the first method's average score at the same "flops" and "seconds" as `method` at `step`.

    Interpolates linearly over the pretraining seeds that both have, not outside the first method's checkpoints.
    """
    first, found = results.config.methods[0], dict[str, float]()
    points = {point.steps: point for point in trajectory(results, scores, method, SCORE, first)}
    theirs = trajectory(results, scores, first, SCORE, method)
    for cost in ("flops", "seconds") if step in points and theirs else ():
        at, costs = getattr(points[step], cost), [getattr(point, cost) for point in theirs]
        if (1 - SAME_COST) * costs[0] <= at <= (1 + SAME_COST) * costs[-1]:
            found[cost] = float(np.interp(at, costs, [point.value for point in theirs]))
    return found


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
    config, unsaid = results.config, dict[str, None]()
    for method, measure in itertools.product(config.methods[1:], (SCORE, LOSS)):
        first = config.methods[0]
        difference = final(config, differences, measure, method, first)
        if difference is None or not difference.better:
            unsaid |= {label(method): None} if difference and difference.mean else {}
            continue
        ours, theirs = (trajectory(results, scores, a, measure, b) for a, b in ((method, first), (first, method)))
        if theirs and len(ours) > 1 and (found := reached(ours, theirs[-1].value, 1 if measure == SCORE else -1)):
            costs, at_most = found
            shares = [f"{own / end:.0%}" for own, end in zip(costs, theirs[-1][:3], strict=True)]
            yield (
                f"{label(method)} reaches {label(first)}'s final {measure} ({theirs[-1].value:.2f}) at "
                f"{'most at ' * at_most}step {round(costs[0]):,}: {shares[0]} of its steps, {shares[1]} of "
                f"its FLOPs and {shares[2]} of its time."
            )
    if unsaid:
        yield (
            f"At what cost {few(list(unsaid))} would reach {label(config.methods[0])}'s final values isn't said where "
            "the difference isn't beyond the noise."
        )
