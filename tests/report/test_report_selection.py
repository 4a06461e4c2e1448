"""Selection bias: exact for two settings with known halves, zero on average if nothing is selected."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from report_fixtures import Records, config

from mapnet_cli.core.tables import to_json
from mapnet_cli.report.load import load_results
from mapnet_cli.report.runs import Choice
from mapnet_cli.report.scores import score
from mapnet_cli.report.selection import choices
from mapnet_cli.report.stage import build

Halves = list[tuple[float, float]]


def run(records: Records, method: str, seed: int, *epochs: Halves, batch: int = 16, **changes: Any) -> None:
    """Writes a run; each epoch is a list of accuracies on both halves per split, the full set's is their mean."""
    scored = [sum(a + b for a, b in halves) / (2 * len(halves)) for halves in epochs]
    halves = [[({"accuracy": a}, {"accuracy": b}) for a, b in epoch] for epoch in epochs]
    records.run(method, 10, seed, *scored, batch=batch, halves=halves, **changes)


def found(records: Records) -> dict[tuple[str, int, str], Choice]:
    results = load_results(records.lineage)
    return choices(results, score(results))


def test_selection_on_one_half_is_scored_on_the_other(tmp_path: Path) -> None:
    records = Records(tmp_path, config(batch_sizes=(16, 32), seeds=(1,)))
    run(records, "bert", 1, [(0.9, 0.5)], batch=16)
    run(records, "bert", 1, [(0.6, 0.7)], batch=32)
    choice = found(records)["bert", 10, "RTE"]
    assert choice.own == pytest.approx((90 + 70) / 2)  # the first half chooses batch 16, the second batch 32
    assert choice.other == pytest.approx((50 + 60) / 2)
    assert choice.bias == pytest.approx(25)


def test_epoch_is_selected_unless_the_last_one_counts(tmp_path: Path) -> None:
    for epoch, own, other in (("best", (90 + 80) / 2, (50 + 40) / 2), ("last", 60, 60)):
        records = Records(tmp_path / epoch, config(epoch=epoch, seeds=(1,)))
        run(records, "bert", 1, [(0.9, 0.5)], [(0.4, 0.8)], [(0.6, 0.6)])
        choice = found(records)["bert", 10, "RTE"]
        assert (choice.own, choice.other) == (pytest.approx(own), pytest.approx(other))


def test_no_selection_means_no_bias(tmp_path: Path) -> None:
    records = Records(tmp_path, config(seeds=(1, 2), epoch="last"))
    run(records, "bert", 1, [(0.9, 0.1), (0.3, 0.7)])
    run(records, "bert", 2, [(0.2, 0.6), (0.5, 0.3)])
    assert found(records)["bert", 10, "RTE"].bias == pytest.approx(0)


def test_bias_of_selecting_between_equal_settings(tmp_path: Path) -> None:
    """Two settings with independent fair coins as scores on both halves: the mean over all 16 outcomes."""
    biases = []
    for number, coins in enumerate(itertools.product((0.0, 1.0), repeat=4)):
        records = Records(tmp_path / str(number), config(batch_sizes=(16, 32), seeds=(1,), epoch="last"))
        run(records, "bert", 1, [(coins[0], coins[1])], batch=16)
        run(records, "bert", 1, [(coins[2], coins[3])], batch=32)
        biases.append(found(records)["bert", 10, "RTE"].bias)
    assert sum(biases) / len(biases) == pytest.approx(
        25
    )  # expected maximum of two coins 3/4, mean of the other half 1/2


def test_failed_runs_count_as_in_the_score_tables(tmp_path: Path) -> None:
    records = Records(tmp_path, config(seeds=(1, 2, 3), baselines=True))
    records.baseline("RTE", majority={"accuracy": 0.4, "f1": 0.0, "mcc": 0.0})
    run(records, "bert", 1, [(0.9, 0.5)])
    run(records, "bert", 2, failure="the loss is not finite in epoch 1")
    run(records, "bert", 3, [(0.9, 0.8)], [(0.6, 0.7)], failure="the loss is not finite in epoch 3")
    choice = found(records)["bert", 10, "RTE"]
    assert choice.own == pytest.approx(((90 + 40 + 60) / 3 + (50 + 40 + 70) / 3) / 2)


def test_records_without_halves_have_no_choices(tmp_path: Path) -> None:
    records = Records(tmp_path, config())
    records.run("bert", 10, 1, 0.5)
    assert found(records) == {}


def test_table_has_score_and_bias_over_the_columns(tmp_path: Path) -> None:
    records = Records(tmp_path, config(tasks=("RTE", "SST-2"), seeds=(1,), epoch="last"))
    for task, halves in {"RTE": (0.9, 0.5), "SST-2": (0.4, 0.4)}.items():
        run(records, "bert", 1, [halves], task=task)
    [row] = to_json(build(records.lineage).tables["selection"])["rows"]
    shown = {"Score on the other half": pytest.approx(55), "Bias": pytest.approx(0), "Columns": 2}
    assert row == {"Model": "bert", "Steps": 10} | shown
