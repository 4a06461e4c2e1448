"""Scores and losses vs. cost, and the first method's score at the cost of another method."""

from pathlib import Path

import pytest

from mapnet_cli.report.load import load_results
from mapnet_cli.report.scores import score
from mapnet_cli.report.trajectories import at_equal_cost, score_trajectory
from tests.report.report_fixtures import Records, config


def equal(records: Records, step: int) -> float | None:
    results = load_results(records.lineage)
    return at_equal_cost(results, score(results), "mapnet", step, "flops")


def test_scores_at_equal_cost_are_interpolated_but_not_extrapolated(tmp_path: Path) -> None:
    records = Records(tmp_path, config(seeds=(1,)))
    for method, step, flops, value in (
        ("bert", 4, 4e9, 0.6), ("bert", 10, 10e9, 0.8), ("mapnet", 4, 7e9, 0.7), ("mapnet", 10, 13e9, 0.9),
    ):  # fmt: skip
        records.checkpoint(method, 1, step, flops=flops)
        records.run(method, step, 1, value)
    assert equal(records, 4) == pytest.approx(70)
    assert equal(records, 10) is None


@pytest.mark.parametrize(("flops", "expected"), [(10.001e9, 80), (9.9999e9, 80), (10.2e9, None), (3.99e9, 60)])
def test_costs_match_within_tolerance(flops: float, expected: float | None, tmp_path: Path) -> None:
    records = Records(tmp_path, config(seeds=(1,)))
    for step, value in ((4, 0.6), (10, 0.8)):
        records.checkpoint("bert", 1, step)
        records.run("bert", step, 1, value)
        records.checkpoint("mapnet", 1, step, flops=flops)
        records.run("mapnet", step, 1, value)
    assert equal(records, 10) == (None if expected is None else pytest.approx(expected, abs=0.01))


def test_single_checkpoint_is_enough_for_equal_cost(tmp_path: Path) -> None:
    records = Records(tmp_path, config(seeds=(1,), milestones=(1.0,)))
    for method, flops, value in (("bert", 1e10, 0.8), ("mapnet", 1.0001e10, 0.7)):
        records.checkpoint(method, 1, 10, flops=flops)
        records.run(method, 10, 1, value)
    assert equal(records, 10) == pytest.approx(80)


def test_only_shared_seeds_count(tmp_path: Path) -> None:
    records = Records(tmp_path, config(own_seeds={"bert": (1, 2)}, seeds=(1,)))
    for pretrain_seed, value in ((1, 0.5), (2, 0.9)):
        records.checkpoint("bert", pretrain_seed, 10)
        records.run("bert", 10, 1, value, pretrain_seed=pretrain_seed)
    records.checkpoint("mapnet", 1, 10)
    records.run("mapnet", 10, 1, 0.6)
    assert equal(records, 10) == pytest.approx(50)


def test_checkpoint_with_missing_runs_has_no_point(tmp_path: Path) -> None:
    records = Records(tmp_path, config())
    for step in (4, 10):
        records.checkpoint("bert", 1, step)
        for seed in (1, 2)[: 1 if step == 4 else 2]:
            records.run("bert", step, seed, 0.5 + 0.1 * seed)
    results = load_results(records.lineage)
    [point] = score_trajectory(results, score(results), "bert", {1})
    assert (point.steps, point.value) == (10, pytest.approx(65))
    assert point.sd == pytest.approx(5 * 2**0.5)
