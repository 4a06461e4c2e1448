"""Runs one job in several processes on this machine, started by torchrun.

torchrun starts each process as `python -m mapnet_cli.jobs.torchrun FOLDER`, see `run_rank`.
"""

import dataclasses
import json
import os
import re
import subprocess
import sys
import threading
import traceback
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import TypeAdapter

from mapnet_cli.core import TEMPORARY, ArtifactId, Artifacts, MapnetError, read_json, write_json
from mapnet_cli.jobs import distributed
from mapnet_cli.jobs.engine import ATTEMPTS, throttled
from mapnet_cli.jobs.job import Job, Output, Progress, ProgressCallback, ignore_progress

GRACE = 45.0  # seconds from SIGTERM to SIGKILL; torchrun itself gives its processes 30
TASK, OUTCOME, ERRORS = "task.json", "outcome-", "errors.txt"
STDERR_CHARS = 2_000  # number of characters of a failed launch's stderr shown in the error message


@dataclass(frozen=True, kw_only=True)
class TorchrunJob(Job):
    """Runs a job in several processes that form one process group, see `distributed.joined`.

    Returns rank 0's output and forwards its progress. If a process dies, all are stopped and restarted, for at
    most three attempts in total; the job then resumes from its own checkpoints.
    """

    inner: Job
    processes: int
    threads: int  # CPU threads of each process

    @property
    def parts(self) -> tuple[ArtifactId, ...]:
        return self.inner.parts

    def run(self, artifacts: Artifacts, progress: ProgressCallback) -> Output:
        parent = artifacts.path(self.key).parent
        parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, ATTEMPTS + 1):
            # where the stage's next run removes it if this one is killed
            with TemporaryDirectory(prefix=f"{TEMPORARY}torchrun-", dir=parent) as name:
                folder = Path(name)
                write_json(folder / TASK, {"root": str(artifacts.root), "job": to_json(self.inner)})
                code = _launch(folder, progress, self.processes, self.threads)
                outcomes = [read_json(path) for path in sorted(folder.glob(f"{OUTCOME}*"))]
                errors = (folder / ERRORS).read_text(encoding="utf-8", errors="replace")
            failures = [_named(outcome["error"])(outcome["message"]) for outcome in outcomes if "error" in outcome]
            if failures:  # prefer a specific error over a plain MapnetError, which may wrap a bug's traceback
                raise max(failures, key=lambda failure: type(failure) is not MapnetError)
            if outcomes and code == 0:
                files, result = outcomes[0]["files"], outcomes[0]["result"]
                return Output(list(map(Path, files)), result and from_json(result))
            if attempt < ATTEMPTS:
                warning = f"one of {self.processes} processes died (exit code {code}); restarting all of them"
                progress(Progress(0, 1, warning=warning))
        tail = errors[-STDERR_CHARS:]
        raise MapnetError(f"{self.processes} torchrun processes died {ATTEMPTS} times (exit code {code}):\n{tail}")


def _launch(folder: Path, progress: ProgressCallback, processes: int, threads: int) -> int:
    """Starts torchrun, forwards rank 0's progress until all processes have ended, and returns the exit code."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command += ["--log-dir", str(folder / "logs")]  # else in a folder of its own that stays if it is killed
    environ = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with (folder / ERRORS).open("wb") as errors:
        torchrun = subprocess.Popen(
            [*command, "-m", "mapnet_cli.jobs.torchrun", str(folder)],
            stdin=subprocess.PIPE,  # inherited by the ranks: it closes when this process dies, and they then exit
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environ,
            start_new_session=True,  # so that Ctrl-C reaches only this process, which sends SIGTERM to torchrun
        )
    assert torchrun.stdout is not None
    try:
        for line in torchrun.stdout:
            with suppress(json.JSONDecodeError, TypeError):  # lines printed by libraries
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
    """Runs the job as one rank of the group, writes its outcome to the folder, and returns the exit code.

    No outcome is written for an error that is only a consequence of another process's death.
    """
    threading.Thread(target=_exit_with_launcher, daemon=True).start()
    task = read_json(folder / TASK)
    rank = (distributed.launched() or distributed.ALONE).rank
    progress = throttled(_print) if rank == 0 else ignore_progress
    try:
        with distributed.joined():
            output = from_json(task["job"]).run(Artifacts(Path(task["root"])), progress)
        outcome = {"files": list(map(str, output.files)), "result": output.result and to_json(output.result)}
    except MapnetError as error:
        outcome = {"error": _name(error), "message": str(error)}
    except Exception as error:  # a bug or a library's error: reported with its traceback
        if _another_died(error):
            traceback.print_exc()  # shown to the user if all attempts fail
            return 1
        failure = MapnetError(f"process {rank} failed:\n{traceback.format_exc()}")
        outcome = {"error": _name(failure), "message": str(failure)}
    write_json(folder / f"{OUTCOME}{rank}", outcome)
    return int("error" in outcome)


def to_json(value: Any) -> dict[str, Any]:
    """Returns a job or a result as JSON values, with the name of its class."""
    return {"class": _name(value), "fields": TypeAdapter(type(value)).dump_python(value, mode="json")}


def from_json(found: dict[str, Any]) -> Any:
    """Returns the job or result that `to_json` described."""
    return TypeAdapter(_named(found["class"])).validate_json(json.dumps(found["fields"]))


def _name(value: Any) -> str:
    return f"{type(value).__module__}:{type(value).__qualname__}"


def _named(name: str) -> Any:
    module, _, kind = name.partition(":")
    return getattr(import_module(module), kind)


def _another_died(error: Exception) -> bool:
    """Returns whether a collective operation raised this error because another process has died."""
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or bool(re.search(r"gloo|nccl|by peer|TCPStore", str(error), re.I))


def _print(progress: Progress) -> None:
    print(json.dumps(dataclasses.asdict(progress)), flush=True)


def _exit_with_launcher() -> None:
    """Exits when stdin closes, that is, when the process that started torchrun ends."""
    while os.read(0, 1024):
        pass
    os._exit(1)


if __name__ == "__main__":
    code = run_rank(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a normal exit after an error would wait for collectives that never finish
