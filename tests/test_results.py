"""What docs/results and the README show is what the records beside it say: every number worked out anew from them."""

import gzip
import json
import statistics
from functools import cache
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
SMALL = ROOT / "docs" / "results" / "small"
METRICS = {"CoLA": "mcc", "STS-B": "pearson"}
LABELS = {"BERT": "bert", "MAP-Net": "mapnet", "ELECTRA": "electra"}


@cache
def records() -> list[dict[str, Any]]:
    with gzip.open(SMALL / "records.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@cache
def table(page: Path, heading: str) -> dict[str, tuple[str, ...]]:
    """Returns the rows of the first table below a heading that begins so, by their first cell."""
    _, found, rest = page.read_text(encoding="utf-8").partition(f"\n## {heading}")
    assert found, f"{page} has no heading {heading!r}"
    before_it = dropwhile(lambda line: not line.startswith("| "), rest.splitlines())
    lines = list(takewhile(lambda line: line.startswith("| "), before_it))
    rows = [tuple(cell.strip() for cell in line.strip("| ").split(" | ")) for line in lines[2:]]
    return {row[0]: row[1:] for row in rows}


def scores(method: str) -> dict[tuple[int, int], float]:
    """Returns the average over tasks of each run's best epoch, by pretraining and fine-tuning seed."""
    by_seeds: dict[tuple[int, int], list[float]] = {}
    for run in records():
        if run["record"] == "FinetuneRun" and run["method"] == method:
            metric = METRICS.get(run["task"], "accuracy")
            best = max(epoch["metrics"][metric] for epoch in run["epochs"])
            by_seeds.setdefault((run["pretrain_seed"], run["seed"]), []).append(100 * best)
    assert {len(values) for values in by_seeds.values()} == {5}
    return {seeds: statistics.fmean(values) for seeds, values in by_seeds.items()}


def refitted_losses(method: str) -> dict[int, float]:
    """Returns the held-out loss at the last checkpoint by pretraining seed."""
    checkpoints = [row for row in records() if row["record"] == "Checkpoint" and row["method"] == method]
    last = max(row["step"] for row in checkpoints)
    return {
        row["pretrain_seed"]: row["validation"]["validation_loss_refit"]
        for row in checkpoints
        if row["step"] == last and "validation_loss_refit" in row["validation"]
    }


def plus_minus(values: list[float], digits: int) -> str:
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{deviation}"


SUMMARY = table(SMALL / "report.md", "Gain and cost at the last")


@pytest.mark.parametrize("label", SUMMARY)
def test_the_summary_is_what_the_records_say(label: str) -> None:
    method = LABELS.get(label, label)
    _, score, difference, loss, loss_difference, *_ = SUMMARY[label]
    ours, bert = scores(method), scores("bert")
    assert score == plus_minus(list(ours.values()), 2)
    shared = ours.keys() & bert.keys()
    if method != "bert" and shared:
        assert difference.startswith(f"{statistics.fmean(ours[seeds] - bert[seeds] for seeds in shared):+.2f} [")
    losses, of_bert = refitted_losses(method), refitted_losses("bert")
    if losses:
        assert loss == plus_minus(list(losses.values()), 3)
        pairs = [losses[seed] - of_bert[seed] for seed in losses]
        assert method == "bert" or loss_difference.startswith(f"{statistics.fmean(pairs):+.3f}")


@pytest.mark.parametrize(
    ("page", "heading"), [("README.md", "What came out"), ("docs/results/README.md", "What came out")]
)
def test_the_pages_show_the_summary(page: str, heading: str) -> None:
    assert table(ROOT / page, heading) == SUMMARY


def test_the_records_are_of_the_config_beside_them() -> None:
    signature = records()[0]["signature"]
    assert signature in (SMALL / "report.md").read_text(encoding="utf-8")
    assert "recipe:small" in signature


def test_no_text_is_passed_on() -> None:
    manifest = next(row for row in records() if row["record"] == "CorpusManifest")
    assert manifest["examples"] == {}
