"""`mapnet finetune-glue`: task data, baselines, and one job per fine-tuning run."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from mapnet_cli import core, glue
from mapnet_cli.finetune_glue.examples import checked_sets
from mapnet_cli.finetune_glue.prepare import MakeProbes, PrepareTask, ScoreBaselines, TextSettings
from mapnet_cli.finetune_glue.run import FineTune, KeepBest, TuneOnMnli, run_requirements
from mapnet_cli.jobs import Phase, Stage, StageProgress, is_done
from mapnet_cli.lineage import Lineage, find_baselines, find_runs

GRID = "finetune"
MOST_DOUBTS = 10


@dataclass(frozen=True)
class FinetuneGlue(Stage):
    """The finetune-glue stage, see `jobs.Stage`."""

    lineage: Lineage
    preload = ("torch", "torch._dynamo", "scipy.stats", "sklearn.metrics", "mapnet_cli.finetune_glue.loop")

    def validate(self) -> None:
        """Raises UsageError for invalid settings, InputError for a subset that isn't allowed."""
        lineage, config = self.lineage, self.lineage.config
        glue.metrics_by_task(config)
        if "MNLI" in config.finetune.from_mnli:
            raise core.UsageError("finetune.from_mnli: MNLI itself can't start from MNLI")
        plugins = [name for name in config.finetune.tasks if name in glue.OWN_TASKS]
        if lineage.uses_probe and (config.finetune.task_data or plugins):
            what = "finetune.task_data describes GLUE and your own tasks"
            what = f"{plugins[0]} is a plugin's task" if plugins else what
            raise core.UsageError(
                f'{what}, but finetune.data is "probe": set it to the folder with GLUE, or to "glue" if each task has '
                "its own path"
            )
        for name in () if lineage.uses_probe else glue.used_tasks(config):
            facts = lineage.artifacts.find(lineage.main_task(name).key, core.TaskFacts)
            if facts and not facts.official and name not in config.finetune.subsets:
                raise core.InputError(
                    f'{name} was prepared from a subset of GLUE: add "{name}" to finetune.subsets, or use the full data'
                )

    def check_data(self, force: bool) -> None:
        """Raises InputError if a task that isn't prepared for all encoders has an invalid row or not GLUE's number."""
        lineage, config = self.lineage, self.lineage.config
        for name in () if lineage.uses_probe else glue.used_tasks(config):
            if name in glue.OWN_TASKS:  # a plugin's rows may be costly, and its failure is its job's
                continue
            prepared = (is_done(_task_job(lineage, name, own), lineage.artifacts) for own in self._tokenizers)
            spec = glue.get_task(config, name)
            if force or not all(prepared):
                for _ in checked_sets(glue.task_location(config, name), spec, name in config.finetune.subsets):
                    pass

    def plan(self, workers: int) -> list[Phase]:
        """Returns the phases: probe tasks if the config uses them, tokenised tasks, baselines, runs on MNLI, grid.

        None without tasks.
        """
        lineage, config = self.lineage, self.lineage.config
        if not config.finetune.tasks:
            return []
        phases = []
        if lineage.uses_probe:
            phases.append(Phase("probe tasks", [MakeProbes(artifact=lineage.probe, seed=config.finetune.seed)]))
        tasks = [_task_job(lineage, name, own) for own in self._tokenizers for name in glue.used_tasks(config)]
        # imports with the same tokenizer share tokenised tasks
        phases.append(Phase("tasks", list({job.key: job for job in tasks}.values()), "task"))
        if config.finetune.baselines:
            sets = ((glue.get_task(config, name), lineage.main_task(name).key) for name in config.finetune.tasks)
            baselines = [
                ScoreBaselines(artifact=lineage.baseline(task.name), needs=(data,), task=task, data=data)
                for task, data in sets
            ]
            phases.append(Phase("baselines", baselines, "task"))
        requirements = run_requirements(config, lineage)
        if glue.starts_from_mnli(config):
            starts = [_mnli_job(lineage, encoder) for encoder in glue.fine_tuned(config)]
            phases.append(Phase("finetune on MNLI", starts, "run", **requirements))
        phases.append(Phase(GRID, [_run_job(lineage, run) for run in glue.grid_runs(config)], "run", **requirements))
        if config.finetune.keep == "best":
            phases.append(Phase("best models", list(_keep_jobs(lineage)), "model", **requirements))
        return phases

    @property
    def _tokenizers(self) -> dict[str, None]:
        """The imports whose tokenizers are used, and "" for the corpus's."""
        return dict.fromkeys(self.lineage.tokenizer_of(method) for method, _, _ in glue.fine_tuned(self.lineage.config))

    def forecast(self, workers: int) -> list[str]:
        """Returns what `--dry-run` prints about the remaining runs: number, sequences and hours."""
        from mapnet_cli.finetune_glue.forecast import forecast

        lineage, config, artifacts = self.lineage, self.lineage.config, self.lineage.artifacts
        todo = [run for run in glue.grid_runs(config) if not is_done(_run_job(lineage, run), artifacts)]
        if glue.starts_from_mnli(config):
            starts = (_mnli_job(lineage, encoder) for encoder in glue.fine_tuned(config))
            todo += [job.grid_run for job in starts if not is_done(job, artifacts)]
        if config.finetune.keep == "best":
            todo += [job.runs[0][0] for job in _keep_jobs(lineage) if not is_done(job, artifacts)]
        return forecast(lineage, todo, workers)

    def progress(self) -> StageProgress:
        """Returns the grid as a matrix of counts: one row per encoder, one column per task."""
        rows: dict[tuple[str, int, int], dict[str, dict[str, int]]] = {}
        for run in glue.grid_runs(self.lineage.config):
            row = rows.setdefault((run.method, run.pretrain_seed, run.step), {})
            cell = row.setdefault(run.task, {"done": 0, "failed": 0, "total": 0})
            artifact = self.lineage.finetuning(run)
            marker = self.lineage.artifacts.marker(artifact.key)
            if marker is not None and marker.fingerprint == artifact.fingerprint:
                cell["done"] += 1
                cell["failed"] += bool(marker.row(core.Outcome).failure)
            cell["total"] += 1
        matrix = [
            {"method": method, "seed": seed, "step": step, "tasks": row} for (method, seed, step), row in rows.items()
        ]
        done = sum(cell["done"] for row in rows.values() for cell in row.values())
        return StageProgress({"matrix": matrix}, table=_matrix_table(rows) if done else None, done={GRID: done})

    def summary(self) -> list[str]:
        """Returns which scores mean little, and where the kept models are; the report shows the scores."""
        lineage, keep = self.lineage, self.lineage.config.finetune.keep == "best"
        folders = [lineage.artifacts.path(job.key) for job in _keep_jobs(lineage)] if keep else []
        doubtful = list(_doubtful(lineage))
        more = [f"and {len(doubtful) - MOST_DOUBTS} more, see the report"] if len(doubtful) > MOST_DOUBTS else []
        kept = [f"Model, and predictions for the dev set: {folder}" for folder in folders if folder.exists()]
        return [*doubtful[:MOST_DOUBTS], *more, *kept]


def _doubtful(lineage: Lineage) -> Iterator[str]:
    """Yields a line for each encoder and column whose score means little."""
    for task, (method, seed, step) in product(lineage.config.finetune.tasks, glue.fine_tuned(lineage.config)):
        runs = find_runs(lineage, (method, seed, step), task).values()
        result = glue.task_result(runs, lineage.config, find_baselines(lineage, task))
        for doubt in result.doubts if result else ():
            yield f"{method}{f' seed {seed} step {step:,}' if step else ''}, {doubt}"


def _matrix_table(rows: dict[tuple[str, int, int], dict[str, dict[str, int]]]) -> core.Table:
    """Returns the matrix as a table for the terminal: finished runs per encoder and task."""

    def cell(counts: dict[str, int]) -> core.Cell:
        failed = f", {counts['failed']} failed" if counts["failed"] else ""
        return core.Cell(f"{counts['done']}/{counts['total']}{failed}")

    tasks = tuple(next(iter(rows.values())))
    lines = tuple(
        (core.Cell(f"{method} seed {seed} step {step:,}"), *(cell(row[task]) for task in tasks))
        for (method, seed, step), row in rows.items()
    )
    return core.Table("matrix", "Fine-tuning runs done", ("Encoder", *tasks), lines, (), "")


def _task_job(lineage: Lineage, name: str, imported: str) -> PrepareTask:
    """Returns the job that tokenises a task, with the tokenizer of an import or of the corpus ("")."""
    config, text = lineage.config, text_settings(lineage, imported)
    location: str | Path
    try:
        probe = lineage.artifacts.path(lineage.probe.key) / name if lineage.uses_probe else None
        location = probe or glue.task_location(config, name)
    except core.AbsentError:  # deleted after the task was prepared
        location = Path(glue.data_key(config, name)[1]) / name
    return PrepareTask(
        artifact=lineage.task(name, imported),
        needs=(text.tokenizer, lineage.probe.key) if lineage.uses_probe else (text.tokenizer,),
        task=glue.get_task(config, name), location=location, probe=lineage.uses_probe,
        subset=name in config.finetune.subsets, text=text, max_train_examples=config.finetune.max_train_examples,
    )  # fmt: skip


def tuning(lineage: Lineage, run: glue.GridRun, *needs: str) -> dict[str, Any]:
    """Returns the fields of a TuningJob for a run: its initial weights, its tokenised task, what it needs."""
    encoder = run.method, run.pretrain_seed, run.step
    after_mnli = run.task in lineage.config.finetune.from_mnli
    start = lineage.mnli_start(*encoder).key if after_mnli else lineage.weights(*encoder)
    data = lineage.task(run.task, lineage.tokenizer_of(run.method)).key
    return {"start": start, "data": data, "config": lineage.config, "needs": (start, data, *needs)}


def _run_job(lineage: Lineage, run: glue.GridRun) -> FineTune:
    return FineTune(artifact=lineage.finetuning(run), grid_run=run, **tuning(lineage, run))


def _keep_jobs(lineage: Lineage) -> Iterator[KeepBest]:
    config = lineage.config
    for encoder, task in product(glue.fine_tuned(config), config.finetune.tasks):
        runs = tuple((run, lineage.finetuning(run).key) for run in glue.runs_of(config, *encoder, task))
        yield KeepBest(
            artifact=lineage.kept(*encoder, task), runs=runs, baseline=lineage.baseline(task).key,
            **tuning(lineage, runs[0][0], *(key for _, key in runs)),
        )  # fmt: skip


def _mnli_job(lineage: Lineage, encoder: tuple[str, int, int]) -> TuneOnMnli:
    finetune = lineage.config.finetune
    run = glue.GridRun(*encoder, "MNLI", finetune.mnli_batch_size, finetune.mnli_learning_rate, finetune.seeds[0])
    return TuneOnMnli(artifact=lineage.mnli_start(*encoder), grid_run=run, **tuning(lineage, run))


def text_settings(lineage: Lineage, imported: str) -> TextSettings:
    """Returns the settings for the tokenizer of an import, or of the corpus ("")."""
    if imported:
        row = lineage.imported(imported)
        return TextSettings(row.path, "none", row.max_length)
    return TextSettings(lineage.manifest, lineage.config.corpus.preparation, lineage.config.encoder.max_length)
