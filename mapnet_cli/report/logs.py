"""Training logs, reduced to how many steps explored and how the held-out loss fell."""

from collections.abc import Sequence
from dataclasses import dataclass

from mapnet_cli.core import log_rows
from mapnet_cli.lineage import Lineage

LOGGED_LOSS = "validation_loss_refit"


@dataclass(frozen=True)
class TrainingLog:
    uniform_steps: float
    """Number of steps with uniform masks up to the last milestone; steps count in part if each sentence has a coin."""
    losses: Sequence[tuple[float, float]]
    """Step and held-out loss of each validation; with schedule "wsd" only those of milestones, whose rate decayed."""


def read_log(lineage: Lineage, method: str, seed: int) -> TrainingLog | None:
    """Returns the log of a run, None if it doesn't reach the last milestone."""
    last, linear = lineage.config.last_step(method), lineage.config.pretrain.schedule == "linear"
    uniform, losses, ends = 0.0, list[tuple[float, float]](), {0: 0}
    for _, row in log_rows(lineage.artifacts.path(f"{lineage.pretraining(method, seed).key}/log.jsonl")):
        step, branch = row["step"], row.get("branch", 0)
        if "uniform_steps" in row:  # the fraction of the steps since the line before
            if branch in (0, last):
                uniform += (step - ends.get(branch, ends[0])) * row["uniform_steps"]
            ends[branch] = step
        if LOGGED_LOSS in row and (linear or branch == step):
            losses.append((step, row[LOGGED_LOSS]))
    return TrainingLog(uniform, losses) if last in ends.values() else None
