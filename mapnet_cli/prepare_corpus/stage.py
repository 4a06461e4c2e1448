"""The wing's door: from text to a vocabulary, token shards and a manifest, as jobs over slices of the input."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from mapnet_cli.config import Config
from mapnet_cli.core import hub
from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.core.errors import InputError, UsageError
from mapnet_cli.core.records import CorpusManifest
from mapnet_cli.jobs.job import Phase, is_done
from mapnet_cli.lineage.graph import Lineage
from mapnet_cli.prepare_corpus import forecast
from mapnet_cli.prepare_corpus.phases import corpus_phases, manifest_key
from mapnet_cli.prepare_corpus.progress import slices_done
from mapnet_cli.prepare_corpus.slices import Slice, missing_source
from mapnet_cli.prepare_corpus.sources.reading import SHOWN_PROBLEMS

PRELOAD = ("spacy", "sacremoses", "tokenizers")
"""What the engine's workers should have imported before they start."""


def check(config: Config, artifacts: Artifacts) -> None:
    """Raises UsageError if there is no source, or the spaCy pipeline is not installed (nothing is imported)."""
    if not config.corpus.sources:
        raise UsageError(
            "corpus.sources is empty: name at least one, for instance\n"
            '[[corpus.sources]]\nkind = "text"\npath = "my-corpus"'
        )
    name = config.corpus.spacy_pipeline
    try:
        if name and not Path(name).is_dir():
            distribution(name)
    except PackageNotFoundError:
        raise UsageError(
            f"corpus.spacy_pipeline: {name!r} is not installed; try python -m spacy download {name}, or leave it empty"
        ) from None


def plan(config: Config, artifacts: Artifacts, workers: int) -> list[Phase]:
    """Returns the phases that make the config's corpus; none if it stands and its input or its text is gone.

    Neither the phases nor their output depend on `workers`. Raises InputError, naming the config key,
    if a source is missing or has no files, and what `check` raises.
    """
    check(config, artifacts)
    lineage = Lineage(config, artifacts)
    gone = missing_source(config) or not artifacts.path(lineage.text.key).exists()
    return [] if gone and _stands(lineage) else corpus_phases(config, lineage)


def _stands(lineage: Lineage) -> bool:
    try:
        return lineage.artifacts.marker(manifest_key(lineage.corpus)) is not None
    except InputError:  # an input that was never seen
        return False


def admit(config: Config, artifacts: Artifacts) -> None:
    """Refuses to start where the disk is clearly too small or a source can't be reached: MapnetError, InputError."""
    phases = _unmade(config, artifacts)
    if not phases:
        return
    for job in phases[0].jobs:
        part: Slice = job.args["part"]
        if part.source.of_hub and part.part == 0 and not is_done(job, artifacts):
            hub.load(part.source.path, part.source.name or None, part.source.split, streaming=True)
    slices = [job.args["part"] for job in phases[0].jobs]
    rates, _ = forecast.samples(_unread(phases, artifacts), config)
    forecast.require_disk(forecast.expect(slices, rates, _done(phases, artifacts), config.corpus.vocab_size), artifacts)


def estimate(config: Config, artifacts: Artifacts, workers: int) -> list[str]:
    """Returns what `--dry-run` says: words, disk and time, by a sample that is read now."""
    phases = _unmade(config, artifacts)
    if not phases:
        return []
    slices = [job.args["part"] for job in phases[0].jobs]
    rates, paragraphs = forecast.samples(slices, config)
    segment = forecast.segmenting(paragraphs, config)
    expected = forecast.expect(slices, rates, _done(phases, artifacts), config.corpus.vocab_size, segment)
    return forecast.lines(expected, slices, forecast.free_disk(artifacts), workers)


def standing(config: Config, artifacts: Artifacts) -> dict[str, Any]:
    """Returns, as "slices", how far each phase of slices is, for `status`."""
    return {"slices": slices_done(plan(config, artifacts, 1), artifacts, artifacts.locked("prepare-corpus"))}


def _unmade(config: Config, artifacts: Artifacts) -> list[Phase]:
    """Returns the plan; no phase if the manifest stands, whatever is with the card."""
    phases = plan(config, artifacts, 1)
    made = (is_done(job, artifacts) for phase in phases if phase.name == "manifest" for job in phase.jobs)
    return [] if all(made) else phases


def _unread(phases: list[Phase], artifacts: Artifacts) -> list[Slice]:
    return [job.args["part"] for job in phases[0].jobs if not is_done(job, artifacts)]


def _done(phases: list[Phase], artifacts: Artifacts) -> forecast.Done:
    by_name = {phase.name: phase.jobs for phase in phases}

    def done(number: int) -> tuple[float | None, bool, bool]:
        clean, sentences, encode = (by_name[name][number] for name in ("clean", "sentences", "encode"))
        marker = artifacts.marker(clean.key) if is_done(clean, artifacts) else None
        size = None if marker is None else float(marker.result["bytes"])
        return size, is_done(sentences, artifacts), is_done(encode, artifacts)

    return done


def summary(config: Config, artifacts: Artifacts) -> list[str]:
    """Returns what the finished corpus is, in words: counts, what the rules dropped, the first problems."""
    corpus = Lineage(config, artifacts).corpus
    marker, card = artifacts.marker(manifest_key(corpus)), f"{corpus.key}/card"
    if marker is None:
        return []
    made = CorpusManifest(**marker.result)
    dropped = ", ".join(f"{rule} {count:,}" for rule, count in made.dropped.items()) or "none"
    lines = [
        f"corpus: {made.documents:,} documents, {made.sentences:,} sentences, {made.words:,} words, "
        f"{made.tokens:,} tokens ({made.unknown_tokens:,} unknown), vocabulary {made.vocab_size:,}; "
        f"{made.train_sequences:,} training and {made.validation_sequences:,} validation sequences",
        f"corpus: paragraphs dropped by rule: {dropped}",
    ]
    if artifacts.path(f"{card}.md").exists():
        lines.append(f"corpus: card: {artifacts.path(card)}.md and .html")
    if made.problem_count:
        shown = made.problems[:SHOWN_PROBLEMS]
        rest = f"; {artifacts.path(marker.key)}.json names more" if made.problem_count > len(shown) else ""
        lines += [f"corpus: problem: {problem}" for problem in shown]
        lines.append(f"corpus: {made.problem_count:,} problems{rest}")
    return lines
