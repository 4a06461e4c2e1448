"""The numbers in docs/results and the README match those computed from the committed records.

Confidence intervals are not checked.
"""

import gzip
import json
import statistics
from functools import cache
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Any

import pytest

from mapnet_cli.config.loading import resolve
from mapnet_cli.glue.grid import other_rows

ROOT = Path(__file__).parents[1]
SMALL = ROOT / "docs" / "results" / "small"
CONFIG = resolve(None, SMALL.with_suffix(".toml"), (), {}).config
METHODS = (*CONFIG.methods, *other_rows(CONFIG))
METRICS = {"CoLA": "mcc", "STS-B": "pearson"}
SUMMARY = "| Model | Pretraining runs | Score |"
LABELS = {"bert": "BERT", "mapnet": "MAP-Net", "electra": "ELECTRA"}


@cache
def records() -> list[dict[str, Any]]:
    with gzip.open(SMALL / "records.jsonl.gz", "rt", encoding="utf-8") as lines:
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


@pytest.mark.parametrize("method", METHODS)
def test_summary_scores_match_the_records(method: str) -> None:
    _, score, difference, *_ = summary()[LABELS.get(method, method)]
    ours, bert = scores(method), scores("bert")
    assert {fine for _, fine in ours} == set(CONFIG.finetune.seeds)
    assert score == plus_minus(list(ours.values()), 2)
    if method in ("bert", *other_rows(CONFIG)):
        assert difference == "-"
    else:
        assert difference.startswith(f"{statistics.fmean(ours[seeds] - bert[seeds] for seeds in ours):+.2f} [")


@pytest.mark.parametrize("method", CONFIG.methods)
def test_summary_losses_and_costs_match_the_records(method: str) -> None:
    pretraining_runs, _, _, loss, difference, *costs = summary()[LABELS.get(method, method)]
    ours, bert = last_checkpoints(method), last_checkpoints("bert")
    assert tuple(ours) == CONFIG.seeds_of(method)
    assert pretraining_runs == str(len(ours))
    for shown, cost in zip(costs, ("flops", "seconds"), strict=True):
        ratio = statistics.fmean(r[cost] for r in ours.values()) / statistics.fmean(r[cost] for r in bert.values())
        assert shown == f"{ratio:.2f}"
    if CONFIG.method[method].electra:
        assert loss == difference == "-"
        return
    assert loss == plus_minus(list(losses(method).values()), 3)
    pairs = [value - losses("bert")[seed] for seed, value in losses(method).items()]
    assert difference.startswith("-" if method == "bert" else f"{statistics.fmean(pairs):+.3f}")


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


def test_records_contain_no_corpus_text() -> None:
    manifest = next(row for row in records() if row["record"] == "CorpusManifest")
    assert manifest["examples"] == {}
