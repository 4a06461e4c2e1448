"""Detection of launched processes, and their rendezvous."""

import sys
from pathlib import Path

import pytest

from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.core.console import Console
from mapnet_cli.core.errors import UsageError
from mapnet_cli.jobs import engine
from mapnet_cli.jobs.distributed import ALONE, DistContext, first_host, launched, rendezvous
from mapnet_cli.jobs.engine import LaunchedEngine
from tests.jobs.test_local import phase, runs, write_number


def test_not_launched() -> None:
    assert launched({}) is None
    assert launched({"WORLD_SIZE": "1", "RANK": "0"}) is None
    # a batch script sees the allocation's variables, but only srun starts a step with several tasks
    assert launched({"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_JOB_ID": "7"}) is None
    assert launched({"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}) is None


def test_ranks_from_torchrun_and_srun() -> None:
    assert launched({"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1"}) == DistContext(3, 4, 1)
    slurm = {"SLURM_STEP_NUM_TASKS": "16", "SLURM_PROCID": "9", "SLURM_LOCALID": "1"}
    assert launched(slurm) == DistContext(9, 16, 1)
    with pytest.raises(UsageError, match="LOCAL_RANK"):
        launched({"WORLD_SIZE": "4", "RANK": "3"})


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("gpu[03-07,9],x1", "gpu03"), ("a,b", "a"), ("node7", "node7"), ("n[4,6-8]", "n4"), ("c-1-[12-13]", "c-1-12")],
)
def test_first_host_of_a_node_list(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


def test_rendezvous_address() -> None:
    assert rendezvous({"MASTER_ADDR": "h", "MASTER_PORT": "5"}) == "h:5"
    assert rendezvous({"SLURM_STEP_NODELIST": "n[4-5]", "SLURM_JOB_ID": "100123"}) == "n4:20123"


def test_collectives_of_a_single_process() -> None:
    assert ALONE.any(True) is True
    assert ALONE.broadcast("x") == "x"


def test_finished_jobs_are_not_forced_again_after_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifacts, console, jobs = Artifacts(tmp_path), Console(quiet=True), [phase(write_number, 2)]
    for _ in range(2):
        LaunchedEngine(artifacts, console, ALONE, force=True).run(jobs)
    assert runs(artifacts) == ["0", "1", "0", "1"]
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    for rank in (0, 1):  # the other ranks must not wait for one that has skipped the job
        LaunchedEngine(artifacts, console, DistContext(rank), force=True).run(jobs)
    assert len(runs(artifacts)) == 4


def test_a_restart_runs_all_jobs_that_were_forced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifacts, console, jobs = Artifacts(tmp_path), Console(quiet=True), [phase(write_number, 2)]
    LaunchedEngine(artifacts, console, ALONE).run(jobs)
    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        patched.setattr(engine, "run_job", lambda *_: sys.exit())
        LaunchedEngine(artifacts, console, ALONE, force=True).run(jobs)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    LaunchedEngine(artifacts, console, ALONE, force=True).run(jobs)
    assert runs(artifacts) == ["0", "1", "0", "1"]
