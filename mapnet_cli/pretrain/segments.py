"""The order in which a run makes its steps: in one go, or (pretrain.schedule "wsd") as a trunk with branches.

Every branch ends in a milestone, over whose last tenth the learning rate decays to 0. It begins from the trunk's state,
to which the run then returns, so the trunk never decays; the branch of the last milestone ends the run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mapnet_cli.config import Pretrain


@dataclass(frozen=True)
class Segment:
    """The steps `first` to `last` - 1. A place in the run is the number of all steps made so far: `before` + step."""

    first: int
    last: int
    milestones: tuple[int, ...]
    decay: tuple[int, int]
    """The learning rate is the peak (after the warm-up) up to the first of these steps, and reaches 0 at the second."""
    before: int = 0  # number of steps made in earlier branches
    branch: int = 0  # the milestone that the branch ends in; 0 in the trunk

    @property
    def end(self) -> int:
        """The place where the segment ends."""
        return self.before + self.last


def segments(pretrain: Pretrain) -> list[Segment]:
    """Returns the segments of a run in order; some may be empty."""
    milestones = pretrain.milestone_steps()
    if pretrain.schedule == "linear":
        return [Segment(0, milestones[-1], milestones, (0, pretrain.steps))]
    found, first, before = list[Segment](), 0, 0
    for step in milestones:
        # checkpoints don't contain a proposal that several visits share, so a branch begins with a first visit
        begin = (step - -(-step // 10)) // pretrain.visits * pretrain.visits
        found.append(Segment(first, begin, (), (begin, begin), before))
        found.append(Segment(begin, step, (step,), (begin, step), before, step))
        first, before = begin, before + step - begin
    return found


def place_of(row: Mapping[str, int], parts: Sequence[Segment]) -> int:
    """Returns the place of a log line."""
    step, branch = row["step"], row.get("branch", 0)
    return next(part.before + step for part in parts if part.branch == branch and step <= part.last)


def needed_for(place: int, parts: Sequence[Segment]) -> int:
    """Returns the place of the checkpoint without which a run can't resume at `place`: of a branch, its beginning."""
    for part in parts[:-1]:
        begin = part.before + part.first
        if part.branch and begin < place < part.end:
            return begin
    return place
