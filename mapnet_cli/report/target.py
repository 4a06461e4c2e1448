"""What a method needs to reach the first method's last value: the paper's claim, read off.

The paper's (section 4.2) is that MAP-Net after 600k steps has the score of BERT after 1,000k.
"""

import itertools
from collections.abc import Sequence

from mapnet_cli.render import Cell, Table, plain
from mapnet_cli.report.compare import HOURS
from mapnet_cli.report.gather import Results, signature
from mapnet_cli.report.scores import Scores
from mapnet_cli.report.trajectories import Place, loss_trajectory, score_trajectory, scored_seeds, seeds_with
from mapnet_cli.report.wording import label, on_what

LOSSES = {"validation_loss": "held-out loss", "validation_loss_refit": "held-out loss, refitted"}
NOTES = (
    "Linear between checkpoints; at most: its first checkpoint has the value already. Over the pretraining seeds that"
    " both methods have.",
    "Checkpoints before the last come out of the middle of a learning-rate schedule: a training planned for so few"
    " steps would do better.",
    HOURS,
    "A score that is mostly noise reaches any value early: see where the first method itself has its last score.",
)


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
    for method in config.methods:
        pair = (method, config.methods[0])
        seeds = set.intersection(*(scored_seeds(results, scores, whose) for whose in pair))
        ours, theirs = (score_trajectory(results, scores, whose, seeds) for whose in pair)
        last = config.fine_tuned_steps(config.methods[0])[-1]
        rows.append(_row((Cell(label(method), method), plain("score")), "{:.2f}", ours, theirs, last, 1))
    for name, measure in LOSSES.items():
        for method in config.methods:
            pair = (method, config.methods[0])
            seeds = set.intersection(*(seeds_with(results, name, whose) for whose in pair))
            ours, theirs = (loss_trajectory(results, name, whose, seeds) for whose in pair)
            last = config.last_step(config.methods[0])
            rows.append(_row((Cell(label(method), method), plain(measure)), "{:.3f}", ours, theirs, last, -1))
    first = f"{label(config.methods[0])}'s" if config.methods else "the first method's"
    shares = (f"of {first} {cost}" for cost in ("steps", "FLOPs", "hours"))
    columns = ("Model", "Measure", f"{first} last", "Own last", "Reached at step", *shares)
    title = f"What it takes to reach {first} last value{on_what(results)}"
    return Table("target", title, columns, tuple(rows), NOTES, signature(results, scores.metrics))


def _row(
    names: tuple[Cell, Cell], form: str, ours: Sequence[Place], theirs: Sequence[Place], last: int, sign: int
) -> tuple[Cell, ...]:
    """Returns a row; without a value where the first method's `last` checkpoint has none."""
    if not ours or not theirs or theirs[-1].steps != last:
        return (*names, *[plain(None)] * 6)
    end = theirs[-1]
    values = [Cell(form.format(value), value) for value in (end.value, ours[-1].value)]
    found = reached(ours, end.value, sign)
    if found is None:
        return (*names, *values, Cell("not reached", None), *[plain(None)] * 3)
    costs, at_most = found
    bound = "at most " if at_most else ""
    shares = [cost / whole for cost, whole in zip(costs, end[:3], strict=True)]
    step = Cell(f"{bound}{costs[0]:,.0f}", costs[0])
    return (*names, *values, step, *(Cell(f"{bound}{share:.0%}", share) for share in shares))
