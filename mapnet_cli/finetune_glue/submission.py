"""`mapnet predict-glue`: the eleven files that GLUE's server takes, from an encoder's best run of each task.

Fine-tuned models are not kept (the paper's grid has 10,240), so the best run is made again, which
gives the same model, and asked for its predictions at the epoch that counted.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mapnet_cli.artifacts import Artifacts, publishing
from mapnet_cli.config import Config
from mapnet_cli.console import Console
from mapnet_cli.errors import InputError, UsageError
from mapnet_cli.finetune_glue.examples import Examples, check_count, read_examples
from mapnet_cli.finetune_glue.prepare import verified_tokenizer
from mapnet_cli.finetune_glue.stage import PRELOAD, check, encoder_key, start_key, text_settings
from mapnet_cli.finetune_glue.tasks import LARGEST_SCORE, TASKS, GlueTask
from mapnet_cli.glue import GridRun, grid, metrics_by_task, task_location
from mapnet_cli.jobs.job import Job, Output, Phase, Progress, Report
from mapnet_cli.jobs.local import LocalEngine
from mapnet_cli.lineage import Lineage
from mapnet_cli.records import FinetuneRun
from mapnet_cli.scoring import baseline_scores, best_setting, columns_of, run_grids

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


def write_submission(
    config: Config, artifacts: Artifacts, console: Console, workers: int, place: tuple[str, int, int], file: Path
) -> dict[str, Any]:
    """Writes the zip of an encoder, (method, pretraining seed, step), and returns which run each file is from.

    A file of a task that the config doesn't fine-tune is filled with one class, and a warning says so:
    the server takes complete submissions only. Raises UsageError where a task has no finished run.
    """
    if config.finetune.data == "probe":
        raise UsageError("the probe tasks have no test sets: predictions are for GLUE itself (finetune.data)")
    check(config, artifacts)
    lineage = Lineage(config, artifacts)
    if artifacts.marker(encoder_key(lineage, *place)) is None:
        raise UsageError(f"{place[0]}, seed {place[1]}, has no finished milestone at step {place[2]}")
    chosen = {task: choose_run(config, artifacts, lineage, place, task) for task in config.finetune.tasks}
    jobs = [_job(config, lineage, run, epoch) for run, epoch in chosen.values()]
    with artifacts.lock("finetune-glue"):
        LocalEngine(artifacts, console, workers, preload=PRELOAD).run([Phase("predictions", jobs, "task")])
    contents, about = {}, {}
    for name, (task, split) in FILES.items():
        source = "MNLI" if task == "AX" else task
        made = artifacts.path(f"{_key(lineage, *chosen[source])}/{name}.tsv") if source in chosen else None
        if made is not None and made.exists():
            contents[name] = made.read_text(encoding="utf-8")
            run, epoch = chosen[source]
            about[name] = f"{source}, batch {run.batch_size}, lr {run.lr:g}, seed {run.seed}, epoch {epoch}"
        else:
            filler, rows = _filler(TASKS[task]), TASKS[task].splits[split].rows
            contents[name] = _tsv([filler] * rows)
            about[name] = f"not predicted: {rows:,} times {filler}"
            if task != "WNLI":
                console.warn(f"{name}.tsv is filled with {filler!r}, which scores nothing: {_why(config, task)}")
    with publishing(file) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            entry = zipfile.ZipInfo(f"{name}.tsv", DATE)
            entry.external_attr = READABLE
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return about


def choose_run(
    config: Config, artifacts: Artifacts, lineage: Lineage, place: tuple[str, int, int], task: str
) -> tuple[GridRun, int]:
    """Returns the run with the best score on the dev set among the best setting's, and its epoch that counts."""
    runs = {}
    for run in grid(config):
        if (run.method, run.pretrain_seed, run.step, run.task) == (*place, task):
            marker = artifacts.marker(lineage.finetuning(run).key)
            if marker is not None:
                runs[run] = FinetuneRun(**marker.result)
    column = columns_of({task: metrics_by_task(config)[task]})[0]
    found = run_grids(runs.values(), config, (column,), baseline_scores([], (column,)))[*place, column.name]
    setting = best_setting(found)
    scored = {seed: run for seed, run in found[setting].items() if not run.failed} if setting else {}
    if setting is None or not scored:
        raise UsageError(f"{place[0]} has no finished run of {task}: run `mapnet finetune-glue` with these options")
    seed = max(scored, key=lambda seed: scored[seed].counted)
    best = GridRun(*place, task, *setting, seed)
    epochs = runs[best].epochs
    if config.finetune.epoch == "last":
        return best, epochs[-1].epoch
    return best, max(epochs, key=lambda epoch: epoch.metrics[column.metric]).epoch


def _key(lineage: Lineage, run: GridRun, epoch: int) -> str:
    return lineage.predictions(run, epoch).key


def _job(config: Config, lineage: Lineage, run: GridRun, epoch: int) -> Job:
    artefact = lineage.predictions(run, epoch)
    start, data = start_key(lineage, run), lineage.task(run.task, lineage.tokenizer_of(run.method)).key
    source, lowercase, max_length = text_settings(config, lineage, lineage.tokenizer_of(run.method))
    args = {
        "run": run,
        "epoch": epoch,
        "start": start,
        "data": data,
        "config": config,
        "key": artefact.key,
        "record": lineage.finetuning(run).key,
        "source": source,
        "lowercase": lowercase,
        "max_length": max_length,
    }
    return Job(artefact.key, artefact.fingerprint, predict_task, args, (start, data, source))


def predict_task(
    artifacts: Artifacts,
    report: Report,
    run: GridRun,
    epoch: int,
    start: str,
    data: str,
    config: Config,
    key: str,
    record: str,
    source: str,
    lowercase: str,
    max_length: int,
) -> Output:
    """Makes a run again up to `epoch` and writes what the model says of the task's test sets (MNLI's: of AX too)."""
    from mapnet_cli.finetune_glue import tokenised
    from mapnet_cli.finetune_glue.run import tune

    tests = {}
    for name, (task, split) in FILES.items():
        if task == run.task or (task, run.task) == ("AX", "MNLI"):
            examples = _test_set(config, TASKS[task], split)
            if examples is not None:
                tokenizer = verified_tokenizer(artifacts, source)
                tests[name] = tokenised.tokenise(examples, tokenizer, lowercase, max_length)[0]
    marker = artifacts.marker(record)
    assert marker is not None
    recorded = FinetuneRun(**marker.result).epochs[epoch - 1]
    tuned, _, _ = tune(artifacts, report, run, start, data, config, epoch)
    if tuned.epochs[-1].metrics != recorded.metrics:
        report(Progress(1, 1, warning="dev scores differ from the record's (another device?): predictions do too"))
    task_of = TASKS[run.task]
    with publishing(artifacts.path(key)) as temporary:
        temporary.mkdir()
        for name, test in tests.items():
            predicted = tuned.predict(task_of, test)
            (temporary / f"{name}.tsv").write_text(_tsv([_shown(task_of, float(value)) for value in predicted]))
    return Output(sorted(artifacts.path(key).iterdir()))


def _test_set(config: Config, task: GlueTask, split: str) -> Examples | None:
    """Returns a test set; None for an AX that isn't there, which may also lie in MNLI's folder."""
    places = ("AX", "MNLI") if task.name == "AX" else (task.name,)
    for place in places:
        try:
            examples = read_examples(task_location(config, place), task, split, labelled=False)
        except InputError:
            if task.name != "AX":
                raise
            continue
        check_count(task, split, examples, task.name in config.finetune.subsets)
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


def _why(config: Config, task: str) -> str:
    if task == "AX":
        return "AX is answered by the model of MNLI, and AX.tsv or MNLI's diagnostic.tsv must be there"
    return f"finetune.tasks has no {task}"
