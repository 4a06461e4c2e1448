"""One job on several processes of this machine, started by torchrun."""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.core.errors import MapnetError
from mapnet_cli.jobs.job import Output, Progress, ProgressCallback

ATTEMPTS = 3
GRACE = 45.0
"""Seconds after SIGTERM; torchrun itself gives its processes 30."""
TASK, OUTCOME, ERRORS = "task.pickle", "outcome-", "errors.txt"
SHOWN = 2_000
"""Characters of a failed launch's error output in the message."""


def run_on_processes(
    artifacts: Artifacts,
    progress: ProgressCallback,
    processes: int,
    threads: int,
    fn: Callable[..., Output],
    args: dict[str, Any],
) -> Output:
    """Runs `fn(artifacts, progress, **args)` in `processes` processes that know each other, see `world.joined`.

    The first one's output and progress count. If one dies, all end and are started again, at most
    three times; `fn` then goes on from its own checkpoints.
    """
    for attempt in range(1, ATTEMPTS + 1):
        with TemporaryDirectory(prefix="mapnet-") as name:
            folder = Path(name)
            (folder / TASK).write_bytes(pickle.dumps((artifacts.root, fn, args)))
            code = _launch(folder, progress, processes, threads)
            outcomes = [pickle.loads(path.read_bytes()) for path in sorted(folder.glob(f"{OUTCOME}*"))]
            errors = (folder / ERRORS).read_text(encoding="utf-8", errors="replace")
        failures = [outcome for outcome in outcomes if isinstance(outcome, MapnetError)]
        if failures:  # one that mapnet raises on purpose rather than the traceback of a bug
            raise max(failures, key=lambda failure: type(failure) is not MapnetError)
        if outcomes and code == 0:
            return cast(Output, outcomes[0])
        if attempt < ATTEMPTS:
            progress(Progress(0, 1, warning=f"one of {processes} processes died (exit {code}); starting all again"))
    raise MapnetError(f"{processes} processes under torchrun died {ATTEMPTS} times (exit {code}):\n{errors[-SHOWN:]}")


def _launch(folder: Path, progress: ProgressCallback, processes: int, threads: int) -> int:
    """Starts torchrun and passes on what its first process reports, until all have ended; returns the exit code."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environ = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with (folder / ERRORS).open("wb") as errors:
        torchrun = subprocess.Popen(
            [*command, "-m", "mapnet_cli.jobs.rank", str(folder)],
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
