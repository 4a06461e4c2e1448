"""kill -9 at random moments of a grid: no finished run is lost or run again, and the report is the same to the byte.

A few kills in the test suite; `make faults` does KILLS of them.
"""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mapnet_cli.artifacts import Artifacts
from mapnet_cli.config import Config
from tests.faults.test_training_kills import KILLS, family, wait_for_orphans
from tests.finetune_glue import grids

GRID = ('finetune.tasks=["CoLA", "STS-B", "MNLI"]', "finetune.epochs=4")


def start(root: Path, settings: tuple[str, ...]) -> "subprocess.Popen[bytes]":
    environ = os.environ | {"KILLS_IN": str(root)}  # by which its whole family is known
    with (root.parent / f"{root.name}.txt").open("ab") as said:
        return subprocess.Popen(
            grids.command("finetune-glue", root, settings, "--workers", "2"), env=environ, stdout=said, stderr=said
        )


def finished(root: Path) -> dict[Path, int]:
    """Returns when each finished job's marker was written."""
    return {path: path.stat().st_mtime_ns for path in grids.markers(root)}


def report(root: Path, settings: tuple[str, ...]) -> dict[str, bytes]:
    """Returns the report's files."""
    subprocess.run(grids.command("report", root, settings), check=True, capture_output=True)
    return {path.name: path.read_bytes() for path in (root / "report" / "demo").iterdir()}


# Linux, CI's too, has /proc; elsewhere nothing tells which processes belong to a run, and a kill could hit others
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="which processes to kill is read from Linux's /proc")
def test_kill_9_anywhere_in_a_grid_costs_only_what_was_running(
    artifacts: Artifacts, make_corpus: Callable[[Config], object], tmp_path: Path
) -> None:
    seeds = list(range(1, 2 + KILLS))
    settings = grids.train(artifacts, make_corpus, tmp_path, *GRID, f"finetune.seeds={seeds}")
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    for root in (undisturbed, killed):
        subprocess.run(["cp", "-r", artifacts.root, root], check=True)
    assert start(undisturbed, settings).wait(600) == 0
    chance = random.Random(KILLS)
    process, kills, seen = start(killed, settings), 0, finished(killed)
    while kills < KILLS:
        while process.poll() is None and len(finished(killed)) == len(seen):
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.3))
        if process.poll() is None:
            # the driver, or anyone of its family: then the driver itself goes on, in a fresh worker if it must
            os.kill(chance.choice(family(killed)) if kills % 2 else process.pid, signal.SIGKILL)
            kills += 1
            time.sleep(0.1)
        now = finished(killed)
        assert seen.items() <= now.items(), "a finished run was lost, or was run again"
        seen = now
        if process.poll() is not None:
            assert process.returncode != 0, "the grid ended before it was killed as often as it should"
            wait_for_orphans(killed)
            seen = finished(killed)
            process = start(killed, settings)
    while process.wait(600) != 0:
        process = start(killed, settings)
    assert seen.items() <= finished(killed).items()
    assert grids.records(killed) == grids.records(undisturbed)
    assert not list(killed.rglob(".tmp-*"))
    expected = report(undisturbed, settings)
    assert {"table3.csv", "tasks.csv", "report.md"} <= expected.keys()
    assert report(killed, settings) == expected
