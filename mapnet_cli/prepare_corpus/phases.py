"""The phases of a corpus: which jobs there are, what each needs and where its output goes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mapnet_cli.config import Config
from mapnet_cli.jobs.job import Job, Output, Phase
from mapnet_cli.lineage.digests import fingerprint
from mapnet_cli.lineage.graph import ArtifactId, Lineage
from mapnet_cli.prepare_corpus.card import write_card
from mapnet_cli.prepare_corpus.encode import encode_slice
from mapnet_cli.prepare_corpus.manifest import write_manifest
from mapnet_cli.prepare_corpus.paragraphs import clean_slice, deduplicate
from mapnet_cli.prepare_corpus.sentences import segment_slice
from mapnet_cli.prepare_corpus.slices import Slice, input_slices
from mapnet_cli.prepare_corpus.train_bpe import train_vocabulary


def corpus_phases(config: Config, lineage: Lineage) -> list[Phase]:
    """Returns all phases. Raises InputError, naming the config key, if a source is missing or has no files."""
    slices = input_slices(config)
    keys = _Keys(lineage.text, lineage.corpus, len(slices))
    imported = lineage.imported(config.corpus.tokenizer).key if config.corpus.tokenizer else ""
    return _text_phases(config, keys, slices) + _shard_phases(config, keys, slices, imported)


def manifest_key(corpus: ArtifactId) -> str:
    return f"{corpus.key}/manifest"


@dataclass(frozen=True)
class _Keys:
    """Where everything goes; lists have one key a slice."""

    text: ArtifactId
    corpus: ArtifactId
    slices: int

    def _each(self, artifact: ArtifactId, name: str) -> list[str]:
        return [f"{artifact.key}/{name}-{number:05}" for number in range(self.slices)]

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


def _shard_phases(config: Config, keys: _Keys, slices: list[Slice], imported: str) -> list[Phase]:
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
        keys.corpus, manifest_key(keys.corpus), write_manifest,
        [*keys.clean, keys.keep, *keys.sentences, keys.vocabulary, *keys.encode],
        clean=keys.clean, deduplicate=keys.keep, sentences=keys.sentences, vocabulary=keys.vocabulary,
        encode=keys.encode, train=keys.train, validation=keys.validation, tokenizer=keys.tokenizer,
        sources=[source.kind for source in corpus.sources], source_of=[part.number for part in slices],
        vocab_size=0 if imported else corpus.vocab_size, block_length=corpus.block_length,
    )  # fmt: skip
    names = [Path(source.path).name or source.kind for source in corpus.sources]
    shown: dict[str, Any] = {"names": names, "licences": [source.licence for source in corpus.sources]}
    place, of = f"{keys.corpus.key}/card", manifest_key(keys.corpus)
    known_by = fingerprint(keys.corpus.fingerprint, "card", shown)
    card = Job(place, known_by, write_card, {"manifest": of, "card": place, **shown}, (of,))
    return [
        Phase("vocabulary", [vocabulary]),
        Phase("encode", encode, "slice"),
        Phase("manifest", [manifest]),
        Phase("card", [card]),
    ]


def _job(
    artifact: ArtifactId, key: str, fn: Callable[..., Output], needs: list[str] | tuple[()] = (), **args: Any
) -> Job:
    """Returns a job whose fingerprint is its artifact's and its own place in it (phase and slice)."""
    return Job(key, fingerprint(artifact.fingerprint, key.rpartition("/")[2]), fn, args, tuple(needs))
