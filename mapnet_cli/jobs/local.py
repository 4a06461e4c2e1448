"""The local engine: runs jobs in worker processes on this machine.

If a worker dies (killed, out of memory), its job is retried in a new worker; other workers aren't
affected. Workers fork from a server that has the heavy imports loaded, so starting one takes
milliseconds. They exit when their driver exits, even if it is killed.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from mapnet_cli import core
from mapnet_cli.jobs.distributed import cores
from mapnet_cli.jobs.engine import ATTEMPTS, GRACE, STOPPED, STOPPING, Engine, attempt, throttled
from mapnet_cli.jobs.job import Job, Phase, Progress, run_job, show


@dataclass
class _Worker:
    process: BaseProcess
    pipe: "Connection[Any, Any]"
    gpu: str  # value of CUDA_VISIBLE_DEVICES in the worker; "": the same as in its driver
    job: Job | None = None


class LocalEngine(Engine):
    """Runs the jobs of a phase in up to `workers` processes. Workers that share GPUs see one GPU each.

    workers = 0 runs all jobs in this process and stops at the first failure, for debugging.
    """

    def __init__(
        self, artifacts: core.Artifacts, console: core.Console, workers: int, force: bool = False,
        preload: Sequence[str] = (),
    ) -> None:  # fmt: skip
        super().__init__(artifacts, console, force)
        self.workers = workers
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(preload))

    def _run_jobs(self, jobs: list[Job], phase: Phase) -> list[core.MapnetError]:
        if self.workers == 0:
            for only in jobs:
                run_job(only, self.artifacts, partial(show, self.console, only.key))
                self.console.advance(only.key)
            return []
        slots = self._slots(phase)[: len(jobs)]
        queue, failures, attempts = deque(jobs), [], {job.key: 0 for job in jobs}
        with self._pool(slots) as workers:
            while queue or any(worker.job for worker in workers):
                for worker in workers:
                    if worker.job is None and queue:
                        worker.job = queue.popleft()
                        attempts[worker.job.key] += 1
                        with suppress(OSError):  # if the worker has died, recv below fails
                            worker.pipe.send(worker.job)
                for pipe in wait([worker.pipe for worker in workers if worker.job]):
                    worker = next(w for w in workers if w.pipe is pipe)
                    job = worker.job
                    assert job is not None
                    try:
                        content = worker.pipe.recv()
                    except (EOFError, OSError):
                        worker.process.join()
                        code = worker.process.exitcode
                        workers[workers.index(worker)] = self._start(worker.gpu)
                        if attempts[job.key] < ATTEMPTS:
                            self.console.warn(f"a worker died (exit code {code}) while running {job.key}; retrying")
                            queue.append(job)
                        else:
                            advice = core.memory_advice(job.key.split("/")[0])
                            killed = f"; if memory ran out, {advice}" if code == -9 else ""
                            died = f"worker died {ATTEMPTS} times (exit code {code}){killed}"
                            failures.append(core.MapnetError(f"{job.key}: {died}"))
                        continue
                    if isinstance(content, Progress):
                        show(self.console, job.key, content)
                        continue
                    worker.job = None
                    if content is None:
                        self.console.advance(job.key)
                    else:
                        failures.append(content)
        return failures

    def _slots(self, phase: Phase) -> list[str]:
        """Returns one slot per worker: the GPU that it uses, or "" if the phase doesn't share GPUs."""
        limit = cores() // phase.threads if phase.threads > 1 else self.workers
        count = max(1, min(self.workers, phase.max_parallel or limit))
        devices = core.visible_devices() if phase.shares_gpus else []
        if not devices:
            return [""] * count
        free = core.min_free_memory(devices, core.query_gpus())
        slots = (devices * phase.on_gpu(free))[:count]  # round-robin, so that a few jobs are spread over all GPUs
        if not free and not phase.jobs_per_gpu:
            self.console.warn("nvidia-smi doesn't report free GPU memory; running one job per GPU at a time")
        return slots

    def _start(self, gpu: str) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, self.artifacts.root, gpu), daemon=True)
        # A closed terminal and schedulers send these to all processes. They would end the fork server, which inherits
        # the mask, and its workers would count as dead before they have saved their state.
        resource_tracker.ensure_running()  # unblocks SIGTERM, and the fork server would start it
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP, signal.SIGTERM])
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()
        return _Worker(process, ours, gpu)

    @contextmanager
    def _pool(self, slots: list[str]) -> Iterator[list[_Worker]]:
        workers = [self._start(gpu) for gpu in slots]
        try:
            yield workers
        except KeyboardInterrupt:
            self.console.note(STOPPING)
            raise core.Interrupted(STOPPED) from None
        finally:
            for worker in workers:
                worker.pipe.close() if worker.job is None else worker.process.terminate()
            deadline = time.monotonic() + GRACE
            for worker in workers:
                worker.process.join(max(0.0, deadline - time.monotonic()))
                if worker.process.is_alive():
                    worker.process.kill()


def _work(pipe: "Connection[Any, Any]", root: Path, gpu: str) -> None:
    """Main loop of a worker: receives jobs and sends their outcomes, until the driver closes the pipe or dies."""
    if gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # still effective: the fork server hasn't initialised CUDA
    for number in (signal.SIGINT, signal.SIGHUP):  # they reach the driver, which sends SIGTERM
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _interrupt)
    threading.Thread(target=_end_with_driver, daemon=True).start()
    artifacts = core.Artifacts(root)
    with suppress(EOFError, OSError, core.Interrupted):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        while True:
            pipe.send(attempt(pipe.recv(), artifacts, throttled(pipe.send)))


def _interrupt(signum: int, frame: Any) -> None:
    raise core.Interrupted("SIGTERM")


def _end_with_driver() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
