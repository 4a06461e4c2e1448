"""Code shared by the engines: selecting the jobs to run, a single attempt at a job, and failure handling."""

import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial

from mapnet_cli import core
from mapnet_cli.jobs.distributed import DistContext, restarted
from mapnet_cli.jobs.job import (
    Job,
    Phase,
    Progress,
    ProgressCallback,
    ignore_progress,
    is_done,
    missing_needs,
    run_job,
    show,
)

ATTEMPTS = 3  # maximum number of attempts at a job whose worker dies
REPORT_INTERVAL = 0.5  # minimum number of seconds between two progress reports of a job
GRACE = 60.0  # seconds that workers get to save their state when they are stopped
STOPPING = "stopping: waiting for workers to save their state"
STOPPED = "interrupted; run the same command (without --force) to resume"


class Engine(ABC):
    """Base class of engines. Runs phases one after the other; subclasses implement how a phase's jobs run.

    A failed job doesn't stop the other jobs of its phase; the first failure is raised at the end of the phase.
    """

    def __init__(self, artifacts: core.Artifacts, console: core.Console, force: bool = False) -> None:
        self.artifacts = artifacts
        self.console = console
        self.force = force

    def run(self, phases: Sequence[Phase]) -> None:
        """Runs the jobs that aren't done, or all jobs if `force`. Raises the first failure, or Interrupted."""
        for phase in phases:
            jobs = [job for job in phase.jobs if self.force or not is_done(job, self.artifacts)]
            with self.console.phase(phase.name, phase.unit, len(phase.jobs), len(phase.jobs) - len(jobs)):
                jobs = self._ready(phase, jobs)
                for job in jobs if self.force else ():
                    self.artifacts.discard(job.key)  # only here, so that retries and resumes keep their checkpoints
                failures = self._run_jobs(jobs, phase) if jobs else []
            if failures:
                more = f" ({len(failures)} of {len(jobs)} {phase.unit}s failed)" if len(jobs) > 1 else ""
                raise type(failures[0])(f"{failures[0]}{more}")

    def _ready(self, phase: Phase, jobs: list[Job]) -> list[Job]:
        """Returns the jobs whose inputs exist. Warns about missing inputs; raises UsageError if no job is ready."""
        needed = {key for job in jobs for key in job.needs}
        absent = {key for key in needed if self.artifacts.marker(key) is None}
        ready = [job for job in jobs if not absent.intersection(job.needs)]
        if absent:
            waiting = f"{len(jobs) - len(ready)} of {len(jobs)} {phase.unit}s"
            message = f"{phase.name}: {waiting} have missing inputs: {core.few(sorted(absent))}"
            if not ready:
                advice = "Run the command that creates them with the same options, or `mapnet run`"
                raise core.UsageError(f"{message}. {advice}")
            self.console.warn(message)
        return ready

    @abstractmethod
    def _run_jobs(self, jobs: list[Job], phase: Phase) -> list[core.MapnetError]:
        """Runs the jobs (a non-empty list) and returns their failures. Raises Interrupted."""


def attempt(job: Job, artifacts: core.Artifacts, progress: ProgressCallback) -> core.MapnetError | None:
    """Runs the job once; returns the failure, or None if it succeeded. Raises Interrupted."""
    try:
        run_job(job, artifacts, progress)
    except core.Interrupted:
        raise
    except core.MapnetError as error:
        return error
    except OSError as error:
        return core.system_error(error, artifacts.root, job.key)
    except Exception as error:  # a bug or a library's error: reported with its traceback; the other jobs continue
        if core.out_of_memory(error):
            return core.MapnetError(f"{job.key}: out of memory: {core.memory_advice(job.key.split('/')[0])}")
        return core.MapnetError(f"{job.key} failed:\n{traceback.format_exc()}")
    return None


def throttled(progress: ProgressCallback) -> ProgressCallback:
    """Returns a callback that forwards every warning and last update, others at most once per REPORT_INTERVAL."""
    last = 0.0

    def report(update: Progress) -> None:
        nonlocal last
        if update.warning or update.done >= update.total or time.monotonic() - last >= REPORT_INTERVAL:
            last = time.monotonic()
            progress(update)

    return report


class LaunchedEngine:
    """Runs phases in all launched processes together. Rank 0 selects the jobs, reports progress and writes markers.

    All processes must share one artifact directory.
    """

    def __init__(
        self, artifacts: core.Artifacts, console: core.Console, dist: DistContext, force: bool = False
    ) -> None:
        self.artifacts = artifacts
        self.console = console
        self.dist = dist
        self.force = force and not restarted()  # after a restart by the launcher, jobs resume from their checkpoints

    def run(self, phases: Sequence[Phase]) -> None:
        for phase in phases:
            open_jobs = [job for job in phase.jobs if self.force or not is_done(job, self.artifacts)]
            keys = set(self.dist.broadcast([job.key for job in open_jobs]))
            for job in open_jobs if self.force and self.dist.rank == 0 else ():
                self.artifacts.discard(job.key)  # all at once, so that a restart runs those that weren't reached, too
            with self.console.phase(phase.name, phase.unit, len(phase.jobs), len(phase.jobs) - len(keys)):
                for job in (job for job in phase.jobs if job.key in keys):
                    self._run(job)

    def _run(self, job: Job) -> None:
        if missing := missing_needs(job, self.artifacts):
            raise core.ProcessError(
                f"{job.key} needs {', '.join(missing)}, which process {self.dist.rank} can't find in "
                f"{self.artifacts.root}; create it first, in a folder that all machines share"
            )
        if self.dist.rank == 0:
            run_job(job, self.artifacts, partial(show, self.console, job.key))
        else:
            job.run(self.artifacts, ignore_progress)
        self.console.advance(job.key)
