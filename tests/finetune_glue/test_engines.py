"""Records don't depend on the process that a run is executed in, or on other runs."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mapnet_cli.config import Config
from mapnet_cli.core.artifacts import Artifacts
from tests.finetune_glue import grids

pytestmark = pytest.mark.slow


def test_records_do_not_depend_on_other_runs(
    artifacts: Artifacts, make_corpus: Callable[[Config], object], tmp_path: Path
) -> None:
    settings = grids.train(artifacts, make_corpus, tmp_path)
    alone, one_process, two_workers = (tmp_path / name for name in ("alone", "one process", "two workers"))
    for root in (alone, one_process, two_workers):
        subprocess.run(["cp", "-r", artifacts.root, root], check=True)
    grids.fine_tune(alone, (*settings, 'finetune.tasks=["RTE"]'), "--workers", "1")
    grids.fine_tune(one_process, settings, "--workers", "0")
    grids.fine_tune(two_workers, settings, "--workers", "2")
    expected = grids.records(one_process)
    assert len(expected) == 8 + 8 + 4 * 8  # tasks, baselines, runs
    assert grids.records(two_workers) == expected
    found = grids.records(alone)
    assert len(found) == 1 + 1 + 4
    assert found.items() <= expected.items()
