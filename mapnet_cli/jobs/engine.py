"""What engines have in common: which jobs of a phase run, one try of a job, how a phase with failures ends."""

import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial

from mapnet_cli.core import Artifacts, Console, Interrupted, MapnetError, ProcessError, UsageError
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

ATTEMPTS = 3
"""Tries of a job whose worker dies."""
REPORT_INTERVAL = 0.5
"""Seconds between two reports of a job's progress."""
GRACE = 60.0
"""Seconds that workers get to save their state when they are stopped."""
STOPPING = "stopping: workers save what they have"
STOPPED = "interrupted; the same command (without --force) goes on where it stopped"


class Engine(ABC):
    """Runs phases one after the other; an engine of its own kind says where a phase's jobs run.

    A failed job doesn't stop its phase's other jobs; the first failure is raised when the phase is over.
    """

    def __init__(self, artifacts: Artifacts, console: Console, force: bool = False) -> None:
        self.artifacts = artifacts
        self.console = console
        self.force = force

    def run(self, phases: Sequence[Phase]) -> None:
        """Runs the jobs that aren't done, all of them if `force`; raises the first failure, and Interrupted."""
        for phase in phases:
            jobs = [job for job in phase.jobs if self.force or not is_done(job, self.artifacts)]
            self.console.begin(phase.name, phase.unit, len(phase.jobs), len(phase.jobs) - len(jobs))
            try:
                jobs = self._ready(phase, jobs)
                for job in jobs if self.force else ():
                    self.artifacts.discard(job.key)  # here and once: a retry or a resume keeps what it has
                failures = self._run_jobs(jobs, phase) if jobs else []
            finally:
                self.console.end()
            if failures:
                more = f" ({len(failures)} of {len(jobs)} {phase.unit}s failed)" if len(jobs) > 1 else ""
                raise type(failures[0])(f"{failures[0]}{more}")

    def _ready(self, phase: Phase, jobs: list[Job]) -> list[Job]:
        """Returns the jobs whose inputs stand; says which don't, and raises UsageError if that is all of them."""
        needed = {key for job in jobs for key in job.needs}
        absent = {key for key in needed if self.artifacts.marker(key) is None}
        ready = [job for job in jobs if not absent.intersection(job.needs)]
        if absent:
            inputs = sorted(absent)
            shown = ", ".join(inputs[:3]) + (f" and {len(inputs) - 3} more" if len(inputs) > 3 else "")
            waiting = len(jobs) - len(ready)
            message = f"{phase.name}: {waiting} of {len(jobs)} {phase.unit}s wait for inputs not made yet: {shown}"
            if not ready:
                raise UsageError(f"{message}. Run the command that makes them with the same options, or `mapnet run`")
            self.console.warn(message)
        return ready

    @abstractmethod
    def _run_jobs(self, jobs: list[Job], phase: Phase) -> list[MapnetError]:
        """Runs the jobs, at least one, and returns their failures; raises Interrupted."""


def attempt(job: Job, artifacts: Artifacts, progress: ProgressCallback) -> MapnetError | None:
    """Returns why a try of the job failed, None if its marker stands; raises Interrupted."""
    try:
        run_job(job, artifacts, progress)
    except Interrupted:
        raise
    except MapnetError as error:
        return error
    except OSError as error:
        return MapnetError(f"{job.key}: {error}")
    except Exception:  # a bug or a library's error: reported with its traceback, the other jobs go on
        return MapnetError(f"{job.key} failed:\n{traceback.format_exc()}")
    return None


def throttled(progress: ProgressCallback) -> ProgressCallback:
    """Returns a report that passes on every warning, and else one line in REPORT_INTERVAL."""
    last = 0.0

    def say(update: Progress) -> None:
        nonlocal last
        if update.warning or time.monotonic() - last >= REPORT_INTERVAL:
            last = time.monotonic()
            progress(update)

    return say


class LaunchedEngine:
    """Runs phases in all processes of a world. The first one decides what is open, reports and publishes.

    The artifact directory must be the same for all of them.
    """

    def __init__(self, artifacts: Artifacts, console: Console, world: DistContext, force: bool = False) -> None:
        self.artifacts = artifacts
        self.console = console
        self.world = world
        self.force = force

    def run(self, phases: Sequence[Phase]) -> None:
        for phase in phases:
            open_jobs = [job for job in phase.jobs if self.force or not is_done(job, self.artifacts)]
            keys = set(self.world.broadcast([job.key for job in open_jobs]))
            self.console.begin(phase.name, phase.unit, len(phase.jobs), len(phase.jobs) - len(keys))
            try:
                for job in (job for job in phase.jobs if job.key in keys):
                    self._run(job)
            finally:
                self.console.end()

    def _run(self, job: Job) -> None:
        if missing := missing_needs(job, self.artifacts):
            raise ProcessError(
                f"{job.key} needs {', '.join(missing)}, which process {self.world.rank} doesn't find in "
                f"{self.artifacts.root}; make it first, in a folder that all machines share"
            )
        if self.world.rank == 0:
            if self.force and not restarted():  # a launcher's own restart keeps what there is
                self.artifacts.discard(job.key)
            run_job(job, self.artifacts, partial(show, self.console, job.key))
        else:
            job.run(self.artifacts, ignore_progress)
        self.console.advance(job.key)
