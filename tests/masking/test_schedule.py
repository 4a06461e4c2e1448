"""The exploration schedule and its coin flips."""

import pytest

from mapnet_cli.config import PROPOSALS, Method
from mapnet_cli.masking.schedule import is_exploration_step
from mapnet_cli.masking.strategies import STRATEGIES


def test_schedule_decreases_from_one_to_a_third() -> None:
    method = Method(strategy="mapnet")
    assert method.explore_at(0, 1_000_000) == 1.0
    assert method.explore_at(500_000, 1_000_000) == pytest.approx(2 / 3)
    assert method.explore_at(1_000_000, 1_000_000) == pytest.approx(1 / 3)


def test_coin_flips_follow_the_schedule_and_are_reproducible() -> None:
    method, steps = Method(strategy="mapnet"), 9_000
    coins = [is_exploration_step(method, 1, step, steps) for step in range(steps)]
    assert coins == [is_exploration_step(method, 1, step, steps) for step in range(steps)]
    thirds = [sum(coins[start : start + 3000]) / 3000 for start in (0, 3000, 6000)]
    assert thirds == pytest.approx([8 / 9, 2 / 3, 4 / 9], abs=4 * 0.5 / 3000**0.5)
    assert coins != [is_exploration_step(method, 2, step, steps) for step in range(steps)]


def test_always_uniform_and_never_uniform() -> None:
    always = Method(strategy="mapnet", explore_end=1.0)
    never = Method(strategy="mapnet", explore_start=0.0, explore_end=0.0)
    assert all(is_exploration_step(always, 1, step, 10) for step in range(10))
    assert not any(is_exploration_step(never, 1, step, 10) for step in range(10))


@pytest.mark.parametrize("strategy", sorted(STRATEGIES.keys() - PROPOSALS.keys()))
def test_strategies_without_a_proposal_explore_only_if_configured(strategy: str) -> None:
    default, configured = Method(strategy=strategy), Method(strategy=strategy, explore_start=0.5, explore_end=0.5)
    assert not any(is_exploration_step(default, 1, step, 1000) for step in range(1000))
    share = sum(is_exploration_step(configured, 1, step, 1000) for step in range(1000)) / 1000
    assert share == pytest.approx(0.5, abs=4 * 0.5 / 1000**0.5)
