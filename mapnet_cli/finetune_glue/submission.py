"""`mapnet predict-glue`: the eleven files that GLUE's server expects, from an encoder's best run on each task.

Fine-tuned models are not saved (the paper's grid has 10,240 runs), so the best run is repeated, which
reproduces the same model, up to the epoch whose score counts.
"""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mapnet_cli.config import Config
from mapnet_cli.core import AbsentError, Artifacts, Baselines, Console, FinetuneRun, UsageError, publishing
from mapnet_cli.finetune_glue.examples import Examples, check_count, read_examples
from mapnet_cli.finetune_glue.prepare import TextSettings
from mapnet_cli.finetune_glue.run import TuningJob, run_requirements
from mapnet_cli.finetune_glue.stage import FinetuneGlue, encoder_source, text_settings
from mapnet_cli.glue import (
    LARGEST_SCORE,
    TASKS,
    GlueTask,
    GridRun,
    baseline_scores,
    best_setting,
    columns_of,
    metrics_by_task,
    other_rows,
    run_grids,
    runs_of,
    task_location,
)
from mapnet_cli.jobs import LocalEngine, Output, Phase, Progress, ProgressCallback
from mapnet_cli.lineage import Lineage, find_milestone
from mapnet_cli.text import verified_tokenizer

FILES = {
    "CoLA": ("CoLA", "test"), "SST-2": ("SST-2", "test"), "MRPC": ("MRPC", "test"), "STS-B": ("STS-B", "test"),
    "QQP": ("QQP", "test"), "MNLI-m": ("MNLI", "test"), "MNLI-mm": ("MNLI", "test-mm"), "QNLI": ("QNLI", "test"),
    "RTE": ("RTE", "test"), "WNLI": ("WNLI", "test"), "AX": ("AX", "test"),
}  # fmt: skip
"""Task and split of each file of a submission, by file name."""
WNLI_MAJORITY = "0"
"""Prediction for WNLI, whose dev set contradicts its training set. BERT's authors also submit the majority class."""
DATE = 1980, 1, 1, 0, 0, 0
"""Fixed date of the files in the zip, so that the same predictions give the same bytes."""
READABLE = 0o644 << 16
"""Unix permissions of the files, as stored in a zip's external attributes."""


def find_row(lineage: Lineage, method: str | None, seed: int | None, step: int | None) -> tuple[str, int, int]:
    """Returns (method, pretraining seed, step) of a row of Table 3. Raises UsageError if there is no such row."""
    config = lineage.config
    rows = (*config.methods, *other_rows(config))
    if method is None and len(rows) > 1:
        raise UsageError(f"choose a row of Table 3 with --method: {', '.join(rows)}")
    method = method or rows[0]
    if method in other_rows(config):
        if seed is not None or step is not None:
            raise UsageError(f"{method} has no pretraining seeds or steps: omit --seed and --step")
        return method, 0, 0
    found = find_milestone(lineage, method, seed, step, fine_tuned=True)
    return found.method, found.pretrain_seed, found.step


def write_submission(
    lineage: Lineage, console: Console, workers: int, force: bool, encoder: tuple[str, int, int], file: Path
) -> dict[str, str]:
    """Writes the zip file for a row of Table 3. Returns the source run of each of its files.

    The server accepts only complete submissions, so the file of a task that the config doesn't fine-tune is
    filled with one class, with a warning. Raises UsageError if a task has no finished run, InputError for a
    missing or malformed test set.
    """
    config, artifacts = lineage.config, lineage.artifacts
    if lineage.uses_probe:
        raise UsageError("the probe tasks have no test sets: set finetune.data to GLUE")
    if file.is_dir():
        raise UsageError(f"{file} is a folder: name the zip file to write")
    FinetuneGlue(lineage).validate()
    chosen = {task: choose_run(lineage, console, encoder, task) for task in config.finetune.tasks}
    for task, split in FILES.values():  # fail before anything is trained
        if (task if task != "AX" else "MNLI") in chosen:
            _test_set(config, TASKS[task], split, console)
    jobs = [_job(lineage, run, epoch) for run, epoch in chosen.values()]
    with artifacts.lock("finetune-glue"):
        engine = LocalEngine(artifacts, console, workers, force, FinetuneGlue.preload)
        engine.run([Phase("predictions", jobs, "task", **run_requirements(config, lineage))])
    contents, sources = {}, {}
    for name, (task, split) in FILES.items():
        source = "MNLI" if task == "AX" else task
        made = artifacts.path(f"{lineage.predictions(*chosen[source]).key}/{name}.tsv") if source in chosen else None
        if made is not None and made.exists():
            contents[name] = made.read_text(encoding="utf-8")
            run, epoch = chosen[source]
            sources[name] = f"{source}, batch {run.batch_size}, lr {run.lr:g}, seed {run.seed}, epoch {epoch}"
        else:
            filler, rows = _filler(TASKS[task]), TASKS[task].splits[split].rows
            contents[name] = _tsv([filler] * rows)
            sources[name] = f"not predicted: {rows:,} rows of {filler}"
            if task != "WNLI":
                console.warn(f"{name}.tsv is filled with {filler!r} as a placeholder: {_why_missing(task)}")
    with publishing(file) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            entry = zipfile.ZipInfo(f"{name}.tsv", DATE)
            entry.external_attr = READABLE
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return sources


def choose_run(lineage: Lineage, console: Console, encoder: tuple[str, int, int], task: str) -> tuple[GridRun, int]:
    """Returns the best setting's run with the highest dev score, and the epoch whose score counts."""
    config, artifacts = lineage.config, lineage.artifacts
    all_runs = runs_of(config, *encoder, task)
    if not all_runs:
        raise UsageError(f"{encoder[0]}, seed {encoder[1]}, step {encoder[2]} is not a row of the config's Table 3")
    found_runs = {run: artifacts.find(lineage.finetuning(run).key, FinetuneRun) for run in all_runs}
    runs = {run: row for run, row in found_runs.items() if row is not None}
    column = columns_of({task: metrics_by_task(config)[task]})[0]
    known = artifacts.find(lineage.baseline(task).key, Baselines)
    baselines = baseline_scores(known.rows if known else [], (column,))
    found = run_grids(runs.values(), config, (column,), baselines)[*encoder, column.name]
    setting = best_setting(found)
    scored = {seed: run for seed, run in found[setting].items() if not run.failed} if setting else {}
    if setting is None or not scored:
        raise UsageError(f"{encoder[0]} has no finished run of {task}: run `mapnet finetune-glue` with these options")
    failed = sum(bool(run.failure) for run in runs.values())
    if failed or len(runs) < len(all_runs):
        console.warn(f"{task}: chosen from {len(runs) - failed} of {len(all_runs)} runs; {failed} failed")
    seed = max(scored, key=lambda seed: scored[seed].counted)
    return GridRun(*encoder, task, *setting, seed), scored[seed].epoch


def _job(lineage: Lineage, run: GridRun, epoch: int) -> "PredictTask":
    start, data = encoder_source(lineage, run), lineage.task(run.task, lineage.tokenizer_of(run.method)).key
    text = text_settings(lineage, lineage.tokenizer_of(run.method))
    return PredictTask(
        artifact=lineage.predictions(run, epoch), needs=(start.key, data, text.tokenizer), grid_run=run, start=start,
        data=data, config=lineage.config, epoch=epoch, record=lineage.finetuning(run).key, text=text,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PredictTask(TuningJob):
    """Repeats a run up to `epoch` and writes the predictions for the task's test sets (for MNLI, also for AX)."""

    epoch: int
    record: str
    """Key of the run's record."""
    text: TextSettings

    def run(self, artifacts: Artifacts, progress: ProgressCallback) -> Output:
        from mapnet_cli.finetune_glue import tokenised

        tests, task = {}, TASKS[self.grid_run.task]
        for name, (of_task, split) in FILES.items():
            if of_task == task.name or (of_task, task.name) == ("AX", "MNLI"):
                examples = _test_set(self.config, TASKS[of_task], split)
                if examples is not None:
                    tokenizer = verified_tokenizer(artifacts, self.text.tokenizer)
                    lowercase, max_length = self.text.lowercase, self.text.max_length
                    tests[name] = tokenised.tokenise(examples, tokenizer, lowercase, max_length)[0]
        recorded = artifacts.read(self.record, FinetuneRun).epochs[self.epoch - 1]
        _, tuned = self.tune(artifacts, progress, self.epoch)
        if tuned.epochs[-1].metrics != recorded.metrics:
            warning = "dev scores differ from the recorded ones (different device?), so predictions differ too"
            progress(Progress(1, 1, warning=warning))
        with publishing(artifacts.path(self.key)) as temporary:
            temporary.mkdir()
            for name, test in tests.items():
                predicted = tuned.predict(task, test)
                (temporary / f"{name}.tsv").write_text(_tsv([_format_label(task, float(value)) for value in predicted]))
        return Output(sorted(artifacts.path(self.key).iterdir()))


def _test_set(config: Config, task: GlueTask, split: str, console: Console | None = None) -> Examples | None:
    """Returns a test set, or None if AX is found neither under its own name nor in MNLI's folder."""
    locations = ["AX", "MNLI"] if task.name == "AX" and "AX" not in config.finetune.task_data else [task.name]
    for location in locations:
        try:
            examples = read_examples(task_location(config, location), task, split, labelled=False)
        except AbsentError:
            if len(locations) == 1:
                raise
            continue
        official = check_count(task, split, examples, task.name in config.finetune.subsets)
        if console is not None and not official:
            rows = f"{len(examples):,} rows, but the server expects {task.splits[split].rows:,}"
            console.warn(f"{task.name}: the {split} set is a subset: {rows}")
        return examples
    return None


def _format_label(task: GlueTask, value: float) -> str:
    """Returns a prediction in GLUE's format: a class name, or a score from 0 to 5."""
    if task.regression:
        return f"{min(max(LARGEST_SCORE * value, 0.0), LARGEST_SCORE):.6f}"
    return task.labels[int(value)]


def _tsv(values: Sequence[str]) -> str:
    return "index\tprediction\n" + "".join(f"{number}\t{value}\n" for number, value in enumerate(values))


def _filler(task: GlueTask) -> str:
    return WNLI_MAJORITY if task.name == "WNLI" else _format_label(task, 0.0)


def _why_missing(task: str) -> str:
    if task == "AX":
        return "AX is predicted by the MNLI model, and needs AX.tsv or MNLI's diagnostic.tsv"
    return f"{task} is not in finetune.tasks"
