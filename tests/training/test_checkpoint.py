"""Rolling checkpoints: damage is detected, the previous one is used instead, and pruning keeps good ones."""

import errno
import os
import resource
import threading
from pathlib import Path

import pytest
import torch

from mapnet_cli.core.errors import DamagedError
from mapnet_cli.training.checkpoint import (
    TENSORS,
    BackgroundWriter,
    load_checkpoint,
    load_tensors,
    newest_checkpoint,
    prune_checkpoints,
    rolling_name,
    save_checkpoint,
    snapshot,
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


def test_round_trip_is_deterministic(tmp_path: Path) -> None:
    save(tmp_path, 5)
    tensors, facts = load_checkpoint(tmp_path / rolling_name(5))
    assert (tensors["w"].tolist(), facts["step"]) == ([5.0] * 3, 5)
    before = (tmp_path / rolling_name(5) / "tensors.safetensors").read_bytes()
    save(tmp_path, 5)
    assert (tmp_path / rolling_name(5) / "tensors.safetensors").read_bytes() == before


def test_a_file_that_cannot_be_opened_is_a_system_error(tmp_path: Path) -> None:
    """safetensors opens it first, then torch; without file descriptors each of them fails."""
    save(tmp_path, 1)
    file, open_files, errors = tmp_path / rolling_name(1) / TENSORS, resource.getrlimit(resource.RLIMIT_NOFILE), []
    os.close(free := os.dup(0))
    for limit in range(free, free + 4):
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, open_files[1]))
        try:
            load_tensors(file)
        except OSError as error:
            errors.append(error)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, open_files)
    assert len(errors) >= 2 and {error.errno for error in errors} == {errno.EMFILE}
    assert {os.fspath(error.filename) for error in errors} == {str(file)}
    with pytest.raises(FileNotFoundError):
        load_tensors(tmp_path / "none")


def test_newest_undamaged_checkpoint_is_found_and_damaged_ones_are_deleted(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3)
    damage(tmp_path, 3)
    (tmp_path / rolling_name(2) / "facts.json").unlink()
    found, warnings = newest_checkpoint(tmp_path)
    assert found is not None
    assert (found[1]["step"], len(warnings)) == (1, 2)
    save(tmp_path, 2)
    prune_checkpoints(tmp_path, 1)
    assert [p.name for p in tmp_path.iterdir()] == [rolling_name(2)]


def test_only_damaged_checkpoints_give_none(tmp_path: Path) -> None:
    save(tmp_path, 1)
    damage(tmp_path, 1)
    with pytest.raises(DamagedError, match="checksum"):
        load_checkpoint(tmp_path / rolling_name(1))
    found, warnings = newest_checkpoint(tmp_path)
    assert (found, len(warnings)) == (None, 1)


def test_learning_rate_schedule() -> None:
    """Peak 1, 4 warm-up steps, 10 steps in total: rises by quarters, then falls by sixths, never above the peak."""
    rates = [learning_rate(step, 1.0, 4, 10) for step in range(10)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])
    assert learning_rate(0, 1.0, 0, 10) == 1.0


def test_altered_facts_are_detected(tmp_path: Path) -> None:
    save(tmp_path, 1)
    facts = tmp_path / rolling_name(1) / "facts.json"
    facts.write_text(facts.read_text().replace('"step": 1', '"step": 2'))
    with pytest.raises(DamagedError, match="facts"):
        load_checkpoint(tmp_path / rolling_name(1))


def test_snapshot_is_independent_of_the_weights() -> None:
    weights = {"w": torch.ones(3)}
    copy = snapshot(weights)
    weights["w"] += 1
    assert copy["w"].tolist() == [1.0] * 3


def test_writes_run_in_the_background_in_order() -> None:
    started, go, done = threading.Event(), threading.Event(), list[int]()

    def slow() -> None:
        started.set()
        assert go.wait(5)
        done.append(1)

    with BackgroundWriter() as writer:
        writer.submit(slow, lambda: done.append(2))
        assert started.wait(5)
        assert not done  # submit returned before the write finished
        go.set()
        writer.submit(lambda: done.append(3))
    assert done == [1, 2, 3]


def test_failed_write_is_raised_by_the_next_submit_or_on_exit() -> None:
    def fails() -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), BackgroundWriter() as writer:
        writer.submit(fails)
    with BackgroundWriter() as writer:
        writer.submit(fails)
        with pytest.raises(OSError, match="disk full"):
            writer.submit(fails)
        writer.submit(lambda: None)
