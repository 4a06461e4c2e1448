"""One job on several processes of this machine, started by torchrun.

This module is also what torchrun starts: `python -m mapnet_cli.jobs.torchrun FOLDER` is one of the processes.
"""

import dataclasses
import json
import os
import pickle
import re
import subprocess
import sys
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from mapnet_cli.core import Artifacts, MapnetError
from mapnet_cli.jobs import distributed
from mapnet_cli.jobs.job import Job, Output, Progress, ProgressCallback, ignore_progress

ATTEMPTS = 3
GRACE = 45.0
"""Seconds after SIGTERM; torchrun itself gives its processes 30."""
TASK, OUTCOME, ERRORS = "task.pickle", "outcome-", "errors.txt"
SHOWN = 2_000
"""Characters of a failed launch's error output in the message."""
REPORT_INTERVAL = 0.5
"""Seconds between two progress lines of the first process."""


@dataclass(frozen=True, kw_only=True)
class OnProcesses(Job):
    """Runs a job in several processes that form one group, see `distributed.joined`.

    The first one's output and progress count. If one dies, all end and are started again, at most
    three times; the job then resumes from its own checkpoints.
    """

    inner: Job
    processes: int
    threads: int
    """CPU threads of each process."""

    def run(self, artifacts: Artifacts, progress: ProgressCallback) -> Output:
        for attempt in range(1, ATTEMPTS + 1):
            with TemporaryDirectory(prefix="mapnet-") as name:
                folder = Path(name)
                (folder / TASK).write_bytes(pickle.dumps((artifacts.root, self.inner)))
                code = _launch(folder, progress, self.processes, self.threads)
                outcomes = [pickle.loads(path.read_bytes()) for path in sorted(folder.glob(f"{OUTCOME}*"))]
                errors = (folder / ERRORS).read_text(encoding="utf-8", errors="replace")
            failures = [outcome for outcome in outcomes if isinstance(outcome, MapnetError)]
            if failures:  # one that mapnet raises on purpose rather than the traceback of a bug
                raise max(failures, key=lambda failure: type(failure) is not MapnetError)
            if outcomes and code == 0:
                return cast(Output, outcomes[0])
            if attempt < ATTEMPTS:
                warning = f"one of {self.processes} processes died (exit {code}); starting all again"
                progress(Progress(0, 1, warning=warning))
        raise MapnetError(
            f"{self.processes} processes under torchrun died {ATTEMPTS} times (exit {code}):\n{errors[-SHOWN:]}"
        )


def _launch(folder: Path, progress: ProgressCallback, processes: int, threads: int) -> int:
    """Starts torchrun and passes on what its first process reports, until all have ended; returns the exit code."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environ = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with (folder / ERRORS).open("wb") as errors:
        torchrun = subprocess.Popen(
            [*command, "-m", "mapnet_cli.jobs.torchrun", str(folder)],
            # The processes inherit the standard input. It ends when this one does, however it ends: they then follow.
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environ,
            start_new_session=True,  # Ctrl-C reaches this process, which passes it on as SIGTERM
        )
    assert torchrun.stdout is not None
    try:
        for line in torchrun.stdout:
            with suppress(json.JSONDecodeError, TypeError):  # a library's own message
                progress(Progress(**json.loads(line)))
        return torchrun.wait()
    except BaseException:
        torchrun.terminate()
        try:
            torchrun.wait(GRACE)
        except subprocess.TimeoutExpired:
            torchrun.kill()
        raise
    finally:
        torchrun.stdout.close()
        if torchrun.stdin is not None:
            torchrun.stdin.close()


def run_rank(folder: Path) -> int:
    """Runs the job with the other processes and leaves this one's outcome in the folder; returns the exit code.

    An error that only follows from another process's death is no outcome.
    """
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    root, job = pickle.loads((folder / TASK).read_bytes())
    rank = (distributed.launched() or distributed.ALONE).rank
    progress = _Reporter() if rank == 0 else ignore_progress
    try:
        with distributed.joined():
            outcome: Any = job.run(Artifacts(root), progress)
    except MapnetError as error:
        outcome = error
    except Exception as error:  # a bug or a library's error: reported with its traceback
        if _another_died(error):
            traceback.print_exc()  # shown if it happens again and again
            return 1
        outcome = MapnetError(f"process {rank} failed:\n{traceback.format_exc()}")
    temporary = folder / f".{rank}"
    temporary.write_bytes(pickle.dumps(outcome))
    temporary.replace(folder / f"{OUTCOME}{rank}")
    return int(isinstance(outcome, MapnetError))


def _another_died(error: Exception) -> bool:
    """Returns whether an error is what a collective operation raises when another process is gone."""
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or bool(re.search(r"gloo|nccl|by peer|TCPStore", str(error), re.I))


class _Reporter:
    """Writes progress to the standard output, one JSON object per line."""

    def __init__(self) -> None:
        self._last = 0.0

    def __call__(self, progress: Progress) -> None:
        if progress.warning or time.monotonic() - self._last >= REPORT_INTERVAL:
            self._last = time.monotonic()
            print(json.dumps(dataclasses.asdict(progress)), flush=True)


def _end_with_launcher() -> None:
    """The standard input ends when the process that started torchrun does."""
    while os.read(0, 1024):
        pass
    os._exit(1)


if __name__ == "__main__":
    code = run_rank(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # at once: after an error, torch would wait for operations that nobody will finish
