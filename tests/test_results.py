"""The numbers in docs/results and the README match those computed from the committed records.

So do those of a report that is made anew from these records. Confidence intervals are not checked. To make that report:

    python -m tests.test_results FOLDER
"""

import gzip
import json
import statistics
import sys
from collections import defaultdict
from dataclasses import fields
from functools import cache
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Any

import pytest

from mapnet_cli.config.loading import resolve
from mapnet_cli.core.artifacts import Artifacts, Marker
from mapnet_cli.glue.grid import GridRun, other_rows
from mapnet_cli.lineage.graph import Lineage
from mapnet_cli.report.stage import ReportResult, build

ROOT = Path(__file__).parents[1]
SMALL = ROOT / "docs" / "results" / "small"
MASKS = SMALL.with_name("masks")
LOSSES = ("validation_loss_refit", "validation_loss_single")
Rows = dict[Any, list[dict[str, Any]]]
CONFIG = resolve(None, SMALL.with_suffix(".toml"), (), {}).config
METHODS = (*CONFIG.methods, *other_rows(CONFIG))
METRICS = {"CoLA": "mcc", "STS-B": "pearson"}
SUMMARY = "| Model | Pretraining runs | Score |"
"""Beginning of the header of the summary; of reports since version 0.2: "| Model | Steps | Average |"."""
LABELS = {"bert": "BERT", "mapnet": "MAP-Net", "electra": "ELECTRA"}


@cache
def records(study: Path = SMALL) -> list[dict[str, Any]]:
    with gzip.open(study / "records.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def of_kind(kind: str, method: str) -> list[dict[str, Any]]:
    return [row for row in records() if row["record"] == kind and row["method"] == method]


@cache
def table(page: Path, header: str) -> dict[str, tuple[str, ...]]:
    """Returns header and rows of the first table whose header line starts with `header`, by their first cell."""
    from_table = dropwhile(lambda line: not line.startswith(header), page.read_text(encoding="utf-8").splitlines())
    lines = list(takewhile(lambda line: line.startswith("| "), from_table))
    assert lines, f"{page} has no table {header!r}"
    rows = [tuple(cell.strip() for cell in line.strip("| ").split(" | ")) for line in (lines[0], *lines[2:])]
    return {row[0]: row[1:] for row in rows}


def summary() -> dict[str, tuple[str, ...]]:
    return table(SMALL / "report.md", SUMMARY)


def scores(method: str) -> dict[tuple[int, int], float]:
    """Returns the average over tasks at each run's best epoch, by (pretraining seed, fine-tuning seed)."""
    by_seeds: dict[tuple[int, int], list[float]] = {}
    for run in of_kind("FinetuneRun", method):
        metric = METRICS.get(run["task"], "accuracy")
        best = max(epoch["metrics"][metric] for epoch in run["epochs"])
        by_seeds.setdefault((run["pretrain_seed"], run["seed"]), []).append(100 * best)
    assert {len(values) for values in by_seeds.values()} == {len(CONFIG.finetune.tasks)}
    return {seeds: statistics.fmean(values) for seeds, values in by_seeds.items()}


def last_checkpoints(method: str) -> dict[int, dict[str, Any]]:
    """Returns the last checkpoints by pretraining seed."""
    step = CONFIG.last_step(method)
    return {row["pretrain_seed"]: row for row in of_kind("Checkpoint", method) if row["step"] == step}


def losses(method: str) -> dict[int, float]:
    """Returns the held-out losses with refitted output bias, by pretraining seed."""
    return {seed: row["validation"]["validation_loss_refit"] for seed, row in last_checkpoints(method).items()}


def plus_minus(values: list[float], digits: int) -> str:
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{deviation}"


def cell(row: dict[str, str], *titles: str) -> str:
    """Returns the first of the columns that the row has, without marks."""
    return next(row[title] for title in titles if title in row).strip("*†‡§°")


@cache
def rows() -> dict[str, dict[str, str]]:
    """Returns the rows of the summary by model and title."""
    titles = next(iter(summary().values()))
    return {model: dict(zip(titles, cells, strict=True)) for model, cells in summary().items()}


@pytest.mark.parametrize("method", METHODS)
def test_summary_scores_match_the_records(method: str) -> None:
    ours, bert = scores(method), scores("bert")
    assert {fine for _, fine in ours} == set(CONFIG.finetune.seeds)
    row = rows()[LABELS.get(method, method)]
    assert cell(row, "Score", "Average") == plus_minus(list(ours.values()), 2)
    difference = cell(row, "Difference to BERT (paired)", "Difference to BERT")
    if method in ("bert", *other_rows(CONFIG)):
        assert difference == "-"
    else:
        assert difference.startswith(f"{statistics.fmean(ours[seeds] - bert[seeds] for seeds in ours):+.2f}")


@pytest.mark.parametrize("method", CONFIG.methods)
def test_summary_costs_match_the_records(method: str) -> None:
    ours, bert = last_checkpoints(method), last_checkpoints("bert")
    assert tuple(ours) == CONFIG.seeds_of(method)
    ratio = statistics.fmean(r["flops"] for r in ours.values()) / statistics.fmean(r["flops"] for r in bert.values())
    assert cell(rows()[LABELS.get(method, method)], "Relative FLOPs (× BERT)", "FLOPs (× BERT)") == f"{ratio:.2f}"


def report_of_records(root: Path) -> ReportResult:
    """Writes a report from the committed records into a new folder, with stand-ins for the text and the task data."""
    (root / "text").mkdir(parents=True)
    (root / "text/a.txt").write_text("x\n")
    for task in CONFIG.finetune.tasks:
        (root / "glue" / task).mkdir(parents=True)
        (root / "glue" / task / "train.tsv").write_text("x\n")
    own = [f'corpus.sources=[{{path="{root / "text"}"}}]', f'finetune.data="{root / "glue"}"']
    lineage = Lineage(resolve(None, SMALL.with_suffix(".toml"), own, {}).config, Artifacts(root / "art"))
    baselines: dict[str, list[dict[str, Any]]] = {}
    for record in records()[1:]:
        row = {name: value for name, value in record.items() if name != "record"}
        if record["record"] == "Baseline":
            baselines.setdefault(row["task"], []).append(row)
        else:
            lineage.artifacts.publish(Marker(key_of(lineage, record["record"], row), "0" * 64, row))
    for task, found in baselines.items():
        lineage.artifacts.publish(Marker(lineage.baseline(task).key, "0" * 64, {"rows": found}))
    return build(lineage)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> ReportResult:
    return report_of_records(tmp_path_factory.mktemp("small"))


def key_of(lineage: Lineage, kind: str, row: dict[str, Any]) -> str:
    if kind == "CorpusManifest":
        return lineage.manifest
    if kind == "Checkpoint":
        return f"{lineage.pretraining(row['method'], row['pretrain_seed']).key}/step{row['step']}"
    if kind == "TaskFacts":
        return lineage.main_task(row["task"]).key
    return lineage.finetuning(GridRun(*(row[field.name] for field in fields(GridRun)))).key


def test_a_report_of_the_records_has_the_same_numbers(built: ReportResult) -> None:
    assert built.value["missing"] == {}
    table = built.tables["table3"]
    found = {row[0].data: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    for method in METHODS:
        average = found[method]["Average"]
        assert average.text == plus_minus(list(scores(method).values()), 2)
        assert average.best == (average.value == max(found[one]["Average"].value for one in METHODS))
    losses_of = {row[0].data: dict(zip(built.tables["heldout"].columns, row, strict=True)) for row in
                 built.tables["heldout"].rows}  # fmt: skip
    for method in (name for name in CONFIG.methods if not CONFIG.method[name].electra):
        assert losses_of[method]["Loss, bias refitted"].text == plus_minus(list(losses(method).values()), 3)
    flat = [row for row in built.value["rows"] if (row["method"], row["task"], row["seed"]) == ("bert", "CoLA", 1)]
    runs = [run for run in of_kind("FinetuneRun", "bert") if (run["task"], run["pretrain_seed"]) == ("CoLA", 1)]
    best = [100 * max(epoch["metrics"]["mcc"] for epoch in run["epochs"]) for run in runs]
    assert [(row["value"], row["n"]) for row in flat] == [(pytest.approx(statistics.fmean(best)), len(best))]


@pytest.mark.parametrize("page", ["README.md", "docs/results/README.md"])
def test_pages_show_the_summary(page: str) -> None:
    assert table(ROOT / page, SUMMARY) == summary()


def test_records_match_the_committed_config() -> None:
    signature = records()[0]["signature"]
    assert signature in (SMALL / "report.md").read_text(encoding="utf-8")
    parts = dict(part.split(":", 1) for part in signature.split("|"))
    assert parts["recipe"] == "small"
    assert parts["finetune-seeds"] == "+".join(map(str, CONFIG.finetune.seeds))
    assert parts["train-rows"] == f"first-{CONFIG.finetune.max_train_examples}"
    assert set(summary()) == {"Model", *(LABELS.get(method, method) for method in METHODS)}


@pytest.mark.parametrize("study", [SMALL, MASKS])
def test_records_contain_no_corpus_text(study: Path) -> None:
    manifest = next(row for row in records(study) if row["record"] == "CorpusManifest")
    assert manifest["examples"] == {}


def masks_tables() -> list[str]:
    """Returns the rows of masks.md, means over the pretraining seeds so far: losses by step, then minimal pairs."""
    losses, pairs = defaultdict[str, Rows](lambda: defaultdict(list)), defaultdict[str, Rows](lambda: defaultdict(list))
    for row in records(MASKS):
        if row["record"] == "Checkpoint":
            losses[row["method"]][row["step"]].append(row)
        elif row["record"] == "PairScores":
            pairs[row["method"]][row["data"]].append(row)
    lines = []
    for method, by_step in losses.items():
        found = [
            " / ".join(f"{statistics.fmean(row['validation'][name] for row in rows):.2f}" for name in LOSSES)
            for _, rows in sorted(by_step.items())
        ]
        last = by_step[max(by_step)]
        lines.append(f"| `{method}` | {len(last)} | {' | '.join(found)} | {last[0]['flops']:.3g} |")
    for method, by_data in pairs.items():
        means = [100 * statistics.fmean(row["accuracy"] for row in by_data[data]) for data in ("blimp", "zorro")]
        errors = [100 * statistics.fmean(row["standard_error"] for row in by_data[data]) for data in ("blimp", "zorro")]
        cells = " | ".join(f"{mean:.1f} ± {error:.1f}" for mean, error in zip(means, errors, strict=True))
        lines.append(f"| `{method}` | {len(by_data['blimp'])} | {cells} |")
    return lines


def test_masks_match_the_records() -> None:
    page = MASKS.with_suffix(".md").read_text(encoding="utf-8").splitlines()
    assert [line for line in masks_tables() if line not in page] == []


if __name__ == "__main__":
    print(report_of_records(Path(sys.argv[1])).files["index.html"])
