"""Held-out metrics and proposal diagnostics in the report: last milestone, spread over seeds, warnings with fixes."""

import json
from pathlib import Path

import pytest

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
        both = ("validation_loss", "validation_loss_single")
        records.checkpoint("bert", seed, 10, validation=dict.fromkeys(both, bert))
        if mapnet is not None:
            records.checkpoint("mapnet", seed, 10, validation=dict.fromkeys(both, mapnet))
    table = build(records.lineage).held_out[0]
    bert_row, mapnet_row = table.rows
    for at, masks in ((2, "one mask per sentence"), (4, "uniform masks")):
        assert table.columns[at] == f"Loss difference to BERT ({masks})"
        assert bert_row[at].data is None
        assert mapnet_row[at].text == "+0.600 [-0.671, +1.871]"  # 0.6 +- 12.706 * 0.1414 / sqrt 2


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
    assert len(build(records.lineage).held_out[1].notes) == 2


LOSSES = ((2, 8.0, 0), (4, 7.0, 4), (6, 6.0, 0), (8, 5.5, 0), (10, 5.0, 10))
"""Step, held-out loss, and with schedule "wsd" the branch (0: the trunk, which comes to the same step undecayed)."""


@pytest.mark.parametrize(
    ("schedule", "shares", "steps", "loss"),
    [
        ("linear", (1.0, 1.0, 0.5, 0.0, 0.0), "5", "6.500"),  # halfway from 7 to 6
        ("linear", (0.5, 0.0, 0.0, 0.0, 0.0), "1", "-"),  # before the first validation
        ("linear", (1.0, 1.0, 1.0, 1.0, 1.0), "10", "5.000"),
        ("wsd", (1.0, 1.0, 0.5, 0.0, 0.0), "5", "6.667"),  # from 7 after step 4 to 5 after step 10
        ("wsd", (0.0, 0.0, 0.5, 1.0, 0.0), "3", "-"),  # before the first milestone
    ],
)
def test_loss_of_the_first_method_after_as_many_uniform_steps(
    schedule: str, shares: tuple[float, ...], steps: str, loss: str, tmp_path: Path
) -> None:
    """Steps are counted along the way to the last milestone, with those of a branch only if it ends there."""
    settings = config(recipe="demo")
    pretrain = settings.pretrain.model_copy(update={"schedule": schedule})
    records = Records(tmp_path, settings.model_copy(update={"pretrain": pretrain}))
    for method in ("bert", "mapnet"):
        records.checkpoint(method, 1, 10, validation={"validation_loss_refit": 6.0})
        rows = []
        for (step, value, branch), share in zip(LOSSES, shares, strict=True):
            branch = branch if schedule == "wsd" else 0
            if branch == 4:  # from step 2, to which the run then returns
                rows.append({"step": 4, "loss": 1.0, "uniform_steps": 1.0 - share, "branch": 4})
                rows.append({"step": 4, "validation_loss_refit": value, "branch": 4})
                branch, value = 0, 9.0
            at = {"branch": branch} if branch == 10 else {}
            rows.append({"step": step, "loss": 1.0, "uniform_steps": share if method == "mapnet" else 1.0} | at)
            rows.append({"step": step, "validation_loss_refit": value} | at)
        path = records.artifacts.path(f"{records.lineage.pretraining(method, 1).key}/log.jsonl")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    table = build(records.lineage).held_out[1]
    [row] = [dict(zip(table.columns, cells, strict=True)) for cells in table.rows]
    found = [row[name].text for name in ("Steps with uniform masks", "Held-out loss")]
    assert found == [steps, "6.000"]
    assert row["BERT held-out loss after as many steps"].text == loss


def test_no_loss_after_uniform_steps_without_both_logs(tmp_path: Path) -> None:
    records = Records(tmp_path, config(recipe="demo"))
    records.checkpoint("bert", 1, 10)
    records.checkpoint("mapnet", 1, 10)
    [row] = build(records.lineage).held_out[1].rows
    assert [cell.text for cell in row[-3:]] == ["-", "-", "-"]
