"""The stages in order, and the operations on all of them: run, dry run and status."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from importlib import import_module
from typing import Any, Protocol

from mapnet_cli.core import Artifacts, Console, InputError, LockedError, UsageError
from mapnet_cli.jobs import (
    DistContext,
    Engine,
    LaunchedEngine,
    LocalEngine,
    Phase,
    RayEngine,
    StageProgress,
    is_done,
    joined,
    launched,
)
from mapnet_cli.lineage import Lineage

HAS_FINGERPRINT = re.compile("-[0-9a-f]{8}$")


class Stage(Protocol):
    """A command whose work consists of jobs, for one config and artifact directory."""

    @property
    def preload(self) -> tuple[str, ...]:
        """Modules to import before workers start; torch imports torch._dynamo for a process's first optimiser."""

    def validate(self) -> None:
        """Raises UsageError or InputError if the config is invalid for the stage."""

    def preflight(self) -> None:
        """Raises MapnetError if this machine can't do the work; called just before it starts."""

    def plan(self, workers: int) -> list[Phase]:
        """Returns all jobs, done or not; phases run one after another."""

    def forecast(self, workers: int) -> list[str]:
        """Returns lines for `--dry-run` about the remaining jobs: time, memory, disk."""

    def progress(self) -> StageProgress:
        """Returns what `status` shows in addition to job counts."""

    def summary(self) -> list[str]:
        """Returns lines to print when the stage is done."""


STAGES = {
    "prepare-corpus": "PrepareCorpus", "pretrain": "Pretrain", "minimal-pairs": "MinimalPairs",
    "finetune-glue": "FinetuneGlue",
}  # fmt: skip
"""Stages in execution order, with their classes in `stage.py` of the package of that name."""


def load_stage(name: str, lineage: Lineage) -> Stage:
    """Returns a stage, which is imported on first use: that keeps --help fast."""
    stage: Stage = getattr(import_module(f"mapnet_cli.{name.replace('-', '_')}.stage"), STAGES[name])(lineage)
    return stage


def run_stages(
    names: Sequence[str],
    lineage: Lineage,
    console: Console,
    workers: int | None,
    force: bool,
    ray_address: str | None = None,
) -> None:
    """Runs the stages one after another, skipping finished work; on a Ray cluster if `ray_address` is given.

    `workers` is the number of parallel jobs; None: as many as the cluster has room for.
    """
    if (dist := launched()) is not None:
        if ray_address is not None:
            raise UsageError("--engine ray does not work under torchrun or srun: omit it")
        _run_launched(names, lineage, console, dist, force)
        return
    artifacts = lineage.artifacts
    planned = [load_stage(name, lineage) for name in names]
    todo = [stage for stage in planned if force or _has_pending_jobs(stage, artifacts, workers or 1)]
    with _engine(todo, artifacts, console, workers, force, ray_address) as engine:
        for name in names:
            with artifacts.lock(name):
                # hash the inputs when their stage starts, not when the command starts
                stage = load_stage(name, Lineage(lineage.config, artifacts))
                stage.validate()
                stage.preflight()
                engine.run(stage.plan(workers or 1))
                for line in stage.summary():
                    console.note(line)


@contextmanager
def _engine(
    todo: list[Stage], artifacts: Artifacts, console: Console, workers: int | None, force: bool, ray_address: str | None
) -> Iterator[Engine]:
    """Yields the engine, with the modules or the cluster for the given stages ready."""
    if ray_address is None:
        preload = sorted({module for stage in todo for module in stage.preload})
        yield LocalEngine(artifacts, console, workers or 0, force, preload)
        return
    cluster = RayEngine(artifacts, console, ray_address, workers, force)
    with cluster if todo else nullcontext():
        yield cluster


def _run_launched(names: Sequence[str], lineage: Lineage, console: Console, dist: DistContext, force: bool) -> None:
    """Runs pretraining in all processes launched by torchrun or srun; rank 0 holds the lock."""
    if tuple(names) != ("pretrain",):
        raise UsageError("only `mapnet pretrain` runs under torchrun or srun; run other commands without them")
    if lineage.config.pretrain.processes > 1:
        raise UsageError("the processes are already launched: omit --processes (pretrain.processes)")
    stage, artifacts = load_stage("pretrain", lineage), lineage.artifacts
    stage.validate()
    with joined(), ExitStack() as stack:
        locked = ""
        if dist.rank == 0:
            try:
                stack.enter_context(artifacts.lock("pretrain"))
            except LockedError as error:
                locked = str(error)
        if locked := dist.broadcast(locked):
            raise LockedError(locked)
        LaunchedEngine(artifacts, console, dist, force).run(stage.plan(1))


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


def status(lineage: Lineage) -> list[tuple[dict[str, Any], StageProgress]]:
    """Returns one row per phase, with job counts and whether it is running, and the progress of the stage."""
    rows: list[tuple[dict[str, Any], StageProgress]] = []
    artifacts = lineage.artifacts
    for name in STAGES:
        stage, running = load_stage(name, lineage), artifacts.locked(name)
        try:
            phases = stage.plan(1)
        except InputError as error:  # the other stages can still be shown
            row = {"stage": name, "phase": "input", "running": running, "done": 0, "total": 1, "error": str(error)}
            rows.append((row, StageProgress()))
            continue
        progress = stage.progress() if phases else StageProgress()
        for phase in phases:
            counts = _counts(phase, artifacts, progress.done.get(phase.name))
            ended = counts["done"] == counts["total"]
            row = {"stage": name, "phase": phase.name, "running": running and not ended, **counts}
            rows.append((row, StageProgress()))
            running = running and ended  # phases run one after another
        if phases:
            row = rows[-1][0]
            row |= progress.facts
            if not artifacts.locked(name):  # a running process moves files
                row["unused_mb"] = _unused(name, phases, artifacts)
            rows[-1] = row, progress
    return rows


def _unused(name: str, phases: Sequence[Phase], artifacts: Artifacts) -> dict[str, float]:
    """Returns {folder: megabytes} of the stage's results from other settings, which this config doesn't use."""
    used = {"/".join(job.key.split("/")[:2]) for phase in phases for job in phase.jobs}
    folders = (path for path in sorted((artifacts.root / name).glob("*")) if path.is_dir())
    return {
        key: sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6
        for path in folders
        if (key := f"{name}/{path.name}") not in used and HAS_FINGERPRINT.search(key)
    }


def _has_pending_jobs(stage: Stage, artifacts: Artifacts, workers: int) -> bool:
    return any(not is_done(job, artifacts) for phase in stage.plan(workers) for job in phase.jobs)


def _counts(phase: Phase, artifacts: Artifacts, known: int | None = None) -> dict[str, int]:
    """Returns the numbers of finished jobs, which may be known already, and of all jobs."""
    done = sum(is_done(job, artifacts) for job in phase.jobs) if known is None else known
    return {"done": done, "total": len(phase.jobs)}
