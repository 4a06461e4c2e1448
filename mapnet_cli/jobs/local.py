"""The local engine: jobs on worker processes of this machine.

A worker that dies (killed, out of memory) costs the job in its hands, which is tried again in a
fresh one; its neighbours don't notice. Workers fork from a server that has the heavy imports
loaded, so that starting one costs milliseconds, and end with their driver, however it ends.
"""

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from mapnet_cli.artifacts import Artifacts
from mapnet_cli.console import Console
from mapnet_cli.errors import Interrupted, MapnetError, UsageError
from mapnet_cli.jobs.job import Job, Phase, Progress, is_done, missing_needs, run_job, show

ATTEMPTS = 3
REPORT_INTERVAL = 0.5
GRACE = 60.0
"""Seconds that workers get to save their state after SIGTERM."""


@dataclass
class _Worker:
    process: BaseProcess
    pipe: "Connection[Any, Any]"
    job: Job | None = None


class LocalEngine:
    """Runs phases one after the other, the jobs of a phase on up to `workers` processes.

    A failed job doesn't stop its phase's other jobs; the first failure is raised when the phase is
    over. workers = 0 runs everything in this process and stops at the first failure, for debugging.
    """

    def __init__(
        self, artifacts: Artifacts, console: Console, workers: int, force: bool = False, preload: Sequence[str] = ()
    ) -> None:
        self.artifacts = artifacts
        self.console = console
        self.workers = workers
        self.force = force
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(preload))

    def run(self, phases: Sequence[Phase]) -> None:
        for phase in phases:
            jobs = [job for job in phase.jobs if self.force or not is_done(job, self.artifacts)]
            self.console.begin(phase.name, phase.unit, len(phase.jobs), len(phase.jobs) - len(jobs))
            try:
                jobs = self._ready(phase, jobs)
                for job in jobs if self.force else ():
                    self.artifacts.discard(job.key)  # here and once: a retry or a resume keeps what it has
                failures = self._run_inline(jobs) if self.workers == 0 else self._run_jobs(jobs, phase)
            finally:
                self.console.end()
            if failures:
                more = f" ({len(failures)} of {len(jobs)} {phase.unit}s failed)" if len(jobs) > 1 else ""
                raise type(failures[0])(f"{failures[0]}{more}")

    def _ready(self, phase: Phase, jobs: list[Job]) -> list[Job]:
        """Returns the jobs whose inputs stand; says which don't, and raises UsageError if that is all of them."""
        waiting = {job.key: missing for job in jobs if (missing := missing_needs(job, self.artifacts))}
        if waiting:
            inputs = sorted({key for missing in waiting.values() for key in missing})
            shown = ", ".join(inputs[:3]) + (f" and {len(inputs) - 3} more" if len(inputs) > 3 else "")
            message = f"{phase.name}: {len(waiting)} of {len(jobs)} {phase.unit}s wait for inputs not made yet: {shown}"
            if len(waiting) == len(jobs):
                raise UsageError(f"{message}. Run the command that makes them with the same options, or `mapnet run`")
            self.console.warn(message)
        return [job for job in jobs if job.key not in waiting]

    def _run_inline(self, jobs: list[Job]) -> list[MapnetError]:
        for job in jobs:
            run_job(job, self.artifacts, partial(show, self.console, job.key))
            self.console.advance(job.key)
        return []

    def _run_jobs(self, jobs: list[Job], phase: Phase) -> list[MapnetError]:
        queue, failures, attempts = deque(jobs), [], {job.key: 0 for job in jobs}
        limit = min(self.workers, phase.side_by_side or self.workers, len(jobs))
        with self._pool(limit) as workers:
            while queue or any(worker.job for worker in workers):
                for worker in workers:
                    if worker.job is None and queue:
                        worker.job = queue.popleft()
                        attempts[worker.job.key] += 1
                        with suppress(OSError):  # a worker that died meanwhile shows below, at recv
                            worker.pipe.send(worker.job)
                for pipe in wait([worker.pipe for worker in workers if worker.job]):
                    worker = next(w for w in workers if w.pipe is pipe)
                    job = worker.job
                    assert job is not None
                    try:
                        kind, content = worker.pipe.recv()
                    except (EOFError, OSError):
                        worker.process.join()
                        code = worker.process.exitcode
                        workers[workers.index(worker)] = self._start()
                        if attempts[job.key] < ATTEMPTS:
                            self.console.warn(f"a worker died (exit {code}) at {job.key}; trying it again")
                            queue.append(job)
                        else:
                            failures.append(MapnetError(f"{job.key}: its worker died {ATTEMPTS} times (exit {code})"))
                        continue
                    if kind == "progress":
                        show(self.console, job.key, content)
                        continue
                    worker.job = None
                    if kind == "done":
                        self.console.advance(job.key)
                    else:
                        failures.append(content)
        return failures

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, self.artifacts.root), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours)

    @contextmanager
    def _pool(self, size: int) -> Iterator[list[_Worker]]:
        workers = [self._start() for _ in range(size)]
        try:
            yield workers
        except KeyboardInterrupt:
            self.console.note("stopping: workers save what they have")
            raise Interrupted("interrupted; the same command (without --force) goes on where it stopped") from None
        finally:
            for worker in workers:
                worker.pipe.close() if worker.job is None else worker.process.terminate()
            deadline = time.monotonic() + GRACE
            for worker in workers:
                worker.process.join(max(0.0, deadline - time.monotonic()))
                if worker.process.is_alive():
                    worker.process.kill()


def _work(pipe: "Connection[Any, Any]", root: Path) -> None:
    """A worker's life: take a job, run it, tell; end when the driver hangs up or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the driver, which sends SIGTERM
    signal.signal(signal.SIGTERM, _interrupt)
    threading.Thread(target=_end_with_driver, daemon=True).start()
    artifacts = Artifacts(root)
    while True:
        try:
            pipe.send(_attempt(pipe.recv(), artifacts, pipe))
        except (EOFError, OSError, Interrupted):
            return


def _attempt(job: Job, artifacts: Artifacts, pipe: "Connection[Any, Any]") -> tuple[str, Any]:
    last = 0.0

    def report(progress: Progress) -> None:
        nonlocal last
        if progress.warning or time.monotonic() - last >= REPORT_INTERVAL:
            last = time.monotonic()
            pipe.send(("progress", progress))

    try:
        return "done", run_job(job, artifacts, report)
    except Interrupted:
        raise
    except MapnetError as error:
        return "failed", error
    except OSError as error:
        return "failed", MapnetError(f"{job.key}: {error}")
    except Exception:  # a bug or a library's error: reported with its traceback, the other jobs go on
        return "failed", MapnetError(f"{job.key} failed:\n{traceback.format_exc()}")


def _interrupt(signum: int, frame: Any) -> None:
    raise Interrupted("SIGTERM")


def _end_with_driver() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
