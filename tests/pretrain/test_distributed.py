"""Training one model with several processes, with real torchrun and gloo: the same results as one process."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from mapnet_cli.config import Config
from mapnet_cli.core.artifacts import ArtifactId, Artifacts
from mapnet_cli.core.errors import MapnetError, ProcessError
from mapnet_cli.core.records import Row
from mapnet_cli.jobs.distributed import current
from mapnet_cli.jobs.job import Job, Output, Progress, ProgressCallback, ignore_progress, run_job
from mapnet_cli.jobs.torchrun import TorchrunJob
from mapnet_cli.lineage.graph import Lineage
from mapnet_cli.pretrain.stage import Pretrain
from mapnet_cli.training.checkpoint import load_checkpoint
from tests.conftest import SMALL, small_config

pytestmark = pytest.mark.slow

SETTINGS = ("pretrain.batch_size=16", "pretrain.steps=6", "pretrain.device=cpu")
# MAP-Net rests in some steps, so that its own parameters have no gradient in any process
RESTING = ("method.mapnet.proposal.learn_on_uniform_steps=false", "method.mapnet.explore_start=0.5")


def train(config: Config, artifacts: Artifacts, method: str) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    """Returns the final weights and the log."""
    reports: list[Progress] = []
    lineage = Lineage(config, artifacts)
    key = lineage.pretraining(method, 1).key
    run_job(next(j for j in Pretrain(lineage).plan(2)[0].jobs if j.key == key), artifacts, reports.append)
    assert not [p.warning for p in reports if p.warning and "compile" not in p.warning]
    assert reports[-1].done == config.pretrain.steps or config.pretrain.processes > 1  # ranks report every 0.5 s
    lines = artifacts.path(f"{key}/log.jsonl").read_text(encoding="utf-8").splitlines()
    weights, _ = load_checkpoint(artifacts.path(f"{key}/step{config.pretrain.steps}"))
    return weights, [json.loads(line) for line in lines]


def assert_equal_runs(
    ours: tuple[dict[str, torch.Tensor], list[dict[str, float]]],
    reference: tuple[dict[str, torch.Tensor], list[dict[str, float]]],
) -> None:
    for name, tensor in reference[0].items():
        torch.testing.assert_close(ours[0][name], tensor, rtol=1e-4, atol=2e-6, msg=name)
    assert len(ours[1]) == len(reference[1])
    timed = {"tokens_per_second", "step_seconds", "mfu", "flops_per_second", "data_wait", "peak_memory_mb"}
    for line, expected in zip(ours[1], reference[1], strict=True):
        assert line.keys() == expected.keys()
        for name in line.keys() - timed:
            assert line[name] == pytest.approx(expected[name], rel=2e-4, abs=1e-6), name


@pytest.mark.parametrize(
    ("method", "extra"),
    [
        ("adaptive", ()),
        ("disjoint", ()),
        ("mapnet", ()),
        ("mapnet", RESTING),
        ("mapnet", (*RESTING, "pretrain.compile=true")),
        ("electra", ()),
    ],
)
def test_two_processes_with_batches_of_8_match_one_with_16(
    method: str,
    extra: tuple[str, ...],
    make_corpus: Callable[[Config], object],
    artifacts: Artifacts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """Includes dropout, which is seeded per micro-batch: the single process uses two micro-batches of 8."""
    if "pretrain.compile=true" in extra:
        request.getfixturevalue("compiler")
    dropout = () if "pretrain.compile=true" in extra else ("encoder.dropout=0.1", "proposal.dropout=0.1")
    extra = (f'methods=["{method}"]', *extra)
    one = small_config(*SETTINGS, *extra, "pretrain.micro_batch_size=8", *dropout, "pretrain.compile=false")
    make_corpus(one)
    reference = train(one, artifacts, method)
    key = Lineage(one, artifacts).pretraining(method, 1).key
    artifacts.path(key).rename(tmp_path / "one process")
    artifacts.path(key + ".json").unlink()
    monkeypatch.chdir(tmp_path)
    artifacts = Artifacts(Path("artifacts"))  # a relative path, as a user may pass
    two = small_config(*SETTINGS, *extra, "pretrain.processes=2", *dropout)
    assert Lineage(two, artifacts).pretraining(method, 1).key == key  # the number of processes is not part of the key
    # compiled, every batch is padded to the block length, which doesn't count as more FLOPs
    assert_equal_runs(train(two, artifacts, method), reference)


class ProcessRank(Row):
    """Rank and number of processes."""

    rank: int
    size: int


@dataclass(frozen=True, kw_only=True)
class DiesOnce(Job):
    """A job whose second process is killed in its first `kills` attempts, while the first one waits for it."""

    kills: int

    def run(self, artifacts: Artifacts, progress: ProgressCallback) -> Output:
        dist = current()
        attempts = artifacts.path("attempts")
        if dist.rank == 1:
            attempts.write_text(attempts.read_text() + "x" if attempts.exists() else "x")
            if len(attempts.read_text()) <= self.kills:
                os.kill(os.getpid(), signal.SIGKILL)
        dist.any(True)
        return Output([], ProcessRank(rank=dist.rank, size=dist.size))


@dataclass(frozen=True, kw_only=True)
class FailsOnRank1(Job):
    """A job that raises an error only in the second process."""

    def run(self, artifacts: Artifacts, progress: ProgressCallback) -> Output:
        if current().rank == 1:
            raise ProcessError("process 1 has no GPU")
        current().any(True)
        return Output()


ARTIFACT = ArtifactId("jobs/0", "f")


def on_two_processes(job: Job, artifacts: Artifacts, progress: ProgressCallback = ignore_progress) -> Output:
    torchrun = TorchrunJob(artifact=ARTIFACT, inner=job, processes=2, threads=1)
    return torchrun.run(artifacts, progress)


def test_killed_process_restarts_all(artifacts: Artifacts) -> None:
    artifacts.root.mkdir(parents=True)
    warnings: list[str] = []
    dies = DiesOnce(artifact=ARTIFACT, kills=1)
    done = on_two_processes(dies, artifacts, lambda p: warnings.append(p.warning))
    assert done.result == ProcessRank(rank=0, size=2)
    assert [bool("restarting all" in warning) for warning in warnings] == [True]
    artifacts.path("attempts").unlink()
    with pytest.raises(MapnetError, match="died 3 times"):
        on_two_processes(DiesOnce(artifact=ARTIFACT, kills=9), artifacts)


def test_error_of_one_process_is_raised(artifacts: Artifacts) -> None:
    with pytest.raises(ProcessError, match="no GPU"):
        on_two_processes(FailsOnRank1(artifact=ARTIFACT), artifacts)


def launch(artifacts: Artifacts, settings: tuple[str, ...], environ: dict[str, str]) -> "subprocess.Popen[str]":
    """Starts `mapnet pretrain` as a user would."""
    named = [part for setting in (*SMALL, *settings) for part in ("--set", setting)]
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "mapnet_cli",
            "pretrain",
            "--recipe",
            "demo",
            "--artifacts",
            str(artifacts.root),
            *named,
        ],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_existing_slurm_launch(make_corpus: Callable[[Config], object], artifacts: Artifacts, tmp_path: Path) -> None:
    """Two processes, as started by srun, that accumulate micro-batches: the same result as one process."""
    settings = (*SETTINGS, "encoder.dropout=0.0", "proposal.dropout=0.0", 'methods=["mapnet"]')
    config = small_config(*settings)
    make_corpus(config)
    reference = train(config, artifacts, "mapnet")
    key = Lineage(config, artifacts).pretraining("mapnet", 1).key
    artifacts.path(key).rename(tmp_path / "one process")
    artifacts.path(key + ".json").unlink()
    slurm = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "localhost", "SLURM_JOB_ID": str(os.getpid())}
    processes = [
        launch(
            artifacts,
            (*settings, "pretrain.micro_batch_size=4"),
            slurm | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
        )
        for rank in (0, 1)
    ]
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "pretrain: 1 run" in outputs[0][1]
    assert outputs[1] == ("", "")  # only the first process prints
    lines = artifacts.path(f"{key}/log.jsonl").read_text(encoding="utf-8").splitlines()
    weights, _ = load_checkpoint(artifacts.path(f"{key}/step6"))
    assert_equal_runs((weights, [json.loads(line) for line in lines]), reference)


def test_divergence_with_two_processes_has_exit_code_6(
    make_corpus: Callable[[Config], object], artifacts: Artifacts
) -> None:
    settings = (*SETTINGS, 'methods=["bert"]', "pretrain.peak_lr=1e30", "pretrain.warmup_steps=0")
    make_corpus(small_config(*settings))
    process = launch(artifacts, (*settings, "pretrain.processes=2"), {})
    _, err = process.communicate(timeout=300)
    assert process.returncode == 6, err
    assert "not finite at step" in err
    assert "Traceback" not in err


def test_ctrl_c_with_two_processes_saves_and_the_same_command_resumes(
    make_corpus: Callable[[Config], object], artifacts: Artifacts
) -> None:
    settings = (
        *SETTINGS, 'methods=["bert"]', "pretrain.steps=800", "pretrain.checkpoint_every=0", "pretrain.processes=2",
        "pretrain.log_every=5", "pretrain.milestones=[1.0]", "pretrain.validate_every=0",
    )  # fmt: skip
    config = small_config(*settings)
    make_corpus(config)
    folder = artifacts.path(Lineage(config, artifacts).pretraining("bert", 1).key)
    process = launch(artifacts, settings, {})
    deadline = time.monotonic() + 240
    while not (folder / "log.jsonl").exists() or not (folder / "log.jsonl").read_text(encoding="utf-8"):
        assert time.monotonic() < deadline, "no step in four minutes"
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    (saved,) = (folder / "resume").iterdir()
    _, facts = load_checkpoint(saved)
    assert 0 < facts["step"] < 800
    again = launch(artifacts, settings, {})
    _, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    assert (folder / "step800").exists()


def test_dry_run_under_a_launch_prints_once(artifacts: Artifacts) -> None:
    """Even if other ranks are missing. An incomplete launch environment is a usage error, not a traceback."""
    command = [
        sys.executable,
        "-m",
        "mapnet_cli",
        "pretrain",
        "--dry-run",
        "--json",
        "--artifacts",
        str(artifacts.root),
    ]
    for rank, lines in ((0, True), (1, False)):
        numbers = {"WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"}
        done = subprocess.run(command, env=os.environ | numbers, capture_output=True, text=True)
        assert (done.returncode, bool(done.stdout)) == (0, lines), done.stderr
        assert "2 processes" in done.stdout or not lines
    done = subprocess.run(command, env=os.environ | {"WORLD_SIZE": "2", "RANK": "0"}, capture_output=True, text=True)
    assert (done.returncode, "LOCAL_RANK" in done.stderr, "Traceback" in done.stderr) == (2, True, False)
