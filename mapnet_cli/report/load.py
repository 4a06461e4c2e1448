"""Loading of the other stages' records as typed rows, and what is missing.

A record that can't be read is named and treated as missing: a report is partial, never wrong.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, TypeVar

from pydantic import ConfigDict

from mapnet_cli import core, glue
from mapnet_cli.config import Config
from mapnet_cli.lineage import Lineage, fingerprint
from mapnet_cli.report.runs import Run, record_line, reduced

R = TypeVar("R", bound=core.Row)
T = TypeVar("T")
Encoder = tuple[str, int, int]  # method, pretraining seed and step; (name, 0, 0) for imports and the untrained encoder
Curves = dict[str, list[tuple[float, float]]]  # steps and values of what a training log has, by name
LOSSES = ("validation_loss_single", "validation_loss_refit")
"""Held-out losses by which methods are compared: with one [MASK] per sentence, the mask rate of no method, or else (in
records of version 0.2) with the output bias refitted."""
LOGGED = ("loss", "validation_loss_refit", "diverged_at", *core.DIAGNOSTICS)
POINTS = 150  # maximum number of points per run and curve; of a longer log, each point is the mean of several lines


class Strategy(core.Row):
    """A strategy's gradient variances: the part of the record that the report shows."""

    model_config = ConfigDict(extra="ignore")

    name: str
    variances: dict[str, dict[str, dict[str, float | None]]]
    """Value and standard error ("value", "error") by norm ("raw", "adam", "adam-layers") and quantity."""


class Measurement(core.EncoderRecord):
    """One result of `mapnet variance`."""

    model_config = ConfigDict(extra="ignore")

    measured: list[Strategy]


@dataclass(frozen=True)
class Results:
    """All inputs of the report."""

    config: Config
    fingerprint: str  # fingerprint of all inputs and settings; independent of local file paths
    corpus: str = ""  # fingerprint of the corpus
    manifest: core.CorpusManifest | None = None
    checkpoints: Mapping[Encoder, core.Checkpoint] = field(default_factory=dict)
    imports: tuple[core.Imported, ...] = ()
    logs: Mapping[tuple[str, int], Curves] = field(default_factory=dict)
    """Curves of the training logs, by method and pretraining seed."""
    before: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Held-out losses and accuracies of imports from which methods start."""
    masks: Mapping[Encoder, core.ProposedMasks] = field(default_factory=dict)
    runs: tuple[Run, ...] = ()
    grids: Mapping[glue.GridKey, glue.Grid] = field(default_factory=dict)  # every run's scores; see `run_grids`
    tasks: Mapping[str, core.TaskFacts] = field(default_factory=dict)
    baselines: tuple[core.Baseline, ...] = ()
    pair_scores: tuple[core.PairScores, ...] = ()
    variances: tuple[Measurement, ...] = ()  # results of `mapnet variance` for the current checkpoints
    damaged: tuple[str, ...] = ()  # what is wrong with each record that can't be read
    versions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Library name -> all versions found in the records."""

    @property
    def signed(self) -> str:
        """Recipe, config, tasks x pretraining seeds, and version: "mapnet|small|84c5a1a7|5x3|v0.2.0"."""
        config = self.config
        seeds = max((len(config.seeds_of(method)) for method in config.methods), default=0)
        version = "+".join(self.versions.get("mapnet", ("none",)))
        size = f"{len(config.finetune.tasks)}x{seeds}"
        return f"mapnet|{config.recipe or 'custom'}|{self.fingerprint[:8]}|{size}|v{version}"

    @property
    def loss(self) -> str:
        """The one of LOSSES by which methods are compared."""
        return LOSSES[not any(LOSSES[0] in row.validation for row in self.checkpoints.values())]

    def checkpoints_at(self, method: str, step: int) -> list[core.Checkpoint]:
        """Returns the checkpoints of a method at a step, one per pretraining seed."""
        return [row for (name, _, at), row in self.checkpoints.items() if (name, at) == (method, step)]

    def stale(self, used: Iterable[tuple[Encoder, str]]) -> int:
        """Returns how many records, given as encoder and SHA-256 of weights, are of other weights than the current."""
        current = {key: row.fingerprint for key, row in self.checkpoints.items()}
        current |= {(name, 0, 0): row.fingerprint for name, row in zip(self.config.imports, self.imports, strict=True)}
        return sum(current.get(encoder, weights) != weights for encoder, weights in used)


def runs_of_a_task(config: Config) -> int:
    """Returns the number of runs in the grid of Table 2 for one checkpoint and task."""
    grid = config.finetune
    return len(grid.batch_sizes) * len(grid.learning_rates) * len(grid.seeds)


class Reader:
    """Reads records, and collects the versions of libraries in them and what is damaged."""

    def __init__(self, artifacts: core.Artifacts) -> None:
        self.artifacts = artifacts
        self.versions: dict[str, set[str]] = defaultdict(set)
        self.damaged: list[str] = []

    def marker(self, key: str) -> core.Marker | None:
        found = self._unless_damaged(lambda: self.artifacts.marker(key))
        for name, version in found.versions.items() if found else ():
            self.versions[name].add(version)
        return found

    def row(self, found: core.Marker | None, kind: type[R]) -> R | None:
        return self._unless_damaged(lambda: found.row(kind)) if found else None

    def read(self, key: str, kind: type[R]) -> R | None:
        return self.row(self.marker(key), kind)

    def masks(self, checkpoint: core.Marker) -> core.ProposedMasks | None:
        name = f"{checkpoint.key}/figure2.json"

        def read() -> core.ProposedMasks:
            if name in checkpoint.files:
                self.artifacts.verify(checkpoint.key, only=name)
            value = core.read_json(self.artifacts.path(name))
            return core.Marker(name.removesuffix(".json"), "", value).row(core.ProposedMasks)

        return self._unless_damaged(read) if self.artifacts.path(name).exists() else None

    def _unless_damaged(self, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except (core.DamagedError, OSError) as error:
            self.damaged.append(str(error))
            return None


def load_results(lineage: Lineage, lines: IO[bytes] | None = None) -> Results:
    """Reads all records of the config. Missing and damaged records are left out.

    Writes the records of fine-tuning runs to `lines`, since they aren't kept. Raises UsageError, with the key and the
    closest valid name, if `finetune.metrics` or `finetune.tasks` has an unknown name.
    """
    config, reader = lineage.config, Reader(lineage.artifacts)
    manifest = reader.read(lineage.manifest, core.CorpusManifest)
    checkpoints, masks = dict[Encoder, core.Checkpoint](), dict[Encoder, core.ProposedMasks]()
    for method, seed, step in config.checkpoints():
        trained = reader.marker(f"{lineage.pretraining(method, seed).key}/step{step}")
        if trained and (row := reader.row(trained, core.Checkpoint)):
            checkpoints[method, seed, step] = row
            if drawn := reader.masks(trained):
                masks[method, seed, step] = drawn
    pairs = (reader.read(artifact.key, core.PairScores) for *_, artifact in lineage.pair_scores())
    pair_scores = tuple(found for found in pairs if found)
    facts = ((task, reader.read(lineage.main_task(task).key, core.TaskFacts)) for task in glue.used_tasks(config))
    tasks = {task: found for task, found in facts if found}
    scored = config.finetune.tasks if config.finetune.baselines else ()
    read = (reader.read(lineage.baseline(task).key, core.Baselines) for task in scored)
    baselines = tuple(row for found in read if found for row in found.rows)
    metrics, runs = glue.metrics_by_task(config), list[Run]()

    def records() -> Iterator[core.FinetuneRun]:
        for run in glue.grid_runs(config):
            found = reader.marker(lineage.finetuning(run).key)
            if found and (row := reader.row(found, core.FinetuneRun)):
                yield row  # first, since scoring it raises an error for a metric that it doesn't have
                runs.append(reduced(run, row, metrics[run.task], config.finetune.epoch))
                if lines is not None:
                    lines.write(record_line(row, found.line))

    logs, before = dict[tuple[str, int], Curves](), dict[str, Mapping[str, float]]()
    for method, seed in config.pretraining_runs():
        path = lineage.artifacts.path(f"{lineage.pretraining(method, seed).key}/log.jsonl")
        logged = [row for _, row in core.log_rows(path)]
        logs[method, seed] = curves(logged, config.last_step(method))
        if (base := config.method[method].init_from) and logged and logged[0]["step"] == 0:
            before.setdefault(base, logged[0])
    columns = glue.columns_of(metrics, tasks.values())
    grids = glue.run_grids(records(), config, columns, glue.baseline_scores(baselines, columns))
    weights = {row.fingerprint for row in checkpoints.values()}
    measured = (f"variance/{path.stem}" for path in sorted(lineage.artifacts.path("variance").glob("*.json")))
    variances = tuple(m for key in measured if (m := reader.read(key, Measurement)) and m.checkpoint in weights)
    return Results(
        config=config, fingerprint=_fingerprint(lineage), corpus=lineage.corpus.fingerprint, manifest=manifest,
        checkpoints=checkpoints, imports=tuple(lineage.imported(name) for name in config.imports),
        logs=logs, before=before, masks=masks, runs=tuple(runs), grids=grids, tasks=tasks, baselines=baselines,
        pair_scores=pair_scores, variances=variances,
        damaged=tuple(reader.damaged),
        versions={name: tuple(sorted(seen)) for name, seen in sorted(reader.versions.items())},
    )  # fmt: skip


def curves(logged: Iterable[Mapping[str, Any]], last: int) -> Curves:
    """Returns the curves of LOGGED of a run's log lines, from the trunk and the branch that ends in step `last`.

    A divergence counts in any branch.
    """
    found: Curves = {}
    for name in LOGGED:
        shown = (row for row in logged if row.get("branch", 0) in (0, last) or name == "diverged_at")
        points = [(row["step"], row[name]) for row in shown if name in row]
        size = -(-len(points) // POINTS)
        groups = (points[start : start + size] for start in range(0, len(points), size or 1))
        means = [(group[-1][0], round(sum(value for _, value in group) / len(group), 5)) for group in groups]
        found |= {name: means} if means else {}
    return found


def _fingerprint(lineage: Lineage) -> str:
    config = lineage.config
    finetune = config.finetune.results_view() | {"data": "probe" if lineage.uses_probe else "glue"}
    del finetune["task_data"]  # the content of the data matters, not its path
    encoders = [lineage.pretraining(method, seed).fingerprint for method, seed in config.pretraining_runs()]
    encoders += [lineage.import_fingerprint(name) for name in config.imports]
    pairs = [lineage.pair_data, lineage.pair_settings] if config.minimal_pairs.data else []
    tasks = [lineage.main_task(task).fingerprint for task in glue.used_tasks(config)]
    return fingerprint(encoders, tasks, finetune, *pairs)
