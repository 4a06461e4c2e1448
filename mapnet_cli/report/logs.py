"""Training logs, reduced to points for the charts, and to how many steps explored."""

from collections.abc import Sequence
from dataclasses import dataclass

from mapnet_cli.core import DIAGNOSTICS, log_rows
from mapnet_cli.lineage import Lineage

LOGGED_LOSS = "validation_loss_refit"
LOGGED = ("loss", LOGGED_LOSS, *DIAGNOSTICS)
POINTS = 150
"""Maximum number of points per run and curve; of a longer log, each point is the mean of several lines."""


@dataclass(frozen=True)
class TrainingLog:
    complete: bool
    """Whether the log reaches the last milestone."""
    uniform_steps: float
    """Number of steps with uniform masks up to the last milestone; steps count in part if each sentence has a coin."""
    losses: Sequence[tuple[float, float]]
    """Step and held-out loss of each validation; with schedule "wsd" only those of milestones, whose rate decayed."""
    curves: dict[str, list[tuple[float, float]]]
    """Step and value of each of LOGGED, of all lines of the trunk and of the last branch."""


def read_log(lineage: Lineage, method: str, seed: int) -> TrainingLog:
    """Returns the log of a run, which is empty if there is none."""
    last, linear = lineage.config.last_step(method), lineage.config.pretrain.schedule == "linear"
    uniform, losses, ends = 0.0, list[tuple[float, float]](), {0: 0}
    curves: dict[str, list[tuple[float, float]]] = {name: [] for name in LOGGED}
    for _, row in log_rows(lineage.artifacts.path(f"{lineage.pretraining(method, seed).key}/log.jsonl")):
        step, branch = row["step"], row.get("branch", 0)
        if "uniform_steps" in row:  # the fraction of the steps since the line before
            if branch in (0, last):
                uniform += (step - ends.get(branch, ends[0])) * row["uniform_steps"]
            ends[branch] = step
        if LOGGED_LOSS in row and (linear or branch == step):
            losses.append((step, row[LOGGED_LOSS]))
        if branch in (0, last):
            for name in curves.keys() & row.keys():
                curves[name].append((step, row[name]))
    thinned = {name: _thinned(points) for name, points in curves.items() if points}
    return TrainingLog(last in ends.values(), uniform, losses, thinned)


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    size = -(-len(points) // POINTS)
    groups = (points[start : start + size] for start in range(0, len(points), size))
    return [(group[-1][0], round(sum(value for _, value in group) / len(group), 5)) for group in groups]
