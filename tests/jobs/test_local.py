"""The local engine: skipping finished jobs, retries after a killed worker, independent failures."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from mapnet_cli import core
from mapnet_cli.core.artifacts import ArtifactId, Artifacts, write_text
from mapnet_cli.core.console import Console
from mapnet_cli.core.errors import InputError, MapnetError, UsageError
from mapnet_cli.core.records import Row
from mapnet_cli.finetune_glue.stage import FinetuneGlue
from mapnet_cli.jobs import local
from mapnet_cli.jobs.job import Job, Output, Phase, Progress, ProgressCallback, is_done
from mapnet_cli.jobs.local import LocalEngine
from mapnet_cli.pretrain.stage import Pretrain

Function = Callable[[Artifacts, ProgressCallback, int], Output]


@dataclass(frozen=True, kw_only=True)
class CallJob(Job):
    """Calls a module-level function with a number."""

    function: Function
    number: int

    def run(self, artifacts: Artifacts, progress: ProgressCallback) -> Output:
        return self.function(artifacts, progress, self.number)


class Written(Row):
    number: int


class Seen(Row):
    """The GPU visible to a worker, and the worker's process id."""

    gpu: str
    process: int


def write_number(artifacts: Artifacts, progress: ProgressCallback, number: int) -> Output:
    path = artifacts.path(f"out/{number}.txt")
    write_text(path, str(number))
    with artifacts.path("runs.log").open("a") as log:
        log.write(f"{number} {os.getpid()}\n")
    progress(Progress(1, 1, "written"))
    return Output([path], Written(number=number))


def fail_on_three(artifacts: Artifacts, progress: ProgressCallback, number: int) -> Output:
    if number == 3:
        raise InputError("number 3 is bad: use another")
    return write_number(artifacts, progress, number)


def die_once(artifacts: Artifacts, progress: ProgressCallback, number: int) -> Output:
    """Kills its own process at the first attempt at number 2."""
    flag = artifacts.path("died")
    if number == 2 and not flag.exists():
        write_text(flag, "")
        os.kill(os.getpid(), signal.SIGKILL)
    return write_number(artifacts, progress, number)


def die_always(artifacts: Artifacts, progress: ProgressCallback, number: int) -> Output:
    os.kill(os.getpid(), signal.SIGKILL)
    return Output()


def crash(artifacts: Artifacts, progress: ProgressCallback, number: int) -> Output:
    raise ZeroDivisionError("a bug")


def sleep_long(artifacts: Artifacts, progress: ProgressCallback, number: int) -> Output:
    write_text(artifacts.path("started"), str(os.getpid()))
    time.sleep(60)
    return Output()


def record_gpu(artifacts: Artifacts, progress: ProgressCallback, number: int) -> Output:
    """Dies at the first attempt, then returns the GPU that is visible to its worker."""
    flag = artifacts.path(f"tried/{number}")
    if not flag.exists():
        write_text(flag, os.environ["CUDA_VISIBLE_DEVICES"])
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    return Output([], Seen(gpu=os.environ["CUDA_VISIBLE_DEVICES"], process=os.getpid()))


def job(function: Function, number: int, name: str = "", fingerprint: str = "f1", needs: tuple[str, ...] = ()) -> Job:
    artifact = ArtifactId(f"jobs/{name or number}", fingerprint)
    return CallJob(artifact=artifact, needs=needs, function=function, number=number)


def phase(function: Function, count: int = 5, fingerprint: str = "f1") -> Phase:
    return Phase("count", [job(function, n, fingerprint=fingerprint) for n in range(count)])


def runs(artifacts: Artifacts) -> list[str]:
    return artifacts.path("runs.log").read_text().split()[::2]


def engine(artifacts: Artifacts, workers: int = 2, force: bool = False) -> LocalEngine:
    artifacts.root.mkdir(exist_ok=True)
    return LocalEngine(artifacts, Console(quiet=True), workers, force)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_done_jobs_are_skipped(workers: int, artifacts: Artifacts) -> None:
    for _ in range(2):
        engine(artifacts, workers).run([phase(write_number)])
    assert sorted(runs(artifacts)) == ["0", "1", "2", "3", "4"]
    marker = artifacts.require("jobs/3")
    assert (marker.row(Written), list(marker.files), marker.fingerprint) == (Written(number=3), ["out/3.txt"], "f1")
    assert marker.versions["mapnet"]


def test_another_fingerprint_and_force_run_again(artifacts: Artifacts) -> None:
    engine(artifacts).run([phase(write_number, 1)])
    engine(artifacts).run([phase(write_number, 1, "f2")])
    engine(artifacts, force=True).run([phase(write_number, 1, "f2")])
    assert runs(artifacts) == ["0", "0", "0"]


def test_a_failed_forced_job_is_no_longer_done(artifacts: Artifacts) -> None:
    """Its old marker is deleted first, so that the next run without --force doesn't reuse the old result."""
    engine(artifacts).run([phase(write_number, 1)])
    with pytest.raises(MapnetError):
        engine(artifacts, force=True).run([phase(crash, 1)])
    assert artifacts.marker("jobs/0") is None
    engine(artifacts).run([phase(write_number, 1)])
    assert runs(artifacts) == ["0", "0"]


def test_only_the_job_of_a_killed_worker_is_retried(artifacts: Artifacts) -> None:
    engine(artifacts).run([phase(die_once)])
    assert sorted(runs(artifacts)) == ["0", "1", "2", "3", "4"]


def test_a_job_that_always_kills_its_worker_fails(artifacts: Artifacts) -> None:
    with pytest.raises(MapnetError, match=r"jobs/0: worker died 3 times"):
        engine(artifacts, 1).run([phase(die_always, 1)])


def test_each_worker_uses_one_gpu(artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real workers with fake GPUs. A new worker takes over the GPU of the one that died."""
    monkeypatch.setattr(core, "visible_devices", lambda: ["0", "GPU-1b"])
    monkeypatch.setattr(core, "query_gpus", lambda: "0, GPU-1a, 9000, 80000\n1, GPU-1b, 4000, 80000\n")
    jobs = phase(record_gpu, 12).jobs
    engine(artifacts, workers=8).run([Phase("shared", jobs, gpu_bytes=2**31)])  # 3,600 MiB usable: one job per GPU
    seen = [artifacts.read(job.key, Seen) for job in jobs]
    assert len(seen) == 12
    assert {row.gpu for row in seen} == {"0", "GPU-1b"}
    assert len({row.process for row in seen}) == 2, "one process per GPU, after twelve that died"


@pytest.mark.parametrize(("settings", "slots"), [
    ({"gpu_bytes": 2**30}, ["0", "1", "0", "1", "0", "1"]),
    ({"gpu_bytes": 2**30, "jobs_per_gpu": 1}, ["0", "1"]),
    ({"gpu_bytes": 2**30, "max_parallel": 1}, ["0"]),
    ({"jobs_per_gpu": 3, "max_parallel": 5}, ["0", "1", "0", "1", "0"]),
    ({"gpus": 2, "max_parallel": 1}, [""]),
    ({}, [""] * 8),
])  # fmt: skip
def test_number_of_workers_follows_gpu_memory(
    settings: dict[str, int], slots: list[str], artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "visible_devices", lambda: ["0", "1"])
    monkeypatch.setattr(core, "query_gpus", lambda: "0, GPU-1a, 9000, 80000\n1, GPU-1b, 4000, 80000\n")
    assert engine(artifacts, workers=8)._slots(Phase("p", [], **settings)) == slots


def test_multithreaded_jobs_share_the_cores(artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "cores", lambda: 8)
    for threads, workers in ((1, 8), (3, 2), (8, 1), (99, 1)):
        assert len(engine(artifacts, workers=8)._slots(Phase("p", [], threads=threads))) == workers


def test_a_job_whose_file_is_missing_runs_again(artifacts: Artifacts) -> None:
    engine(artifacts).run([phase(write_number)])
    artifacts.path("out/2.txt").unlink()
    engine(artifacts).run([phase(write_number)])
    assert sorted(runs(artifacts)) == ["0", "1", "2", "2", "3", "4"]
    assert artifacts.path("out/2.txt").read_text() == "2"


def test_a_failure_is_raised_after_the_other_jobs_finish(artifacts: Artifacts) -> None:
    with pytest.raises(InputError, match=r"number 3 is bad.*1 of 5 jobs failed"):
        engine(artifacts).run([phase(fail_on_three), phase(write_number, 9)])
    assert sorted(runs(artifacts)) == ["0", "1", "2", "4"]
    assert not is_done(phase(write_number, 9).jobs[8], artifacts), "later phases don't start"


def test_a_bug_is_reported_with_its_traceback(artifacts: Artifacts) -> None:
    with pytest.raises(MapnetError, match=r"(?s)jobs/0 failed:.*ZeroDivisionError: a bug"):
        engine(artifacts, 1).run([phase(crash, 1)])


def test_jobs_with_missing_inputs_do_not_run(artifacts: Artifacts, capsys: pytest.CaptureFixture[str]) -> None:
    ready = job(write_number, 1, "a")
    waiting = job(write_number, 2, "b", needs=("jobs/none",))
    engine(artifacts).run([Phase("mixed", [ready, waiting])])
    assert runs(artifacts) == ["1"]
    assert "1 of 2 jobs have missing inputs: jobs/none" in capsys.readouterr().err
    with pytest.raises(UsageError, match="jobs/none"):
        engine(artifacts).run([Phase("mixed", [waiting])])


def test_workers_exit_when_the_driver_is_killed(artifacts: Artifacts) -> None:
    code = (
        "from pathlib import Path\nfrom tests.jobs.test_local import *\n"
        f"engine(Artifacts(Path({str(artifacts.root)!r})), 1).run([phase(sleep_long, 1)])"
    )
    started = artifacts.path("started")
    with subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2]) as driver:
        wait_for(started.exists)
        driver.kill()
    worker = int(started.read_text())
    wait_for(lambda: not Path(f"/proc/{worker}").exists() or "Z" in _state(worker))


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2]
    except FileNotFoundError:
        return "Z"


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.05)


@pytest.mark.parametrize("stage", [Pretrain, FinetuneGlue])
def test_workers_have_what_torch_imports_late(stage: type[Pretrain | FinetuneGlue]) -> None:
    """The first optimiser of a process imports torch._dynamo, which takes longer than a small fine-tuning run."""
    code = (
        f"import importlib, sys\nfor name in {stage.preload!r}:\n    importlib.import_module(name)\n"
        "import torch\nbefore = set(sys.modules)\nmodel = torch.nn.Linear(2, 2)\n"
        "optimizer = torch.optim.AdamW(model.parameters(), fused=True)\n"
        "model(torch.ones(1, 2)).sum().backward()\noptimizer.step()\nprint(*set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) < 10, "each worker imports these modules again"
