"""Aggregation compared with values computed by hand (section 4.1.2)."""

from pathlib import Path
from typing import Any

import pytest
from report_fixtures import Records, config

from mapnet_cli.core.artifacts import write_json
from mapnet_cli.core.errors import UsageError
from mapnet_cli.glue.grid import grid_runs
from mapnet_cli.report.files import missing
from mapnet_cli.report.load import Results, load_results
from mapnet_cli.report.scores import AVERAGE, Scores, cost, score


def scores_of(records: Records) -> tuple[Results, Scores]:
    results = load_results(records.lineage)
    return results, score(results)


def test_run_score_is_its_best_epoch(tmp_path: Path) -> None:
    records = Records(tmp_path, config())
    records.run("bert", 10, 1, 0.50, 0.80, 0.70)
    records.run("bert", 10, 2, 0.60, 0.55, 0.65)
    cell = scores_of(records)[1].cells["bert", 10, "RTE"]
    assert cell.mean == pytest.approx(72.5)  # (80 + 65) / 2
    assert cell.sd == pytest.approx(10.606601717798213)  # 15 / sqrt(2)
    assert (len(cell.by_seed), cell.failed, cell.missing) == (2, 0, 0)


def test_last_epoch_counts_if_configured(tmp_path: Path) -> None:
    records = Records(tmp_path, config(epoch="last"))
    records.run("bert", 10, 1, 0.50, 0.80, 0.70)
    cell = scores_of(records)[1].cells["bert", 10, "RTE"]
    assert cell.mean == pytest.approx(70)


def test_task_score_is_that_of_the_setting_with_the_best_mean_over_seeds(tmp_path: Path) -> None:
    records = Records(tmp_path, config(batch_sizes=(16, 32)))
    for seed, small, large in ((1, 0.9, 0.7), (2, 0.4, 0.7)):
        records.run("bert", 10, seed, small, batch=16)
        records.run("bert", 10, seed, large, batch=32)
    cell = scores_of(records)[1].cells["bert", 10, "RTE"]
    assert cell.mean == pytest.approx(70)
    assert cell.settings == ((1, (32, 1e-5)),)


def test_ties_between_settings_go_to_the_first_in_the_grid(tmp_path: Path) -> None:
    records = Records(tmp_path, config(batch_sizes=(32, 16), learning_rates=(5e-5, 1e-5)))
    for batch in (16, 32):
        for lr in (1e-5, 5e-5):
            values = (0.1, 0.7) if batch == 16 else (0.7, 0.1)  # the same mean, summed in another order
            for seed, value in zip((1, 2), values, strict=True):
                records.run("bert", 10, seed, value, batch=batch, lr=lr)
    assert scores_of(records)[1].cells["bert", 10, "RTE"].settings == ((1, (32, 5e-5)),)


def test_pretraining_seeds_are_averaged_with_their_own_settings(tmp_path: Path) -> None:
    records = Records(tmp_path, config(pretrain_seeds=(1, 2), batch_sizes=(16, 32), seeds=(1,)))
    records.run("bert", 10, 1, 0.8, batch=16, pretrain_seed=1)
    records.run("bert", 10, 1, 0.6, batch=32, pretrain_seed=1)
    records.run("bert", 10, 1, 0.5, batch=16, pretrain_seed=2)
    records.run("bert", 10, 1, 0.7, batch=32, pretrain_seed=2)
    cell = scores_of(records)[1].cells["bert", 10, "RTE"]
    assert cell.mean == pytest.approx(75)
    assert cell.settings == ((1, (16, 1e-5)), (2, (32, 1e-5)))
    assert len(cell.by_seed) == 2


def test_single_early_run_does_not_represent_its_setting(tmp_path: Path) -> None:
    records = Records(tmp_path, config(batch_sizes=(16, 32)))
    records.run("bert", 10, 1, 0.99, batch=16)
    records.run("bert", 10, 1, 0.7, batch=32)
    records.run("bert", 10, 2, 0.6, batch=32)
    cell = scores_of(records)[1].cells["bert", 10, "RTE"]
    assert cell.mean == pytest.approx(65)
    assert cell.missing == 1


def test_failed_run_counts_with_its_last_finished_epoch(tmp_path: Path) -> None:
    records = Records(tmp_path, config())
    records.run("bert", 10, 1, 0.8)
    records.run("bert", 10, 2, 0.9, 0.2, failure="loss is not finite")
    cell = scores_of(records)[1].cells["bert", 10, "RTE"]
    assert cell.mean == pytest.approx(50)
    assert (len(cell.by_seed), cell.failed) == (2, 1)


@pytest.mark.parametrize(("baselines", "counted"), [(True, 53.0), (False, 0.0)])
def test_run_without_a_finished_epoch_counts_as_the_majority_baseline(
    tmp_path: Path, baselines: bool, counted: float
) -> None:
    records = Records(tmp_path, config(baselines=baselines, seeds=(1,)))
    if baselines:
        records.baseline("RTE", majority={"accuracy": 0.53}, bag_of_words={"accuracy": 0.6})
    records.run("bert", 10, 1, failure="out of memory")
    cell = scores_of(records)[1].cells["bert", 10, "RTE"]
    assert cell.mean == pytest.approx(counted)
    assert cell.failed == 1


def test_each_task_has_a_default_metric_that_can_be_overridden(tmp_path: Path) -> None:
    tasks = ("CoLA", "MRPC", "STS-B")
    records = Records(tmp_path, config(tasks=tasks, metrics={"MRPC": "f1"}, seeds=(1,)))
    records.run("bert", 10, 1, {"accuracy": 0.9, "f1": 0.8, "mcc": 0.1}, task="CoLA")
    records.run("bert", 10, 1, {"accuracy": 0.9, "f1": 0.8, "mcc": 0.1}, task="MRPC")
    records.run("bert", 10, 1, {"pearson": 0.3, "spearman": 0.4}, task="STS-B")
    scores = scores_of(records)[1]
    assert [scores.cells["bert", 10, task].mean for task in tasks] == pytest.approx([10, 80, 30])
    assert scores.cells["bert", 10, AVERAGE].mean == pytest.approx(40)


def test_mnli_columns_are_one_model_chosen_on_the_matched_set(tmp_path: Path) -> None:
    records = Records(tmp_path, config(tasks=("MNLI", "RTE"), batch_sizes=(16, 32), seeds=(1,)))
    early, late = {"accuracy": 0.7, "accuracy-mm": 0.6}, {"accuracy": 0.6, "accuracy-mm": 0.9}
    records.run("bert", 10, 1, early, late, task="MNLI")
    records.run("bert", 10, 1, {"accuracy": 0.5, "accuracy-mm": 0.95}, task="MNLI", batch=32)
    records.run("bert", 10, 1, 0.8)
    records.run("bert", 10, 1, 0.8, batch=32)
    scores = scores_of(records)[1]
    assert [column.name for column in scores.columns] == ["MNLI-m", "MNLI-mm", "RTE"]
    assert scores.cells["bert", 10, "MNLI-m"].mean == pytest.approx(70)
    assert scores.cells["bert", 10, "MNLI-mm"].mean == pytest.approx(60)
    average = scores.cells["bert", 10, AVERAGE]
    assert average.mean == pytest.approx(70)  # (70 + 60 + 80) / 3
    assert average.missing == 0


def test_standard_deviation_of_the_average_is_over_per_seed_averages(tmp_path: Path) -> None:
    records = Records(tmp_path, config(tasks=("RTE", "SST-2")))
    for task, values in (("RTE", (0.6, 0.8)), ("SST-2", (0.8, 0.6))):
        for seed, value in enumerate(values, 1):
            records.run("bert", 10, seed, value, task=task)
    average = scores_of(records)[1].cells["bert", 10, AVERAGE]
    assert (average.mean, average.sd) == (pytest.approx(70), pytest.approx(0))


def test_cost_is_averaged_over_pretraining_seeds(tmp_path: Path) -> None:
    records = Records(tmp_path, config(pretrain_seeds=(1, 2)))
    records.checkpoint("bert", 1, 10, seconds=3600.0, tokens=100, flops=1e9)
    records.checkpoint("bert", 2, 10, seconds=7200.0, tokens=200, flops=3e9)
    results = scores_of(records)[0]
    assert [cost(results, "bert", 10, name) for name in ("tokens", "flops", "seconds")] == [150, 2e9, 5400]


def test_no_average_over_some_of_the_columns(tmp_path: Path) -> None:
    records = Records(tmp_path, config(tasks=("RTE", "SST-2")))
    records.run("bert", 10, 1, 0.6)
    average = scores_of(records)[1].cells["bert", 10, AVERAGE]
    assert (average.mean, average.missing) == (None, 3)


def test_missing_records_are_counted_and_the_next_command_is_given(tmp_path: Path) -> None:
    records = Records(tmp_path, config(baselines=True))
    results = load_results(records.lineage)
    assert missing(results) == {
        "the corpus manifest": "mapnet prepare-corpus",
        "4 of 4 checkpoints (bert 2, mapnet 2)": "mapnet pretrain",
        "8 of 8 fine-tuning runs": "mapnet finetune-glue",
        "baselines for 1 of 1 tasks (RTE)": "mapnet finetune-glue",
    }
    records.manifest()
    records.run("bert", 4, 1, 0.5)
    results = load_results(records.lineage)
    assert "7 of 8 fine-tuning runs" in missing(results)


@pytest.mark.parametrize(
    ("finetune", "message"),
    [
        ({"metrics": {"RTE": "acuracy"}}, r"finetune\.metrics\.RTE: .*did you mean 'accuracy'"),
        ({"metrics": {"STS-B": "f1"}}, r"finetune\.metrics\.STS-B: .*choose one of pearson, spearman"),
        ({"metrics": {"RTEE": "f1"}}, r"finetune\.metrics\.RTEE: .*did you mean 'RTE'"),
        ({"tasks": ("SST-3",)}, r"finetune\.tasks: .*did you mean 'SST-2'"),
    ],
)
def test_unknown_metric_or_task_raises_with_the_key_and_the_closest_name(
    tmp_path: Path, finetune: dict[str, Any], message: str
) -> None:
    records = Records(tmp_path, config(**finetune))
    with pytest.raises(UsageError, match=message):
        scores_of(records)


def test_damaged_records_are_named_and_treated_as_missing(tmp_path: Path) -> None:
    records = Records(tmp_path, config())
    for step in (4, 10):
        records.checkpoint("bert", 1, step)
    key = f"{records.lineage.pretraining('bert', 1).key}/step10"
    write_json(records.artifacts.path(f"{key}/figure2.json"), {"sentences": []})
    results = load_results(records.lineage)
    assert [where in problem for where, problem in zip(("figure2",), results.damaged, strict=True)] == [True]
    assert ("bert", 1, 10) in results.checkpoints
    records.mark(key, {"method": "bert"})
    records.run("bert", 10, 1, 0.7)
    records.run("bert", 10, 2, 0.9)
    path = records.artifacts.path(f"{records.lineage.finetuning(next(grid_runs(records.config))).key}.json")
    records.run("bert", 4, 1, 0.7)
    path.write_bytes(path.read_bytes().replace(b"0.7", b"0.8"))
    results = load_results(records.lineage)
    assert ("bert", 1, 10) not in results.checkpoints
    assert any("is not a valid Checkpoint" in problem for problem in results.damaged)
    assert any("its checksum does not match" in problem for problem in results.damaged)
    assert len(results.runs) == 2
