"""Phase 6: the corpus manifest, with counts, problems and the keys of the corpus files."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from mapnet_cli.config import Corpus
from mapnet_cli.core import Artifacts, CorpusCounts, CorpusManifest, SourceCounts
from mapnet_cli.jobs import Job, Output, ProgressCallback
from mapnet_cli.prepare_corpus import outputs
from mapnet_cli.prepare_corpus.cleanup import EXAMPLE_CHARS, EXAMPLES
from mapnet_cli.prepare_corpus.sources.reading import Problems
from mapnet_cli.text import shard_files

LEAST_FILL = 0.2  # mean fraction of a block's tokens that are used, below which there is a warning
_COUNTS = set(CorpusCounts.model_fields)


@dataclass(frozen=True, kw_only=True)
class WriteManifest(Job):
    """Collects the counts of all slices; the result is a CorpusManifest."""

    keys: outputs.CorpusKeys
    corpus: Corpus
    source_of: tuple[int, ...]  # index in corpus.sources of the source of each slice

    def run(self, artifacts: Artifacts, progress: ProgressCallback) -> Output:
        keys = self.keys
        artifacts.verify(keys.of("deduplicate"))
        artifacts.verify(keys.of("vocabulary"))
        cleaned = [artifacts.read(key, outputs.CleanedSlice) for key in keys.each("clean")]
        segmented = [artifacts.read(key, outputs.SegmentedSlice) for key in keys.each("sentences")]
        encoded = [artifacts.read(key, outputs.EncodedSlice) for key in keys.each("encode")]
        repeated = artifacts.read(keys.of("deduplicate"), outputs.Deduplication).dropped_by_slice
        slices = [
            SourceCounts(
                kind="", **words.model_dump(include=_COUNTS), **tokens.model_dump(include=_COUNTS),
                dropped=text.dropped | {"deduplicate": double}, left_out=text.left_out, markup=text.markup,
            )
            for text, double, words, tokens in zip(cleaned, repeated, segmented, encoded, strict=True)
        ]  # fmt: skip
        sources = [
            _sum([counts for counts, of in zip(slices, self.source_of, strict=True) if of == number], source.kind)
            for number, source in enumerate(self.corpus.sources)
        ]
        whole = _sum(sources)
        vocabulary = artifacts.read(keys.of("vocabulary"), outputs.TrainedVocabulary)
        problems = outputs.found_problems(cleaned, self._problems(artifacts, whole, vocabulary))
        examples: dict[str, list[str]] = {}
        for rule, paragraphs in (pair for row in cleaned for pair in row.examples.items()):
            examples[rule] = (examples.get(rule, []) + paragraphs)[:EXAMPLES]
        duplicates = list(islice(_duplicates(artifacts, keys, repeated), EXAMPLES))
        train, validation = (
            [key for key, row in zip(keys.each(split), encoded, strict=True) if getattr(row, f"{split}_sequences")]
            for split in ("train", "validation")
        )
        manifest = CorpusManifest(
            **whole.model_dump(include=_COUNTS | {"dropped"}),
            unknown_tokens=sum(row.unknown_tokens for row in encoded),
            problem_count=problems.count, problems=problems.lines, vocab_size=vocabulary.vocab_size,
            block_length=self.corpus.block_length, train=train, validation=validation,
            tokenizer=keys.of("tokenizer.json"), sources=sources,
            sentence_lengths=np.sum([row.lengths for row in segmented], axis=0).tolist(),
            examples=dict(sorted(examples.items())) | ({"deduplicate": duplicates} if duplicates else {}),
        )  # fmt: skip
        files = [file for name in (*train, *validation) for file in shard_files(artifacts.path(name))]
        return Output([artifacts.path(manifest.tokenizer), *files], manifest)

    def _problems(self, artifacts: Artifacts, whole: SourceCounts, trained: outputs.TrainedVocabulary) -> Problems:
        """Returns the problems with the corpus as a whole."""
        problems = Problems()
        found, wanted = trained.vocab_size, self.corpus.vocab_size
        if not self.corpus.tokenizer and found < wanted:
            problems.add(f"corpus.vocab_size is {wanted:,}, but the text yields only {found:,} entries")
        if trained.long_words:
            problems.add(
                f"BPE was trained without {trained.long_words:,} words of more than {self.corpus.bpe_word_chars:,} "
                f"characters (corpus.bpe_word_chars), such as {trained.longest_word}"
            )
        versions = defaultdict[str, set[str]](set)
        for key in (*self.keys.each("clean"), *self.keys.each("sentences"), *self.keys.each("encode")):
            for name, version in artifacts.require(key).versions.items():
                versions[name].add(version)
        for name, mixed in sorted(versions.items()):
            if len(mixed) > 1:
                problems.add(
                    f"slices were prepared with {name} {' and '.join(sorted(mixed))}: use --force to redo them"
                )
        if thin := _thin_blocks(whole, self.corpus):
            problems.add(thin)
        return problems


def _thin_blocks(made: SourceCounts, corpus: Corpus) -> str:
    """Returns a warning, with its cure, if the blocks are mostly empty, else ""."""
    blocks = made.train_sequences + made.validation_sequences
    fill = (made.tokens + 2 * blocks) / max(blocks * corpus.block_length, 1)
    if fill >= LEAST_FILL or not blocks:
        return ""
    cure = f"set corpus.block_length to less than {corpus.block_length}"
    if corpus.blocks == "sentence":
        cure += ', or corpus.blocks to "complete"'
    elif not corpus.cross_documents:
        cure += ", or corpus.cross_documents = true, since documents are short"
    return f"blocks of {corpus.block_length} tokens are only {fill:.0%} full on average: {cure}"


def _sum(rows: list[SourceCounts], kind: str = "") -> SourceCounts:
    counts: dict[str, Any] = {name: sum(getattr(row, name) for row in rows) for name in _COUNTS}
    by_rule = {name: outputs.total(getattr(row, name) for row in rows) for name in ("dropped", "left_out", "markup")}
    return SourceCounts(kind=kind, **counts | by_rule)


def _duplicates(artifacts: Artifacts, keys: outputs.CorpusKeys, repeated: list[int]) -> Iterator[str]:
    """Yields the beginnings of the paragraphs dropped as duplicates."""
    for number, (key, count) in enumerate(zip(keys.each("clean"), repeated, strict=True)):
        if count:
            keep = np.load(artifacts.path(keys.keep(number)), mmap_mode="r", allow_pickle=False)
            paragraphs = filter(None, outputs.read_paragraphs(artifacts.path(f"{key}.txt")))
            yield from (text[:EXAMPLE_CHARS] for text, kept in zip(paragraphs, keep, strict=True) if not kept)
