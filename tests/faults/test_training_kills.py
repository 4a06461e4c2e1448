"""kill -9 at random moments of a training: the finished weights are those of an undisturbed one, bit for bit.

A few kills in the test suite; `make faults` does KILLS of them.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mapnet_cli.artifacts import Artifacts
from mapnet_cli.config import Config
from mapnet_cli.lineage import Lineage
from mapnet_cli.training.checkpoint import load_checkpoint
from tests.conftest import SMALL, small_config

KILLS = int(os.environ.get("KILLS", "2"))
SETTINGS = (
    f"pretrain.steps={200 * KILLS}", "pretrain.checkpoint_every=7", "pretrain.validate_every=40",
    "pretrain.log_every=10",
    "pretrain.batch_size=8", "encoder.dropout=0.1", "proposal.dropout=0.1", "encoder.hidden=64", "encoder.ffn=256",
    "encoder.layers=2", 'methods=["mapnet"]', "pretrain.threads=1",
)  # fmt: skip


def start(root: Path, *more: str) -> "subprocess.Popen[bytes]":
    settings = [part for setting in (*SMALL, *SETTINGS) for part in ("--set", setting)]
    command = [sys.executable, "-m", "mapnet_cli", "pretrain", "--recipe", "demo", "--artifacts", str(root)]
    environ = os.environ | {"KILLS_IN": str(root)}  # by which its whole family is known
    with (root.parent / f"{root.name}.txt").open("ab") as said:
        return subprocess.Popen([*command, *settings, *more], env=environ, stdout=said, stderr=said)


def family(root: Path) -> list[int]:
    """Returns the processes that work for a training in `root`: driver, fork server, workers, torchrun, ranks."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and f"KILLS_IN={root}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:  # it has just ended
            continue
    return found


def weights(root: Path) -> dict[str, torch.Tensor]:
    key = Lineage(small_config(*SETTINGS), Artifacts(root)).pretraining("mapnet", 1).key
    milestones = small_config(*SETTINGS).pretrain.milestone_steps()
    assert {p.name for p in (root / key).glob("step*.json")} == {f"step{step}.json" for step in milestones}
    return load_checkpoint(root / key / f"step{milestones[-1]}")[0]


def has_grown(root: Path, since: int) -> bool:
    """Returns whether the training has logged something since a time, in nanoseconds."""
    return any(log.stat().st_mtime_ns > since for log in root.glob("pretrain/*/log.jsonl"))


# Linux, CI's too, has /proc; elsewhere nothing tells which processes belong to a training, and a kill could hit others
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="which processes to kill is read from Linux's /proc")
@pytest.mark.parametrize("more", [(), ("--processes", "2")], ids=["one process", "two processes"])
def test_kill_9_at_any_step_changes_nothing(
    more: tuple[str, ...], make_corpus: Callable[[Config], object], artifacts: Artifacts, tmp_path: Path
) -> None:
    make_corpus(small_config(*SETTINGS))
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    for root in (undisturbed, killed):
        subprocess.run(["cp", "-r", artifacts.root, root], check=True)
    assert start(undisturbed, *more).wait(300) == 0
    chance = random.Random(KILLS)
    process, kills = start(killed, *more), 0
    while kills < KILLS:
        begun = time.time_ns()
        while process.poll() is None and not has_grown(killed, begun):
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 0.5))
        if process.poll() is None:
            # the driver, or anyone of its family: then the driver itself starts the training again, if it must
            os.kill(chance.choice(family(killed)) if kills % 2 else process.pid, signal.SIGKILL)
            kills += 1
            time.sleep(0.1)
        if process.poll() is not None:  # killed, or its workers died too often
            assert process.returncode != 0, "the training ended before it was killed as often as it should"
            wait_for_orphans(killed)
            process = start(killed, *more)
    while process.wait(600) != 0:
        process = start(killed, *more)
    expected, found = weights(undisturbed), weights(killed)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name


def wait_for_orphans(root: Path) -> None:
    """Waits until nothing works in the folder any more: workers end with their driver."""
    deadline = time.monotonic() + 30
    while family(root):
        assert time.monotonic() < deadline, "processes outlived their driver"
        time.sleep(0.1)
