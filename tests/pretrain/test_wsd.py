"""Schedule "wsd": every milestone is a branch that is equal, bit for bit, to a run that ends there."""

import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import pytest

from mapnet_cli.config import Config
from mapnet_cli.config.training import Pretrain as Settings
from mapnet_cli.core.artifacts import Artifacts, sha256
from mapnet_cli.core.errors import DamagedError, Interrupted
from mapnet_cli.core.records import Checkpoint
from mapnet_cli.lineage.graph import Lineage
from mapnet_cli.pretrain import monitor
from mapnet_cli.pretrain.forecast import forecast
from mapnet_cli.pretrain.monitor import TrainingMonitor
from mapnet_cli.pretrain.segments import needed_for, place_of, segments
from mapnet_cli.pretrain.stage import Pretrain
from mapnet_cli.training import learning_rate
from mapnet_cli.training.checkpoint import TENSORS, rolling_name
from tests.conftest import small_config
from tests.pretrain.test_loop import train

KEYS = ('pretrain.schedule="wsd"', "pretrain.steps=30", "pretrain.milestones=[0.4, 0.7, 1.0]", "encoder.dropout=0.1")
"""Milestones 12, 21 and 30, whose branches begin after 10, 18 and 27 steps: 35 steps in all."""
PARTS = segments(Settings(steps=30, milestones=(0.4, 0.7, 1.0), schedule="wsd"))
METHODS = ("bert", "mapnet", "adaptive", "electra")


def config_of(method: str, *more: str) -> Config:
    return small_config(f'methods=["{method}"]', *KEYS, *more)


def milestones(config: Config, artifacts: Artifacts) -> dict[int, Checkpoint]:
    (name,) = config.methods
    key = Lineage(config, artifacts).pretraining(name, 1).key
    return {step: artifacts.read(f"{key}/step{step}", Checkpoint) for step in config.milestone_steps(name)}


def log(config: Config, artifacts: Artifacts) -> list[dict[str, float]]:
    (name,) = config.methods
    text = artifacts.path(Lineage(config, artifacts).pretraining(name, 1).key + "/log.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_learning_rate_of_every_step() -> None:
    """Peak 1, 4 warm-up steps, milestones after 12, 21 and 30 steps, which decay over 2, 3 and 3 steps."""
    settings = Settings(steps=30, milestones=(0.4, 0.7, 1.0), schedule="wsd", warmup_steps=4)
    rates = [
        [(step, learning_rate(step, 1.0, 4, part.decay[1], part.decay[0])) for step in range(part.first, part.last)]
        for part in segments(settings)
    ]
    assert rates == [
        [(0, 0.25), (1, 0.5), (2, 0.75), *((step, 1.0) for step in range(3, 10))],
        [(10, 1.0), (11, 0.5)],
        [(step, 1.0) for step in range(10, 18)],
        [(18, 1.0), (19, 2 / 3), (20, 1 / 3)],
        [(step, 1.0) for step in range(18, 27)],
        [(27, 1.0), (28, 2 / 3), (29, 1 / 3)],
    ]


def test_places_count_every_step_once() -> None:
    rows = [
        {"step": step, **({"branch": part.branch} if part.branch else {})}
        for part in PARTS
        for step in range(part.first + 1, part.last + 1)
    ]
    assert [place_of(row, PARTS) for row in rows] == list(range(1, 36))
    assert [needed_for(place, PARTS) for place in (9, 10, 11, 12, 13, 20, 21, 22, 23, 33)] == [
        9, 10, 10, 12, 13, 20, 20, 20, 23, 33,
    ]  # fmt: skip
    linear = segments(Settings(steps=30, milestones=(0.4, 0.7)))
    assert [(part.first, part.end, part.milestones) for part in linear] == [(0, 21, (12, 21))]


def test_branches_begin_with_a_first_visit() -> None:
    parts = segments(Settings(steps=30, milestones=(0.1, 0.4, 0.5, 1.0), schedule="wsd", visits=4))
    assert [(part.first, part.last) for part in parts] == [
        (0, 0), (0, 3), (0, 8), (8, 12), (8, 12), (12, 15), (12, 24), (24, 30),
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_milestone_is_a_run_that_ends_there(
    method: str, make_corpus: Callable[[Config], object], artifacts: Artifacts
) -> None:
    config = config_of(method)
    make_corpus(config)
    train(config, artifacts, method)
    found = milestones(config, artifacts)
    for share, (step, row) in zip((0.4, 0.7, 1.0), found.items(), strict=True):
        alone = config_of(method, f"pretrain.milestones=[{share}]")
        train(alone, artifacts, method)
        (only,) = milestones(alone, artifacts).values()
        assert (row.fingerprint, row.tokens, row.flops) == (only.fingerprint, only.tokens, only.flops), step
        assert row.validation == only.validation
    assert found[12].flops < found[21].flops < found[30].flops


def test_a_branch_may_begin_before_the_first_step(
    make_corpus: Callable[[Config], object], artifacts: Artifacts
) -> None:
    """Milestones after 3 and 15 steps, whose branches begin after 0 and 12, and one after 12, which begins after 8."""
    keys = ("pretrain.visits=4", "pretrain.steps=30")
    config = config_of("mapnet", *keys, "pretrain.milestones=[0.1, 0.4, 0.5]")
    make_corpus(config)
    with failing_at(2, kill), pytest.raises(KeyboardInterrupt):
        train(config, artifacts, "mapnet")
    train(config, artifacts, "mapnet")
    alone = config_of("mapnet", *keys, "pretrain.milestones=[0.5]")
    train(alone, artifacts, "mapnet")
    assert milestones(alone, artifacts)[15].fingerprint == milestones(config, artifacts)[15].fingerprint


@contextmanager
def failing_at(place: int, error: Callable[[], object]) -> Iterator[None]:
    """Calls `error` after the step at a place of the run, before anything about the step is saved."""
    real = TrainingMonitor.after_step

    def after_step(self: TrainingMonitor, *arguments: Any) -> None:
        if self.state.place == place:
            error()
        real(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingMonitor, "after_step", after_step)
        yield


def kill() -> None:
    raise KeyboardInterrupt


def discard(config: Config, artifacts: Artifacts) -> None:
    (name,) = config.methods
    key = Lineage(config, artifacts).pretraining(name, 1).key
    for step in config.milestone_steps(name):
        artifacts.discard(f"{key}/step{step}")
    artifacts.discard(key)


def assert_same(config: Config, artifacts: Artifacts, expected: dict[int, Checkpoint], logged: list[Any]) -> None:
    found = milestones(config, artifacts)
    same = ("fingerprint", "tokens", "flops", "validation", "health")
    for step, row in expected.items():
        assert sha256(artifacts.path(row.path) / TENSORS) == row.fingerprint
        assert [getattr(found[step], name) for name in same] == [getattr(row, name) for name in same]
    again = log(config, artifacts)
    for name in ("branch", "lr", "validation_loss"):
        assert {row["step"] for row in again if name in row} == {row["step"] for row in logged if name in row}
    ends = [(row["step"], row.get("branch"), row["flops"]) for row in again if "loss" in row]
    assert ends == sorted(ends, key=lambda end: place_of({"step": end[0], "branch": end[1] or 0}, PARTS))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "keys"),
    [
        ("bert", ()),
        ("mapnet", ("pretrain.checkpoint_every=0",)),
        ("mapnet", ("pretrain.visits=2", "method.mapnet.proposal.propose_every=2", "method.mapnet.explore_start=0.5")),
        ("adaptive", ("pretrain.checkpoint_every=1", "pretrain.keep_checkpoints=1")),
        ("electra", ("pretrain.checkpoint_every=2",)),
    ],
)
def test_runs_killed_or_stopped_after_every_step_end_with_the_same_weights_and_log(
    method: str, keys: tuple[str, ...], make_corpus: Callable[[Config], object], artifacts: Artifacts
) -> None:
    config = config_of(method, "pretrain.log_every=3", *keys)
    make_corpus(config)
    train(config, artifacts, method)
    expected, logged = milestones(config, artifacts), log(config, artifacts)
    assert PARTS[-1].end == 35
    for error, stopped in ((kill, KeyboardInterrupt), (partial(signal.raise_signal, signal.SIGTERM), Interrupted)):
        discard(config, artifacts)
        for place in range(1, 35):
            with failing_at(place, error), suppress(stopped):
                train(config, artifacts, method)
        train(config, artifacts, method)
        assert_same(config, artifacts, expected, logged)


def test_a_run_killed_while_it_returns_to_the_trunk_resumes(
    make_corpus: Callable[[Config], object], artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The milestone is on disk, the trunk is not yet restored."""
    config = config_of("bert")
    make_corpus(config)
    train(config, artifacts, "bert")
    expected, logged = milestones(config, artifacts), log(config, artifacts)
    discard(config, artifacts)
    with monkeypatch.context() as patch:
        patch.setattr(monitor, "return_to_trunk", lambda *_: kill())
        with pytest.raises(KeyboardInterrupt):
            train(config, artifacts, "bert")
    train(config, artifacts, "bert")
    assert_same(config, artifacts, expected, logged)


def test_a_damaged_beginning_of_a_branch_costs_only_what_came_after_the_one_before(
    make_corpus: Callable[[Config], object], artifacts: Artifacts
) -> None:
    config = config_of("bert")
    make_corpus(config)
    train(config, artifacts, "bert")
    expected, logged = milestones(config, artifacts), log(config, artifacts)
    discard(config, artifacts)
    resume = artifacts.path(Lineage(config, artifacts).pretraining("bert", 1).key) / "resume"

    def damage() -> None:
        while not (folder := resume / rolling_name(20)).exists():  # a thread writes it
            time.sleep(0.01)
        (folder / TENSORS).write_bytes(b"")

    with failing_at(22, damage), pytest.raises(DamagedError, match="run the same command"):
        train(config, artifacts, "bert")
    assert [path.name for path in resume.iterdir()] == [rolling_name(17)]
    train(config, artifacts, "bert")
    assert_same(config, artifacts, expected, logged)


def test_forecast_counts_branches_in_hours_but_not_in_flops() -> None:
    lines = {
        schedule: forecast(config_of("bert", f'pretrain.schedule="{schedule}"'), 300, 1, 1, 1)
        for schedule in ("linear", "wsd")
    }
    assert lines["linear"][0].startswith("30 steps of 4 x 16: at most 1,920 tokens per run, unless")
    assert lines["wsd"][0].startswith("35 steps of 4 x 16: at most 2,240 tokens per run, 5 of them in branches, unless")
    flops = [re.search(r"bert: (\S+) FLOPs", "\n".join(text)) for text in lines.values()]
    assert flops[0] and flops[1] and flops[0][1] == flops[1][1]


def test_status_names_the_branch(make_corpus: Callable[[Config], object], artifacts: Artifacts) -> None:
    config = config_of("bert", "pretrain.log_every=1")
    make_corpus(config)
    with failing_at(12, kill), pytest.raises(KeyboardInterrupt):
        train(config, artifacts, "bert")
    found = Pretrain(Lineage(config, artifacts)).progress()
    assert found.lines[0].startswith("bert seed 1: step 11 of 30 in the branch to 12, loss")
