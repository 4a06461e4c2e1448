"""Score and held-out loss against pretraining cost, and the cost of reaching the first method's final value.

The paper (section 4.2) claims that MAP-Net reaches the score of BERT at 1,000k steps after 600k steps.
"""

import itertools
import math
from collections.abc import Collection, Iterator, Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np

from mapnet_cli.core import Cell, few, plain, t_interval
from mapnet_cli.report.differences import Differences, final
from mapnet_cli.report.labels import label
from mapnet_cli.report.load import Results
from mapnet_cli.report.scores import SCORE, Scores, spread, values

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


class Reached(NamedTuple):
    """What a curve has cost when it first reaches a value."""

    steps: float
    flops: float
    seconds: float
    at_most: bool  # the first checkpoint has reached it already


def reached(curve: Sequence[CurvePoint], value: float, sign: int = 1) -> Reached | None:
    """Returns the cost of the first crossing, interpolated between checkpoints in the logarithm of cost; None: never.

    `sign` is -1 if lower values are better.
    """
    if curve and sign * curve[0].value >= sign * value:
        return Reached(*curve[0][:3], at_most=True)
    for left, right in itertools.pairwise(curve):
        if sign * right.value >= sign * value:
            share = (value - left.value) / (right.value - left.value)
            steps, flops, seconds = (a * (b / a) ** share for a, b in zip(left[:3], right[:3], strict=True))
            return Reached(steps, flops, seconds, at_most=False)
    return None


def losses_reached(results: Results, method: str) -> dict[int, Reached | None]:
    """Returns at which shares of its cost a method first has the first method's final held-out loss, None: never.

    By pretraining seed, for those with which both have finished.
    """
    config, found = results.config, dict[int, Reached | None]()
    for seed in config.seeds_of(method):
        names = (method, config.methods[0])
        ours, theirs = (run_losses(results, name, seed) for name in names)
        if [curve[-1].steps if curve else 0 for curve in (ours, theirs)] == [*map(config.last_step, names)]:
            end, at = theirs[-1], reached(ours, theirs[-1].value, -1)
            found[seed] = at and Reached(
                at.steps / end.steps, at.flops / end.flops, at.seconds / end.seconds, at.at_most
            )
    return found


def run_losses(results: Results, method: str, seed: int) -> list[CurvePoint]:
    """Returns the held-out losses of a run's milestones, as far as they are known. Each cost is positive."""
    rows = (results.checkpoints.get((method, seed, step)) for step in results.config.milestone_steps(method))
    losses = ((row, row.validation.get(results.loss, math.nan)) for row in rows if row)
    return [
        CurvePoint(row.step, row.flops, row.seconds, loss, 0.0)
        for row, loss in losses if math.isfinite(loss) and min(row.flops, row.seconds) > 0
    ]  # fmt: skip


def share_cell(found: Collection[Reached | None], cost: str) -> Cell:
    """Returns the mean share over seeds with its interval, both of the logarithm, since shares are ratios.

    Without an interval each seed's share: where some only have an upper bound, or none, since that would leave out the
    worst.
    """
    known = [one for one in found if one]
    if not known:
        return Cell("not reached") if found else plain(None)
    shares = [getattr(one, cost) for one in known]
    complete = len(known) == len(found) and not any(one.at_most for one in known)
    centre = math.exp(fmean(map(math.log, shares))) if complete else None
    data = {"mean": centre, "low": None, "high": None, "n": len(known)}
    if complete and (interval := t_interval([*map(math.log, shares)])):
        data["low"], data["high"] = low, high = math.exp(interval[0]), math.exp(interval[1])
        return Cell(f"{centre:.0%} [{low:.0%}, {high:.0%}]", data)
    shown = ", ".join(f"{'≤' * one.at_most}{share:.0%}" for one, share in zip(known, shares, strict=True))
    return Cell(shown + f" ({len(known)} of {len(found)} seeds)" * (len(known) < len(found)), data)


def reading(results: Results, scores: Scores, differences: Differences) -> Iterator[str]:
    """Yields at what cost each method reaches the first method's final score.

    A noisy value is reached by chance at some early checkpoint, so this is only said where the final difference to the
    first method is beyond the noise.
    """
    config, unsaid = results.config, list[str]()
    for method in config.methods[1:]:
        first = config.methods[0]
        difference = final(config, differences, SCORE, method, first)
        if difference is None or not difference.better:
            unsaid += [label(method)] if difference and not difference.beyond_noise else []
            continue
        ours, theirs = (trajectory(results, scores, a, SCORE, b) for a, b in ((method, first), (first, method)))
        if theirs and len(ours) > 1 and (at := reached(ours, theirs[-1].value)):
            shares = [f"{own / end:.0%}" for own, end in zip(at[:3], theirs[-1][:3], strict=True)]
            yield (
                f"{label(method)} reaches {label(first)}'s final {SCORE} ({theirs[-1].value:.2f}) at "
                f"{'most at ' * at.at_most}step {round(at.steps):,}: {shares[0]} of its steps, {shares[1]} of "
                f"its FLOPs and {shares[2]} of its time."
            )
    if unsaid:
        yield (
            f"At what cost {few(unsaid)} would reach {label(config.methods[0])}'s final score isn't said, since the "
            "difference isn't beyond the noise."
        )
