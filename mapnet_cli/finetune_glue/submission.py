"""`mapnet predict-glue`: the eleven files that GLUE's server expects, from an encoder's best run on each task."""

import json
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mapnet_cli import core
from mapnet_cli.config import Config
from mapnet_cli.finetune_glue.examples import Examples, check_count, read_examples
from mapnet_cli.finetune_glue.prepare import TextSettings
from mapnet_cli.finetune_glue.run import TuningJob, best_run, run_requirements
from mapnet_cli.finetune_glue.stage import FinetuneGlue, text_settings, tuning
from mapnet_cli.finetune_glue.tokenised import tokenise
from mapnet_cli.glue import TASKS, GridRun, get_task, runs_of, task_location
from mapnet_cli.jobs import LocalEngine, Output, Phase, ProgressCallback
from mapnet_cli.lineage import Lineage, find_baselines, find_runs
from mapnet_cli.text import verified_tokenizer

FILES = {
    "CoLA": ("CoLA", "test"), "SST-2": ("SST-2", "test"), "MRPC": ("MRPC", "test"), "STS-B": ("STS-B", "test"),
    "QQP": ("QQP", "test"), "MNLI-m": ("MNLI", "test"), "MNLI-mm": ("MNLI", "test-mm"), "QNLI": ("QNLI", "test"),
    "RTE": ("RTE", "test"), "WNLI": ("WNLI", "test"), "AX": ("AX", "test"),
}  # fmt: skip
"""Task and split of each file of a submission, by file name."""
DATE = 1980, 1, 1, 0, 0, 0
"""Fixed date of the files in the zip, so that the same predictions give the same bytes."""
READABLE = 0o644 << 16  # Unix permissions of the files, as stored in a zip's external attributes


def files_of(config: Config) -> dict[str, tuple[str, str]]:
    """Returns task and split of each file by its name: GLUE's eleven, or one per task if none of them is GLUE's."""
    own = {task: (task, "test") for task in config.finetune.tasks if task not in TASKS}
    return own if len(own) == len(config.finetune.tasks) else FILES


def write_submission(
    lineage: Lineage, console: core.Console, workers: int, force: bool, encoder: tuple[str, int, int], file: Path
) -> dict[str, str]:
    """Writes the zip file for a row of Table 3. Returns the source run of each of its files.

    GLUE's server accepts only complete submissions, so the file of a task that the config doesn't fine-tune is
    filled with one class, and tasks that aren't GLUE's are left out if one is, both with a warning. Raises UsageError
    if a task has no finished run, InputError for a missing or malformed test set.
    """
    config, artifacts, files = lineage.config, lineage.artifacts, files_of(lineage.config)
    if not config.finetune.tasks:
        raise core.UsageError("finetune.tasks lists no tasks, so there is nothing to predict")
    if lineage.uses_probe:
        raise core.UsageError("the probe tasks have no test sets: set finetune.data to GLUE")
    if file.is_dir():
        raise core.UsageError(f"{file} is a folder: name the zip file to write")
    FinetuneGlue(lineage).validate()
    wanted = {"MNLI" if task == "AX" else task for task, _ in files.values()}
    if others := [task for task in config.finetune.tasks if task not in wanted]:
        alone = f"predict them with --set 'finetune.tasks={json.dumps(others)}'"
        console.warn(f"{', '.join(others)} can't be part of a submission to GLUE: {alone}")
    chosen = {task: choose_run(lineage, console, encoder, task) for task in config.finetune.tasks if task in wanted}
    for task, split in files.values():  # fail before anything is trained
        if (task if task != "AX" else "MNLI") in chosen:
            _test_set(config, task, split, console)
    jobs = [_job(lineage, run, epoch) for run, epoch in chosen.values()]
    with artifacts.lock("finetune-glue"):
        engine = LocalEngine(artifacts, console, workers, force, FinetuneGlue.preload)
        engine.run([Phase("predictions", jobs, "task", **run_requirements(config, lineage))])
    contents, sources = {}, {}
    for name, (task, split) in files.items():
        source = "MNLI" if task == "AX" else task
        made = artifacts.path(f"{lineage.predictions(*chosen[source]).key}/{name}.tsv") if source in chosen else None
        if made is not None and made.exists():
            contents[name] = made.read_text(encoding="utf-8")
            run, epoch = chosen[source]
            sources[name] = f"{source}, batch {run.batch_size}, lr {run.lr:g}, seed {run.seed}, epoch {epoch}"
        else:
            filler, rows = "0" if task == "WNLI" else TASKS[task].shown(0.0), TASKS[task].splits[split].rows
            contents[name] = _tsv(map(str, range(rows)), [filler] * rows)
            sources[name] = f"not predicted: {rows:,} rows of {filler}"
            why = f"{task} is not in finetune.tasks"
            if task == "AX":
                why = "AX is predicted by the MNLI model, and needs AX.tsv or MNLI's diagnostic.tsv"
            # WNLI's dev set contradicts its training set: BERT's authors, too, submit the majority class
            if task != "WNLI":
                console.warn(f"{name}.tsv is filled with {filler!r} as a placeholder: {why}")
    with core.publishing(file) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            entry = zipfile.ZipInfo(f"{name}.tsv", DATE)
            entry.external_attr = READABLE
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return sources


def choose_run(
    lineage: Lineage, console: core.Console, encoder: tuple[str, int, int], task: str
) -> tuple[GridRun, int]:
    """Returns the best setting's run with the highest dev score, and the epoch whose score counts."""
    runs, total = find_runs(lineage, encoder, task), len(runs_of(lineage.config, *encoder, task))
    best, doubts = best_run(lineage.config, runs, find_baselines(lineage, task))
    for doubt in doubts:
        console.warn(doubt)
    if best is None:
        raise core.UsageError(
            f"{encoder[0]} has no finished run of {task}: run `mapnet finetune-glue` with these options"
        )
    failed = sum(bool(run.failure) for run in runs.values())
    if failed or len(runs) < total:
        console.warn(f"{task}: chosen from {len(runs) - failed} of {total} runs; {failed} failed")
    return best


def _job(lineage: Lineage, run: GridRun, epoch: int) -> "PredictTask":
    text = text_settings(lineage, lineage.tokenizer_of(run.method))
    return PredictTask(
        artifact=lineage.predictions(run, epoch), grid_run=run, epoch=epoch, record=lineage.finetuning(run).key,
        text=text, kept=lineage.kept(run.method, run.pretrain_seed, run.step, run.task).key,
        **tuning(lineage, run, text.tokenizer),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PredictTask(TuningJob):
    """Writes the predictions of a run's model, kept or made again, for the test sets (for MNLI, also for AX)."""

    grid_run: GridRun
    epoch: int
    record: str
    text: TextSettings
    kept: str  # key of the encoder's kept model of the task, if there is one

    def run(self, artifacts: core.Artifacts, progress: ProgressCallback) -> Output:
        from mapnet_cli.finetune_glue.classifier import load_kept
        from mapnet_cli.finetune_glue.loop import decide, outputs

        tests, task, text = {}, get_task(self.config, self.grid_run.task), self.text
        tokenizer = verified_tokenizer(artifacts, text.tokenizer)
        for name, (of_task, split) in files_of(self.config).items():
            wanted = of_task == task.name or (of_task, task.name) == ("AX", "MNLI")
            if wanted and (examples := _test_set(self.config, of_task, split)) is not None:
                tests[name] = examples.ids, tokenise(examples, tokenizer, text.lowercase, text.max_length)[0]
        if artifacts.find(self.kept, core.TunedEncoder) is not None:
            model = load_kept(artifacts, self.kept, task, self.config)
        else:
            record = artifacts.read(self.record, core.FinetuneRun)
            model = self.repeat(artifacts, progress, record, self.grid_run, self.epoch)[1].model
        with core.publishing(artifacts.path(self.key)) as temporary:
            temporary.mkdir()
            for name, (ids, test) in tests.items():
                predicted = decide(task, outputs(model, test)).tolist()
                (temporary / f"{name}.tsv").write_text(_tsv(ids, map(task.shown, predicted)), encoding="utf-8")
        return Output(sorted(artifacts.path(self.key).iterdir()))


def _test_set(config: Config, name: str, split: str, console: core.Console | None = None) -> Examples | None:
    """Returns a test set, or None if AX is found neither under its own name nor in MNLI's folder."""
    task, locations = get_task(config, name), [name]
    if name == "AX" and name not in config.finetune.task_data:
        locations.append("MNLI")
    for location in locations:
        try:
            examples = read_examples(task_location(config, location), task, split, labelled=False)
        except core.AbsentError:
            if len(locations) == 1:
                raise
            continue
        official, rows = check_count(task, split, examples, name in config.finetune.subsets), len(examples)
        if official and name in TASKS and set(examples.ids) != set(map(str, range(rows))):
            raise core.InputError(
                f"{examples.where}: the ids of {name}'s {split} set must be 0 to {rows - 1:,}, as in GLUE"
            )
        if console is not None and not official:
            expected = f"{rows:,} rows, but the server expects {task.splits[split].rows:,}"
            console.warn(f"{name}: the {split} set is a subset: {expected}")
        return examples
    return None


def _tsv(ids: Iterable[str], values: Iterable[str]) -> str:
    rows = list(zip(ids, values, strict=True))
    if all(row_id.isdecimal() for row_id, _ in rows):
        rows.sort(key=lambda row: int(row[0]))
    return "index\tprediction\n" + "".join(f"{row_id}\t{value}\n" for row_id, value in rows)
