"""Labels, formatted scores and costs, and the notes at the end of a report."""

from mapnet_cli.config import Config
from mapnet_cli.core import NOTHING, Cell, Scalar, number_cell, plain
from mapnet_cli.glue import GLUE_COLUMNS, TASKS, UNTRAINED, other_rows, rows_used, subsets
from mapnet_cli.report.load import Results
from mapnet_cli.report.scores import Average, Scores, TaskScore, mean, spread

PROBE = "probe tasks, not GLUE"
LABELS = {"bert": "BERT", "mapnet": "MAP-Net", "electra": "ELECTRA"}
MISSING, FAILED, CONSTANT, BELOW = "°", "†", "‡", "§"
MARKS = {
    MISSING: "Runs are missing",
    FAILED: "Includes failed runs, which count with their last finished epoch or, if they finished none, as the "
    "majority baseline (0 if that isn't recorded)",
    CONSTANT: "Includes runs that predict one class (or one value) for all examples",
    BELOW: "Not above the bag of words, a baseline without an encoder",
}
SCHEDULES = {
    "linear": "Checkpoints before the last one come from the middle of the learning-rate schedule; a run scheduled for "
    "that number of steps may end above or below them.",
    "wsd": "Every checkpoint is a finished training: on a branch of the run, its learning rate decays to 0 over the "
    "last tenth. Its cost leaves out the branches of other checkpoints.",
}
"""What checkpoints stand for, by pretrain.schedule."""


def label(method: str) -> str:
    return LABELS.get(method, method)


def model_cell(method: str) -> Cell:
    return Cell(label(method), method)


def columns_suffix(known: int, columns: int) -> str:
    return f" ({known} of {columns} columns)" if known < columns else ""


def score_cell(score: Average | TaskScore, marks: str = "", columns: int = 1) -> Cell:
    """Returns mean and standard deviation with marks, and the number of columns of an average if some are missing."""
    marks = MISSING * bool(score.missing) + FAILED * bool(score.failed_counted) + marks
    data: dict[str, Scalar] = {"mean": score.mean, "sd": score.sd, "best": score.best, "last": score.last}
    data |= {"runs": score.runs, "failed": score.failed, "missing": score.missing}
    suffix = columns_suffix(score.columns, columns) if isinstance(score, Average) and score.columns else ""
    return Cell(score_text(score, marks) + suffix, data)


def score_text(score: Average | TaskScore, marks: str = "") -> str:
    if score.mean is None:
        return NOTHING
    return f"{score.mean:.2f}" + ("" if score.sd is None else f" ± {score.sd:.2f}") + marks


def spread_cell(values: list[float | None], form: str) -> Cell:
    """Returns the mean over seeds, with the standard deviation if there are several."""
    known = [value for value in values if value is not None]
    if not known:
        return plain(None)
    found = TaskScore(mean=mean(known), sd=spread(known))
    sd = "" if found.sd is None else f" ± {form.format(found.sd)}"
    return Cell(form.format(found.mean) + sd, {"mean": found.mean, "sd": found.sd, "n": len(known)})


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


def time_cell(results: Results, hours: float | None) -> Cell:
    unit, seconds = time_unit(results)
    return number_cell(None if hours is None else hours * 3600 / seconds, f"{{:,.1f}} {unit}")


def is_probe(config: Config) -> bool:
    return config.finetune.data == "probe"


def data_suffix(results: Results) -> str:
    """Returns a suffix for titles if scores aren't on all rows of GLUE: " (probe tasks, not GLUE)"."""
    if is_probe(results.config):
        return f" ({PROBE})"
    limits = rows_used(results.config, results.tasks.values())
    return f" ({limits})" if limits else ""


def average_name(results: Results, scores: Scores) -> str:
    """Returns the name of the average score, with its number of columns and the data."""
    number, of_glue = len(scores.columns), sum(column.task in TASKS for column in scores.columns)
    if is_probe(results.config) or not of_glue:
        name = f"average score over {number} column{'s' if number > 1 else ''}"
    elif of_glue < number:
        name = f"average score over {number} columns, {of_glue} of GLUE's {GLUE_COLUMNS}"
    elif number < GLUE_COLUMNS:
        name = f"average score over {number} of {GLUE_COLUMNS} GLUE columns"
    else:
        name = f"average score over all {GLUE_COLUMNS} GLUE columns"
    return name + data_suffix(results)


def notes(results: Results, scores: Scores) -> list[str]:
    """Returns what a reader must know about the numbers, once for all tables; the first three are the most important.

    They are: what a score is, what a difference is, and what the cost is.
    """
    config, finetune = results.config, results.config.finetune
    epoch = "best epoch (chosen on the dev set that is reported)" if finetune.epoch == "best" else "last epoch"
    settings, seeds = len(finetune.batch_sizes) * len(finetune.learning_rates), len(finetune.seeds)
    setting = f" of the best of {settings} settings" if settings > 1 else ""
    measured = ", ".join(f"{column.name} {column.metric.removesuffix('-mm')}" for column in scores.columns)
    own = ", ".join(f"{label(name)} {len(config.seeds_of(name))}" for name in config.methods)
    probe = f"Scores are on {PROBE}: compare them only with each other. " if is_probe(config) else ""
    found = [
        f"{probe}A score is the metric times 100 ({measured}) on the dev set: the mean over {seeds} fine-tuning "
        f"seed{'s' if seeds > 1 else ''}{setting}, each run at its {epoch}, and over the pretraining seeds ({own or 0})"
        ". ± is the standard deviation over seeds.",
        "Differences are paired: the same fine-tuning setting and equal seeds for both methods. Brackets: 95% interval "
        "(Student's t), over pretraining seeds if both methods have several, otherwise over the fine-tuning seeds of "
        "one pretraining run, which ignores the variance between pretraining runs; none for fewer than three seeds. "
        "* marks a difference beyond the noise, after Holm's correction for all comparisons of the report.",
        f"Tokens, FLOPs and time: one pretraining run up to that step, without fine-tuning. Time is wall-clock time. "
        f"{SCHEDULES[config.pretrain.schedule]}",
    ]
    devices = sorted({row.device for row in results.checkpoints.values()})
    if len(devices) > 1:
        found.append(f"Times on different devices are not comparable: {', '.join(devices)}.")
    if len(tuned := sorted({run.device for run in results.runs})) > 1:
        found.append(f"Fine-tuned on different devices, whose scores may differ slightly: {', '.join(tuned)}.")
    if finetune.max_train_examples:
        found.append(f"Fine-tuned on only the first {finetune.max_train_examples:,} training rows of each task.")
    if names := subsets(results.tasks.values()):
        found.append(f"Subsets of the official GLUE data: {', '.join(names)}.")
    for task, facts in results.tasks.items():
        size = () if facts.official else (f"{facts.train_examples:,} training and {facts.dev_examples:,} dev rows",)
        found += [f"{task}: {'; '.join((*size, *facts.notes))}."] if (*size, *facts.notes) else []
    found += _encoders(config)
    if finetune.pooling == "mean":
        found.append("The classification head reads the mean over all tokens, not the vector at [CLS].")
    if started := [task for task in finetune.tasks if task in finetune.from_mnli]:
        found.append(
            f"{', '.join(started)}: started from each encoder after one fine-tuning run on MNLI (batch "
            f"{finetune.mnli_batch_size}, lr {finetune.mnli_learning_rate:g}, seed {finetune.seeds[0]})."
        )
    if results.stale_runs:
        found.append(
            f"{results.stale_runs:,} fine-tuning runs started from weights other than those of the current checkpoints:"
            " run mapnet finetune-glue with --force."
        )
    return found


def _encoders(config: Config) -> list[str]:
    """Returns notes on methods with settings of their own, imports and the untrained encoder."""
    found = []
    for key, name in {"steps": "Steps", "batch_size": "Sequences per step", "peak_lr": "Peak learning rate"}.items():
        common = getattr(config.pretrain, key)
        values = {method: getattr(config.for_method(method).pretrain, key) for method in config.methods}
        if own := [f"{label(method)} {value:,}" for method, value in values.items() if value != common]:
            found.append(f"{name}: {', '.join(own)}{f', all others {common:,}' * (len(own) < len(values))}.")
    if any(config.method[name].steps for name in config.methods):
        found.append("Methods are compared at the same fraction of their steps.")
    if config.imports:
        imported = "imported, fine-tuned with its original tokenizer, pretraining cost unknown"
        found.append(f"{', '.join(config.imports)}: {imported}.")
    if UNTRAINED in other_rows(config):
        found.append(f"{UNTRAINED}: the same encoder with random weights, drawn anew per seed, fine-tuned likewise.")
    for method in config.methods:
        if start := config.method[method].init_from:
            found.append(f"{label(method)} starts from the import {start}, whose own pretraining isn't in its cost.")
    if detecting := [label(method) for method in config.methods if config.method[method].electra]:
        found.append(f"{', '.join(detecting)}: no masked-language-model head, so no held-out loss and no pairs.")
    return found
