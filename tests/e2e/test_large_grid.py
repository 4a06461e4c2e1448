"""A slice of the large grid of tests/benchmarks/grid.py: what `status` and `report` read and write."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.core.records import FinetuneRun
from mapnet_cli.glue.grid import grid_runs
from mapnet_cli.lineage.graph import Lineage
from mapnet_cli.report.stage import build
from tests.benchmarks.grid import SETTINGS, grid_config, make_grid

SLICE = (
    'finetune.tasks=["CoLA","MNLI"]', "finetune.batch_sizes=[16]", "finetune.learning_rates=[1e-5,2e-5]",
    "finetune.seeds=[1,2]",
)  # fmt: skip
OPENED = """
import json, sys
opened = []
sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event == "open" else None)
from mapnet_cli.cli.commands import app
try:
    app(sys.argv[1:])
finally:
    print(json.dumps(opened), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Lineage:
    """64 finished runs, three of which failed."""
    lineage = Lineage(grid_config(*SLICE), Artifacts(tmp_path_factory.mktemp("grid")))
    make_grid(lineage)
    return lineage


def keys(lineage: Lineage) -> list[str]:
    return [lineage.finetuning(run).key for run in grid_runs(lineage.config)]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("command", ["status", "report"])
def test_each_record_is_read_once(command: str, grid: Lineage) -> None:
    options = ["--recipe", "paper", "--artifacts", str(grid.artifacts.root)]
    options += [word for setting in (*SETTINGS, *SLICE) for word in ("--set", setting)]
    done = subprocess.run([sys.executable, "-c", OPENED, command, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    opened = Counter(json.loads(done.stderr.splitlines()[-1]))
    counts = [opened[str(grid.artifacts.path(f"{key}.json"))] for key in keys(grid)]
    assert counts == [1] * 64
    if command == "status":
        assert "finetune           64/64     done" in done.stdout
        assert done.stdout.count("4/4, 1 failed") == 3


def test_records_are_copied_from_markers(grid: Lineage) -> None:
    lines = build(grid).files["records.jsonl"].read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    expected = [grid.artifacts.read(key, FinetuneRun).to_json() for key in keys(grid)]
    assert [row for row in rows if row.pop("record") == "FinetuneRun"] == expected
    assert lines == [json.dumps(json.loads(line), ensure_ascii=False) for line in lines]
