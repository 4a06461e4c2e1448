"""Loading of the other stages' records as typed rows, and counts of missing ones."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, TypeVar

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
    Marker,
    PairScores,
    ProposedMasks,
    Row,
    TaskFacts,
    read_json,
)
from mapnet_cli.glue import (
    Grid,
    GridKey,
    baseline_scores,
    columns_of,
    fine_tuned,
    grid_runs,
    metrics_by_task,
    run_grids,
    used_tasks,
)
from mapnet_cli.lineage import Lineage, fingerprint, scored_encoders
from mapnet_cli.report.logs import TrainingLog, read_log
from mapnet_cli.report.runs import Run, reduced

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
    logs: Mapping[tuple[str, int], TrainingLog | None] = field(default_factory=dict)
    """By method and pretraining seed, of methods that explore, and of the first method to compare them with."""
    masks: Mapping[tuple[str, int, int], ProposedMasks] = field(default_factory=dict)
    runs: tuple[Run, ...] = ()
    grids: Mapping[GridKey, Grid] = field(default_factory=dict)
    """Every run's scores; see `run_grids`."""
    tasks: Mapping[str, TaskFacts] = field(default_factory=dict)
    baselines: tuple[Baseline, ...] = ()
    pair_scores: tuple[PairScores, ...] = ()
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
    def expected_pair_scores(self) -> int:
        return len(scored_encoders(self.config)) * len(self.config.minimal_pairs.sets)

    @property
    def stale_runs(self) -> int:
        """Number of fine-tuning runs that started from weights other than those of the current checkpoint."""
        current = {key: checkpoint.fingerprint for key, checkpoint in self.checkpoints.items()}
        current |= {(name, 0, 0): row.fingerprint for name, row in zip(self.config.imports, self.imports, strict=True)}
        places = ((run.grid_run, run.checkpoint) for run in self.runs)
        pairs = ((current.get((at.method, at.pretrain_seed, at.step)), used) for at, used in places)
        return sum(expected is not None and expected != used for expected, used in pairs)


def runs_of_a_task(config: Config) -> int:
    """Returns the number of runs in the grid of Table 2 for one checkpoint and task."""
    grid = config.finetune
    return len(grid.batch_sizes) * len(grid.learning_rates) * len(grid.seeds)


def load_results(lineage: Lineage, lines: IO[bytes] | None = None) -> Results:
    """Reads all records of the config. Missing records are left out; a damaged one raises DamagedError.

    Writes the records of fine-tuning runs to `lines`, since they aren't kept. Raises UsageError, with the key and the
    closest valid name, if `finetune.metrics` or `finetune.tasks` has an unknown name.
    """
    config, artifacts = lineage.config, lineage.artifacts
    versions: dict[str, set[str]] = defaultdict(set)

    def marker(key: str) -> Marker | None:
        found = artifacts.marker(key)
        for name, version in found.versions.items() if found else ():
            versions[name].add(version)
        return found

    def read(key: str, kind: type[R]) -> R | None:
        found = marker(key)
        return found.row(kind) if found else None

    manifest = read(lineage.manifest, CorpusManifest)
    checkpoints: dict[tuple[str, int, int], Checkpoint] = {}
    masks: dict[tuple[str, int, int], ProposedMasks] = {}
    for index, key in _checkpoint_keys(lineage):
        if (trained := marker(key)) is not None:
            checkpoints[index] = trained.row(Checkpoint)
            if (drawn := _masks(artifacts, trained)) is not None:
                masks[index] = drawn
    pair_scores = (read(artifact.key, PairScores) for _, _, artifact in lineage.pair_scores())
    scored_pairs = tuple(row for row in pair_scores if row)
    found_tasks = ((task, read(lineage.main_task(task).key, TaskFacts)) for task in used_tasks(config))
    tasks = {task: facts for task, facts in found_tasks if facts}
    scored = config.finetune.tasks if config.finetune.baselines else ()
    baselines = [row for task in scored if (found := read(lineage.baseline(task).key, Baselines)) for row in found.rows]
    metrics, runs = metrics_by_task(config), list[Run]()

    def records() -> Iterator[FinetuneRun]:
        for run in grid_runs(config):
            if (found := marker(lineage.finetuning(run).key)) is not None:
                row = found.row(FinetuneRun)
                yield row  # first, since scoring it raises an error for a metric that it doesn't have
                runs.append(reduced(run, row, metrics[run.task], config.finetune.epoch))
                if lines is not None:
                    lines.write(record_line(row, found.line))

    columns = columns_of(metrics, tasks.values())
    grids = run_grids(records(), config, columns, baseline_scores(baselines, columns))
    return Results(
        config=config,
        fingerprint=_fingerprint(lineage),
        manifest=manifest,
        checkpoints=checkpoints,
        imports=tuple(lineage.imported(name) for name in config.imports),
        logs=_logs(lineage),
        masks=masks,
        runs=tuple(runs),
        grids=grids,
        tasks=tasks,
        baselines=tuple(baselines),
        pair_scores=scored_pairs,
        versions={name: tuple(sorted(seen)) for name, seen in sorted(versions.items())},
    )


def record_line(row: Row, written: bytes = b"") -> bytes:
    """Returns a row's line of records.jsonl. `written` is its JSON object if that is known, which is faster."""
    kind = type(row).__name__
    if written:
        return f'{{"record": "{kind}", '.encode() + written.removeprefix(b"{") + b"\n"
    return json_line({"record": kind} | row.to_json())


def json_line(value: dict[str, Any]) -> bytes:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return text.encode(errors="backslashreplace") + b"\n"


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
    if config.finetune.pooling != "cls":
        parts["pooling"] = config.finetune.pooling
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
    if (absent_pairs := results.expected_pair_scores - len(results.pair_scores)) > 0:
        lines.append(f"{absent_pairs:,} of {results.expected_pair_scores:,} records of minimal pairs")
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
    if len(results.pair_scores) < results.expected_pair_scores:
        return "mapnet minimal-pairs"
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


def _logs(lineage: Lineage) -> dict[tuple[str, int], TrainingLog | None]:
    config = lineage.config
    exploring = [method for method in config.methods if any(config.method[method].exploration)]
    logged = {config.methods[0], *exploring} if exploring else set()
    return {run: read_log(lineage, *run) for run in config.pretraining_runs() if run[0] in logged}


def _masks(artifacts: Artifacts, checkpoint: Marker) -> ProposedMasks | None:
    name = f"{checkpoint.key}/figure2.json"
    path = artifacts.path(name)
    if not path.exists():
        return None
    if name in checkpoint.files:
        artifacts.verify(checkpoint.key, only=name)
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
    pairs = [lineage.pair_data, lineage.pair_settings] if config.minimal_pairs.data else []
    return fingerprint(encoders, [lineage.main_task(task).fingerprint for task in used_tasks(config)], finetune, *pairs)
