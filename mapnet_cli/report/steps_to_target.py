"""What a method needs to reach the first method's last value: the paper's claim, read off.

The paper's (section 4.2) is that MAP-Net after 600k steps has the score of BERT after 1,000k.
"""

import itertools
from collections.abc import Sequence

from mapnet_cli.core.tables import Cell, Table, plain
from mapnet_cli.report.load import Results, signature
from mapnet_cli.report.notes import MID_SCHEDULE, hours_notes, label, on_what, partial_note
from mapnet_cli.report.scores import Scores
from mapnet_cli.report.trajectories import Place, loss_trajectory, score_trajectory, scored_seeds, seeds_with

LOSSES = {"validation_loss": "held-out loss", "validation_loss_refit": "held-out loss, refitted"}
LINEAR = (
    "Linear between checkpoints; at most: its first checkpoint has the value already. Over the pretraining seeds that"
    " both methods have."
)
NOISE = "A score that is mostly noise reaches any value early: see where the first method itself has its last score."
ONE_SCORE = "No rows of scores: they take several fine-tuned checkpoints (finetune.milestones)."


def reached(curve: Sequence[Place], value: float, sign: int = 1) -> tuple[tuple[float, float, float], bool] | None:
    """Returns the steps, FLOPs and hours at which a curve first has a value, and whether it may have had it before.

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


def target_table(results: Results, scores: Scores) -> Table:
    """Returns, for score and held-out losses, what each method needs to reach the first method's last value."""
    config = results.config
    rows = []
    several = len(config.fine_tuned_steps()) > 1
    for method in config.methods if several else ():
        pair = (method, config.methods[0])
        seeds = set.intersection(*(scored_seeds(results, scores, whose) for whose in pair))
        curves = [score_trajectory(results, scores, whose, seeds) for whose in pair]
        last = [config.fine_tuned_steps(whose)[-1] for whose in pair]
        rows.append(_row((Cell(label(method), method), plain("score")), "{:.2f}", curves, last, 1))
    for name, measure in LOSSES.items():
        for method in config.methods:
            pair = (method, config.methods[0])
            seeds = set.intersection(*(seeds_with(results, name, whose) for whose in pair))
            curves = [loss_trajectory(results, name, whose, seeds) for whose in pair]
            last = [config.last_step(whose) for whose in pair]
            rows.append(_row((Cell(label(method), method), plain(measure)), "{:.3f}", curves, last, -1))
    first = f"{label(config.methods[0])}'s" if config.methods else "the first method's"
    shares = (f"of {first} {cost}" for cost in ("steps", "FLOPs", "hours"))
    columns = ("Model", "Measure", f"{first} last", "Own last", "Reached at step", *shares)
    title = f"What it takes to reach {first} last value{on_what(results)}"
    notes = (LINEAR, MID_SCHEDULE, *hours_notes(results), NOISE if several else ONE_SCORE, *partial_note(results))
    return Table("target", title, columns, tuple(rows), notes, signature(results, scores.metrics))


def _row(
    names: tuple[Cell, Cell], form: str, curves: Sequence[Sequence[Place]], last: Sequence[int], sign: int
) -> tuple[Cell, ...]:
    """Returns a row from a method's curve and the first method's; empty if one has no value at its last step yet."""
    if not all(curve and curve[-1].steps == step for curve, step in zip(curves, last, strict=True)):
        return (*names, *[plain(None)] * 6)
    ours, end = curves[0], curves[1][-1]
    values = [Cell(form.format(value), value) for value in (end.value, ours[-1].value)]
    found = reached(ours, end.value, sign)
    if found is None:
        return (*names, *values, Cell("not reached", None), *[plain(None)] * 3)
    costs, at_most = found
    bound = "at most " if at_most else ""
    shares = [cost / whole for cost, whole in zip(costs, end[:3], strict=True)]
    step = Cell(f"{bound}{costs[0]:,.0f}", costs[0])
    return (*names, *values, step, *(Cell(f"{bound}{share:.0%}", share) for share in shares))
