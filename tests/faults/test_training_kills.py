"""kill -9 at random moments of pretraining: the final weights equal those of an uninterrupted run, bit for bit."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mapnet_cli.config import Config
from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.lineage.graph import Lineage
from mapnet_cli.training.checkpoint import load_checkpoint
from tests.conftest import SMALL, small_config
from tests.faults.kills import KILLS, uninterrupted_and_killed

pytestmark = pytest.mark.slow

SETTINGS = (
    f"pretrain.steps={200 * KILLS}", "pretrain.checkpoint_every=7", "pretrain.validate_every=40",
    "pretrain.log_every=10",
    "pretrain.batch_size=8", "encoder.dropout=0.1", "proposal.dropout=0.1", "encoder.hidden=64", "encoder.ffn=256",
    "encoder.layers=2", 'methods=["mapnet"]', "pretrain.threads=1",
)  # fmt: skip


def command(root: Path, *more: str) -> list[str]:
    settings = [part for setting in (*SMALL, *SETTINGS) for part in ("--set", setting)]
    stage = ["pretrain", "--recipe", "demo", "--artifacts", str(root)]
    return [sys.executable, "-m", "mapnet_cli", *stage, *settings, *more]


def weights(root: Path, *more: str) -> dict[int, dict[str, torch.Tensor]]:
    """Returns the tensors of each milestone."""
    config = small_config(*SETTINGS, *more)
    key, milestones = Lineage(config, Artifacts(root)).pretraining("mapnet", 1).key, config.pretrain.milestone_steps()
    assert {p.name for p in (root / key).glob("step*.json")} == {f"step{step}.json" for step in milestones}
    return {step: load_checkpoint(root / key / f"step{step}")[0] for step in milestones}


def last_logged(root: Path) -> int:
    """Returns the time of the run's last log line, in nanoseconds."""
    return max((log.stat().st_mtime_ns for log in root.glob("pretrain/*/log.jsonl")), default=0)


@pytest.mark.parametrize(
    ("schedule", "processes"),
    [("linear", "1"), ("wsd", "2"), *([("linear", "2"), ("wsd", "1")] if KILLS > 2 else [])],
)
def test_kill_9_at_any_step_does_not_change_the_weights(
    schedule: str, processes: str, make_corpus: Callable[[Config], object], artifacts: Artifacts, tmp_path: Path
) -> None:
    key = f"pretrain.schedule={schedule}"
    make_corpus(small_config(*SETTINGS))
    uninterrupted, killed = uninterrupted_and_killed(
        artifacts.root,
        tmp_path,
        lambda root: command(root, "--set", key, "--processes", processes),
        300,
        last_logged,
        0.5,
    )
    expected, found = weights(uninterrupted, key), weights(killed, key)
    for step in expected:
        assert expected[step].keys() == found[step].keys()
        for name, tensor in expected[step].items():
            assert torch.equal(tensor, found[step][name]), (step, name)
