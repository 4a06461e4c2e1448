"""The stages in order, and the operations on all of them: run, dry run and status."""

import re
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, nullcontext
from importlib import import_module
from typing import Any

from mapnet_cli import jobs
from mapnet_cli.core import Artifacts, Console, InputError, LockedError, UsageError
from mapnet_cli.lineage import Lineage

HAS_FINGERPRINT = re.compile("-[0-9a-f]{8}$")
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
    ray_address: str | None = None,
) -> None:  # fmt: skip
    """Runs the stages one after another, skipping finished work; on a Ray cluster if `ray_address` is given.

    `workers` is the number of parallel jobs; None: as many as the cluster has room for.
    """
    if (dist := jobs.launched()) is not None:
        if ray_address is not None:
            raise UsageError("--engine ray does not work under torchrun or srun: omit it")
        _run_launched(names, lineage, console, dist, force)
        return
    artifacts = lineage.artifacts
    todo = [
        stage
        for stage in (load_stage(name, lineage) for name in names)
        if force or not all(jobs.is_done(job, artifacts) for phase in stage.plan(workers or 1) for job in phase.jobs)
    ]
    cluster = None if ray_address is None else jobs.RayEngine(artifacts, console, ray_address, workers, force)
    preload = sorted({module for stage in todo for module in stage.preload})
    engine: jobs.Engine = cluster or jobs.LocalEngine(artifacts, console, workers or 0, force, preload)
    with cluster if cluster and todo else nullcontext():
        for name in names:
            with artifacts.lock(name):
                # hash the inputs when their stage starts, not when the command starts
                stage = load_stage(name, Lineage(lineage.config, artifacts))
                stage.validate()
                stage.preflight()
                engine.run(stage.plan(workers or 1))
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
                row["unused_mb"] = _unused(name, phases, artifacts)
            rows[-1] = row, progress
    return rows


def _unused(name: str, phases: Sequence[jobs.Phase], artifacts: Artifacts) -> dict[str, float]:
    """Returns {folder: megabytes} of the stage's results from other settings, which this config doesn't use."""
    used = {"/".join(job.key.split("/")[:2]) for phase in phases for job in phase.jobs}
    folders = (path for path in sorted((artifacts.root / name).glob("*")) if path.is_dir())
    return {
        key: sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6
        for path in folders
        if (key := f"{name}/{path.name}") not in used and HAS_FINGERPRINT.search(key)
    }


def _counts(phase: jobs.Phase, artifacts: Artifacts, known: int | None = None) -> dict[str, int]:
    """Returns the numbers of finished jobs, which may be known already, and of all jobs."""
    done = sum(jobs.is_done(job, artifacts) for job in phase.jobs) if known is None else known
    return {"done": done, "total": len(phase.jobs)}
