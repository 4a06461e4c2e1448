"""The stages in their order, and what can be done with all of them: run, foretell, look up."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from importlib import import_module
from typing import Any

from mapnet_cli.config import Config
from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.core.console import Console
from mapnet_cli.core.errors import InputError, LockedError, UsageError
from mapnet_cli.core.tables import Cell, Table
from mapnet_cli.jobs.distributed import DistContext, joined, launched
from mapnet_cli.jobs.engine import Engine
from mapnet_cli.jobs.job import Phase, is_done
from mapnet_cli.jobs.launched import LaunchedEngine
from mapnet_cli.jobs.local import LocalEngine
from mapnet_cli.jobs.ray import RayEngine

STAGES = ("prepare-corpus", "pretrain", "finetune-glue")
"""Each is a wing whose `stage` has `plan(config, artifacts, workers)` and `PRELOAD`.

It may have `estimate(config, artifacts, workers)` too, and, of (config, artifacts), `check` (refuses a config that the
stage can't work with), `admit` (refuses to start where the machine can't do it), `summary` and `standing`.
"""

HAS_FINGERPRINT = re.compile("-[0-9a-f]{8}$")


def run_stages(
    names: Sequence[str],
    config: Config,
    artifacts: Artifacts,
    console: Console,
    workers: int | None,
    force: bool,
    ray_address: str | None = None,
) -> None:
    """Runs the stages one after the other, on the Ray cluster at an address if one is given; skips finished work.

    `workers` is how many jobs run side by side; None: as many as the cluster has room for.
    """
    if (world := launched()) is not None:
        if ray_address is not None:
            raise UsageError("torchrun and srun start mapnet's processes themselves: leave out --engine ray")
        run_launched(names, config, artifacts, console, world, force)
        return
    todo = [name for name in names if force or _open_jobs(name, config, artifacts, workers or 1)]
    with _engine(todo, artifacts, console, workers, force, ray_address) as engine:
        for name in names:
            with artifacts.lock(name):
                _check(name, config, artifacts)
                if hasattr(_stage(name), "admit"):
                    _stage(name).admit(config, artifacts)
                engine.run(_stage(name).plan(config, artifacts, workers or 1))
                if hasattr(_stage(name), "summary"):
                    for line in _stage(name).summary(config, artifacts):
                        console.note(line)


@contextmanager
def _engine(
    todo: list[str], artifacts: Artifacts, console: Console, workers: int | None, force: bool, ray_address: str | None
) -> Iterator[Engine]:
    """Yields the engine; what it takes to run these stages (imports, a cluster) is at hand."""
    if ray_address is None:
        preload = sorted({module for name in todo for module in _stage(name).PRELOAD})
        yield LocalEngine(artifacts, console, workers or 0, force, preload)
        return
    cluster = RayEngine(artifacts, console, ray_address, workers, force)
    with cluster if todo else nullcontext():
        yield cluster


def run_launched(
    names: Sequence[str], config: Config, artifacts: Artifacts, console: Console, world: DistContext, force: bool
) -> None:
    """Runs pretraining in all the processes that torchrun or srun has started; the first one holds the lock."""
    if tuple(names) != ("pretrain",):
        raise UsageError("only `mapnet pretrain` runs in several launched processes; start the others without torchrun")
    if config.pretrain.processes > 1:
        raise UsageError("these processes were launched already: leave out --processes (pretrain.processes)")
    _check("pretrain", config, artifacts)
    with joined(), ExitStack() as held:
        locked = None
        if world.rank == 0:
            try:
                held.enter_context(artifacts.lock("pretrain"))
            except LockedError as error:
                locked = error
        if (locked := world.broadcast(locked)) is not None:
            raise locked
        LaunchedEngine(artifacts, console, world, force).run(_stage("pretrain").plan(config, artifacts, 1))


def foretell(names: Iterable[str], config: Config, artifacts: Artifacts, workers: int) -> list[dict[str, Any]]:
    """Returns what `--dry-run` prints: a row a phase, with jobs done and to do, and the stage's own estimate."""
    rows = []
    for name in names:
        stage = _stage(name)
        _check(name, config, artifacts)
        for phase in stage.plan(config, artifacts, workers):
            rows.append({"stage": name, "phase": phase.name, "unit": phase.unit, **_counts(phase, artifacts)})
        if rows and rows[-1]["stage"] == name and hasattr(stage, "estimate"):
            rows[-1]["estimate"] = stage.estimate(config, artifacts, workers)
    return rows


def status(config: Config, artifacts: Artifacts) -> list[dict[str, Any]]:
    """Returns a row a phase: jobs done and in all, whether a process is at it now, and how the stage stands."""
    rows = []
    for name in STAGES:
        running = artifacts.locked(name)
        try:
            phases = _stage(name).plan(config, artifacts, 1)
        except InputError as error:  # the other stages can still be told
            rows.append(
                {"stage": name, "phase": "input", "running": running, "done": 0, "total": 1, "error": str(error)}
            )
            continue
        for phase in phases:
            counts = _counts(phase, artifacts)
            ended = counts["done"] == counts["total"]
            rows.append({"stage": name, "phase": phase.name, "running": running and not ended, **counts})
            running = running and ended  # phases run one after another
        if rows and rows[-1]["stage"] == name and hasattr(_stage(name), "standing"):
            rows[-1] |= _stage(name).standing(config, artifacts)
        if phases and not artifacts.locked(name):  # a process at work moves files
            rows[-1]["unused_mb"] = _unused(name, phases, artifacts)
    return rows


def grid_matrix(rows: Sequence[dict[str, Any]]) -> Table:
    """Returns fine-tuning's matrix for a terminal: finished runs of each encoder and task."""
    tasks = tuple(rows[0]["tasks"])

    def cell(counts: dict[str, int]) -> Cell:
        failed = f", {counts['failed']} failed" if counts["failed"] else ""
        return Cell(f"{counts['done']}/{counts['total']}{failed}")

    lines = tuple(
        (
            Cell(f"{row['method']} seed {row['seed']} step {row['step']:,}"),
            *(cell(row["tasks"][task]) for task in tasks),
        )
        for row in rows
    )
    return Table("matrix", "Fine-tuning runs done", ("Encoder", *tasks), lines, (), "")


def _unused(name: str, phases: Sequence[Phase], artifacts: Artifacts) -> dict[str, float]:
    """Returns {folder: megabytes} of the stage's results that this config has no use for: other settings' ones."""
    used = {"/".join(job.key.split("/")[:2]) for phase in phases for job in phase.jobs}
    folders = (path for path in sorted((artifacts.root / name).glob("*")) if path.is_dir())
    return {
        key: sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6
        for path in folders
        if (key := f"{name}/{path.name}") not in used and HAS_FINGERPRINT.search(key)
    }


def _stage(name: str) -> Any:
    return import_module(f"mapnet_cli.{name.replace('-', '_')}.stage")


def _check(name: str, config: Config, artifacts: Artifacts) -> None:
    """Refuses a config that the stage can't work with; costs an import that `plan` avoids."""
    if hasattr(_stage(name), "check"):
        _stage(name).check(config, artifacts)


def _open_jobs(name: str, config: Config, artifacts: Artifacts, workers: int) -> bool:
    return any(
        not is_done(job, artifacts) for phase in _stage(name).plan(config, artifacts, workers) for job in phase.jobs
    )


def _counts(phase: Phase, artifacts: Artifacts) -> dict[str, int]:
    return {"done": sum(is_done(job, artifacts) for job in phase.jobs), "total": len(phase.jobs)}
