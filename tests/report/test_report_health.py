"""Held-out metrics, proposal diagnostics, minimal pairs and gradient variances in the report."""

import math
import statistics
from pathlib import Path
from typing import Any

import pytest
from report_fixtures import METHODS, Records, config

from mapnet_cli.config import Config, Method, MinimalPairs
from mapnet_cli.config.method import Electra
from mapnet_cli.core.records import PairScores, ParadigmScore, mean_accuracy
from mapnet_cli.core.tables import to_json
from mapnet_cli.report.stage import ReportResult, build

SEEDS = (1, 2, 3)
CORRECT = {
    ("bert", 1): 60.0, ("bert", 2): 64.0, ("bert", 3): 62.0, ("mapnet", 1): 66.0, ("mapnet", 2): 69.0,
    ("mapnet", 3): 67.0, ("untrained", 1): 51.0, ("untrained", 2): 49.0, ("untrained", 3): 50.0,
}  # fmt: skip


def rows_of(result: ReportResult, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = to_json(result.tables[name])["rows"]
    return rows


def test_metrics_are_those_of_the_last_milestone_with_spread_over_seeds(tmp_path: Path) -> None:
    records = Records(tmp_path, config(recipe="demo", pretrain_seeds=(1, 2)))
    records.checkpoint("bert", 1, 4, validation={"validation_loss": 9.0})
    records.checkpoint("bert", 1, 10, validation={"validation_loss": 5.0, "accuracy": 0.2, "accuracy_decile_10": 0.1})
    records.checkpoint("bert", 2, 10, validation={"validation_loss": 6.0, "accuracy": 0.4})
    table = build(records.lineage).tables["heldout"]
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert row["Loss, uniform masks"].text == "5.500 ± 0.707"
    assert row["Accuracy"].text == "30.0% ± 14.1%"
    assert row["Rarest tenth"].text == "10.0%"
    assert "Commonest tenth" not in row  # a column without values


def test_losses_are_compared_with_the_first_method_by_seed(tmp_path: Path) -> None:
    records = Records(tmp_path, config(recipe="demo", pretrain_seeds=(1, 2, 3, 4)))
    for seed, bert, mapnet in ((1, 5.0, 5.5), (2, 6.0, 6.7), (3, 7.0, 7.6), (4, 7.0, None)):
        records.checkpoint("bert", seed, 10, validation={"validation_loss_single": bert})
        if mapnet is not None:
            records.checkpoint("mapnet", seed, 10, validation={"validation_loss_single": mapnet})
    built = build(records.lineage)
    [row] = [row for row in rows_of(built, "comparisons") if row["Measure"] == "held-out loss"]
    half = 4.302652729911275 * 0.1 / math.sqrt(3)
    expected = {"mean": 0.6, "low": 0.6 - half, "high": 0.6 + half, "n": 3}
    assert row["Difference"] == pytest.approx(expected)
    assert built.summary[:2] == (
        "No method scores higher than BERT beyond the noise; MAP-Net has no scores to compare yet.",
        "Held-out loss minus BERT's, in nats, lowest first: MAP-Net +0.600*.",
    )
    assert '<p class="headline">Held-out loss minus' in built.files["index.html"].read_text(encoding="utf-8")


def test_collapsed_and_saturated_proposal_is_reported_with_fixes(tmp_path: Path) -> None:
    records = Records(tmp_path, config(recipe="demo"))
    records.checkpoint("bert", 1, 10, health={})
    unhealthy = {"proposal_entropy": 0.5, "kl_to_uniform": 2.5, "largest_q": 0.9, "clip_fraction": 0.97}
    records.checkpoint("mapnet", 1, 10, health=unhealthy)
    built = build(records.lineage)
    assert [row["Model"] for row in rows_of(built, "health")] == ["mapnet"]
    collapse, saturated = built.tables["health"].notes[1:]
    assert "the proposal of mapnet has collapsed by step 10: its entropy is 0.50 nats (uniform: 3.00)" in collapse
    assert 'method.mapnet.proposal.objective = "loss-matching"' in collapse
    assert "97% of the importance weights" in saturated


def test_loss_of_the_first_method_after_as_many_uniform_steps(tmp_path: Path) -> None:
    """Of 10 steps, 6 2/3 are uniform, as p falls from 1 to 1/3; BERT has 6.0 nats after 4 and 5.0 after 10."""
    records = Records(tmp_path, config(recipe="demo", pretrain_seeds=(1, 2)))
    for seed in (1, 2):
        for method, losses in (("bert", (6.0, 5.0)), ("mapnet", (6.5, 5.6))):
            for step, loss in zip((4, 10), losses, strict=True):
                records.checkpoint(method, seed, step, validation={"validation_loss_single": loss + seed})
    [row] = rows_of(build(records.lineage), "health")
    assert row["Uniform steps"] == pytest.approx(20 / 3)
    assert row["Held-out loss"]["mean"] == pytest.approx(7.1)
    assert row["BERT's after as many steps"]["mean"] == pytest.approx(6.0 - (20 / 3 - 4) / 6 + 1.5)


def with_pairs(folder: Path, seeds: tuple[int, ...] = SEEDS, names: tuple[str, ...] = ("tiny",)) -> Config:
    """Returns a config with two methods, ELECTRA and sets of pairs."""
    for name in names:
        (folder / f"{name}.tsv").write_text("good\tbad\na\tb\n")
    data = tuple(str(folder / f"{name}.tsv") for name in names)
    base = config(pretrain_seeds=seeds)
    method = {**base.method, "electra": Method(electra=Electra())}
    methods = ("bert", "mapnet", "electra")
    return base.model_copy(update={"methods": methods, "method": method, "minimal_pairs": MinimalPairs(data=data)})


def paradigm(name: str, correct: float, phenomenon: str = "", **more: Any) -> ParadigmScore:
    values = {"pairs": 100, "field": "", "ties": 0, "unscored": {}} | more
    return ParadigmScore(name=name, phenomenon=phenomenon, correct=correct, **values)


def write_pairs(records: Records, **more: Any) -> None:
    """Writes a record per encoder: two paradigms of one phenomenon, the second one 10 pairs better, and one alone."""
    for _, run, artifact in records.lineage.pair_scores():
        right = CORRECT[run.method, run.pretrain_seed] - (20 if run.step == 4 else 0)
        rows = [
            paradigm("a", right, phenomenon="gaps", **more), paradigm("b", right + 10, phenomenon="gaps"),
            paradigm("alone", 50),
        ]  # fmt: skip
        accuracy, error = mean_accuracy(rows)
        row = PairScores(
            method=run.method, pretrain_seed=run.pretrain_seed, step=run.step, checkpoint="f", data=run.data,
            settings={}, accuracy=accuracy, standard_error=error, unknown_share=0.0125, paradigms=rows, device="cpu",
        )  # fmt: skip
        records.mark(artifact.key, row.to_json())


def test_pairs_by_phenomenon_are_means_over_seeds_and_paradigms(tmp_path: Path) -> None:
    records = Records(tmp_path, with_pairs(tmp_path))
    write_pairs(records)
    built = build(records.lineage)
    rows = {row["Phenomenon"]: row for row in rows_of(built, "minimal-pairs")}
    assert list(rows) == ["all", "alone", "gaps"], "a paradigm without a phenomenon is its own"
    assert list(rows["all"])[3:] == ["BERT", "MAP-Net", "untrained"], "ELECTRA has no MLM head"
    values = [(2 * CORRECT["mapnet", seed] + 10 + 50) / 3 for seed in SEEDS]
    found = rows["all"]["MAP-Net"]
    expected = (statistics.mean(values), statistics.stdev(values), 3)
    assert (found["mean"], found["sd"], found["n"]) == pytest.approx(expected)
    assert rows["gaps"]["BERT"]["mean"] == pytest.approx(67)
    assert rows["gaps"]["Pairs"] == 200
    [row] = [row for row in rows_of(built, "comparisons") if row["Measure"] == "tiny"]
    assert row["Difference"]["mean"] == pytest.approx(statistics.mean(values) - (2 * 62 + 60) / 3)


def test_one_seed_has_the_standard_error_over_pairs_and_no_interval(tmp_path: Path) -> None:
    records = Records(tmp_path, with_pairs(tmp_path, (1,)))
    write_pairs(records, unscored={"too long": [3, 7], "identical tokens": [1]})
    records.checkpoint("bert", 1, 10, fingerprint="another")
    built = build(records.lineage)
    row = next(row for row in rows_of(built, "minimal-pairs") if row["Phenomenon"] == "gaps")
    error = 100 * math.sqrt(0.6 * 0.4 / 100 + 0.7 * 0.3 / 100) / 2
    assert row["BERT"]["standard_error"] == pytest.approx(error)
    [compared] = [row for row in rows_of(built, "comparisons") if row["Measure"] == "tiny"]
    assert compared["Difference"]["low"] is None
    notes = built.tables["minimal-pairs"].notes
    size = "300 pairs in 3 paradigms, 1.25% unknown tokens"
    assert f"tiny: {size}, 1 pairs not scored (identical tokens), 2 pairs not scored (too long)." in notes
    assert any(note.startswith("1 records are of other weights") for note in notes)
    assert "ELECTRA: no masked-language-model head, so no held-out loss and no pairs." in built.notes


def test_missing_pairs_are_counted_and_their_command_is_given(tmp_path: Path) -> None:
    records = Records(tmp_path, with_pairs(tmp_path, names=("one", "two")))
    records.manifest()
    assert "30 of 30 records of minimal pairs" in build(records.lineage).value["missing"]
    write_pairs(records)
    for method, seed, step in [(m, s, t) for m in records.config.methods for s in SEEDS for t in (4, 10)]:
        records.checkpoint(method, seed, step)
    result = build(records.lineage)
    assert result.next_command == "mapnet finetune-glue"
    lines = (result.folder / "records.jsonl").read_text().splitlines()
    assert sum('"record": "PairScores"' in line for line in lines) == 30
    artifact = next(artifact for _, _, artifact in records.lineage.pair_scores())
    records.artifacts.path(f"{artifact.key}.json").unlink()
    assert build(records.lineage).next_command == "mapnet minimal-pairs"


def test_variances_of_the_current_checkpoints_are_shown(tmp_path: Path) -> None:
    records = Records(tmp_path, config(recipe="demo"))
    records.checkpoint("bert", 1, 10, fingerprint="current")
    found = {"value": 0.8, "error": 0.1}
    names = ("mask_to_uniform", "visits_to_uniform", "mask_share", "error_to_uniform")
    for weights in ("current", "older"):
        measured = [{"name": weights, "strategy": "spaced", "variances": {"raw": dict.fromkeys(names, found)}}]
        row = {"method": "bert", "pretrain_seed": 1, "step": 10, "checkpoint": weights, "measured": measured}
        records.mark(f"variance/bert-seed1-step10-{weights}", row | {"masks": 24})
    built = build(records.lineage)
    [row] = rows_of(built, "variance")
    assert row["Masks"] == "current"
    assert row["Mask variance / uniform"] == {"mean": 0.8, "se": 0.1}
    assert 'id="chart-variance"' in built.files["index.html"].read_text(encoding="utf-8")


def test_the_headline_agrees_with_several_methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "span", Method(strategy="span"))
    records = Records(tmp_path, config(recipe="demo", methods=("bert", "mapnet", "span")))
    for method in ("bert", "mapnet", "span"):
        records.checkpoint(method, 1, 10, validation={"validation_loss_single": 5.0})
    first = "No method scores higher than BERT beyond the noise; MAP-Net, span have no scores to compare yet."
    assert build(records.lineage).summary[0] == first
