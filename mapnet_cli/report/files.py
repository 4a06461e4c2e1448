"""Files beside the page: flat results as JSON and CSV, Table 3 for LaTeX, records; signatures and what is missing."""

import csv
import io
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from statistics import fmean, stdev
from typing import Any

from mapnet_cli.core import render
from mapnet_cli.glue import fine_tuned
from mapnet_cli.lineage import scored_encoders
from mapnet_cli.report.differences import Differences
from mapnet_cli.report.labels import average_name, label
from mapnet_cli.report.load import Results, runs_of_a_task
from mapnet_cli.report.runs import json_line, record_line
from mapnet_cli.report.scores import COSTS, Score, Scores
from mapnet_cli.report.tables import by_checkpoint
from mapnet_cli.report.trajectories import losses_reached

FIELDS = ("method", "seed", "step", "task", "metric", "value", "standard_error", "n")
"""Columns of results.csv. `seed` is the pretraining seed; `n` counts the runs, pairs or 1 behind the value."""
PRETRAINING, HELD_OUT = "pretraining", "held-out text"
SIGNED_VERSIONS = ("mapnet", "torch", "tokenizers", "python")
LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}", "±": r"$\pm$",
    "<": r"\textless{}", ">": r"\textgreater{}", "×": r"$\times$", "°": r"$^\circ$", "†": r"\dag{}", "‡": r"\ddag{}",
    "§": r"\S{}", '"': "''", **{char: f"\\{char}" for char in "&%$#_{}"},
})  # fmt: skip


def flat_rows(results: Results, scores: Scores) -> Iterator[dict[str, Any]]:
    """Yields one row per (method, seed, step, task, metric), with FIELDS."""

    def row(place: tuple[object, ...], task: str, metric: str, value: float, *more: Any) -> dict[str, Any]:
        return dict(zip(FIELDS, (*place, task, metric, value, *(more or (None, 1))), strict=True))

    metrics = {column.name: column.metric.removesuffix("-mm") for column in scores.columns}
    for (method, step, column), cell in scores.cells.items():
        by_seed: dict[int, list[float]] = defaultdict(list)
        for (seed, _), value in cell.by_seed.items():
            by_seed[seed].append(value)
        for seed, values in by_seed.items():
            error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
            place = method, seed, step
            yield row(place, column, metrics.get(column, "mean"), fmean(values), error, len(values))
    for place, one in results.checkpoints.items():
        costs = {name: getattr(one, name) for name in COSTS}
        for task, found in ((PRETRAINING, costs), (HELD_OUT, one.validation), (PRETRAINING, one.health)):
            yield from (row(place, task, name, value) for name, value in found.items())
    for pairs in results.pair_scores:
        count = sum(paradigm.pairs for paradigm in pairs.paradigms)
        place = pairs.method, pairs.pretrain_seed, pairs.step
        yield row(place, pairs.data, "accuracy", 100 * pairs.accuracy, 100 * pairs.standard_error, count)
    for (name, column), value in scores.baselines.items():
        yield row((name, None, None), column, metrics[column], value)


def results_value(results: Results, scores: Scores, differences: Differences) -> dict[str, Any]:
    """Returns the content of results.json: what the scores depend on, what is missing, comparisons and flat rows."""
    config = results.config
    return {
        "signature": signature(results, scores.metrics),
        "short_signature": results.signed,
        "fingerprint": results.fingerprint,
        "protocol": {
            "data": "probe" if config.finetune.data == "probe" else "glue",
            "epoch": config.finetune.epoch,
            "metrics": dict(scores.metrics),
            "train_rows": config.finetune.max_train_examples,
            "examples": {name: [facts.train_examples, facts.dev_examples] for name, facts in results.tasks.items()},
            "corpus": results.corpus,
            "loss": results.loss,
            "devices": sorted({row.device for row in results.checkpoints.values()}),
        },
        "methods": {name: label(name) for name in config.methods},
        "missing": missing(results),
        "damaged": list(results.damaged),
        "failed": [{**asdict(run.grid_run), "failure": run.failure} for run in results.runs if run.failure],
        "comparisons": [
            {
                "measure": d.measure, "method": d.method, "reference": d.reference, "step": d.step,
                "difference": d.mean, "values": d.values, "unit": d.unit, "interval": d.interval,
                "bootstrap": d.bootstrap, "p": d.p, "p_permutation": d.permutation_p, "p_holm": d.adjusted,
            }
            for d in differences.values()
        ],
        "shares_of_cost_to_final_loss": {
            method: {seed: at and at._asdict() for seed, at in found.items()}
            for method in config.methods[1:] if (found := losses_reached(results, method))
        },
        "rows": list(flat_rows(results, scores)),
    }  # fmt: skip


def to_json_text(value: Mapping[str, Any]) -> bytes:
    """Returns the value as JSON with one line per row, so that two reports can be compared line by line."""
    head = json.dumps({k: v for k, v in value.items() if k != "rows"}, indent=1, ensure_ascii=False, allow_nan=False)
    rows = ",\n  ".join(json.dumps(row, ensure_ascii=False, allow_nan=False) for row in value["rows"])
    return f'{head[:-2]},\n "rows": [\n  {rows}\n ]\n}}\n'.encode(errors="backslashreplace")


def to_csv_text(rows: list[dict[str, Any]]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def latex(results: Results, scores: Scores, notes: list[str]) -> bytes:
    """Returns Table 3 as the paper sets it, with the best of each checkpoint in bold, for booktabs."""
    titles, rows = by_checkpoint(results, scores)

    def cell(found: Score | None, number: int) -> str:
        if found is None or found.mean is None:
            return "--"
        shown = [row[number] for _, row in rows]
        best = max(round(one.mean, 2) for one in shown if one and one.mean is not None)
        spread = "" if found.sd is None else rf" {{\small$\pm${found.sd:.2f}}}"
        text = f"{found.mean:.2f}"
        return (rf"\textbf{{{text}}}" if round(found.mean, 2) == best else text) + spread

    body = [(escape(name), [cell(found, number) for number, found in enumerate(row)]) for name, row in rows]
    text = render(
        "mapnet_cli.report", "table3.tex", titles=titles, rows=body,
        title=escape(f"The {average_name(results, scores)}."), notes=map(escape, notes),
        signature=escape(results.signed), tasks=[escape(column.name) for column in scores.columns],
        comment=signature(results, scores.metrics),
    )  # fmt: skip
    return text.encode()


def escape(text: str) -> str:
    """Returns text with LaTeX's special characters escaped."""
    return text.translate(LATEX)


def signature(results: Results, metrics: Mapping[str, str]) -> str:
    """Returns the settings that scores depend on, in the style of sacrebleu's signatures."""
    config, finetune = results.config, results.config.finetune
    own_steps = {m: config.fine_tuned_steps(m) for m in config.methods if config.method[m].steps}
    own_seeds = {m: config.method[m].seeds for m in config.methods if config.method[m].seeds}
    parts = {
        "recipe": config.recipe or "custom",
        "config": results.fingerprint[:8],
        "data": "probe" if finetune.data == "probe" else "glue",
        "steps": _with_own(config.fine_tuned_steps(), own_steps, len(config.methods)),
        "pretrain-seeds": _with_own(config.pretrain.seeds, own_seeds, len(config.methods)),
        "finetune-seeds": "+".join(map(str, finetune.seeds)),
        "epoch": finetune.epoch,
        "metrics": "+".join(f"{task}={metric}" for task, metric in metrics.items()),
        "from-mnli": "+".join(finetune.from_mnli),
        "pooling": finetune.pooling if finetune.pooling != "cls" else "",
        "train-rows": f"first-{finetune.max_train_examples}" if finetune.max_train_examples else "",
        **{name: "+".join(results.versions.get(name, ("none",))) for name in SIGNED_VERSIONS},
    }
    return "|".join(f"{name}:{value}" for name, value in parts.items() if value)


def _with_own(common: tuple[int, ...], own: Mapping[str, tuple[int, ...]], methods: int) -> str:
    """Returns the common numbers (if any method uses them), then "NAME:NUMBERS" of each method that has its own."""
    shared = ["+".join(map(str, common))] if len(own) < methods or not own else []
    return ",".join([*shared, *(f"{name}:{'+'.join(map(str, numbers))}" for name, numbers in own.items())])


def missing(results: Results) -> dict[str, str]:
    """Returns {what is missing, with counts: the command that makes it}, in the order of the commands."""
    config, found = results.config, dict[str, str]()
    if results.manifest is None and config.methods:
        found["the corpus manifest"] = "mapnet prepare-corpus"
    expected = config.checkpoints()
    if absent := [key for key in expected if key not in results.checkpoints]:
        by_method = ", ".join(f"{name} {sum(key[0] == name for key in absent)}" for name in config.methods)
        found[f"{len(absent)} of {len(expected)} checkpoints ({by_method})"] = "mapnet pretrain"
    pairs = len(scored_encoders(config)) * len(config.minimal_pairs.sets)
    if len(results.pair_scores) < pairs:
        found[f"{pairs - len(results.pair_scores):,} of {pairs:,} records of minimal pairs"] = "mapnet minimal-pairs"
    runs = len(fine_tuned(config)) * len(config.finetune.tasks) * runs_of_a_task(config)
    if len(results.runs) < runs:
        found[f"{runs - len(results.runs):,} of {runs:,} fine-tuning runs"] = "mapnet finetune-glue"
    scored = {row.task for row in results.baselines}
    if config.finetune.baselines and (bare := [task for task in config.finetune.tasks if task not in scored]):
        what = f"baselines for {len(bare)} of {len(config.finetune.tasks)} tasks ({', '.join(bare)})"
        found[what] = "mapnet finetune-glue"
    if results.damaged and not found:
        found[f"{len(results.damaged):,} damaged records"] = "mapnet verify --heal"
    return found


def record_lines(results: Results, signed: str) -> list[bytes]:
    """Returns the lines of records.jsonl up to the fine-tuning runs: the signature, then one line per record."""
    # without the quotes from dropped paragraphs: a report may be published where the text may not
    corpus = [results.manifest.model_copy(update={"examples": {}})] if results.manifest else []
    trained = (*results.imports, *results.checkpoints.values())
    rows = (*corpus, *trained, *results.pair_scores, *results.tasks.values(), *results.baselines)
    return [json_line({"record": "signature", "signature": signed}), *map(record_line, rows)]
