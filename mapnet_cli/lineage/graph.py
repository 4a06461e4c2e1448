"""Dependencies of each artifact, and the name derived from them.

An artifact's fingerprint hashes the config sections that it depends on, the fingerprints of its
inputs, and a format version. The first eight digits are part of its path, so results of different
settings coexist: changing a value reruns only what depends on it, changing it back finds the old
results, and stale results are never reused.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from mapnet_cli import core, glue
from mapnet_cli.config import Config, Pretrain, Transformer
from mapnet_cli.lineage.digests import Digests, artifact_id, code_of, code_of_method, fingerprint, this_python

NOT_WEIGHTS = {key: Pretrain().results_view()[key] for key in ("validate_every", "validation_sequences", "milestones")}
"""Keys of [pretrain] on which weights don't depend, with the defaults that stand for all of their values."""


class Lineage:
    """The artifacts of one config, whose precision "auto" is resolved for this machine. Writes only cached hashes."""

    def __init__(self, config: Config, artifacts: core.Artifacts, digests: Digests | None = None) -> None:
        config = self.config = config.with_precision()
        self.artifacts = artifacts
        self.digests = digests or Digests(artifacts)
        self._run_settings = config.finetune.run_settings()
        # a grid of 10,240 runs requests these repeatedly
        self.pretraining = cache(self._pretraining)
        self.task = cache(self._task)
        self.mnli_start = cache(self._mnli_start)
        self.imported = cache(self._imported)
        self.finetuning = cache(self._finetuning)

    @cached_property
    def text(self) -> core.ArtifactId:
        """Cleaned, segmented, tokenised, lower-cased sentences."""
        corpus = self.config.corpus.results_view() | {"lowercase": self.config.corpus.preparation}
        names = ("on_bad_utf8", "cleanup", "spacy_pipeline", "lowercase", "slice_mb")
        sources = []
        for number, source in enumerate(self.config.corpus.sources):
            with core.reading_input(f"corpus.sources.{number}"):
                content: dict[str, Any] = {"content": self.digests.source(source)}
            if code := code_of(("sources", source.kind)):
                content["code"] = code
            view = source.results_view().items()
            sources.append({key: value for key, value in view if key not in ("path", "weight")} | content)
        name = self.config.corpus.spacy_pipeline
        folder = name and Path(name).is_dir()  # versions of a pipeline may split sentences differently
        pipeline = self.digests.folder(Path(name)) if folder else name and core.installed_version(name)
        return artifact_id("prepare-corpus/text-", "text", {n: corpus[n] for n in names}, pipeline, sources)

    @cached_property
    def corpus(self) -> core.ArtifactId:
        """Vocabulary and token shards."""
        corpus = self.config.corpus.results_view()
        names = {
            "vocab_size", "bpe_sample_words", "bpe_word_chars", "blocks", "block_length", "cross_documents",
            "validation_every", "seed",
        }  # fmt: skip
        if corpus["tokenizer"]:
            corpus["tokenizer"] = self.imported(corpus["tokenizer"]).tokenizer_fingerprint
            names = names - {"vocab_size", "bpe_sample_words", "bpe_word_chars", "seed"} | {"tokenizer"}
        settings = {name: corpus[name] for name in names if name in corpus}
        return artifact_id("prepare-corpus/corpus-", "corpus", self.text.fingerprint, settings)

    @property
    def manifest(self) -> str:
        """Key of the corpus's manifest."""
        return f"{self.corpus.key}/manifest"

    @property
    def vocab_size(self) -> int:
        """Maximum vocabulary size of the corpus, or the exact size if the tokenizer is from an import."""
        own = self.config.corpus.tokenizer
        return self.imported(own).vocab_size if own else self.config.corpus.vocab_size

    def _imported(self, name: str) -> core.Imported:
        """Imported encoder by name, with or without its hash suffix. Raises UsageError unless exactly one matches."""
        folder = self.artifacts.path("import")
        known = sorted(path.name.removesuffix(".json") for path in folder.glob("*.json"))
        found = [key for key in known if key == name or re.fullmatch(re.escape(name) + "-[0-9a-f]{8}", key)]
        if not found:
            existing = f"; existing imports: {', '.join(known)}" if known else ""
            raise core.UsageError(f"no import {name!r} in {folder}: create it with `mapnet import-hf`{existing}")
        if len(found) > 1:
            raise core.UsageError(f"several imports are called {name!r}: choose one of {', '.join(found)}")
        return self.artifacts.read(f"import/{found[0]}", core.Imported)

    def _pretraining(self, method: str, seed: int) -> core.ArtifactId:
        """One pretraining run: one method and seed, all milestones."""
        config = self.config.for_method(method)
        settings = config.pretrain.results_view() | NOT_WEIGHTS
        if config.pretrain.schedule == "wsd":  # a branch for each
            settings["milestones"] = list(config.pretrain.milestones)
        del settings["seeds"]
        how = config.method[method].results_view()
        start = how.pop("init_from")
        for key in ("steps", "batch_factor", "peak_lr", "seeds"):  # hashed with the run's own settings and seed
            how.pop(key, None)
        parts = [self.corpus.fingerprint, config.encoder.results_view(), how, settings]
        weights = [source.weight for source in config.corpus.sources]
        if set(weights) - {1.0}:
            parts.append({"weights": weights})
        parts += code_of_method(config.method[method])
        if start:
            parts.append({"start": self.import_fingerprint(start)})
        if config.method[method].mapnet:
            parts.append(config.proposal.results_view())
        return artifact_id(f"pretrain/{method}-seed{seed}-", "pretraining", seed, *parts)

    def milestones(self, method: str, seed: int) -> dict[int, core.ArtifactId]:
        """The milestones of a pretraining run by step; their records, not their weights, depend on how it validates."""
        config, run = self.config.for_method(method), self.pretraining(method, seed)
        count = config.pretrain.validation_sequences
        own = [count] if count != NOT_WEIGHTS["validation_sequences"] else []
        steps = config.pretrain.milestone_steps()
        return {
            step: core.ArtifactId(f"{run.key}/step{step}", fingerprint(run.fingerprint, step, *own)) for step in steps
        }

    @cached_property
    def probe(self) -> core.ArtifactId:
        """The built-in probe tasks in GLUE's file layout."""
        return artifact_id("finetune-glue/probe-", "probe", self.config.finetune.seed, this_python())

    def _task(self, name: str, imported: str = "") -> core.ArtifactId:
        """One GLUE task, tokenised with the corpus's vocabulary or an import's."""
        finetune = self.config.finetune
        if imported:
            row = self.imported(imported)
            vocabulary, length = row.tokenizer_fingerprint, row.max_length
        else:
            vocabulary, length = self.corpus.fingerprint, self.config.encoder.max_length
        data = self.probe.fingerprint if self.uses_probe else self._task_data(name)
        reading = finetune.task_data[name].reading() if name in finetune.task_data else {}
        parts = [name, data, vocabulary, length, finetune.max_train_examples, *([reading] if reading else [])]
        parts += [] if self.uses_probe else code_of(("tasks", name))
        return artifact_id(f"finetune-glue/tasks/{name}-", "task", *parts)

    def _task_data(self, name: str) -> str:
        """Returns a hash of the files that a task's scores depend on, or the Hub id."""
        data = glue.data_key(self.config, name)[1]
        known_as = f"{data}: {name}"
        try:
            location = glue.task_location(self.config, name)
        except core.AbsentError:  # deleted since: use the cached hash
            if remembered := self.digests.remembered(known_as):
                return remembered
            raise
        if isinstance(location, str):  # on the Hub, or made by a plugin
            return location
        inside = location.iterdir() if location.is_dir() else ()
        shared = location == Path(data) and any(glue.names_task(path.name, name) for path in inside)
        if name in glue.OWN_TASKS:  # which may read any of the files
            return self.digests.folder(location, known_as)
        return self.digests.folder(
            location, known_as, lambda file: glue.is_test_file(file) or (shared and not glue.names_task(file, name))
        )

    def main_task(self, name: str) -> core.ArtifactId:
        """The task tokenised for the methods, or for the first import if there are no methods."""
        return self.task(name) if self.config.methods else self.task(name, self.config.imports[0])

    def _finetuning(self, run: glue.GridRun) -> core.ArtifactId:
        task = self.task(run.task, self.tokenizer_of(run.method))
        parts = [self._start(run.method, run.pretrain_seed), run.step, task.fingerprint]
        if run.task in self.config.finetune.from_mnli:
            parts.append({"start": self.mnli_start(run.method, run.pretrain_seed, run.step).fingerprint})
        folder = f"finetune-glue/{run.method}-seed{run.pretrain_seed}/step{run.step}/{run.task}"
        return artifact_id(
            f"{folder}/batch{run.batch_size}-lr{run.lr:g}-seed{run.seed}-",
            "finetuning", *parts, run.batch_size, run.lr, run.seed, self._run_settings,
        )  # fmt: skip

    def kept(self, method: str, pretrain_seed: int, step: int, task: str) -> core.ArtifactId:
        """The model of the best of an encoder's runs on a task."""
        runs = glue.runs_of(self.config, method, pretrain_seed, step, task)
        chosen_by = glue.metrics_by_task(self.config)[task], self.config.finetune.epoch
        prefix = f"finetune-glue/{method}-seed{pretrain_seed}/step{step}/{task}/best-"
        return artifact_id(prefix, "kept", [self.finetuning(run).fingerprint for run in runs], chosen_by)

    def predictions(self, run: glue.GridRun, epoch: int) -> core.ArtifactId:
        """A fine-tuned model's predictions for its task's test sets after an epoch."""
        data = [self._test_data(run.task), *([self._test_data("AX")] if run.task == "MNLI" else [])]
        prefix = f"finetune-glue/{run.method}-seed{run.pretrain_seed}/step{run.step}/{run.task}/predictions-"
        return artifact_id(prefix, "predictions", self.finetuning(run).fingerprint, data, epoch)

    def _test_data(self, name: str) -> str:
        """Returns a hash of all files of a task, or "" if there are none, since AX is optional."""
        try:
            location = glue.task_location(self.config, name)
            return location if isinstance(location, str) else self.digests.folder(location)
        except core.AbsentError:
            return ""

    def _mnli_start(self, method: str, pretrain_seed: int, step: int) -> core.ArtifactId:
        """An encoder fine-tuned on MNLI, from which other tasks start."""
        finetune = self.config.finetune
        return artifact_id(
            f"finetune-glue/{method}-seed{pretrain_seed}/step{step}/mnli-start-",
            "finetuning", "start", self._start(method, pretrain_seed), step,
            self.task("MNLI", self.tokenizer_of(method)).fingerprint,
            finetune.mnli_batch_size, finetune.mnli_learning_rate, finetune.seeds[0], self._run_settings,
        )  # fmt: skip

    def tokenizer_of(self, method: str) -> str:
        """Returns the import whose tokenizer a row of Table 3 uses, or "" for the corpus's tokenizer."""
        return method if method in self.config.imports else ""

    def _start(self, method: str, pretrain_seed: int) -> str:
        """Returns the fingerprint of a run's initial encoder."""
        if method == glue.UNTRAINED:
            return fingerprint(glue.UNTRAINED, self.config.encoder.results_view())
        if self.tokenizer_of(method):
            return self.import_fingerprint(method)
        return self.pretraining(method, pretrain_seed).fingerprint

    def weights(self, method: str, pretrain_seed: int, step: int) -> str:
        """Returns the key of the weights of a row of Table 3; that of the manifest for the untrained encoder."""
        if method == glue.UNTRAINED:
            return self.manifest
        imported = self.imported(method).path if self.tokenizer_of(method) else ""
        return imported or f"{self.pretraining(method, pretrain_seed).key}/step{step}"

    def import_fingerprint(self, name: str) -> str:
        """Returns the fingerprint of an imported encoder: weights, sizes and tokenizer."""
        return self.artifacts.require(self.imported(name).path).fingerprint

    def baseline(self, task: str) -> core.ArtifactId:
        """Baselines without an encoder on one task."""
        return artifact_id(f"finetune-glue/baselines/{task}-", "baseline", self.main_task(task).fingerprint)

    def pair_scores(self) -> Iterator[tuple[str, "PairsRun", core.ArtifactId]]:
        """Yields the key of each encoder's weights (untrained: the manifest), the run, and its record's artifact."""
        for method, seed, step in scored_encoders(self.config):
            parts: list[Any] = [self._start(method, seed), step]
            parts += [seed, self.corpus.fingerprint] if method == glue.UNTRAINED else []
            for name, content in self.pair_data.items():
                prefix = f"minimal-pairs/{method}-seed{seed}/step{step}/{name}-"
                artifact = artifact_id(prefix, "pairs", *parts, content, self.pair_settings)
                yield self.weights(method, seed, step), PairsRun(method, seed, step, name), artifact

    @property
    def pair_settings(self) -> dict[str, Any]:
        """Returns the keys of [minimal_pairs] that affect scores."""
        view = self.config.minimal_pairs.results_view()
        return {key: value for key, value in view.items() if key not in ("data", "milestones", "untrained")}

    @cached_property
    def pair_data(self) -> dict[str, str]:
        """Hash of each set of minimal pairs, by name. Raises InputError if one is missing and was never hashed."""
        return {name: self.digests.folder(path) for name, path in self.config.minimal_pairs.sets.items()}

    def sizes(self, method: str) -> tuple[Transformer, int]:
        """Returns the sizes and the maximum vocabulary size of a method's encoder, an import or the untrained one."""
        if imported := self.tokenizer_of(method):
            row = self.imported(imported)
            return Transformer.model_validate(row.encoder), row.vocab_size
        return self.config.encoder, self.vocab_size

    @property
    def uses_probe(self) -> bool:
        return self.config.finetune.data == "probe"


@dataclass(frozen=True)
class PairsRun:
    """An encoder with its MLM head, and a set of minimal pairs. Imports have pretraining seed 0 and step 0."""

    method: str
    pretrain_seed: int
    step: int
    data: str


def scored_encoders(config: Config) -> list[tuple[str, int, int]]:
    """Returns (method, pretraining seed, step) of every encoder with an MLM head: milestones, imports, untrained."""
    trained = config.checkpoints(config.minimal_pairs.milestones)
    milestones = [encoder for encoder in trained if not config.method[encoder[0]].electra]
    seeds = config.pretrain.seeds if config.minimal_pairs.untrained and config.methods else ()
    return [*milestones, *((name, 0, 0) for name in config.imports), *((glue.UNTRAINED, seed, 0) for seed in seeds)]
