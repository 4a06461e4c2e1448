"""examples/slurm.sh and examples/ray.sh as they are, with a stand-in for srun that starts tasks on this machine."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from mapnet_cli.api import load

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SRUN = """#!/bin/bash
tasks=$SLURM_NTASKS
while [[ $1 == --* ]]; do
  [[ $1 == --ntasks=* ]] && tasks=${1#*=}
  shift
done
echo "srun: $tasks x $*"
trap 'kill $(jobs -p)' TERM
for ((rank = 0; rank < tasks; rank++)); do
  SLURM_STEP_NUM_TASKS=$tasks SLURM_STEP_NODELIST=localhost SLURM_PROCID=$rank SLURM_LOCALID=$rank "$@" &
done
for task in $(jobs -p); do wait "$task" || code=$?; done
exit ${code:-0}
"""


def submit(script: str, folder: Path, **environ: str) -> str:
    """Runs an example with the variables of a batch job on two nodes with one task each; returns its output."""
    tools = folder / "bin"
    tools.mkdir()
    (tools / "srun").write_text(SRUN)
    (tools / "srun").chmod(0o755)
    batch = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NUM_NODES": "2", "SLURM_NTASKS": "2"}
    batch |= {"SLURM_CPUS_PER_TASK": "1", "SLURMD_NODENAME": "127.0.0.1", "CONFIG": "mine.toml", "ARTIFACTS": "art"}
    path = f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    job = subprocess.Popen(
        ["bash", ROOT / "examples" / script], cwd=folder, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=os.environ | batch | environ | {"PATH": path, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        out, _ = job.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        os.killpg(job.pid, signal.SIGKILL)
        raise
    assert job.returncode == 0, out
    assert "Report: art/report/mine/index.html" in out
    return out


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    shutil.copy(finished / "mine.toml", tmp_path)
    return tmp_path


def rows(folder: Path, artifacts: str) -> list[dict[str, object]]:
    project = load(folder / "mine.toml", artifacts=folder / artifacts)
    assert all(row["done"] == row["total"] for row in project.status())
    return project.results()


def test_two_processes_under_slurm(folder: Path, finished: Path) -> None:
    """Both train one model: each waits for the other, so that none trains alone; dropout differs from one process's."""
    out = submit("slurm.sh", folder)
    assert "srun: 2 x mapnet pretrain" in out
    assert [row["task"] for row in rows(folder, "art")] == [row["task"] for row in rows(finished, "artifacts")]


def test_a_ray_cluster_of_two_nodes(folder: Path, finished: Path) -> None:
    """The same results as on this machine without Ray, apart from times."""
    pytest.importorskip("ray", reason="Ray is optional: pip install 'mapnet[ray]'")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    # a short path, since socket paths are limited, and apart from other clusters on this machine
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as scratch:
        out = submit("ray.sh", folder, RAY_PORT=port, RAY_TMPDIR=scratch)
    assert f"srun: 1 x ray start --block --address=127.0.0.1:{port}" in out
    assert out.count("Ray runtime started") == 2
    costs = ("seconds", "hours")
    ours, expected = (
        [row for row in rows(*where) if row["metric"] not in costs]
        for where in ((folder, "art"), (finished, "artifacts"))
    )
    assert ours == expected
