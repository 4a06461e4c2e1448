"""Scores and losses vs. cost, the first method's score at the cost of another, and when its final value is reached."""

from pathlib import Path

import pytest

from mapnet_cli.core.tables import to_json
from mapnet_cli.report.differences import find_differences
from mapnet_cli.report.load import load_results
from mapnet_cli.report.scores import SCORE, score
from mapnet_cli.report.stage import build
from mapnet_cli.report.tables import PAPER_TABLE_3
from mapnet_cli.report.trajectories import (
    CurvePoint,
    Reached,
    at_equal_cost,
    losses_reached,
    reached,
    reading,
    share_cell,
    trajectory,
)
from tests.report.report_fixtures import Records, config


def curve(*values: float) -> list[CurvePoint]:
    """Returns points at steps 10, 20, ..., with FLOPs of 2 × steps and seconds of 3 × steps."""
    return [CurvePoint(10.0 * n, 20.0 * n, 30.0 * n, value, 0.0) for n, value in enumerate(values, 1)]


def equal(records: Records, step: int) -> float | None:
    results = load_results(records.lineage)
    return at_equal_cost(results, score(results), "mapnet", step).get("flops")


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
    [point] = trajectory(results, score(results), "bert", SCORE)
    assert (point.steps, point.value) == (10, pytest.approx(65))
    assert point.sd == pytest.approx(5 * 2**0.5)


@pytest.mark.parametrize(
    ("values", "value", "steps", "at_most"),
    [
        ((1, 2, 3), 3, 30, False),
        ((1, 2, 3), 1.5, 200**0.5, False),
        ((1, 2, 3), 0.5, 10, True),
        ((1, 4, 2, 3), 3, 10 * 2 ** (2 / 3), False),  # the first crossing counts
        ((2, 2), 2, 10, True),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_value_is_reached_at_the_first_crossing(
    values: tuple[float, ...], value: float, steps: float, at_most: bool, sign: int
) -> None:
    found = reached(curve(*(sign * v for v in values)), sign * value, sign)
    assert found == (*map(pytest.approx, (steps, 2 * steps, 3 * steps)), at_most)
    assert reached(curve(*(sign * v for v in values)), sign * 9, sign) is None


def test_paper_table_3() -> None:
    """The paper says "the 600k checkpoint is almost pairing with the 1000k of baseline"; by its Table 3 it is 657k."""
    points = {m: [CurvePoint(s, s, s, v, 0) for s, v in row.items()] for m, row in PAPER_TABLE_3.items()}
    found = reached(points["mapnet"], points["bert"][-1].value)
    assert found is not None
    assert found.steps == pytest.approx(657_377, abs=1)


@pytest.mark.parametrize("noise", [0.01, 30.0])
def test_a_step_is_given_only_where_the_final_difference_is_beyond_the_noise(noise: float, tmp_path: Path) -> None:
    """MAP-Net reaches BERT's final score of 60 halfway from 50 to 70, with twice the FLOPs per step."""
    records = Records(tmp_path, config(recipe="demo", pretrain_seeds=(1, 2, 3)))
    for method, values, factor in (("bert", (40, 60), 1), ("mapnet", (50, 70), 2)):
        for seed, (step, value) in ((seed, at) for seed in (1, 2, 3) for at in zip((4, 10), values, strict=True)):
            records.checkpoint(method, seed, step, flops=1e9 * factor * step, seconds=36.0 * step)
            for fine in (1, 2):
                shown = value + (noise * (seed - 2) if method == "mapnet" else 0.0)
                records.run(method, step, fine, shown / 100, pretrain_seed=seed)
    results = load_results(records.lineage)
    scores = score(results)
    said = " ".join(reading(results, scores, find_differences(results, scores)))
    if noise < 1:
        expected = "MAP-Net reaches BERT's final average score (60.00) at step 6: 63% of its steps, 126% of its FLOPs"
        assert said == f"{expected} and 63% of its time."
    else:
        assert said.startswith("At what cost MAP-Net would reach BERT's final score isn't said")


@pytest.mark.parametrize(
    ("ends", "shown"),
    [
        ((4.0, 4.0, 4.0), "126% [126%, 126%]"),
        ((4.0, 5.5, 4.0), "126%, 126% (2 of 3 seeds)"),
        ((5.5, 5.5, 5.5), "not reached"),
    ],
)
def test_shares_of_cost_to_the_same_loss_count_each_seed(ends: tuple[float, ...], shown: str, tmp_path: Path) -> None:
    """MAP-Net reaches BERT's final loss of 5 halfway from 6 to 4, with twice the FLOPs per step."""
    records = Records(tmp_path, config(recipe="demo", pretrain_seeds=(1, 2, 3)))
    for seed, end in enumerate(ends, 1):
        for method, losses, factor in (("bert", (7.0, 5.0), 1), ("mapnet", (6.0, end), 2)):
            for step, loss in zip((4, 10), losses, strict=True):
                validation = {"validation_loss_single": loss}
                records.checkpoint(method, seed, step, validation=validation, flops=1e9 * factor * step)
    found = [*losses_reached(load_results(records.lineage), "mapnet").values()]
    assert share_cell(found, "flops").text == shown
    built = build(records.lineage)
    [row] = to_json(built.tables["loss-cost"])["rows"]
    assert row["Seeds"] == 3
    reaches = f"reaches BERT's final loss at {shown} of BERT's FLOPs"
    said = "doesn't reach BERT's final loss" if shown == "not reached" else reaches
    assert any(line.endswith(f"; it {said}.") for line in built.summary)
    by_seed = dict(enumerate((at and at._asdict() for at in found), 1))
    assert built.value["shares_of_cost_to_final_loss"] == {"mapnet": by_seed}


def test_a_loss_that_the_first_checkpoint_has_is_reached_by_it_at_most() -> None:
    found = [Reached(0.4, share, 0.4, at_most) for share, at_most in ((0.8, True), (0.5, False), (0.9, False))]
    assert share_cell(found[:1], "flops").text == "≤80%"
    assert share_cell(found, "flops").text == "≤80%, 50%, 90%"  # no interval of a bound and measurements


def test_intervals_of_shares_are_those_of_ratios() -> None:
    found = [Reached(1.0, share, 1.0, at_most=False) for share in (0.4, 0.5, 1.6)]
    cell = share_cell(found, "flops")
    assert cell.value == pytest.approx(0.32 ** (1 / 3))
    low, high = (float(text.rstrip("%]")) / 100 for text in cell.text.split("[")[1].split(", "))
    assert 0 < low < high
    assert low * high == pytest.approx(0.32 ** (2 / 3), rel=0.03)


def test_a_checkpoint_without_time_has_no_share(tmp_path: Path) -> None:
    records = Records(tmp_path, config(seeds=(1,)))
    for method, step in ((method, step) for method in ("bert", "mapnet") for step in (4, 10)):
        validation = {"validation_loss_single": 5.0}
        records.checkpoint(method, 1, step, validation=validation, seconds=float(step == 10))
    found = losses_reached(load_results(records.lineage), "mapnet")
    assert found == {1: Reached(1.0, 1.0, 1.0, at_most=True)}


def test_a_run_that_is_not_finished_has_no_share(tmp_path: Path) -> None:
    records = Records(tmp_path, config(seeds=(1,)))
    for method, step in (("bert", 4), ("bert", 10), ("mapnet", 4)):
        records.checkpoint(method, 1, step, validation={"validation_loss_single": 5.0})
    assert losses_reached(load_results(records.lineage), "mapnet") == {}
