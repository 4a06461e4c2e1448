"""`mapnet predict-glue`: the eleven files that GLUE's server takes, from an encoder's best run of each task.

Fine-tuned models are not kept (the paper's grid has 10,240), so the best run is made again, which
gives the same model, and asked for its predictions at the epoch that counted.
"""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mapnet_cli.config import Config
from mapnet_cli.core import AbsentError, Artifacts, Baselines, Console, FinetuneRun, UsageError, publishing
from mapnet_cli.finetune_glue.examples import Examples, check_count, read_examples
from mapnet_cli.finetune_glue.prepare import TextSettings, verified_tokenizer
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

FILES = {
    "CoLA": ("CoLA", "test"), "SST-2": ("SST-2", "test"), "MRPC": ("MRPC", "test"), "STS-B": ("STS-B", "test"),
    "QQP": ("QQP", "test"), "MNLI-m": ("MNLI", "test"), "MNLI-mm": ("MNLI", "test-mm"), "QNLI": ("QNLI", "test"),
    "RTE": ("RTE", "test"), "WNLI": ("WNLI", "test"), "AX": ("AX", "test"),
}  # fmt: skip
"""Of a submission, by name: the task and the set that each file is about."""
WNLI_MAJORITY = "0"
"""Nobody trains on WNLI, whose dev set contradicts its training set: BERT's authors hand in the majority class too."""
DATE = 1980, 1, 1, 0, 0, 0
"""Of the files in the zip, so that the same predictions give the same bytes."""
READABLE = 0o644 << 16
"""Their permissions, where a zip keeps them."""


def find_row(lineage: Lineage, method: str | None, seed: int | None, step: int | None) -> tuple[str, int, int]:
    """Returns (method, pretraining seed, step) of a row of Table 3; raises UsageError if there is no such one."""
    config = lineage.config
    rows = (*config.methods, *other_rows(config))
    if method is None and len(rows) > 1:
        raise UsageError(f"which row of Table 3? Name one with --method: {', '.join(rows)}")
    method = method or rows[0]
    if method in other_rows(config):
        if seed is not None or step is not None:
            raise UsageError(f"{method} has no pretraining seeds and steps: leave out --seed and --step")
        return method, 0, 0
    found = find_milestone(lineage, method, seed, step, fine_tuned=True)
    return found.method, found.pretrain_seed, found.step


def write_submission(
    lineage: Lineage, console: Console, workers: int, force: bool, place: tuple[str, int, int], file: Path
) -> dict[str, str]:
    """Writes the zip of a row of Table 3, and returns which run each of its files is from.

    A file of a task that the config doesn't fine-tune is filled with one class, and a warning says so:
    the server takes complete submissions only. Raises UsageError where a task has no finished run,
    InputError for a missing or malformed test set.
    """
    config, artifacts = lineage.config, lineage.artifacts
    if lineage.uses_probe:
        raise UsageError("the probe tasks have no test sets: predictions are for GLUE itself (finetune.data)")
    if file.is_dir():
        raise UsageError(f"{file} is a folder: name the zip file to write")
    FinetuneGlue(lineage).validate()
    chosen = {task: choose_run(lineage, console, place, task) for task in config.finetune.tasks}
    for task, split in FILES.values():  # before anything is trained
        if (task if task != "AX" else "MNLI") in chosen:
            _test_set(config, TASKS[task], split, console)
    jobs = [_job(lineage, run, epoch) for run, epoch in chosen.values()]
    with artifacts.lock("finetune-glue"):
        engine = LocalEngine(artifacts, console, workers, force, FinetuneGlue.preload)
        engine.run([Phase("predictions", jobs, "task", **run_requirements(config, lineage))])
    contents, about = {}, {}
    for name, (task, split) in FILES.items():
        source = "MNLI" if task == "AX" else task
        made = artifacts.path(f"{lineage.predictions(*chosen[source]).key}/{name}.tsv") if source in chosen else None
        if made is not None and made.exists():
            contents[name] = made.read_text(encoding="utf-8")
            run, epoch = chosen[source]
            about[name] = f"{source}, batch {run.batch_size}, lr {run.lr:g}, seed {run.seed}, epoch {epoch}"
        else:
            filler, rows = _filler(TASKS[task]), TASKS[task].splits[split].rows
            contents[name] = _tsv([filler] * rows)
            about[name] = f"not predicted: {rows:,} times {filler}"
            if task != "WNLI":
                console.warn(f"{name}.tsv is filled with {filler!r}, which scores nothing: {_why(task)}")
    with publishing(file) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            entry = zipfile.ZipInfo(f"{name}.tsv", DATE)
            entry.external_attr = READABLE
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return about


def choose_run(lineage: Lineage, console: Console, place: tuple[str, int, int], task: str) -> tuple[GridRun, int]:
    """Returns the run with the best score on the dev set among the best setting's, and its epoch that counts."""
    config, artifacts = lineage.config, lineage.artifacts
    all_runs = runs_of(config, *place, task)
    if not all_runs:
        raise UsageError(f"{place[0]}, seed {place[1]}, step {place[2]} is no row of the config's Table 3")
    found_runs = {run: artifacts.find(lineage.finetuning(run).key, FinetuneRun) for run in all_runs}
    runs = {run: row for run, row in found_runs.items() if row is not None}
    column = columns_of({task: metrics_by_task(config)[task]})[0]
    known = artifacts.find(lineage.baseline(task).key, Baselines)
    baselines = baseline_scores(known.rows if known else [], (column,))
    found = run_grids(runs.values(), config, (column,), baselines)[*place, column.name]
    setting = best_setting(found)
    scored = {seed: run for seed, run in found[setting].items() if not run.failed} if setting else {}
    if setting is None or not scored:
        raise UsageError(f"{place[0]} has no finished run of {task}: run `mapnet finetune-glue` with these options")
    failed = sum(bool(run.failure) for run in runs.values())
    if failed or len(runs) < len(all_runs):
        console.warn(f"{task}: chosen from {len(runs) - failed} of {len(all_runs)} runs; {failed} have failed")
    seed = max(scored, key=lambda seed: scored[seed].counted)
    return GridRun(*place, task, *setting, seed), scored[seed].epoch


def _job(lineage: Lineage, run: GridRun, epoch: int) -> "PredictTask":
    start, data = encoder_source(lineage, run), lineage.task(run.task, lineage.tokenizer_of(run.method)).key
    text = text_settings(lineage, lineage.tokenizer_of(run.method))
    return PredictTask(
        artifact=lineage.predictions(run, epoch), needs=(start.key, data, text.tokenizer), grid_run=run, start=start,
        data=data, config=lineage.config, epoch=epoch, record=lineage.finetuning(run).key, text=text,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PredictTask(TuningJob):
    """Repeats a run up to `epoch` and writes the model's predictions of the task's test sets (MNLI's: of AX too)."""

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
            warning = "dev scores differ from the record's (another device?): predictions do too"
            progress(Progress(1, 1, warning=warning))
        with publishing(artifacts.path(self.key)) as temporary:
            temporary.mkdir()
            for name, test in tests.items():
                predicted = tuned.predict(task, test)
                (temporary / f"{name}.tsv").write_text(_tsv([_shown(task, float(value)) for value in predicted]))
        return Output(sorted(artifacts.path(self.key).iterdir()))


def _test_set(config: Config, task: GlueTask, split: str, console: Console | None = None) -> Examples | None:
    """Returns a test set; None for an AX that is nowhere, neither by itself nor in MNLI's folder."""
    places = ["AX", "MNLI"] if task.name == "AX" and "AX" not in config.finetune.task_data else [task.name]
    for place in places:
        try:
            examples = read_examples(task_location(config, place), task, split, labelled=False)
        except AbsentError:
            if len(places) == 1:
                raise
            continue
        official = check_count(task, split, examples, task.name in config.finetune.subsets)
        if console is not None and not official:
            rows = f"{len(examples):,} rows, where the server wants {task.splits[split].rows:,}"
            console.warn(f"{task.name}: the {split} set is a subset: {rows}")
        return examples
    return None


def _shown(task: GlueTask, value: float) -> str:
    """Returns a prediction as GLUE wants it: a class's name, or a score from 0 to 5."""
    if task.regression:
        return f"{min(max(LARGEST_SCORE * value, 0.0), LARGEST_SCORE):.6f}"
    return task.labels[int(value)]


def _tsv(values: Sequence[str]) -> str:
    return "index\tprediction\n" + "".join(f"{number}\t{value}\n" for number, value in enumerate(values))


def _filler(task: GlueTask) -> str:
    return WNLI_MAJORITY if task.name == "WNLI" else _shown(task, 0.0)


def _why(task: str) -> str:
    if task == "AX":
        return "AX is answered by the model of MNLI, and AX.tsv or MNLI's diagnostic.tsv must be there"
    return f"finetune.tasks has no {task}"
