"""Rolling checkpoints: damage is noticed, the one before takes over, and pruning keeps good ones."""

from pathlib import Path

import pytest
import torch

from mapnet_cli.errors import DamagedError
from mapnet_cli.training.checkpoint import (
    load_checkpoint,
    newest_checkpoint,
    prune_checkpoints,
    rolling_name,
    save_checkpoint,
)
from mapnet_cli.training.optim import learning_rate


def save(folder: Path, *steps: int) -> None:
    for step in steps:
        save_checkpoint(folder / rolling_name(step), {"w": torch.full((3,), float(step))}, {"step": step})


def damage(folder: Path, step: int) -> None:
    file = folder / rolling_name(step) / "tensors.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def test_round_trip_and_same_bytes(tmp_path: Path) -> None:
    save(tmp_path, 5)
    tensors, facts = load_checkpoint(tmp_path / rolling_name(5))
    assert (tensors["w"].tolist(), facts["step"]) == ([5.0] * 3, 5)
    before = (tmp_path / rolling_name(5) / "tensors.safetensors").read_bytes()
    save(tmp_path, 5)
    assert (tmp_path / rolling_name(5) / "tensors.safetensors").read_bytes() == before


def test_the_newest_good_one_is_found_and_the_damaged_leave(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3)
    damage(tmp_path, 3)
    (tmp_path / rolling_name(2) / "facts.json").unlink()
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert (found[1]["step"], len(found[2])) == (1, 2)
    save(tmp_path, 2)
    prune_checkpoints(tmp_path, 1)
    assert [p.name for p in tmp_path.iterdir()] == [rolling_name(2)]


def test_nothing_good_is_nothing(tmp_path: Path) -> None:
    save(tmp_path, 1)
    damage(tmp_path, 1)
    with pytest.raises(DamagedError, match="checksum"):
        load_checkpoint(tmp_path / rolling_name(1))
    assert newest_checkpoint(tmp_path) is None


def test_learning_rate_by_hand() -> None:
    """Peak 1, 4 steps of warm-up, 10 in all: up by quarters, then down by sixths, never above the peak."""
    rates = [learning_rate(step, 1.0, 4, 10) for step in range(10)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])
    assert learning_rate(0, 1.0, 0, 10) == 1.0
