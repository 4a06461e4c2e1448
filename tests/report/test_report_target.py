"""Steps, FLOPs and hours at which a method reaches the first method's final value."""

from pathlib import Path

import pytest

from mapnet_cli.report.stage import build
from mapnet_cli.report.tables import PAPER_TABLE_3
from mapnet_cli.report.trajectories import CurvePoint, reached
from tests.report.report_fixtures import Records, config


def curve(*values: float) -> list[CurvePoint]:
    """Returns points at steps 10, 20, ..., with FLOPs of 2 × steps and hours of 3 × steps."""
    return [CurvePoint(10.0 * n, 20.0 * n, 30.0 * n, value, 0.0) for n, value in enumerate(values, 1)]


@pytest.mark.parametrize(
    ("values", "value", "steps", "at_most"),
    [
        ((1, 2, 3), 3, 30, False),
        ((1, 2, 3), 1.5, 15, False),
        ((1, 2, 3), 0.5, 10, True),
        ((1, 4, 2, 3), 3, 10 + 20 / 3, False),  # the first crossing counts
        ((2, 2), 2, 10, True),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_value_is_reached_at_the_first_crossing(
    values: tuple[float, ...], value: float, steps: float, at_most: bool, sign: int
) -> None:
    found = reached(curve(*(sign * v for v in values)), sign * value, sign)
    assert found == (pytest.approx((steps, 2 * steps, 3 * steps)), at_most)


def test_value_is_never_reached() -> None:
    assert reached(curve(1, 2, 3), 3.5) is None
    assert reached(curve(3, 2), 1.5, -1) is None
    assert reached([], 1) is None


def test_paper_table_3() -> None:
    """The paper says "the 600k checkpoint is almost pairing with the 1000k of baseline"; by its Table 3 it is 663k."""
    points = {m: [CurvePoint(s, s, s, v, 0) for s, v in row.items()] for m, row in PAPER_TABLE_3.items()}
    found = reached(points["mapnet"], points["bert"][-1].value)
    assert found is not None
    assert found[0][0] == pytest.approx(663_492, abs=1)


def test_table_pairs_seeds_and_has_steps_flops_and_hours(tmp_path: Path) -> None:
    """MAP-Net reaches BERT's final loss of 5 halfway from 6 to 4, with twice the FLOPs and hours per step.

    BERT's seed 2 is ignored since MAP-Net lacks it."""
    records = Records(tmp_path, config(recipe="demo", own_seeds={"bert": (1, 2)}))
    for method, seed, losses, factor in (
        ("bert", 1, (7.0, 5.0), 1), ("bert", 2, (3.0, 2.0), 1), ("mapnet", 1, (6.0, 4.0), 2),
    ):  # fmt: skip
        for step, loss in zip((4, 10), losses, strict=True):
            cost = {"flops": 1e9 * factor * step, "seconds": 36.0 * factor * step}
            records.checkpoint(method, seed, step, validation={"validation_loss": loss}, **cost)
    for method, values in (("bert", (0.6, 0.7)), ("mapnet", (0.8, 0.7))):
        for step, value in zip((4, 10), values, strict=True):
            for seed in (1, 2):
                records.run(method, step, seed, value)
    table = build(records.lineage).target
    found = {(row[0].data, row[1].data): [cell.text for cell in row[2:]] for row in table.rows}
    assert found["mapnet", "held-out loss (uniform masks)"] == ["5.000", "4.000", "7", "70%", "140%", "140%"]
    assert found["bert", "held-out loss (uniform masks)"] == ["3.500", "3.500", "10", "100%", "100%", "100%"]
    assert found["mapnet", "score"] == ["70.00", "70.00", "at most 4", "at most 40%", "at most 80%", "at most 80%"]
    assert set(found["mapnet", "held-out loss (one mask per sentence)"]) == {"-"}


def test_unreached_value_is_shown_as_not_reached(tmp_path: Path) -> None:
    records = Records(tmp_path, config(recipe="demo"))
    for method, loss in (("bert", 5.0), ("mapnet", 5.1)):
        records.checkpoint(method, 1, 10, validation={"validation_loss": loss})
    table = build(records.lineage).target
    [row] = [row for row in table.rows if (row[0].data, row[1].data) == ("mapnet", "held-out loss (uniform masks)")]
    assert [cell.text for cell in row[2:]] == ["5.000", "5.100", "not reached", "-", "-", "-"]


def test_scores_are_over_shared_pretraining_seeds(tmp_path: Path) -> None:
    """BERT's second seed is better; on the shared seed MAP-Net equals BERT at its first checkpoint."""
    records = Records(tmp_path, config(own_seeds={"bert": (1, 2)}))
    for method, pretrain_seed, values in (("bert", 1, (0.5, 0.5)), ("bert", 2, (0.7, 0.7)), ("mapnet", 1, (0.5, 0.55))):
        for step, value in zip((4, 10), values, strict=True):
            records.checkpoint(method, pretrain_seed, step)
            for seed in (1, 2):
                records.run(method, step, seed, value, pretrain_seed=pretrain_seed)
    table = build(records.lineage).target
    found = {(row[0].data, row[1].data): [cell.text for cell in row[2:]] for row in table.rows}
    assert found["mapnet", "score"][:4] == ["50.00", "55.00", "at most 4", "at most 40%"]
    assert found["bert", "score"][0] == "60.00"


def test_no_comparison_without_the_final_score_of_the_first_method(tmp_path: Path) -> None:
    records = Records(tmp_path, config())
    for method, step in (("bert", 4), ("mapnet", 4), ("mapnet", 10)):
        records.checkpoint(method, 1, step)
        for seed in (1, 2):
            records.run(method, step, seed, 0.6)
    table = build(records.lineage).target
    assert {cell.text for row in table.rows if row[1].data == "score" for cell in row[2:]} == {"-"}


def test_pretraining_seed_with_missing_runs_is_excluded(tmp_path: Path) -> None:
    """Rows only use complete seeds until the others are complete."""
    records = Records(tmp_path, config(pretrain_seeds=(1, 2)))
    for method, pretrain_seed, value in (("bert", 1, 0.5), ("bert", 2, 0.9), ("mapnet", 1, 0.6), ("mapnet", 2, 0.6)):
        for step in (4, 10):
            records.checkpoint(method, pretrain_seed, step)
            for seed in (1, 2):
                if (pretrain_seed, step, seed) != (2, 10, 2):
                    records.run(method, step, seed, value, pretrain_seed=pretrain_seed)
    built = build(records.lineage)
    found = {(row[0].data, row[1].data): [cell.text for cell in row[2:]] for row in built.target.rows}
    assert found["mapnet", "score"][:4] == ["50.00", "60.00", "at most 4", "at most 40%"]
    assert any(note.startswith("Partial") for note in built.target.notes)
    [equal] = [row[4].text for row in built.cost.rows if (row[0].data, row[1].data) == ("mapnet", 10)]
    assert equal == "50.00"


def test_final_value_requires_a_complete_last_checkpoint(tmp_path: Path) -> None:
    records = Records(tmp_path, config())
    for method, step in (("bert", 4), ("bert", 10), ("mapnet", 4), ("mapnet", 10)):
        records.checkpoint(method, 1, step)
        for seed in (1, 2)[: 1 if (method, step) == ("mapnet", 10) else 2]:
            records.run(method, step, seed, 0.8 if step == 4 else 0.7)
    table = build(records.lineage).target
    found = {(row[0].data, row[1].data): [cell.text for cell in row[2:]] for row in table.rows}
    assert found["bert", "score"][:2] == ["70.00", "70.00"]
    assert set(found["mapnet", "score"]) == {"-"}


def test_no_score_rows_with_one_fine_tuned_checkpoint(tmp_path: Path) -> None:
    records = Records(tmp_path, config(milestones=(1.0,)))
    for method in ("bert", "mapnet"):
        records.checkpoint(method, 1, 10)
        for seed in (1, 2):
            records.run(method, 10, seed, 0.7)
    table = build(records.lineage).target
    assert not [row for row in table.rows if row[1].data == "score"]
    assert any("No rows for scores" in note for note in table.notes)


def test_note_on_hours_of_different_devices(tmp_path: Path) -> None:
    records = Records(tmp_path, config())
    for method, device in (("bert", "cpu"), ("mapnet", "NVIDIA H100")):
        records.checkpoint(method, 1, 10, device=device)
    built = build(records.lineage)
    for table in (built.summary, built.table3, built.cost, built.target):
        assert "Hours on different devices are not comparable: NVIDIA H100, cpu." in table.notes, table.name


def test_summary_has_one_row_per_method_and_relative_costs(tmp_path: Path) -> None:
    records = Records(tmp_path, config(untrained=True, own_seeds={"bert": (1, 2)}))
    for method, seed, factor in (("bert", 1, 1), ("bert", 2, 1), ("mapnet", 1, 1.5)):
        losses = {"validation_loss_single": 4.0 + seed}
        records.checkpoint(method, seed, 10, flops=1e10 * factor, seconds=360 * factor, validation=losses)
        for fine in (1, 2):
            records.run(method, 10, fine, 0.5 + 0.1 * factor, pretrain_seed=seed)
    table = build(records.lineage).summary
    found = {row[0].data: [cell.text for cell in row[1:]] for row in table.rows}
    assert found["bert"] == ["2", "60.00 ± 0.00", "-", "5.500 ± 0.707", "-", "1.00", "1.00"]
    assert found["mapnet"] == ["1", "65.00 ± 0.00", "+5.00 [+5.00, +5.00]", "5.000", "+0.000", "1.50", "1.50"]
    assert list(found) == ["bert", "mapnet", "untrained"]


def test_summary_uses_one_checkpoint(tmp_path: Path) -> None:
    """Only step 4 is fine-tuned, so the loss is that of step 4; only finished pretraining runs are counted."""
    records = Records(tmp_path, config(milestones=(0.4,), pretrain_seeds=(1, 2)))
    for step, loss in ((4, 6.0), (10, 5.0)):
        records.checkpoint("bert", 1, step, validation={"validation_loss_single": loss})
    [first, _] = build(records.lineage).summary.rows
    assert [first[1].text, first[4].text] == ["1", "6.000"]
