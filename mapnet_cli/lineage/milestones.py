"""Finding a finished checkpoint by what a user calls it."""

from mapnet_cli.core import Checkpoint, UsageError
from mapnet_cli.lineage.graph import Lineage


def find_milestone(
    lineage: Lineage,
    method: str | None,
    seed: int | None,
    step: int | None,
    option: str = "--method",
    fine_tuned: bool = False,
) -> Checkpoint:
    """Returns the record of a finished milestone, with `fine_tuned` of one that finetune.milestones names.

    None stands for the config's only method, its first seed, the last finished milestone. Raises
    UsageError, naming the `option` that the method is from, where there is no such milestone.
    """
    config = lineage.config
    choices = ", ".join(config.methods) or "none: the config has imports only"
    if method is None and len(config.methods) != 1:
        raise UsageError(f"which method? Name one with {option}; the config has {choices}")
    method = method or config.methods[0]
    if method not in config.methods:
        raise UsageError(f"{option}: the config has no method {method!r}; it has {choices}")
    seeds = config.seeds_of(method)
    seed = seeds[0] if seed is None else seed
    if seed not in seeds:
        raise UsageError(f"--seed: {seed} is not one of {method}'s pretraining seeds ({', '.join(map(str, seeds))})")
    key = lineage.pretraining(method, seed).key
    steps = config.fine_tuned_steps(method) if fine_tuned else config.milestone_steps(method)
    found = {s: row for s in steps if (row := lineage.artifacts.find(f"{key}/step{s}", Checkpoint)) is not None}
    of_them = " of finetune.milestones" if fine_tuned else ""
    if not found:
        raise UsageError(
            f"no milestone{of_them} of {method}, seed {seed}, is finished: run `mapnet pretrain` with these options"
        )
    if step is not None and step not in found:
        one_of = ", ".join(map(str, found))
        raise UsageError(f"--step: {step} is not a finished milestone{of_them}; choose one of {one_of}")
    return found[max(found) if step is None else step]
