"""Lookup of a finished checkpoint by method, seed and step, of the scores of fine-tuning, and of other precisions."""

from mapnet_cli.config import Config
from mapnet_cli.core import Artifacts, Baseline, Baselines, Checkpoint, FinetuneRun, MapnetError, UsageError
from mapnet_cli.glue import GridRun, other_rows, runs_of
from mapnet_cli.lineage.graph import Lineage


def find_milestone(
    lineage: Lineage, method: str | None, seed: int | None, step: int | None, option: str = "--method",
    fine_tuned: bool = False,
) -> Checkpoint:  # fmt: skip
    """Returns the record of a finished milestone; with `fine_tuned`, of one in finetune.milestones.

    None selects the config's only method, its first seed, or the last finished milestone. Raises UsageError
    if there is no such milestone; `option` is the command-line option that sets the method.
    """
    config = lineage.config
    choices = ", ".join(config.methods) or "imports only"
    if method is None and len(config.methods) != 1:
        raise UsageError(f"choose a method with {option}; the config has {choices}")
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
    qualifier = " in finetune.milestones" if fine_tuned else ""
    if not found:
        raise UsageError(
            f"{method}, seed {seed}, has no finished milestone{qualifier}: run `mapnet pretrain` with these options"
        )
    if step is not None and step not in found:
        one_of = ", ".join(map(str, found))
        raise UsageError(f"--step: {step} is not a finished milestone{qualifier}; choose one of {one_of}")
    return found[max(found) if step is None else step]


def find_runs(lineage: Lineage, encoder: tuple[str, int, int], task: str) -> dict[GridRun, FinetuneRun]:
    """Returns the finished fine-tuning runs of a row of Table 3 on a task."""
    runs = runs_of(lineage.config, *encoder, task)
    found = {run: lineage.artifacts.find(lineage.finetuning(run).key, FinetuneRun) for run in runs}
    return {run: row for run, row in found.items() if row is not None}


def find_baselines(lineage: Lineage, task: str) -> list[Baseline]:
    """Returns the scored baselines of a task."""
    found = lineage.artifacts.find(lineage.baseline(task).key, Baselines)
    return found.rows if found else []


def find_row(lineage: Lineage, method: str | None, seed: int | None, step: int | None) -> tuple[str, int, int]:
    """Returns (method, pretraining seed, step) of a row of Table 3. Raises UsageError if there is no such row."""
    config = lineage.config
    rows = (*config.methods, *other_rows(config))
    if method is None and len(rows) > 1:
        raise UsageError(f"choose a row of Table 3 with --method: {', '.join(rows)}")
    method = method or rows[0]
    if method in other_rows(config):
        if seed is not None or step is not None:
            raise UsageError(f"{method} has no pretraining seeds or steps: omit --seed and --step")
        return method, 0, 0
    found = find_milestone(lineage, method, seed, step, fine_tuned=True)
    return found.method, found.pretrain_seed, found.step


def precision_advice(config: Config, artifacts: Artifacts) -> str:
    """Returns how to use results of a machine with another automatic precision, or "" if there are none of use."""
    if config.with_precision() is config:  # nothing is automatic
        return ""
    here = Lineage(config, artifacts)
    there = Lineage(config.with_precision(flip=True), artifacts, here.digests)
    for method, seed in config.pretraining_runs():
        try:
            other = there.pretraining(method, seed)
            if other == here.pretraining(method, seed) or artifacts.marker(here.pretraining(method, seed).key):
                continue
            if artifacts.marker(other.key):
                found, precision = other.key, there.config.pretrain.precision
                return (
                    f"{found} is finished, in {precision}, but automatic precision here is "
                    f"{here.config.pretrain.precision}: to use it, set pretrain.precision={precision} "
                    f"and finetune.precision={precision}"
                )
        except MapnetError:  # reported by the command itself
            return ""
    return ""
