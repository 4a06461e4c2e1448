"""The wing's door: from text to a vocabulary, token shards and a manifest, as jobs over slices of the input."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from mapnet_cli import hub
from mapnet_cli.artifacts import Artifacts
from mapnet_cli.config import Config
from mapnet_cli.errors import InputError, UsageError
from mapnet_cli.jobs.job import Job, Output, Phase, is_done
from mapnet_cli.lineage import Artefact, Lineage
from mapnet_cli.lineage.digests import fingerprint
from mapnet_cli.prepare_corpus import forecast
from mapnet_cli.prepare_corpus.card import write_card
from mapnet_cli.prepare_corpus.encode import encode_slice
from mapnet_cli.prepare_corpus.manifest import write_manifest
from mapnet_cli.prepare_corpus.paragraphs import clean_slice, deduplicate
from mapnet_cli.prepare_corpus.reading import SHOWN_PROBLEMS
from mapnet_cli.prepare_corpus.sentences import segment_slice
from mapnet_cli.prepare_corpus.slices import Slice, input_slices, missing_source
from mapnet_cli.prepare_corpus.standing import slices_done
from mapnet_cli.prepare_corpus.vocabulary import train_vocabulary
from mapnet_cli.records import CorpusManifest

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
    if gone and _stands(lineage):
        return []
    slices = input_slices(config)
    keys = _Keys(lineage.text, lineage.corpus, len(slices))
    imported = lineage.imported(config.corpus.tokenizer).key if config.corpus.tokenizer else ""
    return _text_phases(config, keys, slices) + _corpus_phases(config, keys, slices, imported)


def admit(config: Config, artifacts: Artifacts) -> None:
    """Refuses to start where the disk is clearly too small or a source can't be reached: MapnetError, InputError."""
    phases = plan(config, artifacts, 1)
    if not phases or all(is_done(job, artifacts) for job in phases[-2].jobs):
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
    phases = plan(config, artifacts, workers)
    if not phases or all(is_done(job, artifacts) for job in phases[-2].jobs):
        return []
    slices = [job.args["part"] for job in phases[0].jobs]
    rates, paragraphs = forecast.samples(slices, config)
    segment = forecast.segmenting(paragraphs, config)
    expected = forecast.expect(slices, rates, _done(phases, artifacts), config.corpus.vocab_size, segment)
    return forecast.lines(expected, slices, forecast.free_disk(artifacts), workers)


def standing(config: Config, artifacts: Artifacts) -> dict[str, Any]:
    """Returns, as "slices", how far each phase of slices is, for `status`."""
    return {"slices": slices_done(plan(config, artifacts, 1), artifacts, artifacts.locked("prepare-corpus"))}


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
    marker, card = artifacts.marker(_manifest(corpus)), f"{corpus.key}/card"
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


@dataclass(frozen=True)
class _Keys:
    """Where everything goes; lists have one key a slice."""

    text: Artefact
    corpus: Artefact
    slices: int

    def _each(self, artefact: Artefact, name: str) -> list[str]:
        return [f"{artefact.key}/{name}-{number:05}" for number in range(self.slices)]

    @property
    def clean(self) -> list[str]:
        return self._each(self.text, "clean")

    @property
    def keep(self) -> str:
        return f"{self.text.key}/deduplicate"

    @property
    def sentences(self) -> list[str]:
        return self._each(self.text, "sentences")

    @property
    def vocabulary(self) -> str:
        return f"{self.corpus.key}/vocabulary"

    @property
    def tokenizer(self) -> str:
        return f"{self.corpus.key}/tokenizer.json"

    @property
    def encode(self) -> list[str]:
        return self._each(self.corpus, "encode")

    @property
    def train(self) -> list[str]:
        return self._each(self.corpus, "train")

    @property
    def validation(self) -> list[str]:
        return self._each(self.corpus, "validation")


def _text_phases(config: Config, keys: _Keys, slices: list[Slice]) -> list[Phase]:
    corpus = config.corpus
    clean = [
        _job(keys.text, key, clean_slice, output=key, part=part, cleanup=corpus.cleanup, on_bad_utf8=corpus.on_bad_utf8)
        for key, part in zip(keys.clean, slices, strict=True)
    ]
    keep = _job(
        keys.text, keys.keep, deduplicate, keys.clean,
        output=keys.keep, slices=keys.clean, enabled=corpus.cleanup.deduplicate,
    )  # fmt: skip
    sentences = [
        _job(
            keys.text, key, segment_slice, [clean_key, keys.keep],
            output=key, clean=clean_key, deduplicate=keys.keep, keep=f"{keys.keep}-{number:05}.npy",
            pipeline=corpus.spacy_pipeline, lowercase=corpus.preparation,
        )
        for number, (key, clean_key) in enumerate(zip(keys.sentences, keys.clean, strict=True))
    ]  # fmt: skip
    return [Phase("clean", clean, "slice"), Phase("deduplicate", [keep]), Phase("sentences", sentences, "slice")]


def _corpus_phases(config: Config, keys: _Keys, slices: list[Slice], imported: str) -> list[Phase]:
    corpus = config.corpus
    vocabulary = _job(
        keys.corpus, keys.vocabulary, train_vocabulary, [*keys.clean, keys.keep, *keys.sentences],
        tokenizer=keys.tokenizer, clean=keys.clean, deduplicate=keys.keep, sentences=keys.sentences,
        vocab_size=corpus.vocab_size, sample_words=corpus.bpe_sample_words,
        validation_every=corpus.validation_every, seed=corpus.seed, imported=imported,
    )  # fmt: skip
    encode = [
        _job(
            keys.corpus, key, encode_slice, [sentences, keys.vocabulary],
            number=number, sentences=sentences, vocabulary=keys.vocabulary, tokenizer=keys.tokenizer,
            train=train, validation=validation, blocks=corpus.blocks, block_length=corpus.block_length,
            cross_documents=corpus.cross_documents, validation_every=corpus.validation_every,
        )
        for number, (key, sentences, train, validation) in enumerate(
            zip(keys.encode, keys.sentences, keys.train, keys.validation, strict=True)
        )
    ]  # fmt: skip
    manifest = _job(
        keys.corpus, _manifest(keys.corpus), write_manifest,
        [*keys.clean, keys.keep, *keys.sentences, keys.vocabulary, *keys.encode],
        clean=keys.clean, deduplicate=keys.keep, sentences=keys.sentences, vocabulary=keys.vocabulary,
        encode=keys.encode, train=keys.train, validation=keys.validation, tokenizer=keys.tokenizer,
        sources=[source.kind for source in corpus.sources], source_of=[part.number for part in slices],
        vocab_size=0 if imported else corpus.vocab_size, block_length=corpus.block_length,
    )  # fmt: skip
    names = [Path(source.path).name or source.kind for source in corpus.sources]
    shown: dict[str, Any] = {"names": names, "licences": [source.licence for source in corpus.sources]}
    card = Job(
        f"{keys.corpus.key}/card", fingerprint(keys.corpus.fingerprint, "card", shown), write_card,
        {"manifest": _manifest(keys.corpus), "card": f"{keys.corpus.key}/card", **shown}, (_manifest(keys.corpus),),
    )  # fmt: skip
    return [
        Phase("vocabulary", [vocabulary]),
        Phase("encode", encode, "slice"),
        Phase("manifest", [manifest]),
        Phase("card", [card]),
    ]


def _job(
    artefact: Artefact, key: str, fn: Callable[..., Output], needs: list[str] | tuple[()] = (), **args: Any
) -> Job:
    """Returns a job whose fingerprint is its artefact's and its own place in it (phase and slice)."""
    return Job(key, fingerprint(artefact.fingerprint, key.rpartition("/")[2]), fn, args, tuple(needs))


def _manifest(corpus: Artefact) -> str:
    return f"{corpus.key}/manifest"


def _stands(lineage: Lineage) -> bool:
    try:
        return lineage.artifacts.marker(_manifest(lineage.corpus)) is not None
    except InputError:  # an input that was never seen
        return False
