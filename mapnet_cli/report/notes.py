"""Labels, formatted scores, and the notes below the tables."""

from mapnet_cli.config import Config
from mapnet_cli.core import NOTHING, Cell, Scalar, plain
from mapnet_cli.glue import GLUE_COLUMNS, TASKS, UNTRAINED, other_rows, rows_used, subsets
from mapnet_cli.report.load import Results, missing
from mapnet_cli.report.scores import Average, Scores, TaskScore

PROBE = "probe tasks, not GLUE"
LABELS = {"bert": "BERT", "mapnet": "MAP-Net", "electra": "ELECTRA"}
MISSING_MARK = "*"
FAILED_MARK = "†"
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


def marks(score: Average | TaskScore) -> str:
    return (MISSING_MARK if score.missing else "") + (FAILED_MARK if score.failed_counted else "")


def average_cell(average: Average | None, columns: int) -> Cell:
    """Returns an average, and its number of columns if that is less than `columns`."""
    if average is None:
        return plain(None)
    names = ("mean", "sd", "best", "last", "columns", "runs", "failed", "missing")
    suffix = columns_suffix(average.columns, columns) if average.columns else ""
    return Cell(_score_text(average) + suffix, {name: getattr(average, name) for name in names})


def columns_suffix(known: int, columns: int) -> str:
    return f" ({known} of {columns} columns)" if known < columns else ""


def task_cell(score: TaskScore) -> Cell:
    settings = ", ".join(f"seed {seed}: batch {batch}, lr {rate:g}" for seed, (batch, rate) in score.settings)
    data: dict[str, Scalar] = {
        "mean": score.mean, "sd": score.sd, "n": score.n, "best": score.best, "last": score.last,
        "setting": settings, "runs": score.runs, "failed": score.failed, "missing": score.missing,
    }  # fmt: skip
    return Cell(_score_text(score), data)


def _score_text(score: Average | TaskScore) -> str:
    if score.mean is None:
        return NOTHING
    return f"{score.mean:.2f}" + ("" if score.sd is None else f" ± {score.sd:.2f}") + marks(score)


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


def data_notes(results: Results) -> list[str]:
    """Returns notes on the data of the scores, if it isn't all of GLUE."""
    config = results.config
    notes = []
    if is_probe(config):
        notes.append(f"Scores are on {PROBE}: compare them only with each other.")
    if config.finetune.max_train_examples:
        notes.append(f"Fine-tuned on only the first {config.finetune.max_train_examples:,} training rows of each task.")
    if names := subsets(results.tasks.values()):
        notes.append(f"Subsets of the official GLUE data: {', '.join(names)}.")
    if any(task.absent for task in results.tasks.values()):
        notes.append("MNLI has no mismatched dev set here, so the column MNLI-mm is left out.")
    return notes


def task_notes(results: Results) -> list[str]:
    """Returns one note per task with remarks, including its row counts if they aren't GLUE's."""
    notes = []
    for task, facts in results.tasks.items():
        remarks = list(facts.notes)
        if not facts.official:
            remarks.insert(0, f"{facts.train_examples:,} training and {facts.dev_examples:,} dev rows")
        notes += [f"{task}: {'; '.join(remarks)}."] if remarks else []
    return notes


def import_notes(results: Results) -> list[str]:
    """Returns notes on imports, the untrained encoder, and methods that start from an import."""
    config = results.config
    names = ", ".join(config.imports)
    imported = "imported, fine-tuned with its original tokenizer, pretraining cost unknown; see the last score column"
    notes = [f"{names}: {imported}."] if names else []
    if UNTRAINED in other_rows(config):
        notes.append(
            f"{UNTRAINED}: the same encoder with random weights (re-initialised per seed), fine-tuned in the same way."
        )
    starts = {method: config.method[method].init_from for method in config.methods}
    cost = "whose own pretraining is not included in the cost"
    return notes + [f"{label(m)} starts from the import {start}, {cost}." for m, start in starts.items() if start]


OWN_KEYS = {"steps": "Steps", "batch_size": "Sequences per step", "peak_lr": "Peak learning rate"}
"""Keys of [pretrain] that a method may have values of its own for."""


def own_values(config: Config, key: str) -> list[str]:
    """Returns the value of one of OWN_KEYS for each method whose value isn't that of [pretrain]."""
    own = {name: getattr(config.for_method(name).pretrain, key) for name in config.methods}
    return [f"{label(name)} {number(value)}" for name, value in own.items() if value != getattr(config.pretrain, key)]


def own_settings(config: Config) -> list[str]:
    """Returns notes on the methods with their own number of steps, batch size or learning rate."""
    notes = []
    for key, name in OWN_KEYS.items():
        if own := own_values(config, key):
            others = [f"all others {number(getattr(config.pretrain, key))}"] if len(own) < len(config.methods) else []
            notes.append(f"{name}: {', '.join([*own, *others])}.")
    if any(config.method[name].steps for name in config.methods):
        notes.append("Methods are compared at the same fraction of their steps.")
    return notes


def number(value: float) -> str:
    """Returns a number in the paper's format: 1e-05 as "1e-5", values from 0.001 as decimals, 1000000 as 1,000,000."""
    if value == 0 or value >= 0.001:
        return f"{value:,}" if isinstance(value, int) else f"{value:g}"
    digits, _, exponent = f"{value:e}".partition("e")
    return f"{float(digits):g}e{int(exponent)}"


def hours_notes(results: Results) -> list[str]:
    """Returns notes on hours, including the devices if there are several."""
    devices = sorted({row.device for row in results.checkpoints.values()})
    compared = [f"Hours on different devices are not comparable: {', '.join(devices)}."] if len(devices) > 1 else []
    return ["Hours are wall-clock time, affected by other processes on the machine.", *compared]


def partial_note(results: Results) -> list[str]:
    """Returns a note on missing records, [] if there are none."""
    absent = "; ".join(missing(results))
    return [f"Partial report, missing: {absent}. {MISSING_MARK} marks scores with missing runs."] if absent else []


def score_notes(results: Results, scores: Scores) -> list[str]:
    """Returns the notes of every table of scores: data, aggregation, failed and missing runs."""
    finetune = results.config.finetune
    epoch = "best epoch (chosen on the dev set that is reported)" if finetune.epoch == "best" else "last epoch"
    notes = data_notes(results)
    settings, seeds = len(finetune.batch_sizes) * len(finetune.learning_rates), len(finetune.seeds)
    setting = f" of the best of {settings} settings" if settings > 1 else ""
    several = len(results.config.pretraining_runs()) > len(results.config.methods)
    over = "pretraining and fine-tuning seeds" if several else "seeds"
    notes.append(
        f"Mean over {seeds} fine-tuning seed{'s' if seeds > 1 else ''}{setting}, each run at its {epoch}"
        + (f"; ± is the standard deviation over {over}." if seeds > 1 or several else ".")
    )
    if several:
        counts = ", ".join(f"{label(name)} {len(results.config.seeds_of(name))}" for name in results.config.methods)
        notes.append(f"Number of pretraining seeds: {counts}.")
    notes += own_settings(results.config)
    if any(average.failed_counted for average in scores.averages.values()):
        notes.append(
            f"{FAILED_MARK} includes failed runs, which count with their last finished epoch or, if they finished none,"
            " as the majority baseline (0 if that isn't recorded)."
        )
    if finetune.pooling == "mean":
        notes.append("The classification head reads the mean over all tokens, not the vector at [CLS].")
    if started := [task for task in finetune.tasks if task in finetune.from_mnli]:
        notes.append(
            f"{', '.join(started)}: started from each encoder after one fine-tuning run on MNLI (batch "
            f"{finetune.mnli_batch_size}, lr {finetune.mnli_learning_rate:g}, seed {finetune.seeds[0]})."
        )
    if len(devices := sorted({run.device for run in results.runs})) > 1:
        notes.append(f"Fine-tuned on different devices, whose scores may differ slightly: {', '.join(devices)}.")
    failed = sum(average.failed for average in scores.averages.values())
    notes += [f"{failed:,} of {len(results.runs):,} fine-tuning runs failed."] if failed else []
    notes += partial_note(results)
    if results.stale_runs:
        notes.append(
            f"{results.stale_runs:,} fine-tuning runs started from weights other than those of the current checkpoints:"
            " run mapnet finetune-glue with --force."
        )
    return notes
