"""Phase 6: the corpus manifest, with counts, problems and the keys of the corpus files."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mapnet_cli.config import Corpus
from mapnet_cli.core import Artifacts, CorpusManifest, SourceCounts
from mapnet_cli.jobs import Job, Output, ProgressCallback
from mapnet_cli.prepare_corpus.cleanup import EXAMPLE_CHARS, EXAMPLES
from mapnet_cli.prepare_corpus.outputs import (
    CleanedSlice,
    CorpusKeys,
    Deduplication,
    EncodedSlice,
    SegmentedSlice,
    TrainedVocabulary,
    mixed_versions,
    read_paragraphs,
)
from mapnet_cli.prepare_corpus.sources.reading import Problems
from mapnet_cli.prepare_corpus.train_bpe import dropped as dropped_by_rule
from mapnet_cli.text import shard_files

LEAST_FILL = 0.2
"""Mean fraction of a block's tokens that are used, below which there is a warning."""


@dataclass(frozen=True)
class _SliceCounts:
    cleaned: CleanedSlice
    segmented: SegmentedSlice
    encoded: EncodedSlice
    repeated: int
    """Number of paragraphs dropped as duplicates."""


@dataclass(frozen=True, kw_only=True)
class WriteManifest(Job):
    """Collects the counts of all slices; the result is a CorpusManifest."""

    keys: CorpusKeys
    corpus: Corpus
    source_of: tuple[int, ...]
    """Index in corpus.sources of the source of each slice."""

    def run(self, artifacts: Artifacts, progress: ProgressCallback) -> Output:
        keys = self.keys
        artifacts.verify(keys.deduplicate)
        artifacts.verify(keys.vocabulary)
        repeated = artifacts.read(keys.deduplicate, Deduplication).dropped_by_slice
        slices = [
            _SliceCounts(
                artifacts.read(clean, CleanedSlice),
                artifacts.read(sentences, SegmentedSlice),
                artifacts.read(encode, EncodedSlice),
                dropped,
            )
            for clean, sentences, encode, dropped in zip(keys.clean, keys.sentences, keys.encode, repeated, strict=True)
        ]
        vocabulary = artifacts.read(keys.vocabulary, TrainedVocabulary)
        vocab_size = vocabulary.vocab_size
        problems = self._problems(artifacts, slices, vocabulary)
        encoded = [counts.encoded for counts in slices]
        manifest = CorpusManifest(
            **_sums(slices),
            unknown_tokens=sum(counts.unknown_tokens for counts in encoded),
            dropped=dropped_by_rule(artifacts, keys),
            problem_count=problems.count,
            problems=problems.lines,
            vocab_size=vocab_size,
            block_length=self.corpus.block_length,
            train=[path for path, counts in zip(keys.train, encoded, strict=True) if counts.train_sequences],
            validation=[
                path for path, counts in zip(keys.validation, encoded, strict=True) if counts.validation_sequences
            ],
            tokenizer=keys.tokenizer,
            sources=[
                _of_source(source.kind, [c for c, of in zip(slices, self.source_of, strict=True) if of == number])
                for number, source in enumerate(self.corpus.sources)
            ],
            sentence_lengths=np.sum([counts.segmented.lengths for counts in slices], axis=0).tolist(),
            examples=_examples(slices) | _repeated(artifacts, keys, repeated),
        )
        shards = [artifacts.path(name) for name in (*manifest.train, *manifest.validation)]
        files = [file for shard in shards for file in shard_files(shard)]
        return Output([artifacts.path(keys.tokenizer), *files], manifest)

    def _problems(self, artifacts: Artifacts, slices: list[_SliceCounts], trained: TrainedVocabulary) -> Problems:
        problems = Problems()
        found, wanted = trained.vocab_size, self.corpus.vocab_size
        if not self.corpus.tokenizer and found < wanted:
            problems.add(f"corpus.vocab_size is {wanted:,}, but the text yields only {found:,} entries")
        if trained.long_words:
            problems.add(
                f"BPE was trained without {trained.long_words:,} words of more than {self.corpus.bpe_word_chars:,} "
                f"characters (corpus.bpe_word_chars), such as {trained.longest_word}"
            )
        keys = [*self.keys.clean, *self.keys.sentences, *self.keys.encode]
        for name, versions in mixed_versions(artifacts, keys).items():
            problems.add(f"slices were prepared with {name} {' and '.join(versions)}: use --force to redo them")
        if thin := _thin_blocks([counts.encoded for counts in slices], self.corpus):
            problems.add(thin)
        for counts in slices:
            problems.merge(counts.cleaned.problems, counts.cleaned.problem_count)
        return problems


def _thin_blocks(slices: list[EncodedSlice], corpus: Corpus) -> str:
    """Returns a warning, with its cure, if the blocks are mostly empty, else ""."""
    blocks = sum(counts.train_sequences + counts.validation_sequences for counts in slices)
    fill = (sum(counts.tokens for counts in slices) + 2 * blocks) / max(blocks * corpus.block_length, 1)
    if fill >= LEAST_FILL or not blocks:
        return ""
    cure = f"set corpus.block_length to less than {corpus.block_length}"
    if corpus.blocks == "sentence":
        cure += ', or corpus.blocks to "complete"'
    elif not corpus.cross_documents:
        cure += ", or corpus.cross_documents = true, since documents are short"
    return f"blocks of {corpus.block_length} tokens are only {fill:.0%} full on average: {cure}"


def _of_source(kind: str, slices: list[_SliceCounts]) -> SourceCounts:
    repeated = [{"deduplicate": counts.repeated} if counts.repeated else {} for counts in slices]
    cleaned = [counts.cleaned for counts in slices]
    return SourceCounts(
        kind=kind,
        **_sums(slices),
        dropped=_total([*(counts.dropped for counts in cleaned), *repeated]),
        left_out=_total(counts.left_out for counts in cleaned),
        markup=_total(counts.markup for counts in cleaned),
    )


def _sums(slices: list[_SliceCounts]) -> dict[str, Any]:
    segmented = ("documents", "paragraphs", "sentences", "words")
    encoded = ("tokens", "train_sequences", "validation_sequences")
    found = {name: sum(getattr(counts.segmented, name) for counts in slices) for name in segmented}
    return found | {name: sum(getattr(counts.encoded, name) for counts in slices) for name in encoded}


def _total(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(sorted(total.items()))


def _examples(slices: list[_SliceCounts]) -> dict[str, list[str]]:
    shown: dict[str, list[str]] = {}
    for counts in slices:
        for rule, paragraphs in counts.cleaned.examples.items():
            shown[rule] = (shown.get(rule, []) + paragraphs)[:EXAMPLES]
    return dict(sorted(shown.items()))


def _repeated(artifacts: Artifacts, keys: CorpusKeys, repeated: list[int]) -> dict[str, list[str]]:
    """Returns the beginnings of the first paragraphs dropped as duplicates."""
    shown: list[str] = []
    for number, (key, count) in enumerate(zip(keys.clean, repeated, strict=True)):
        if count and len(shown) < EXAMPLES:
            keep = np.load(artifacts.path(keys.keep(number)), mmap_mode="r", allow_pickle=False)
            shown += _first_dropped(artifacts.path(f"{key}.txt"), keep, EXAMPLES - len(shown))
    return {"deduplicate": shown} if shown else {}


def _first_dropped(file: Path, keep: Any, limit: int) -> list[str]:
    found: list[str] = []
    paragraphs = (paragraph for paragraph in read_paragraphs(file) if paragraph is not None)
    for paragraph, kept in zip(paragraphs, keep, strict=False):
        if not kept:
            found.append(paragraph[:EXAMPLE_CHARS])
            if len(found) == limit:
                break
    return found
