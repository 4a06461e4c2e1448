"""Labels, formatted scores and costs, and the notes at the end of a report."""

import tomllib
from collections.abc import Sequence
from importlib.resources import files
from statistics import fmean

from mapnet_cli.core import Cell, number_cell, plain, render
from mapnet_cli.glue import GLUE_COLUMNS, TASKS, rows_used, subsets
from mapnet_cli.report.load import Results, runs_of_a_task
from mapnet_cli.report.scores import Score, Scores, spread

TEXTS: dict[str, dict[str, str]] = tomllib.loads(files(__package__).joinpath("texts.toml").read_text(encoding="utf-8"))
"""Titles of what the records name, notes below tables, and figures of the paper, by section."""
MISSING, FAILED, CONSTANT, BELOW, BEYOND = TEXTS["marks"]
PROBE = "probe tasks, not GLUE"


def label(method: str) -> str:
    return TEXTS["methods"].get(method, method)


def encoder_name(method: str, seed: int, step: int) -> str:
    return f"{label(method)}, seed {seed}, step {step:,}" if step else label(method)


def model_cell(method: str) -> Cell:
    return Cell(label(method), method)


def place_cells(method: str, step: int | None) -> dict[str, Cell]:
    """Returns the first two cells of a row; encoders without pretraining have step 0."""
    return {"Model": model_cell(method), "Steps": number_cell(step or None, "{:,}")}


def score_cell(score: Score, marks: str, best: bool) -> Cell:
    """Returns mean and standard deviation with marks."""
    if score.mean is None:
        return plain(None)
    marks = MISSING * bool(score.missing) + FAILED * bool(score.failed) + marks
    shown = spread_text(score.mean, score.sd, "{:.2f}") + marks
    data = {"mean": score.mean, "sd": score.sd, "n": len(score.by_seed), "missing": score.missing}
    return Cell(shown, data, best)


def spread_text(value: float, sd: float | None, form: str) -> str:
    return form.format(value) + ("" if sd is None else f" ± {form.format(sd)}")


def spread_cell(values: Sequence[float | None], form: str) -> Cell:
    """Returns the mean over seeds, with the standard deviation if there are several."""
    known = [value for value in values if value is not None]
    if not known:
        return plain(None)
    data = {"mean": fmean(known), "sd": spread(known), "n": len(known)}
    return Cell(spread_text(fmean(known), spread(known), form), data)


def tokens_cell(tokens: float | None) -> Cell:
    """Returns 131072000 as "131.1M"."""
    if tokens is None:
        return plain(None)
    units = (("B", 1e9), ("M", 1e6), ("k", 1e3))
    shown = (f"{tokens / size:,.1f}{unit}" for unit, size in units if tokens >= size)
    return Cell(next(shown, f"{tokens:.0f}"), tokens)


def time_unit(results: Results) -> tuple[str, float]:
    """Returns the unit in which the report gives pretraining times, and its number of seconds."""
    longest = max((row.seconds for row in results.checkpoints.values()), default=0.0)
    return ("h", 3600.0) if longest >= 2 * 3600 else ("min", 60.0)


def data_suffix(results: Results) -> str:
    """Returns a suffix for titles if scores aren't on all rows of GLUE: " (probe tasks, not GLUE)"."""
    probe = results.config.finetune.data == "probe"
    limits = PROBE if probe else rows_used(results.config, results.tasks.values())
    return f" ({limits})" if limits else ""


def average_name(results: Results, scores: Scores) -> str:
    """Returns the name of the average score, with its number of columns and the data."""
    number, of_glue = len(scores.columns), sum(column.task in TASKS for column in scores.columns)
    if results.config.finetune.data == "probe" or not of_glue:
        name = f"average score over {number} column{'s' if number > 1 else ''}"
    elif of_glue < number:
        name = f"average score over {number} columns, {of_glue} of GLUE's {GLUE_COLUMNS}"
    else:
        name = f"average score over {number if number < GLUE_COLUMNS else 'all'} of {GLUE_COLUMNS} GLUE columns"
    return name + data_suffix(results)


def notes(results: Results, scores: Scores) -> list[str]:
    """Returns what a reader must know about the numbers: first what a score, a difference and a cost are."""
    config, finetune = results.config, results.config.finetune
    own: dict[str, list[str]] = {}
    for key, name in {"steps": "Steps", "batch_size": "Sequences per step", "peak_lr": "Peak learning rate"}.items():
        common, values = getattr(config.pretrain, key), {m: config.for_method(m).pretrain for m in config.methods}
        own[name] = [f"{label(m)} {v:,}" for m, one in values.items() if (v := getattr(one, key)) != common]
        own[name] += [f"all others {common:,}"] if 0 < len(own[name]) < len(values) else []
    if any(config.method[name].steps for name in config.methods):
        own["Methods are compared"] = ["at the same fraction of their steps"]
    devices = {"Pretrained": {row.device for row in results.checkpoints.values()}}
    devices["Fine-tuned"] = {run.device for run in results.runs}
    text = render(
        "mapnet_cli.report", "notes.txt", results=results, own=own, subsets=subsets(results.tasks.values()),
        measured=", ".join(f"{column.name} {column.metric.removesuffix('-mm')}" for column in scores.columns),
        settings=runs_of_a_task(config) // len(finetune.seeds),
        stale=results.stale((run.encoder, run.checkpoint) for run in results.runs),
        seeds=", ".join(f"{label(name)} {len(config.seeds_of(name))}" for name in config.methods) or "0",
        loss=TEXTS["losses"][results.loss].removeprefix("Loss, "),
        schedule=TEXTS["schedules"][config.pretrain.schedule],
        devices={what: sorted(names) for what, names in devices.items()},
        started=[task for task in finetune.tasks if task in finetune.from_mnli],
        methods={label(name): config.method[name] for name in config.methods},
    )  # fmt: skip
    return text.splitlines()
