"""The tables of minimal pairs, recomputed from hand-written records."""

import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
from report_fixtures import Records, config

from mapnet_cli.config import Config, Electra, Method, MinimalPairs
from mapnet_cli.core.records import PairScores, ParadigmScore, mean_accuracy
from mapnet_cli.core.tables import Table, to_json
from mapnet_cli.report.stage import ReportResult, build

SEEDS = (1, 2)


def with_pairs(
    folder: Path, seeds: tuple[int, ...] = SEEDS, names: tuple[str, ...] = ("tiny",), pairs: int = 0
) -> Config:
    """Returns a config with two methods, ELECTRA and sets of pairs."""
    for name in names:
        (folder / f"{name}.tsv").write_text("good\tbad\na\tb\n")
    data = tuple(str(folder / f"{name}.tsv") for name in names)
    base = config(pretrain_seeds=seeds)
    electra = {"electra": Method(electra=Electra())}
    return base.model_copy(
        update={
            "methods": ("bert", "mapnet", "electra"), "method": {**base.method, **electra},
            "minimal_pairs": MinimalPairs(data=data, pairs=pairs),
        }
    )  # fmt: skip


def paradigm(name: str, correct: float, phenomenon: str = "", **more: Any) -> ParadigmScore:
    values = {"pairs": 100, "field": "", "ties": 0, "unscored": {}} | more
    return ParadigmScore(name=name, phenomenon=phenomenon, correct=correct, **values)


def write(records: Records, correct: dict[tuple[str, int], float], **more: Any) -> None:
    """Writes a record per encoder: two paradigms of one phenomenon, the second one 10 pairs better, and one alone."""
    for _, run, artifact in records.lineage.pair_scores():
        right = correct[run.method, run.pretrain_seed] - (20 if run.step == 4 else 0)
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


CORRECT = {
    ("bert", 1): 60.0, ("bert", 2): 64.0, ("mapnet", 1): 66.0, ("mapnet", 2): 69.0, ("untrained", 1): 51.0,
    ("untrained", 2): 49.0,
}  # fmt: skip


def table(result: ReportResult, name: str) -> Table:
    (found,) = [table for table in result.tables if table.name == name]
    return found


def accuracy(right: float) -> float:
    return (right + right + 10 + 50) / 3


def test_rows_are_means_over_seeds_with_paired_differences(tmp_path: Path) -> None:
    records = Records(tmp_path, with_pairs(tmp_path))
    write(records, CORRECT)
    rows = {row["Model"]: row for row in to_json(table(build(records.lineage), "minimal-pairs"))["rows"]}
    assert list(rows) == ["bert", "mapnet", "untrained"], "ELECTRA has no MLM head"
    values = [accuracy(CORRECT["mapnet", seed]) for seed in SEEDS]
    found = rows["mapnet"]["tiny"]
    assert (found["mean"], found["sd"], found["n"]) == pytest.approx(
        (statistics.mean(values), statistics.stdev(values), 2)
    )
    error = [math.sqrt(sum(p * (1 - p) / 100 for p in (c / 100, c / 100 + 0.1, 0.5))) / 3 for c in (66, 69)]
    assert rows["mapnet"]["tiny: standard error over pairs"] == pytest.approx(100 * statistics.mean(error))
    difference = rows["mapnet"]["tiny: difference to BERT (paired)"]
    differences = [accuracy(CORRECT["mapnet", s]) - accuracy(CORRECT["bert", s]) for s in SEEDS]
    half = 12.7062 * statistics.stdev(differences) / math.sqrt(2)
    centre = statistics.mean(differences)
    assert (difference["mean"], difference["low"], difference["high"]) == pytest.approx(
        (centre, centre - half, centre + half), abs=1e-3
    )
    assert rows["bert"]["tiny: difference to BERT (paired)"] is None


def test_one_seed_has_an_interval_over_pairs(tmp_path: Path) -> None:
    records = Records(tmp_path, with_pairs(tmp_path, (1,)))
    write(records, CORRECT)
    rows = {row["Model"]: row for row in to_json(table(build(records.lineage), "minimal-pairs"))["rows"]}
    difference = rows["untrained"]["tiny: difference to BERT (paired)"]
    errors = [rows[name]["tiny: standard error over pairs"] for name in ("bert", "untrained")]
    assert difference["n"] == 1
    assert difference["mean"] == pytest.approx(accuracy(51) - accuracy(60))
    assert difference["high"] - difference["mean"] == pytest.approx(1.95996 * math.hypot(*errors), rel=1e-4)


def test_phenomena_are_means_over_their_paradigms(tmp_path: Path) -> None:
    records = Records(tmp_path, with_pairs(tmp_path, (1,)))
    write(records, CORRECT)
    rows = {row["Phenomenon"]: row for row in to_json(table(build(records.lineage), "phenomena"))["rows"]}
    assert list(rows) == ["alone", "gaps"], "a paradigm without a phenomenon is its own"
    assert (rows["gaps"]["Paradigms"], rows["gaps"]["Pairs"]) == (2, 200)
    assert rows["gaps"]["BERT"]["mean"] == pytest.approx(65)
    error = 100 * math.sqrt(0.6 * 0.4 / 100 + 0.7 * 0.3 / 100) / 2
    assert rows["gaps"]["BERT"]["standard_error"] == pytest.approx(error)
    assert rows["gaps"]["untrained"]["mean"] == pytest.approx(56)


def test_notes_name_what_was_not_scored(tmp_path: Path) -> None:
    records = Records(tmp_path, with_pairs(tmp_path, (1,), pairs=100))
    write(records, CORRECT, unscored={"too long": [3, 7], "identical tokens": [1]})
    records.checkpoint("bert", 1, 10, fingerprint="another")
    notes = table(build(records.lineage), "minimal-pairs").notes
    size = "300 pairs in 3 paradigms, 1.25% unknown tokens"
    assert f"tiny: {size}, 1 pairs not scored (identical tokens), 2 pairs not scored (too long)." in notes
    assert "ELECTRA: left out, no masked-language-model head." in notes
    assert "At most 100 pairs per paradigm, the same for all models." in notes
    assert any(note.startswith("1 records are of other weights") for note in notes)


def test_files_records_and_missing_records(tmp_path: Path) -> None:
    records = Records(tmp_path, with_pairs(tmp_path, names=("one", "two")))
    records.manifest()
    result = build(records.lineage)
    assert "20 of 20 records of minimal pairs" in "\n".join(result.missing)
    write(records, CORRECT)
    for method, seed, step in [(m, s, t) for m in records.config.methods for s in SEEDS for t in (4, 10)]:
        records.checkpoint(method, seed, step)
    result = build(records.lineage)
    assert not any("minimal pairs" in line for line in result.missing)
    assert result.next_command == "mapnet finetune-glue"
    assert {"minimal-pairs.csv", "phenomena.json"} < result.files.keys()
    assert "# Minimal pairs: accuracy" in (result.folder / "report.md").read_text()
    lines = [json.loads(line) for line in (result.folder / "records.jsonl").read_text().splitlines()]
    assert sum(line["record"] == "PairScores" for line in lines) == 20
    assert "minimal-pairs" in result.to_json()["tables"]
    artifact = next(artifact for _, _, artifact in records.lineage.pair_scores())
    records.artifacts.path(f"{artifact.key}.json").unlink()
    assert build(records.lineage).next_command == "mapnet minimal-pairs"


def test_the_signature_depends_on_the_pairs_only_if_configured(tmp_path: Path) -> None:
    plain, first, other = (
        build(Records(tmp_path, c).lineage).signature
        for c in (config(pretrain_seeds=SEEDS), with_pairs(tmp_path), with_pairs(tmp_path, pairs=5))
    )
    assert len({plain, first, other}) == 3
