"""`mapnet prepare-corpus`: turns text into a vocabulary, token shards and a manifest, in jobs over input slices."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mapnet_cli import core
from mapnet_cli.core import ArtifactId, Artifacts, CorpusManifest, InputError, UsageError
from mapnet_cli.jobs import Phase, Stage, StageProgress, is_done
from mapnet_cli.lineage import Lineage, fingerprint
from mapnet_cli.prepare_corpus import forecast as estimates
from mapnet_cli.prepare_corpus.card import WriteCard
from mapnet_cli.prepare_corpus.encode import EncodeSlice
from mapnet_cli.prepare_corpus.manifest import WriteManifest
from mapnet_cli.prepare_corpus.outputs import CorpusKeys, format_shares
from mapnet_cli.prepare_corpus.paragraphs import CleanSlice, Deduplicate
from mapnet_cli.prepare_corpus.sentences import SegmentSlice
from mapnet_cli.prepare_corpus.slices import Slice, input_slices
from mapnet_cli.prepare_corpus.sources.reading import SHOWN_PROBLEMS
from mapnet_cli.prepare_corpus.train_bpe import TrainVocabulary

RECENT = 32  # number of most recent slices that the rate is measured on
COUNTED = {"clean": "words", "sentences": "words", "encode": "tokens"}
"""What each phase's rate is measured in: a field of its slices' results."""


@dataclass(frozen=True)
class PrepareCorpus(Stage):
    """The prepare-corpus stage; see `jobs.Stage`."""

    lineage: Lineage
    preload = ("spacy", "sacremoses", "tokenizers")

    def validate(self) -> None:
        """Raises UsageError if there is no source or the spaCy pipeline is not installed; does not import spaCy."""
        corpus = self.lineage.config.corpus
        if not corpus.sources:
            raise UsageError(
                "corpus.sources is empty: add at least one source, for example\n"
                '[[corpus.sources]]\nkind = "text"\npath = "my-corpus"'
            )
        name = corpus.spacy_pipeline
        if name and not Path(name).is_dir() and not core.installed_version(name):
            raise UsageError(
                f"corpus.spacy_pipeline: {name!r} is not installed; try python -m spacy download {name}, "
                "or leave the key empty"
            )

    def preflight(self) -> None:
        """Raises MapnetError if the disk is clearly too small, InputError if a source can't be reached."""
        slices, left = self._slices()
        if not slices:
            return
        for part in left["clean"]:
            if part.source.from_hub and part.part == 0:
                core.load_hub_split(part.source.path, part.source.name or None, part.source.split, streaming=True)
        estimates.require_disk(estimates.expect(slices, left, self.lineage.config), self.lineage.artifacts)

    def plan(self, workers: int) -> list[Phase]:
        """Returns the phases; none if the corpus exists, but not its input. Raises InputError, and UsageError."""
        self.validate()
        return self._phases

    @cached_property
    def _phases(self) -> list[Phase]:
        lineage, sources = self.lineage, self.lineage.config.corpus.sources
        missing = any(s.path and not s.from_hub and not Path(s.path).exists() for s in sources)
        if missing or not lineage.artifacts.path(lineage.text.key).exists():
            with suppress(InputError):  # if the input was never hashed, its fingerprint is unknown
                if lineage.artifacts.marker(lineage.manifest) is not None:
                    return []
        return corpus_phases(lineage)

    def forecast(self, workers: int) -> list[str]:
        """Returns the lines that `--dry-run` prints: words, disk and time, estimated from a sample of the input."""
        slices, left = self._slices()
        if not slices:
            return []
        expected = estimates.expect(slices, left, self.lineage.config, timed=True)
        return estimates.lines(expected, slices, self.lineage.artifacts, workers)

    def progress(self) -> StageProgress:
        """Returns the progress of each per-slice phase."""
        artifacts = self.lineage.artifacts
        rows = slices_done(self.plan(1), artifacts, artifacts.locked("prepare-corpus"))
        return StageProgress({"slices": rows}, tuple(format_row(row) for row in rows if row["done"] < row["total"]))

    def summary(self) -> list[str]:
        """Returns a summary of the finished corpus: counts, paragraphs dropped by each rule, and the first problems."""
        lineage, artifacts = self.lineage, self.lineage.artifacts
        made, card = artifacts.find(lineage.manifest, CorpusManifest), f"{lineage.corpus.key}/card"
        if made is None:
            return []
        lines = [
            f"corpus: {made.documents:,} documents, {made.sentences:,} sentences, {made.words:,} words, "
            f"{made.tokens:,} tokens ({made.unknown_tokens:,} unknown), vocabulary {made.vocab_size:,}; "
            f"{made.train_sequences:,} training and {made.validation_sequences:,} validation sequences",
            f"corpus: clean-up dropped {format_shares(made.dropped, made.paragraphs)}",
        ]
        if artifacts.path(f"{card}.md").exists():
            lines.append(f"corpus: card: {artifacts.path(card)}.md and .html")
        if made.problem_count:
            shown = made.problems[:SHOWN_PROBLEMS]
            rest = f"; see {artifacts.path(lineage.manifest)}.json for more" if made.problem_count > len(shown) else ""
            lines += [f"corpus: problem: {problem}" for problem in shown]
            lines.append(f"corpus: {made.problem_count:,} problems{rest}")
        return lines

    def _slices(self) -> tuple[list[Slice], dict[str, list[Slice]]]:
        """Returns the slices, and those that each phase has yet to process; none if the manifest exists."""
        phases, artifacts = self.plan(1), self.lineage.artifacts
        if all(is_done(job, artifacts) for phase in phases if phase.name == "manifest" for job in phase.jobs):
            return [], {}
        slices = [job.part for job in phases[0].jobs if isinstance(job, CleanSlice)]
        return slices, {
            phase.name: [part for part, job in zip(slices, phase.jobs, strict=True) if not is_done(job, artifacts)]
            for phase in phases
            if phase.unit == "slice"
        }


def _part(artifact: ArtifactId, key: str) -> ArtifactId:
    """Returns the id of a part of an artifact; its fingerprint combines the artifact's and the part's name."""
    return ArtifactId(key, fingerprint(artifact.fingerprint, key.rpartition("/")[2]))


def corpus_phases(lineage: Lineage) -> list[Phase]:
    """Returns all phases. Raises InputError, naming the config key, if a source is missing or has no files."""
    corpus, slices = lineage.config.corpus, input_slices(lineage.config, lineage.digests.listing)
    keys = CorpusKeys(lineage.text, lineage.corpus, len(slices))
    clean = [
        CleanSlice(artifact=_part(keys.text, key), part=part, cleanup=corpus.cleanup, on_bad_utf8=corpus.on_bad_utf8)
        for key, part in zip(keys.each("clean"), slices, strict=True)
    ]
    deduplicate = Deduplicate(
        artifact=_part(keys.text, keys.of("deduplicate")), needs=(*keys.each("clean"),), keys=keys,
        enabled=corpus.cleanup.deduplicate,
        sources=tuple((part.number, part.source.max_lost_share) for part in slices),
    )  # fmt: skip
    sentences = [
        SegmentSlice(
            artifact=_part(keys.text, key), needs=(clean[number].key, deduplicate.key),
            keys=keys, number=number, pipeline=corpus.spacy_pipeline, lowercase=corpus.preparation,
        )
        for number, key in enumerate(keys.each("sentences"))
    ]  # fmt: skip
    text = (*keys.each("clean"), deduplicate.key, *keys.each("sentences"))
    vocabulary = TrainVocabulary(
        artifact=_part(keys.corpus, keys.of("vocabulary")), needs=text, keys=keys, corpus=corpus,
        imported=lineage.imported(corpus.tokenizer).path if corpus.tokenizer else "",
    )  # fmt: skip
    encode = [
        EncodeSlice(
            artifact=_part(keys.corpus, key), needs=(sentences[number].key, vocabulary.key),
            keys=keys, number=number, corpus=corpus,
        )
        for number, key in enumerate(keys.each("encode"))
    ]  # fmt: skip
    manifest = WriteManifest(
        artifact=_part(keys.corpus, lineage.manifest), needs=(*text, vocabulary.key, *keys.each("encode")),
        keys=keys, corpus=corpus, source_of=tuple(part.number for part in slices),
    )  # fmt: skip
    shown = {
        "names": tuple(Path(source.path).name or source.kind for source in corpus.sources),
        "licences": tuple(source.licence for source in corpus.sources),
    }
    card = WriteCard(
        artifact=ArtifactId(keys.of("card"), fingerprint(keys.corpus.fingerprint, "card", shown)),
        needs=(manifest.key,), manifest=manifest.key, **shown,
    )  # fmt: skip
    return [
        Phase("clean", clean, "slice"),
        Phase("deduplicate", [deduplicate]),
        Phase("sentences", sentences, "slice"),
        Phase("vocabulary", [vocabulary]),
        Phase("encode", encode, "slice"),
        Phase("manifest", [manifest]),
        Phase("card", [card]),
    ]


def slices_done(phases: Sequence[Phase], artifacts: Artifacts, running: bool) -> list[dict[str, Any]]:
    """Returns one row for each per-slice phase that has finished at least one slice.

    A row has phase, done, total, unit (words or tokens), per_second (all workers together) and seconds_left, which is
    None for an unfinished phase if nothing is `running`.
    """
    rows = []
    for phase in (phase for phase in phases if phase.name in COUNTED):
        made = ((artifacts.marker(job.key), job) for job in phase.jobs)
        finished = sorted(
            (artifacts.path(f"{job.key}.json").stat().st_mtime, marker.seconds, marker.result[COUNTED[phase.name]])
            for marker, job in made
            if marker is not None and marker.fingerprint == job.fingerprint
        )
        if not finished:
            continue
        done, total, recent = len(finished), len(phase.jobs), finished[-RECENT:]
        span = end = 0.0  # seconds in which a slice was being processed, so that pauses don't count
        for begin, at in sorted((at - seconds, at) for at, seconds, _ in recent):
            span, end = span + max(0.0, at - max(begin, end)), max(at, end)
        left = max(0.0, (total - done) * span / len(recent) - (time.time() - end))
        rows.append({
            "phase": phase.name, "done": done, "total": total, "unit": COUNTED[phase.name],
            "per_second": sum(count for *_, count in recent) / max(span, 1e-3),
            "seconds_left": left if running or done == total else None,
        })  # fmt: skip
    return rows


def format_row(row: dict[str, Any]) -> str:
    """Returns a row as one line of text."""
    left = "not running" if row["seconds_left"] is None else f"{core.format_duration(row['seconds_left'])} left"
    return (
        f"{row['phase']}: {row['done']:,} of {row['total']:,} slices, {row['per_second']:,.0f} {row['unit']}/s, {left}"
    )
