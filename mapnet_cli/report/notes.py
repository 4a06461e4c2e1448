"""Names, scores as they are written, and the notes that say what a table's scores are of."""

from mapnet_cli.config import Config
from mapnet_cli.core import NOTHING, Cell, Scalar, plain
from mapnet_cli.glue import GLUE_COLUMNS, UNTRAINED, rows_used, subsets
from mapnet_cli.report.load import Results, missing
from mapnet_cli.report.scores import Average, Scores, TaskScore

PROBE = "probe tasks, not GLUE"
LABELS = {"bert": "BERT", "mapnet": "MAP-Net", "electra": "ELECTRA"}
MISSING_MARK = "*"
FAILED_MARK = "†"
MID_SCHEDULE = (
    "Checkpoints before the last come out of the middle of a learning-rate schedule: a training planned for so few"
    " steps may end above or below them."
)


def label(method: str) -> str:
    return LABELS.get(method, method)


def model_cell(method: str) -> Cell:
    return Cell(label(method), method)


def marks(score: Average | TaskScore) -> str:
    return (MISSING_MARK if score.missing else "") + (FAILED_MARK if score.failed_counted else "")


def average_cell(average: Average | None, columns: int) -> Cell:
    """Returns an average; it says so where it is over fewer than so many columns."""
    if average is None:
        return plain(None)
    names = ("mean", "sd", "best", "last", "columns", "runs", "failed", "missing")
    more = of_columns(average.columns, columns) if average.columns else ""
    return Cell(_score_text(average) + more, {name: getattr(average, name) for name in names})


def of_columns(there: int, columns: int) -> str:
    return f" ({there} of {columns} columns)" if there < columns else ""


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


def on_what(results: Results) -> str:
    """Returns what a title has to add where scores aren't of all of GLUE's rows: " (probe tasks, not GLUE)"."""
    if is_probe(results.config):
        return f" ({PROBE})"
    less = rows_used(results.config, results.tasks.values())
    return f" ({less})" if less else ""


def average_name(results: Results, scores: Scores) -> str:
    """Returns what the average is over, with the probe tasks called by their name."""
    number = len(scores.columns)
    if is_probe(results.config):
        name = f"average score of {number} column{'s' if number > 1 else ''}"
    elif number < GLUE_COLUMNS:
        name = f"average of {number} of {GLUE_COLUMNS} columns on GLUE"
    else:
        name = f"average score on GLUE (all {GLUE_COLUMNS} columns)"
    return name + on_what(results)


def data_notes(results: Results) -> list[str]:
    """Returns which data the scores are of, where it isn't all of GLUE."""
    config = results.config
    notes = []
    if is_probe(config):
        notes.append(f"Scores are of {PROBE}: compare them with each other only.")
    if config.finetune.max_train_examples:
        notes.append(f"Fine-tuned on the first {config.finetune.max_train_examples:,} training rows of each task only.")
    if names := subsets(results.tasks.values()):
        notes.append(f"Subsets, not GLUE's official sets: {', '.join(names)}.")
    return notes


def task_notes(results: Results) -> list[str]:
    """Returns each task's own remarks, with its row counts where they aren't GLUE's."""
    notes = []
    for task, facts in results.tasks.items():
        remarks = list(facts.notes)
        if not facts.official:
            remarks.insert(0, f"{facts.train_examples:,} training and {facts.dev_examples:,} dev rows")
        notes += [f"{task}: {'; '.join(remarks)}."] if remarks else []
    return notes


def import_notes(results: Results) -> list[str]:
    """Returns what came from elsewhere: rows of imports, and methods that start from one."""
    config = results.config
    names = ", ".join(config.imports)
    own = "imported, fine-tuned with its own tokenizer, its pretraining unknown here"
    notes = [f"{names}: {own}; the score stands in the last column of scores."] if names else []
    if config.finetune.untrained:
        notes.append(f"{UNTRAINED}: the same encoder with random weights, other ones for each run's seed, tuned alike.")
    starts = {method: config.method[method].init_from for method in config.methods}
    cost = "whose own pretraining is not in the cost"
    return notes + [f"{label(m)} starts from the import {start}, {cost}." for m, start in starts.items() if start]


def steps_note(config: Config) -> list[str]:
    """Returns which methods have steps of their own, and where they are compared."""
    steps = [f"{label(name)} {config.method[name].steps:,}" for name in config.methods if config.method[name].steps]
    if not steps:
        return []
    if len(steps) < len(config.methods):
        steps.append(f"the others {config.pretrain.steps:,}")
    return [f"Steps: {', '.join(steps)}; methods are compared at the same share of their steps."]


def hours_notes(results: Results) -> list[str]:
    """Returns what stands beside hours: what they are, and the devices where there are several."""
    devices = sorted({row.device for row in results.checkpoints.values()})
    compared = [f"Hours on different devices can't be compared: {', '.join(devices)}."] if len(devices) > 1 else []
    return ["Hours are by the clock: what else ran on the machine is in them.", *compared]


def partial_note(results: Results) -> list[str]:
    """Returns which records aren't there yet."""
    absent = missing(results)
    return [f"Partial: missing {'; '.join(absent)}. {MISSING_MARK} marks scores with missing runs."] if absent else []


def score_notes(results: Results, scores: Scores) -> list[str]:
    """Returns what every table of scores has to say: the data, the aggregation, what failed and what is missing."""
    finetune = results.config.finetune
    epoch = "the best epoch on the dev set that it is scored on" if finetune.epoch == "best" else "the last epoch"
    notes = data_notes(results)
    settings, seeds = len(finetune.batch_sizes) * len(finetune.learning_rates), len(finetune.seeds)
    of_setting = f"of the best of {settings} settings " if settings > 1 else ""
    several = len(results.config.trainings()) > len(results.config.methods)
    over = "pretraining and fine-tuning seeds together" if several else "seeds"
    notes.append(
        f"Mean {of_setting}over {seeds} fine-tuning seed{'s' if seeds > 1 else ''}, each run at {epoch}"
        + (f"; ± is the standard deviation over {over}." if seeds > 1 or several else ".")
    )
    if several:
        counts = ", ".join(f"{label(name)} {len(results.config.seeds_of(name))}" for name in results.config.methods)
        notes.append(f"Pretraining seeds: {counts}.")
    notes += steps_note(results.config)
    if any(average.failed_counted for average in scores.averages.values()):
        notes.append(
            f"{FAILED_MARK} includes failed runs, counted with their last finished epoch, without one as the majority"
            " baseline (0 where that isn't recorded)."
        )
    if started := [task for task in finetune.tasks if task in finetune.from_mnli]:
        notes.append(
            f"{', '.join(started)}: started from each encoder after one fine-tuning on MNLI (batch "
            f"{finetune.mnli_batch_size}, lr {finetune.mnli_learning_rate:g}, seed {finetune.seeds[0]})."
        )
    if len(devices := sorted({run.device for run in results.runs})) > 1:
        notes.append(f"Fine-tuned on different devices, whose scores may differ a little: {', '.join(devices)}.")
    failed = sum(average.failed for average in scores.averages.values())
    notes += [f"{failed:,} of {len(results.runs):,} fine-tuning runs failed."] if failed else []
    notes += partial_note(results)
    if results.foreign_runs:
        notes.append(
            f"{results.foreign_runs:,} runs started from other weights than the checkpoints that stand now:"
            " run mapnet finetune-glue with --force."
        )
    return notes
