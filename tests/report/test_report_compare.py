"""Paired differences between methods, and scores at equal cost."""

from pathlib import Path

import pytest
from report_fixtures import Records, config
from scipy import stats

from mapnet_cli.report.compare import compare, interval, pairs_note
from mapnet_cli.report.load import load_results, signature
from mapnet_cli.report.notes import score_notes
from mapnet_cli.report.scores import Scores, score
from mapnet_cli.report.stage import build


def scores_of(records: Records) -> Scores:
    return score(load_results(records.lineage))


def test_paired_interval_matches_scipy(tmp_path: Path) -> None:
    records = Records(tmp_path, config(tasks=("RTE", "SST-2"), seeds=(1, 2, 3)))
    ours = {"RTE": (0.70, 0.74, 0.69), "SST-2": (0.90, 0.86, 0.91)}
    theirs = {"RTE": (0.68, 0.69, 0.70), "SST-2": (0.88, 0.85, 0.90)}
    for task in ours:
        for seed in (1, 2, 3):
            records.run("mapnet", 10, seed, ours[task][seed - 1], task=task)
            records.run("bert", 10, seed, theirs[task][seed - 1], task=task)
    found = compare(records.config, scores_of(records))["mapnet", 10]
    paired = [(2 + 2) / 2, (5 + 1) / 2, (-1 + 1) / 2]
    low, high = stats.t.interval(0.95, 2, loc=stats.tmean(paired), scale=stats.sem(paired))
    assert found.difference == pytest.approx(5 / 3)
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert (found.n, found.unit, found.columns) == (3, "fine-tuning seed", 2)


def test_interval_is_over_pretraining_seeds_if_there_are_several(tmp_path: Path) -> None:
    records = Records(tmp_path, config(pretrain_seeds=(1, 2)))
    for pretrain_seed, gains in ((1, (0.02, 0.04)), (2, (0.00, 0.02))):
        for seed, gain in enumerate(gains, 1):
            records.run("bert", 10, seed, 0.5, pretrain_seed=pretrain_seed)
            records.run("mapnet", 10, seed, 0.5 + gain, pretrain_seed=pretrain_seed)
    found = compare(records.config, scores_of(records))["mapnet", 10]
    low, high = stats.t.interval(0.95, 1, loc=2.0, scale=stats.sem([3.0, 1.0]))
    assert (found.difference, found.n, found.unit) == (pytest.approx(2), 2, "pretraining seed")
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_table3_compares_the_first_method_with_the_untrained_encoder(tmp_path: Path) -> None:
    """Each fine-tuning seed of the untrained encoder is paired with the mean over the pretraining runs."""
    records = Records(tmp_path, config(methods=("bert",), untrained=True, seeds=(1, 2, 3), pretrain_seeds=(1, 2)))
    untrained, gains = (0.50, 0.54, 0.49), ((0.10, 0.12, 0.11), (0.14, 0.14, 0.11))
    for seed, value in enumerate(untrained, 1):
        records.run("untrained", 0, seed, value, pretrain_seed=0)
        for pretrain_seed in (1, 2):
            records.run("bert", 10, seed, value + gains[pretrain_seed - 1][seed - 1], pretrain_seed=pretrain_seed)
    row = {row[0].data: row for row in build(records.lineage).table3.rows}["bert minus untrained"]
    paired = [12, 13, 11]
    low, high = stats.t.interval(0.95, 2, loc=12, scale=stats.sem(paired))
    assert row[0].text == "BERT minus untrained (paired)"
    assert [cell.text for cell in row[1:3]] == ["-", f"+12.00 [{low:+.2f}, {high:+.2f}]"]


def test_methods_with_own_seeds_are_compared_on_shared_seeds(tmp_path: Path) -> None:
    records = Records(tmp_path, config(own_seeds={"bert": (1, 2)}))
    for pretrain_seed, value in ((1, 0.5), (2, 0.9)):
        for seed in (1, 2):
            records.run("bert", 10, seed, value, pretrain_seed=pretrain_seed)
    for seed, gain in ((1, 0.02), (2, 0.04)):
        records.run("mapnet", 10, seed, 0.5 + gain)
    results = load_results(records.lineage)
    scores = score(results)
    assert [scores.cells[method, 10, "RTE"].n for method in ("bert", "mapnet")] == [4, 2]
    assert [scores.cells[method, 10, "RTE"].missing for method in ("bert", "mapnet")] == [0, 0]
    found = compare(records.config, scores)["mapnet", 10]
    assert (found.difference, found.n, found.unit) == (pytest.approx(3), 2, "fine-tuning seed")
    assert "Number of pretraining seeds: BERT 2, MAP-Net 1." in score_notes(results, scores)
    assert "|pretrain-seeds:1,bert:1+2|" in signature(results, {"RTE": "accuracy"})


def test_steps_note_and_signature_if_every_method_has_its_own_steps(tmp_path: Path) -> None:
    own = {"own_steps": {"bert": 20, "mapnet": 15}, "own_seeds": {"bert": (1, 2), "mapnet": (2,)}}
    records = Records(tmp_path, config(**own))
    results = load_results(records.lineage)
    [note] = [note for note in score_notes(results, score(results)) if note.startswith("Steps")]
    assert note == "Steps: BERT 20, MAP-Net 15."
    signed = signature(results, {})
    assert "|steps:bert:8+20,mapnet:6+15|pretrain-seeds:bert:1+2,mapnet:2|" in signed


def test_difference_over_fewer_columns_shows_their_number(tmp_path: Path) -> None:
    records = Records(tmp_path, config(tasks=("RTE", "SST-2")))
    for method, task in (("bert", "RTE"), ("bert", "SST-2"), ("mapnet", "RTE")):
        for seed in (1, 2):
            records.run(method, 10, seed, 0.5 if method == "bert" else 0.6, task=task)
    built = build(records.lineage)
    expected = "+10.00 [+10.00, +10.00] (1 of 2 columns)"
    assert expected in [cell.text for cell in built.summary.rows[1]]
    assert expected in [cell.text for cell in built.table3.rows[2]]
    assert expected in [cell.text for cell in built.cost.rows[3]]


def test_methods_with_own_steps_are_compared_at_the_same_fraction(tmp_path: Path) -> None:
    """For example at equal FLOPs: steps 2 and 5 against 4 and 10."""
    records = Records(tmp_path, config(own_steps={"mapnet": 5}))
    for step, bert_step, gain in ((2, 4, 0.03), (5, 10, 0.05)):
        records.checkpoint("bert", 1, bert_step)
        records.checkpoint("mapnet", 1, step, flops=1e9 * bert_step)
        for seed in (1, 2):
            records.run("bert", bert_step, seed, 0.5)
            records.run("mapnet", step, seed, 0.5 + gain)
    results = load_results(records.lineage)
    found = compare(records.config, score(results))
    assert {place: comparison.difference for place, comparison in found.items()} == {
        ("mapnet", 2): pytest.approx(3), ("mapnet", 5): pytest.approx(5)
    }  # fmt: skip
    built = build(records.lineage)
    assert built.table3.columns == ("Model", "40%", "100%", "Steps", "Tokens", "FLOPs", "Hours")
    bert, mapnet, difference = ([cell.text for cell in row] for row in built.table3.rows)
    assert (bert[3], mapnet[3], bert[5], mapnet[5]) == ("10", "5", "1.00e+10", "1.00e+10")
    assert difference[1:3] == ["+3.00 [+3.00, +3.00]", "+5.00 [+5.00, +5.00]"]
    assert "|steps:4+10,mapnet:2+5|" in built.signature
    assert dict(zip(built.cost.columns, built.cost.rows[-1], strict=True))["BERT score at equal FLOPs"].text == "50.00"
    assert {row[0].text: row[1].text for row in built.settings[0].rows}["Training steps"] == "10; MAP-Net 5"


def test_settings_tables_show_the_schedule_and_what_differs_between_methods(tmp_path: Path) -> None:
    base = config(recipe="demo", own_steps={"mapnet": 20})
    proposal = base.method["mapnet"].proposal.model_copy(update={"peak_lr": 1e-3})
    own = {"batch_factor": 2, "peak_lr": 5e-4, "proposal": proposal}
    method = base.method | {"mapnet": base.method["mapnet"].model_copy(update=own)}
    for schedule, decay in (("linear", "Linear"), ("wsd", "None, then linear over the last tenth")):
        pretrain = base.pretrain.model_copy(update={"schedule": schedule})
        records = Records(tmp_path / schedule, base.model_copy(update={"pretrain": pretrain, "method": method}))
        built = build(records.lineage)
        shown = {row[0].text: row[1].text for row in built.settings[0].rows}
        assert shown["Learning rate decay"].startswith(decay)
        assert shown["Batch size"] == "256; MAP-Net 512"
        assert shown["Training steps"] == "10; MAP-Net 20"
        assert shown["Peak learning rate"] == "1e-4; MAP-Net 5e-4; MAP-Net 0.001 for its proposal"
        methods = built.settings[2]
        row = {row[0].text: dict(zip(methods.columns, row, strict=True)) for row in methods.rows}["MAP-Net"]
        cells = [row[name].text for name in ("Steps", "Sequences per step", "Peak learning rate")]
        assert cells == ["20", "512", "5e-4"]
        notes = "\n".join((*built.cost.notes, *built.target.notes))
        assert notes.count("Every checkpoint is a finished training") == (2 if schedule == "wsd" else 0)
        assert notes.count("from the middle of the learning-rate schedule") == (0 if schedule == "wsd" else 2)
        assert "Sequences per step: MAP-Net 512, all others 256." in notes


def test_notes_name_the_units_of_paired_differences(tmp_path: Path) -> None:
    records = Records(tmp_path, config(own_seeds={"bert": (1, 2)}))
    for pretrain_seed in (1, 2):
        records.run("bert", 10, 1, 0.5, pretrain_seed=pretrain_seed)
    records.run("mapnet", 10, 1, 0.5)
    found = compare(records.config, scores_of(records))
    assert pairs_note(records.config, found) == ["Paired over 1 fine-tuning seed: MAP-Net."]
    apart = config(own_seeds={"bert": (2, 3)})
    assert pairs_note(apart, {}) == ["Not paired, no pretraining seed in common with BERT: MAP-Net."]
    assert pairs_note(config(), found) == []


def test_comparison_uses_one_setting_for_both_methods_and_only_paired_seeds(tmp_path: Path) -> None:
    records = Records(tmp_path, config(batch_sizes=(16, 32)))
    for method, small, large in (("bert", 0.9, 0.6), ("mapnet", 0.5, 0.7)):
        for seed in (1, 2):
            records.run(method, 10, seed, small, batch=16)
            if (method, seed) != ("mapnet", 2):
                records.run(method, 10, seed, large, batch=32)
    found = compare(records.config, scores_of(records))["mapnet", 10]
    assert found.difference == pytest.approx(-40)  # batch 16 has two paired seeds and the better mean over both methods
    records.run("mapnet", 4, 1, 0.5)
    assert ("mapnet", 4) not in compare(records.config, scores_of(records))


def test_single_unit_has_no_interval() -> None:
    assert interval([1.0]) == (None, None)
