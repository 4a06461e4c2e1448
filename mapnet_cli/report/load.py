"""Loading of the other stages' records as typed rows, and what is missing.

A record that can't be read is named and treated as missing: a report is partial, never wrong.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, TypeVar

from pydantic import ConfigDict, ValidationError

from mapnet_cli import core, glue
from mapnet_cli.config import Config
from mapnet_cli.lineage import Lineage, fingerprint
from mapnet_cli.report.logs import Curves, read_log
from mapnet_cli.report.runs import Run, record_line, reduced

R = TypeVar("R", bound=core.Row)


class Strategy(core.Row):
    """A strategy's gradient variances: the part of the record that the report shows."""

    model_config = ConfigDict(extra="ignore")

    name: str
    variances: dict[str, dict[str, dict[str, float | None]]]
    """Value and standard error ("value", "error") by norm ("raw", "adam", "adam-layers") and quantity."""


class Measurement(core.Row):
    """One result of `mapnet variance`."""

    model_config = ConfigDict(extra="ignore")

    method: str
    pretrain_seed: int
    step: int
    checkpoint: str
    measured: list[Strategy]


@dataclass(frozen=True)
class Results:
    """All inputs of the report. Checkpoints are keyed by (method, pretraining seed, step)."""

    config: Config
    fingerprint: str
    """Fingerprint of all inputs and settings; independent of local file paths."""
    corpus: str = ""
    """Fingerprint of the corpus."""
    manifest: core.CorpusManifest | None = None
    checkpoints: Mapping[tuple[str, int, int], core.Checkpoint] = field(default_factory=dict)
    imports: tuple[core.Imported, ...] = ()
    logs: Mapping[tuple[str, int], Curves] = field(default_factory=dict)
    """Curves of the training logs, by method and pretraining seed."""
    masks: Mapping[tuple[str, int, int], core.ProposedMasks] = field(default_factory=dict)
    runs: tuple[Run, ...] = ()
    grids: Mapping[glue.GridKey, glue.Grid] = field(default_factory=dict)
    """Every run's scores; see `run_grids`."""
    tasks: Mapping[str, core.TaskFacts] = field(default_factory=dict)
    baselines: tuple[core.Baseline, ...] = ()
    pair_scores: tuple[core.PairScores, ...] = ()
    variances: tuple[Measurement, ...] = ()
    """Results of `mapnet variance` for the current checkpoints."""
    damaged: tuple[str, ...] = ()
    """What is wrong with each record that can't be read."""
    versions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Library name -> all versions found in the records."""

    @property
    def expected_checkpoints(self) -> list[tuple[str, int, int]]:
        config = self.config
        return [
            (method, seed, at) for method, seed in config.pretraining_runs() for at in config.milestone_steps(method)
        ]

    def checkpoints_at(self, method: str, step: int) -> list[core.Checkpoint]:
        """Returns the checkpoints of a method at a step, one per pretraining seed."""
        return [row for (name, _, at), row in self.checkpoints.items() if (name, at) == (method, step)]

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


class Reader:
    """Reads markers, and collects the versions of libraries in them and what is damaged."""

    def __init__(self, artifacts: core.Artifacts) -> None:
        self.artifacts = artifacts
        self.versions: dict[str, set[str]] = defaultdict(set)
        self.damaged: list[str] = []

    def marker(self, key: str) -> core.Marker | None:
        try:
            found = self.artifacts.marker(key)
        except (core.DamagedError, OSError) as error:
            self.damaged.append(str(error))
            return None
        for name, version in found.versions.items() if found else ():
            self.versions[name].add(version)
        return found

    def row(self, found: core.Marker | None, kind: type[R]) -> R | None:
        try:
            return found.row(kind) if found else None
        except core.DamagedError as error:
            self.damaged.append(str(error))
            return None

    def read(self, key: str, kind: type[R]) -> R | None:
        return self.row(self.marker(key), kind)


def load_results(lineage: Lineage, lines: IO[bytes] | None = None) -> Results:
    """Reads all records of the config. Missing and damaged records are left out.

    Writes the records of fine-tuning runs to `lines`, since they aren't kept. Raises UsageError, with the key and the
    closest valid name, if `finetune.metrics` or `finetune.tasks` has an unknown name.
    """
    config, artifacts = lineage.config, lineage.artifacts
    reader = Reader(artifacts)
    manifest = reader.read(lineage.manifest, core.CorpusManifest)
    checkpoints: dict[tuple[str, int, int], core.Checkpoint] = {}
    masks: dict[tuple[str, int, int], core.ProposedMasks] = {}
    for index, key in _checkpoint_keys(lineage):
        if (trained := reader.marker(key)) and (row := reader.row(trained, core.Checkpoint)):
            checkpoints[index] = row
            if (drawn := _masks(reader, trained)) is not None:
                masks[index] = drawn
    pair_scores = (reader.read(artifact.key, core.PairScores) for *_, artifact in lineage.pair_scores())
    scored_pairs = tuple(found for found in pair_scores if found)
    found_tasks = ((task, reader.read(lineage.main_task(task).key, core.TaskFacts)) for task in glue.used_tasks(config))
    tasks = {task: facts for task, facts in found_tasks if facts}
    scored = config.finetune.tasks if config.finetune.baselines else ()
    found_baselines = (reader.read(lineage.baseline(task).key, core.Baselines) for task in scored)
    baselines = [row for found in found_baselines if found for row in found.rows]
    metrics, runs = glue.metrics_by_task(config), list[Run]()

    def records() -> Iterator[core.FinetuneRun]:
        for run in glue.grid_runs(config):
            found = reader.marker(lineage.finetuning(run).key)
            if found and (row := reader.row(found, core.FinetuneRun)):
                yield row  # first, since scoring it raises an error for a metric that it doesn't have
                runs.append(reduced(run, row, metrics[run.task], config.finetune.epoch))
                if lines is not None:
                    lines.write(record_line(row, found.line))

    columns = glue.columns_of(metrics, tasks.values())
    grids = glue.run_grids(records(), config, columns, glue.baseline_scores(baselines, columns))
    return Results(
        config=config,
        fingerprint=_fingerprint(lineage),
        corpus=lineage.corpus.fingerprint,
        manifest=manifest,
        checkpoints=checkpoints,
        imports=tuple(lineage.imported(name) for name in config.imports),
        logs={run: read_log(lineage, *run) for run in config.pretraining_runs()},
        masks=masks,
        runs=tuple(runs),
        grids=grids,
        tasks=tasks,
        baselines=tuple(baselines),
        pair_scores=scored_pairs,
        variances=_variances(reader, checkpoints),
        damaged=tuple(reader.damaged),
        versions={name: tuple(sorted(seen)) for name, seen in sorted(reader.versions.items())},
    )


def _variances(reader: Reader, checkpoints: Mapping[tuple[str, int, int], core.Checkpoint]) -> tuple[Measurement, ...]:
    keys = (path.with_suffix("").name for path in sorted(reader.artifacts.path("variance").glob("*.json")))
    found = (reader.read(f"variance/{key}", Measurement) for key in keys)
    weights = {row.fingerprint for row in checkpoints.values()}
    return tuple(row for row in found if row and row.checkpoint in weights)


def _checkpoint_keys(lineage: Lineage) -> Iterator[tuple[tuple[str, int, int], str]]:
    for method, seed in lineage.config.pretraining_runs():
        key = lineage.pretraining(method, seed).key
        for step in lineage.config.milestone_steps(method):
            yield (method, seed, step), f"{key}/step{step}"


def _masks(reader: Reader, checkpoint: core.Marker) -> core.ProposedMasks | None:
    name = f"{checkpoint.key}/figure2.json"
    path = reader.artifacts.path(name)
    if not path.exists():
        return None
    try:
        if name in checkpoint.files:
            reader.artifacts.verify(checkpoint.key, only=name)
        return core.ProposedMasks.model_validate(core.read_json(path))
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) or "the whole record"
        reader.damaged.append(f"{path} has no valid masks (see {where}): run mapnet pretrain with --force")
    except (core.DamagedError, OSError) as error:
        reader.damaged.append(str(error))
    return None


def _fingerprint(lineage: Lineage) -> str:
    config = lineage.config
    finetune = config.finetune.results_view() | {"data": "probe" if lineage.uses_probe else "glue"}
    del finetune["task_data"]  # the content of the data matters, not its path
    encoders = [lineage.pretraining(method, seed).fingerprint for method, seed in config.pretraining_runs()]
    encoders += [lineage.import_fingerprint(name) for name in config.imports]
    pairs = [lineage.pair_data, lineage.pair_settings] if config.minimal_pairs.data else []
    return fingerprint(
        encoders, [lineage.main_task(task).fingerprint for task in glue.used_tasks(config)], finetune, *pairs
    )
