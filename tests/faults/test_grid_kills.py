"""kill -9 at random moments of a grid: no finished run is lost or rerun, and the report is identical."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mapnet_cli.config import Config
from mapnet_cli.core.artifacts import Artifacts
from tests.faults.kills import KILLS, uninterrupted_and_killed
from tests.finetune_glue import grids

pytestmark = pytest.mark.slow

GRID = ('finetune.tasks=["CoLA", "STS-B", "MNLI"]', "finetune.epochs=4")


def finished(root: Path) -> dict[Path, int]:
    """Returns the modification time of each finished job's marker."""
    return {path: path.stat().st_mtime_ns for path in grids.markers(root)}


def report(root: Path, settings: tuple[str, ...]) -> dict[str, bytes]:
    """Writes the report and returns its files' contents."""
    subprocess.run(grids.command("report", root, settings), check=True, capture_output=True)
    return {path.name: path.read_bytes() for path in (root / "report" / "latest").iterdir()}


def test_kill_9_during_a_grid_affects_only_running_jobs(
    artifacts: Artifacts, make_corpus: Callable[[Config], object], tmp_path: Path
) -> None:
    seeds = list(range(1, 2 + KILLS))
    settings = grids.train(artifacts, make_corpus, tmp_path, *GRID, f"finetune.seeds={seeds}")
    seen: dict[Path, int] = {}

    def none_lost(root: Path) -> None:
        now = finished(root)
        assert seen.items() <= now.items(), "a finished run was lost or rerun"
        seen.update(now)

    uninterrupted, killed = uninterrupted_and_killed(
        artifacts.root, tmp_path, lambda root: grids.command("finetune-glue", root, settings, "--workers", "2"),
        600, lambda root: len(finished(root)), 0.3, none_lost,
    )  # fmt: skip
    assert grids.records(killed) == grids.records(uninterrupted)
    assert not list(killed.rglob(".tmp-*"))
    expected = report(uninterrupted, settings)
    assert {"results.csv", "results.json", "index.html", "report.md"} <= expected.keys()
    assert report(killed, settings) == expected
