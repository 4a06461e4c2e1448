"""The stages in order, and the operations on all of them: run, dry run and status."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack, nullcontext
from importlib import import_module
from typing import Any

from mapnet_cli import jobs
from mapnet_cli.cli.inventory import not_used
from mapnet_cli.cli.reasons import reasons, remember
from mapnet_cli.config import Config
from mapnet_cli.core import Artifacts, Console, InputError, LockedError, UsageError
from mapnet_cli.lineage import Digests, Lineage

STAGES = {
    "prepare-corpus": "PrepareCorpus", "pretrain": "Pretrain", "minimal-pairs": "MinimalPairs",
    "finetune-glue": "FinetuneGlue",
}  # fmt: skip
"""Stages in execution order, with their classes in `stage.py` of the package of that name."""


def load_stage(name: str, lineage: Lineage) -> jobs.Stage:
    """Returns a stage, which is imported on first use: that keeps --help fast."""
    stage: jobs.Stage = getattr(import_module(f"mapnet_cli.{name.replace('-', '_')}.stage"), STAGES[name])(lineage)
    return stage


def run_stages(
    names: Sequence[str], lineage: Lineage, console: Console, workers: int | None, force: bool,
    ray_address: str | None = None, config_name: str = "custom",
) -> None:  # fmt: skip
    """Runs the stages one after another, skipping finished work; on a Ray cluster if `ray_address` is given.

    `workers` is the number of parallel jobs; None: as many as the cluster has room for. Says why work that the config
    called `config_name` had finished is done again.
    """
    if (dist := jobs.launched()) is not None:
        if ray_address is not None:
            raise UsageError("--engine ray does not work under torchrun or srun: omit it")
        _run_launched(names, lineage, console, dist, force)
        return
    artifacts = lineage.artifacts
    planned = {name: load_stage(name, lineage) for name in names}
    for stage in planned.values():
        stage.validate()
    todo = {n: stage for n, stage in planned.items() if force or _has_pending_jobs(stage, artifacts, workers or 1)}
    for stage in [*todo.values()][1:]:  # the first reads its data right away
        stage.check_data(force)
    for reason in reasons(lineage, config_name, todo):
        console.note(reason)
    cluster = None if ray_address is None else jobs.RayEngine(artifacts, console, ray_address, workers, force)
    preload = sorted({module for stage in todo.values() for module in stage.preload})
    engine: jobs.Engine = cluster or jobs.LocalEngine(artifacts, console, workers or 0, force, preload)
    with cluster if cluster and todo else nullcontext():
        for name in names:
            with artifacts.lock(name):
                # hash the inputs when their stage starts, not when the command starts
                stage = load_stage(name, Lineage(lineage.config, artifacts))
                stage.preflight()
                engine.run(stage.plan(workers or 1))
                remember(lineage, config_name, name)
                for line in stage.summary():
                    console.note(line)


def _run_launched(
    names: Sequence[str], lineage: Lineage, console: Console, dist: jobs.DistContext, force: bool
) -> None:
    """Runs pretraining in all processes launched by torchrun or srun; rank 0 holds the lock."""
    if tuple(names) != ("pretrain",):
        raise UsageError("only `mapnet pretrain` runs under torchrun or srun; run other commands without them")
    if lineage.config.pretrain.processes > 1:
        raise UsageError("the processes are already launched: omit --processes (pretrain.processes)")
    stage, artifacts = load_stage("pretrain", lineage), lineage.artifacts
    stage.validate()
    with jobs.joined(), ExitStack() as stack:
        locked = ""
        if dist.rank == 0:
            try:
                stack.enter_context(artifacts.lock("pretrain"))
            except LockedError as error:
                locked = str(error)
        if locked := dist.broadcast(locked):
            raise LockedError(locked)
        jobs.LaunchedEngine(artifacts, console, dist, force).run(stage.plan(1))


def dry_run(names: Iterable[str], lineage: Lineage, workers: int) -> list[dict[str, Any]]:
    """Returns the rows of `--dry-run`: one per phase, with job counts and, in a stage's last row, its forecast."""
    rows = []
    for name in names:
        stage = load_stage(name, lineage)
        stage.validate()
        phases = stage.plan(workers)
        for phase in phases:
            counts = _counts(phase, lineage.artifacts)
            rows.append({"stage": name, "phase": phase.name, "unit": phase.unit, **counts})
        if phases:
            rows[-1]["estimate"] = stage.forecast(workers)
    return rows


def status(lineage: Lineage) -> list[tuple[dict[str, Any], jobs.StageProgress]]:
    """Returns one row per phase, with job counts and whether it is running, and the progress of the stage."""
    rows: list[tuple[dict[str, Any], jobs.StageProgress]] = []
    artifacts = lineage.artifacts
    for name in STAGES:
        stage, running = load_stage(name, lineage), artifacts.locked(name)
        try:
            phases = stage.plan(1)
        except InputError as error:  # the other stages can still be shown
            row = {"stage": name, "phase": "input", "running": running, "done": 0, "total": 1, "error": str(error)}
            rows.append((row, jobs.StageProgress()))
            continue
        progress = stage.progress() if phases else jobs.StageProgress()
        for phase in phases:
            counts = _counts(phase, artifacts, progress.done.get(phase.name))
            ended = counts["done"] == counts["total"]
            row = {"stage": name, "phase": phase.name, "running": running and not ended, **counts}
            rows.append((row, jobs.StageProgress()))
            running = running and ended  # phases run one after another
        if phases:
            row = rows[-1][0]
            row |= progress.facts
            if not artifacts.locked(name):  # a running process moves files
                keys = [job.key for phase in phases for job in phase.jobs]
                row["unused_mb"] = {key: size / 1e6 for key, size in not_used(artifacts, name, keys).items()}
            rows[-1] = row, progress
    return rows


def superseded(configs: Iterable[Config], artifacts: Artifacts, unfinished: bool) -> dict[str, int]:
    """Returns {key: bytes} of the results that none of the configs uses, in either automatic precision.

    Results of stages that no config uses are left out. Raises UsageError if a config's own results, which replace
    others, aren't all there, unless `unfinished`; InputError if their names are unknown.
    """
    used, digests = dict[str, set[str]](), Digests(artifacts)
    for config in configs:
        own = Lineage(config, artifacts, digests)
        pending = [name for name in STAGES if _has_pending_jobs(load_stage(name, own), artifacts, 1)]
        if pending and not unfinished:
            raise UsageError(
                f"{', '.join(pending)} of the config isn't finished, so nothing is replaced yet: run it first, or say "
                "--unfinished"
            )
        finetune = config.finetune.model_copy(update={"keep": "best"})  # models that were kept earlier
        kept = config.model_copy(update={"finetune": finetune})
        for variant in (kept, kept.with_precision(flip=True)):
            for name in STAGES:
                phases = load_stage(name, Lineage(variant, artifacts, digests)).plan(1)
                used.setdefault(name, set()).update(job.key for phase in phases for job in phase.jobs)
    found = (not_used(artifacts, name, keys, deep=True) for name, keys in used.items() if keys)
    return {key: size for sizes in found for key, size in sizes.items()}


def _has_pending_jobs(stage: jobs.Stage, artifacts: Artifacts, workers: int) -> bool:
    return any(not jobs.is_done(job, artifacts) for phase in stage.plan(workers) for job in phase.jobs)


def _counts(phase: jobs.Phase, artifacts: Artifacts, known: int | None = None) -> dict[str, int]:
    """Returns the numbers of finished jobs, which may be known already, and of all jobs."""
    done = sum(jobs.is_done(job, artifacts) for job in phase.jobs) if known is None else known
    return {"done": done, "total": len(phase.jobs)}
