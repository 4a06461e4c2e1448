"""The door of `mapnet finetune-glue`: the tasks' data, the baselines, and one job a fine-tuning run."""

from pathlib import Path
from typing import Any

from mapnet_cli.config import Config
from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.core.errors import AbsentError, InputError, UsageError
from mapnet_cli.finetune_glue.memory import run_requirements
from mapnet_cli.finetune_glue.prepare import make_probe, prepare_task, run_baseline
from mapnet_cli.finetune_glue.run import run_finetuning, tune_on_mnli
from mapnet_cli.glue.grid import (
    UNTRAINED,
    GridRun,
    fine_tuned,
    grid,
    metrics_by_task,
    starts_from_mnli,
    used_tasks,
)
from mapnet_cli.glue.locations import data_key, task_location
from mapnet_cli.jobs.job import Job, Phase, is_done
from mapnet_cli.lineage.graph import Lineage

PRELOAD = ("torch", "scipy.stats", "sklearn.metrics", "mapnet_cli.finetune_glue.loop")


def plan(config: Config, artifacts: Artifacts, workers: int) -> list[Phase]:
    """Returns the phases: probe tasks where the config asks for them, tokenised tasks, baselines, the grid."""
    lineage = Lineage(config, artifacts)
    names = config.finetune.tasks
    phases = []
    if lineage.uses_probe:
        args = {"seed": config.finetune.seed, "key": lineage.probe.key}
        phases.append(Phase("probe tasks", [Job(lineage.probe.key, lineage.probe.fingerprint, make_probe, args)]))
    tokenizers = dict.fromkeys(lineage.tokenizer_of(method) for method, _, _ in fine_tuned(config))
    tasks = [_task_job(config, lineage, name, imported) for imported in tokenizers for name in used_tasks(config)]
    # imports may share a tokenizer, and then its tasks
    phases.append(Phase("tasks", list({job.key: job for job in tasks}.values()), "task"))
    if config.finetune.baselines:
        jobs = []
        for name in names:
            artifact, data = lineage.baseline(name), lineage.main_task(name).key
            jobs.append(Job(artifact.key, artifact.fingerprint, run_baseline, {"task": name, "data": data}, (data,)))
        phases.append(Phase("baselines", jobs, "task"))
    demands = run_requirements(config, lineage)
    if starts_from_mnli(config):
        starts = [_mnli_job(config, lineage, *place) for place in fine_tuned(config)]
        phases.append(Phase("starts from MNLI", starts, "training", **demands))
    phases.append(Phase("finetune", [_run_job(config, lineage, run) for run in grid(config)], "run", **demands))
    return phases


def check(config: Config, artifacts: Artifacts) -> None:
    """Raises UsageError for a task or a metric that doesn't exist, InputError for a subset that isn't allowed."""
    metrics_by_task(config)
    if "MNLI" in config.finetune.from_mnli:
        raise UsageError("finetune.from_mnli: MNLI itself can't start from MNLI")
    if config.finetune.untrained and not config.methods:
        raise UsageError(
            "finetune.untrained is [encoder] with random weights and the corpus's vocabulary: name methods"
        )
    if UNTRAINED in (*config.methods, *config.imports):
        raise UsageError(f"{UNTRAINED!r} is the name of the encoder without pretraining: call the method otherwise")
    lineage = Lineage(config, artifacts)
    if lineage.uses_probe and config.finetune.task_data:
        raise UsageError('finetune.task_data names places of GLUE\'s tasks, but finetune.data is "probe"')
    for name in () if lineage.uses_probe else used_tasks(config):
        marker = artifacts.marker(lineage.main_task(name).key)
        if marker and not marker.result["official"] and name not in config.finetune.subsets:
            raise InputError(
                f'{name} was prepared from a subset of GLUE: add "{name}" to finetune.subsets, or name all of it'
            )


def standing(config: Config, artifacts: Artifacts) -> dict[str, Any]:
    """Returns the grid as a matrix of counts: a row an encoder, a column a task."""
    lineage = Lineage(config, artifacts)
    rows: dict[tuple[str, int, int], dict[str, dict[str, int]]] = {}
    for run in grid(config):
        row = rows.setdefault((run.method, run.pretrain_seed, run.step), {})
        cell = row.setdefault(run.task, {"done": 0, "failed": 0, "total": 0})
        artifact = lineage.finetuning(run)
        marker = artifacts.marker(artifact.key)
        if marker is not None and marker.fingerprint == artifact.fingerprint:
            cell["done"] += 1
            cell["failed"] += bool(marker.result["failure"])
        cell["total"] += 1
    return {
        "matrix": [
            {"method": method, "seed": seed, "step": step, "tasks": row} for (method, seed, step), row in rows.items()
        ]
    }


def estimate(config: Config, artifacts: Artifacts, workers: int) -> list[str]:
    """Returns what `--dry-run` prints of the open runs: their number, sequences and hours."""
    from mapnet_cli.finetune_glue.forecast import forecast

    lineage = Lineage(config, artifacts)
    todo = [run for run in grid(config) if not is_done(_run_job(config, lineage, run), artifacts)]
    if starts_from_mnli(config):
        places = [place for place in fine_tuned(config) if artifacts.marker(lineage.mnli_start(*place).key) is None]
        todo += [_mnli_run(config, place) for place in places]
    return forecast(config, artifacts, lineage, todo, workers)


def _task_job(config: Config, lineage: Lineage, name: str, imported: str) -> Job:
    """`imported` names the import whose tokenizer it is; "": the corpus's."""
    location: str | Path = (
        lineage.artifacts.path(lineage.probe.key) / name if lineage.uses_probe else _location(config, name)
    )
    artifact = lineage.task(name, imported)
    source, lowercase, max_length = text_settings(config, lineage, imported)
    args = {
        "task": name,
        "location": location,
        "probe": lineage.uses_probe,
        "subset": name in config.finetune.subsets,
        "key": artifact.key,
        "source": source,
        "lowercase": lowercase,
        "max_length": max_length,
        "max_train_examples": config.finetune.max_train_examples,
    }
    needs = (source, lineage.probe.key) if lineage.uses_probe else (source,)
    return Job(artifact.key, artifact.fingerprint, prepare_task, args, needs)


def _location(config: Config, name: str) -> str | Path:
    """Returns where a task lies; where its data is gone since it was prepared, where that was."""
    try:
        return task_location(config, name)
    except AbsentError:
        return Path(data_key(config, name)[1]) / name


def _run_job(config: Config, lineage: Lineage, run: GridRun) -> Job:
    artifact = lineage.finetuning(run)
    start = start_key(lineage, run)
    data = lineage.task(run.task, lineage.tokenizer_of(run.method)).key
    args = {"run": run, "start": start, "data": data, "config": config}
    return Job(artifact.key, artifact.fingerprint, run_finetuning, args, (start, data))


def _mnli_job(config: Config, lineage: Lineage, method: str, pretrain_seed: int, step: int) -> Job:
    artifact = lineage.mnli_start(method, pretrain_seed, step)
    start = encoder_key(lineage, method, pretrain_seed, step)
    data = lineage.task("MNLI", lineage.tokenizer_of(method)).key
    run = _mnli_run(config, (method, pretrain_seed, step))
    args = {"run": run, "start": start, "data": data, "config": config, "key": artifact.key}
    return Job(artifact.key, artifact.fingerprint, tune_on_mnli, args, (start, data))


def _mnli_run(config: Config, place: tuple[str, int, int]) -> GridRun:
    finetune = config.finetune
    return GridRun(*place, "MNLI", finetune.mnli_batch_size, finetune.mnli_learning_rate, finetune.seeds[0])


def text_settings(config: Config, lineage: Lineage, imported: str) -> tuple[str, str, int]:
    """Returns (the key that the tokenizer is from, the lower-casing before it, the longest input) of a row's texts.

    An import's tokenizer takes plain text; "" stands for the corpus's.
    """
    if imported:
        marker = lineage.imported(imported)
        return marker.key, "none", marker.result["encoder"]["max_length"]
    return f"{lineage.corpus.key}/manifest", config.corpus.preparation, config.encoder.max_length


def start_key(lineage: Lineage, run: GridRun) -> str:
    """Returns the key of what a run starts from."""
    place = run.method, run.pretrain_seed, run.step
    return (
        lineage.mnli_start(*place).key
        if run.task in lineage.config.finetune.from_mnli
        else encoder_key(lineage, *place)
    )


def encoder_key(lineage: Lineage, method: str, pretrain_seed: int, step: int) -> str:
    """Returns the key of the encoder that a row of Table 3 fine-tunes; the corpus manifest's for random weights."""
    if method == UNTRAINED:
        return f"{lineage.corpus.key}/manifest"
    if lineage.tokenizer_of(method):
        return lineage.imported(method).key
    return f"{lineage.pretraining(method, pretrain_seed).key}/step{step}"
