"""Training logs, reduced to the points of the charts."""

from mapnet_cli.core import DIAGNOSTICS, log_rows
from mapnet_cli.lineage import Lineage

LOGGED_LOSS = "validation_loss_refit"
LOGGED = ("loss", LOGGED_LOSS, *DIAGNOSTICS)
POINTS = 150
"""Maximum number of points per run and curve; of a longer log, each point is the mean of several lines."""
Curves = dict[str, list[tuple[float, float]]]
"""Step and value of each of LOGGED."""


def read_log(lineage: Lineage, method: str, seed: int) -> Curves:
    """Returns the curves of a run, from the trunk and the last branch; {} without a log."""
    last = lineage.config.last_step(method)
    curves: Curves = {name: [] for name in LOGGED}
    for _, row in log_rows(lineage.artifacts.path(f"{lineage.pretraining(method, seed).key}/log.jsonl")):
        if row.get("branch", 0) in (0, last):
            for name in curves.keys() & row.keys():
                curves[name].append((row["step"], row[name]))
    return {name: _thinned(points) for name, points in curves.items() if points}


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    size = -(-len(points) // POINTS)
    groups = (points[start : start + size] for start in range(0, len(points), size))
    return [(group[-1][0], round(sum(value for _, value in group) / len(group), 5)) for group in groups]
