"""Paired differences between methods, and when they are beyond the noise."""

from pathlib import Path

import pytest
from report_fixtures import Records, config
from scipy import stats

from mapnet_cli.core.tables import to_json
from mapnet_cli.report.differences import Difference, find_differences
from mapnet_cli.report.load import load_results
from mapnet_cli.report.scores import SCORE, score
from mapnet_cli.report.stage import build


def differences_of(records: Records) -> dict[tuple[str, str, int, str], Difference]:
    results = load_results(records.lineage)
    return find_differences(results, score(results))


def scored(records: Records, step: int = 10, reference: str = "bert") -> Difference:
    return differences_of(records)[SCORE, "mapnet", step, reference]


def test_paired_interval_matches_scipy(tmp_path: Path) -> None:
    records = Records(tmp_path, config(tasks=("RTE", "SST-2"), seeds=(1, 2, 3)))
    ours = {"RTE": (0.70, 0.74, 0.69), "SST-2": (0.90, 0.86, 0.91)}
    theirs = {"RTE": (0.68, 0.69, 0.70), "SST-2": (0.88, 0.85, 0.90)}
    for task in ours:
        for seed in (1, 2, 3):
            records.run("mapnet", 10, seed, ours[task][seed - 1], task=task)
            records.run("bert", 10, seed, theirs[task][seed - 1], task=task)
    found = scored(records)
    paired = [(2 + 2) / 2, (5 + 1) / 2, (-1 + 1) / 2]
    assert found.interval == pytest.approx(stats.t.interval(0.95, 2, loc=stats.tmean(paired), scale=stats.sem(paired)))
    assert found.p == pytest.approx(stats.ttest_1samp(paired, 0).pvalue)
    assert found.permutation_p == pytest.approx(0.5)  # 3 of 4 pairs of signs are as large
    assert (found.values, found.unit, found.columns) == (pytest.approx(paired), "fine-tuning seed", 2)
    assert {measure for measure, *_ in differences_of(records)} == {SCORE, "RTE", "SST-2"}


@pytest.mark.parametrize(("seeds", "interval"), [((1, 2), False), ((1, 2, 3), True)])
def test_unit_is_the_pretraining_seed_and_three_are_needed(
    tmp_path: Path, seeds: tuple[int, ...], interval: bool
) -> None:
    records = Records(tmp_path, config(pretrain_seeds=seeds, seeds=(1, 2, 3, 4)))
    for pretrain_seed, fine in ((own, fine) for own in seeds for fine in (1, 2, 3, 4)):
        records.run("bert", 10, fine, 0.5, pretrain_seed=pretrain_seed)
        records.run("mapnet", 10, fine, 0.5 + 0.01 * pretrain_seed + 0.001 * fine, pretrain_seed=pretrain_seed)
    found = scored(records)
    assert (found.values, found.unit) == (pytest.approx([seed + 0.25 for seed in seeds]), "pretraining seed")
    assert (found.interval is not None) == (found.bootstrap is not None) == (found.p is not None) == interval


def test_first_method_is_compared_with_the_untrained_encoder(tmp_path: Path) -> None:
    """Each fine-tuning seed of the untrained encoder is paired with the mean over the pretraining runs."""
    records = Records(tmp_path, config(methods=("bert",), untrained=True, seeds=(1, 2, 3), pretrain_seeds=(1, 2)))
    untrained, gains = (0.50, 0.54, 0.49), ((0.10, 0.12, 0.11), (0.14, 0.14, 0.11))
    for seed, value in enumerate(untrained, 1):
        records.run("untrained", 0, seed, value, pretrain_seed=0)
        for pretrain_seed in (1, 2):
            records.run("bert", 10, seed, value + gains[pretrain_seed - 1][seed - 1], pretrain_seed=pretrain_seed)
    found = differences_of(records)[SCORE, "bert", 10, "untrained"]
    assert (found.values, found.unit) == (pytest.approx([12, 13, 11]), "fine-tuning seed")


def test_methods_with_own_seeds_and_steps_are_compared_on_what_they_share(tmp_path: Path) -> None:
    """Steps 2 and 5 are compared with 4 and 10, for example at equal FLOPs."""
    records = Records(tmp_path, config(own_seeds={"bert": (1, 2)}, own_steps={"mapnet": 5}))
    for step, bert_step, gain in ((2, 4, 0.03), (5, 10, 0.05)):
        records.checkpoint("mapnet", 1, step, flops=1e9 * bert_step)
        for own in (1, 2):
            records.checkpoint("bert", own, bert_step)
            for seed in (1, 2):
                records.run("bert", bert_step, seed, 0.5 if own == 1 else 0.9, pretrain_seed=own)
                records.run("mapnet", step, seed, 0.5 + gain)
    assert [scored(records, step).values for step in (2, 5)] == [pytest.approx([3, 3]), pytest.approx([5, 5])]
    built = build(records.lineage)
    cost = {(row["Model"], row["Steps"]): row for row in to_json(built.tables["cost"])["rows"]}
    assert cost["mapnet", 5]["BERT at equal FLOPs"] == pytest.approx(50)
    assert "|steps:4+10,mapnet:2+5|pretrain-seeds:1,bert:1+2|" in built.value["signature"]
    assert {"Steps: MAP-Net 5, all others 10.", "Methods are compared: at the same fraction of their steps."} <= {
        *built.notes
    }


def test_difference_over_fewer_columns_shows_their_number(tmp_path: Path) -> None:
    records = Records(tmp_path, config(tasks=("RTE", "SST-2"), seeds=(1, 2, 3)))
    for method, task in (("bert", "RTE"), ("bert", "SST-2"), ("mapnet", "RTE")):
        for seed in (1, 2, 3):
            records.run(method, 10, seed, 0.5 if method == "bert" else 0.6, task=task)
    table = build(records.lineage).tables["table3"]
    row = next(row for row in table.rows if (row[0].data, row[1].data) == ("mapnet", 10))
    cells = dict(zip(table.columns, row, strict=True))
    assert cells["Difference to BERT"].text == "+10.00 [+10.00, +10.00]* (1 of 2 columns)"
    assert cells["Average"].text == "-", "an average over other columns can't be compared"


def test_comparison_uses_one_setting_for_both_methods_and_only_paired_seeds(tmp_path: Path) -> None:
    records = Records(tmp_path, config(batch_sizes=(16, 32)))
    for method, small, large in (("bert", 0.9, 0.6), ("mapnet", 0.5, 0.7)):
        for seed in (1, 2):
            records.run(method, 10, seed, small, batch=16)
            if (method, seed) != ("mapnet", 2):
                records.run(method, 10, seed, large, batch=32)
    assert scored(records).mean == pytest.approx(-40)  # batch 16 has two paired seeds and the better mean over both
    records.run("mapnet", 4, 1, 0.5)
    assert (SCORE, "mapnet", 4, "bert") not in differences_of(records)


def test_a_difference_must_remain_after_the_correction_for_all_comparisons(tmp_path: Path) -> None:
    """The average and two of three columns differ with p = 0.02, which isn't enough among four comparisons."""
    records = Records(tmp_path, config(tasks=("RTE", "SST-2", "MRPC"), seeds=(1, 2, 3)))
    for seed, gain in ((1, 0.05), (2, 0.08), (3, 0.07)):
        for task, factor in (("RTE", 1), ("SST-2", 1), ("MRPC", 0)):
            records.run("bert", 10, seed, 0.5 + 0.1 * seed * (factor == 0), task=task)
            records.run("mapnet", 10, seed, 0.5 + gain * factor + 0.1 * seed * (factor == 0), task=task)
    found = differences_of(records)
    rte = found["RTE", "mapnet", 10, "bert"]
    assert rte.p is not None and rte.p < 0.05 < (rte.adjusted or 0)
    assert not rte.beyond_noise and rte.cell().text.endswith("]")
    page = build(records.lineage).files["index.html"].read_text(encoding="utf-8")
    assert "4 comparisons were made; 4 have the three seeds that an interval needs. Of these 3 have an interval" in page
    assert "and 0 still do after Holm" in page
