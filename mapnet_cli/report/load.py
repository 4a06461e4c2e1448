"""Loading of the other stages' records as typed rows, and counts of missing ones."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import ValidationError

from mapnet_cli.config import Config
from mapnet_cli.core import (
    Artifacts,
    Baseline,
    Baselines,
    Checkpoint,
    CorpusManifest,
    DamagedError,
    FinetuneRun,
    Imported,
    ProposedMasks,
    Row,
    TaskFacts,
    read_json,
)
from mapnet_cli.glue import fine_tuned, grid_runs, used_tasks
from mapnet_cli.lineage import Lineage, fingerprint

SIGNED_VERSIONS = ("mapnet", "torch", "tokenizers", "python")

R = TypeVar("R", bound=Row)


@dataclass(frozen=True)
class Results:
    """All inputs of the report. Checkpoints are keyed by (method, pretraining seed, step)."""

    config: Config
    fingerprint: str
    """Fingerprint of all inputs and settings; independent of local file paths."""
    manifest: CorpusManifest | None = None
    checkpoints: Mapping[tuple[str, int, int], Checkpoint] = field(default_factory=dict)
    imports: tuple[Imported, ...] = ()
    masks: Mapping[tuple[str, int, int], ProposedMasks] = field(default_factory=dict)
    runs: tuple[FinetuneRun, ...] = ()
    tasks: Mapping[str, TaskFacts] = field(default_factory=dict)
    baselines: tuple[Baseline, ...] = ()
    versions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Library name -> all versions found in the records."""

    @property
    def expected_checkpoints(self) -> list[tuple[str, int, int]]:
        config = self.config
        return [
            (method, seed, at) for method, seed in config.pretraining_runs() for at in config.milestone_steps(method)
        ]

    def checkpoints_at(self, method: str, step: int) -> list[Checkpoint]:
        """Returns the checkpoints of a method at a step, one per pretraining seed."""
        return [row for (name, _, at), row in self.checkpoints.items() if (name, at) == (method, step)]

    @property
    def expected_runs(self) -> int:
        return len(fine_tuned(self.config)) * len(self.config.finetune.tasks) * runs_of_a_task(self.config)

    @property
    def stale_runs(self) -> int:
        """Number of fine-tuning runs that started from weights other than those of the current checkpoint."""
        current = {key: checkpoint.fingerprint for key, checkpoint in self.checkpoints.items()}
        current |= {(name, 0, 0): row.fingerprint for name, row in zip(self.config.imports, self.imports, strict=True)}
        pairs = ((current.get((r.method, r.pretrain_seed, r.step)), r.checkpoint) for r in self.runs)
        return sum(expected is not None and expected != used for expected, used in pairs)


def runs_of_a_task(config: Config) -> int:
    """Returns the number of runs in the grid of Table 2 for one checkpoint and task."""
    grid = config.finetune
    return len(grid.batch_sizes) * len(grid.learning_rates) * len(grid.seeds)


def load_results(lineage: Lineage) -> Results:
    """Reads all records of the config. Missing records are left out; a damaged one raises DamagedError."""
    config, artifacts = lineage.config, lineage.artifacts
    versions: dict[str, set[str]] = defaultdict(set)

    def read(key: str, kind: type[R]) -> R | None:
        marker = artifacts.marker(key)
        for name, version in marker.versions.items() if marker else ():
            versions[name].add(version)
        return marker.row(kind) if marker else None

    manifest = read(lineage.manifest, CorpusManifest)
    checkpoints: dict[tuple[str, int, int], Checkpoint] = {}
    masks: dict[tuple[str, int, int], ProposedMasks] = {}
    for index, key in _checkpoint_keys(lineage):
        if row := read(key, Checkpoint):
            checkpoints[index] = row
            if (drawn := _masks(artifacts, key)) is not None:
                masks[index] = drawn
    tasks = {task: read(lineage.main_task(task).key, TaskFacts) for task in used_tasks(config)}
    scored = config.finetune.tasks if config.finetune.baselines else ()
    baselines = [read(lineage.baseline(task).key, Baselines) for task in scored]
    runs = [read(lineage.finetuning(run).key, FinetuneRun) for run in grid_runs(config)]
    return Results(
        config=config,
        fingerprint=_fingerprint(lineage),
        manifest=manifest,
        checkpoints=checkpoints,
        imports=tuple(lineage.imported(name) for name in config.imports),
        masks=masks,
        runs=tuple(run for run in runs if run),
        tasks={task: facts for task, facts in tasks.items() if facts},
        baselines=tuple(row for found in baselines if found for row in found.rows),
        versions={name: tuple(sorted(seen)) for name, seen in sorted(versions.items())},
    )


def signature(results: Results, metrics: Mapping[str, str]) -> str:
    """Returns the settings that scores depend on, in the style of sacrebleu's signatures."""
    config = results.config
    parts = {
        "recipe": config.recipe or "custom",
        "config": results.fingerprint[:8],
        "data": "probe" if config.finetune.data == "probe" else "glue",
        "steps": _steps(config),
        "pretrain-seeds": _pretraining_seeds(config),
        "finetune-seeds": "+".join(map(str, config.finetune.seeds)),
        "epoch": config.finetune.epoch,
        "metrics": "+".join(f"{task}={metric}" for task, metric in metrics.items()),
    }
    if config.finetune.from_mnli:
        parts["from-mnli"] = "+".join(config.finetune.from_mnli)
    if config.finetune.max_train_examples:
        parts["train-rows"] = f"first-{config.finetune.max_train_examples}"
    parts |= {name: "+".join(results.versions.get(name, ("none",))) for name in SIGNED_VERSIONS}
    return "|".join(f"{name}:{value}" for name, value in parts.items())


def missing(results: Results) -> list[str]:
    """Returns one line per kind of record that is missing, with counts."""
    config = results.config
    lines = []
    if results.manifest is None and config.methods:
        lines.append("the corpus manifest")
    if absent := [key for key in results.expected_checkpoints if key not in results.checkpoints]:
        by_method = ", ".join(f"{name} {sum(key[0] == name for key in absent)}" for name in config.methods)
        lines.append(f"{len(absent)} of {len(results.expected_checkpoints)} checkpoints ({by_method})")
    if len(results.runs) < results.expected_runs:
        lines.append(f"{results.expected_runs - len(results.runs):,} of {results.expected_runs:,} fine-tuning runs")
    if config.finetune.baselines:
        scored = {row.task for row in results.baselines}
        if bare := [task for task in config.finetune.tasks if task not in scored]:
            lines.append(f"baselines for {len(bare)} of {len(config.finetune.tasks)} tasks ({', '.join(bare)})")
    return lines


def next_command(results: Results) -> str:
    """Returns the command that creates the first missing records, "" if none are missing."""
    if results.manifest is None and results.config.methods:
        return "mapnet prepare-corpus"
    if any(key not in results.checkpoints for key in results.expected_checkpoints):
        return "mapnet pretrain"
    return "mapnet finetune-glue" if missing(results) else ""


def _pretraining_seeds(config: Config) -> str:
    return _with_own(config.pretrain.seeds, {name: config.method[name].seeds for name in config.methods})


def _steps(config: Config) -> str:
    own = {name: config.fine_tuned_steps(name) if config.method[name].steps else () for name in config.methods}
    return _with_own(config.fine_tuned_steps(), own)


def _with_own(common: tuple[int, ...], own: Mapping[str, tuple[int, ...]]) -> str:
    """Returns the common numbers (if any method uses them), then "NAME:NUMBERS" of each method that has its own."""
    named = [f"{name}:{'+'.join(map(str, numbers))}" for name, numbers in own.items() if numbers]
    shared = ["+".join(map(str, common))] if len(named) < len(own) or not own else []
    return ",".join([*shared, *named])


def _checkpoint_keys(lineage: Lineage) -> Iterator[tuple[tuple[str, int, int], str]]:
    for method, seed in lineage.config.pretraining_runs():
        key = lineage.pretraining(method, seed).key
        for step in lineage.config.milestone_steps(method):
            yield (method, seed, step), f"{key}/step{step}"


def _masks(artifacts: Artifacts, checkpoint: str) -> ProposedMasks | None:
    name = f"{checkpoint}/figure2.json"
    path = artifacts.path(name)
    if not path.exists():
        return None
    if name in artifacts.require(checkpoint).files:
        artifacts.verify(checkpoint, only=name)
    try:
        return ProposedMasks.model_validate(read_json(path))
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) or "the whole record"
        raise DamagedError(f"{path} has no valid masks (see {where}): run mapnet pretrain with --force") from None


def _fingerprint(lineage: Lineage) -> str:
    config = lineage.config
    finetune = config.finetune.results_view() | {"data": "probe" if lineage.uses_probe else "glue"}
    del finetune["task_data"]  # the content of the data matters, not its path
    encoders = [lineage.pretraining(method, seed).fingerprint for method, seed in config.pretraining_runs()]
    encoders += [lineage.import_fingerprint(name) for name in config.imports]
    return fingerprint(encoders, [lineage.main_task(task).fingerprint for task in used_tasks(config)], finetune)
