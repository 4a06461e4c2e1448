"""Schedule of the training steps: exploration or exploitation (section 4.1.1), and the proposal's work."""

import random
from dataclasses import dataclass
from enum import Enum, auto

from mapnet_cli.config import Method
from mapnet_cli.core import derive_seed


class ProposalWork(Enum):
    """What the proposal (MAP-Net or a table) does in one step."""

    LEARN = auto()  # reads the sentences, proposes and learns
    PROPOSE = auto()  # reads the sentences and proposes, for this step or for steps that reuse the proposal
    REUSE = auto()  # reuses the proposal of an earlier step with the same sentences
    REST = auto()


@dataclass(frozen=True)
class StepPlan:
    """What one step does: a function of (method, seed, step), the same in all processes."""

    seed: int
    step: int
    explore: bool  # whether masks are uniform in this step
    proposal: ProposalWork
    mask_rate: float

    @property
    def learns(self) -> bool:
        return self.proposal is ProposalWork.LEARN

    @property
    def proposes(self) -> bool:
        """Whether a proposal is computed without learning."""
        return self.proposal is ProposalWork.PROPOSE

    @property
    def reuses(self) -> bool:
        return self.proposal is ProposalWork.REUSE


def plan_step(method: Method, seed: int, step: int, steps: int) -> StepPlan:
    """Returns the plan for step `step` of `steps`."""
    explore = method.strategy == "uniform" or is_exploration_step(method, seed, step, steps)
    work = _proposal_work(method, explore, seed, step, steps) if method.proposal else ProposalWork.REST
    return StepPlan(seed, step, explore, work, method.rate_at(step, steps))


def _proposal_work(method: Method, explore: bool, seed: int, step: int, steps: int) -> ProposalWork:
    if step % method.propose_every:
        return ProposalWork.REUSE
    learned, every = method.learned, method.mapnet.learn_every if method.mapnet else 1
    if learned and step % every == 0 and (learned.learn_on_uniform_steps or not explore):
        return ProposalWork.LEARN
    sharing = range(step, step + method.propose_every)
    if all(is_exploration_step(method, seed, later, steps) for later in sharing):
        return ProposalWork.REST
    return ProposalWork.PROPOSE


def is_exploration_step(method: Method, seed: int, step: int, steps: int) -> bool:
    """Returns whether this step explores: one coin flip for the whole batch, the same in all processes."""
    if method.explore_unit == "sentence":
        return False
    coin = random.Random(derive_seed(seed, "exploration", step)).random()
    return coin < method.explore_at(step, steps)
