"""What a method needs to reach the first method's last value: the paper's claim, read off.

The paper's (section 4.2) is that MAP-Net after 600k steps has the score of BERT after 1,000k.
"""

import itertools
from collections.abc import Sequence

from mapnet_cli.render import Cell, Table, plain
from mapnet_cli.report.gather import Results, signature
from mapnet_cli.report.scores import Scores
from mapnet_cli.report.trajectories import Place, loss_trajectory, score_trajectory, seeds_with
from mapnet_cli.report.wording import label, on_what

LOSSES = {"validation_loss": "held-out loss", "validation_loss_refit": "held-out loss, refitted"}
COLUMNS = ("Steps", "of its steps", "of its FLOPs", "of its hours")
NOTES = (
    "Linear between checkpoints; at most: its first checkpoint has the value already. Shares are of what the first"
    " method spent until its last checkpoint.",
    "Losses: means over the pretraining seeds that both methods have. Checkpoints before the last come out of the"
    " middle of a learning-rate schedule: a training planned for so few steps would do better.",
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
    methods = results.config.methods
    rows = []
    for method in methods:
        ours, theirs = (score_trajectory(results, scores, whose) for whose in (method, methods[0]))
        rows.append(_row(method, "score", "{:.2f}", ours, theirs, 1))
    for name, measure in LOSSES.items():
        for method in methods:
            seeds = seeds_with(results, name, method) & seeds_with(results, name, methods[0])
            ours, theirs = (loss_trajectory(results, name, whose, seeds) for whose in (method, methods[0]))
            rows.append(_row(method, measure, "{:.3f}", ours, theirs, -1))
    first = label(methods[0]) if methods else "the first method"
    columns = ("Model", "Measure", f"{first}'s last", "Own last", *COLUMNS)
    title = f"What it takes to reach {first}'s last value{on_what(results)}"
    return Table("target", title, columns, tuple(rows), NOTES, signature(results, scores.metrics))


def _row(
    method: str, measure: str, form: str, ours: Sequence[Place], theirs: Sequence[Place], sign: int
) -> tuple[Cell, ...]:
    names = (Cell(label(method), method), plain(measure))
    if not ours or not theirs:
        return (*names, *[plain(None)] * (2 + len(COLUMNS)))
    last = theirs[-1]
    values = [Cell(form.format(value), value) for value in (last.value, ours[-1].value)]
    found = reached(ours, last.value, sign)
    if found is None:
        return (*names, *values, Cell("not reached", None), *[plain(None)] * (len(COLUMNS) - 1))
    costs, at_most = found
    bound = "at most " if at_most else ""
    shares = [cost / whole for cost, whole in zip(costs, last[:3], strict=True)]
    steps = Cell(f"{bound}{costs[0]:,.0f}", costs[0])
    return (*names, *values, steps, *(Cell(f"{bound}{share:.0%}", share) for share in shares))
