"""Held-out metrics and proposal diagnostics in the report: last milestone, spread over seeds, warnings with fixes."""

from pathlib import Path

from mapnet_cli.report.stage import build
from tests.report.report_fixtures import Records, config


def test_metrics_are_those_of_the_last_milestone_with_spread_over_seeds(tmp_path: Path) -> None:
    records = Records(tmp_path, config(recipe="demo", pretrain_seeds=(1, 2)))
    records.checkpoint("bert", 1, 4, validation={"validation_loss": 9.0})
    records.checkpoint("bert", 1, 10, validation={"validation_loss": 5.0, "accuracy": 0.2, "accuracy_decile_10": 0.1})
    records.checkpoint("bert", 2, 10, validation={"validation_loss": 6.0, "accuracy": 0.4})
    table = build(records.lineage).held_out[0]
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert (row["Loss (uniform masks)"].text, row["Loss (uniform masks)"].data) == ("5.500 ± 0.707", 5.5)
    assert row["Accuracy"].text == "30.0% ± 14.1%"
    assert row["Accuracy (decile 10)"].text == "10.0%"
    assert row["Accuracy (decile 3)"].data is None


def test_losses_are_compared_with_the_first_method_by_seed(tmp_path: Path) -> None:
    """The two shared seeds have differences 0.5 and 0.7: mean 0.6 and Student's interval of two values."""
    records = Records(tmp_path, config(recipe="demo", pretrain_seeds=(1, 2, 3)))
    for seed, bert, mapnet in ((1, 5.0, 5.5), (2, 6.0, 6.7), (3, 7.0, None)):
        records.checkpoint("bert", seed, 10, validation={"validation_loss": bert})
        if mapnet is not None:
            records.checkpoint("mapnet", seed, 10, validation={"validation_loss": mapnet})
    table = build(records.lineage).held_out[0]
    bert_row, mapnet_row = table.rows
    assert table.columns[2] == "Loss difference to BERT (uniform masks)"
    assert bert_row[2].data is None
    assert mapnet_row[2].text == "+0.600 [-0.671, +1.871]"  # 0.6 +- 12.706 * 0.1414 / sqrt 2


def test_collapsed_and_saturated_proposal_is_reported_with_fixes(tmp_path: Path) -> None:
    records = Records(tmp_path, config(recipe="demo"))
    records.checkpoint("bert", 1, 10, health={})
    unhealthy = {"proposal_entropy": 0.5, "kl_to_uniform": 2.5, "largest_q": 0.9, "clip_fraction": 0.97}
    records.checkpoint("mapnet", 1, 10, health=unhealthy)
    built = build(records.lineage)
    table = built.held_out[1]
    assert [row[0].data for row in table.rows] == ["mapnet"]
    text = (built.folder / "report.md").read_text(encoding="utf-8")
    assert "the proposal of mapnet has collapsed by step 10: its entropy is 0.50 nats (uniform: 3.00)" in text
    assert 'method.mapnet.proposal.objective = "loss-matching"' in text
    assert "97% of the importance weights" in text


def test_healthy_proposal_has_no_warnings(tmp_path: Path) -> None:
    records = Records(tmp_path, config(recipe="demo"))
    healthy = {"proposal_entropy": 2.9, "kl_to_uniform": 0.1, "clip_fraction": 0.1, "effective_sample_share": 0.9}
    records.checkpoint("mapnet", 1, 10, health=healthy)
    assert len(build(records.lineage).held_out[1].notes) == 1
