"""Phase 5: encodes sentences, packs the token ids into blocks and splits them into training and validation."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from mapnet_cli.config import Corpus
from mapnet_cli.core import Artifacts
from mapnet_cli.jobs import Job, Output, Progress, ProgressCallback
from mapnet_cli.prepare_corpus.outputs import (
    CorpusKeys,
    EncodedSlice,
    SegmentedSlice,
    TrainedVocabulary,
    read_sentences,
)
from mapnet_cli.text import CLS, SEP, UNK, WordEncoder, load_tokenizer, shard_files, writing_shard

BATCH = 4_096
"""Maximum number of lines encoded together."""
BATCH_CHARS = 4_000_000


class Packer:
    """Packs sentences into blocks of at most `length` tokens, [CLS] ... [SEP], and calls `emit` with each block.

    blocks "complete": as many whole sentences as fit; a sentence that is longer than a block is
    split. "full": every block is filled completely, and sentences continue in the next block.
    "sentence": one sentence per block (or several blocks for a long one). A block ends at the end of
    its document, unless `cross_documents`.
    """

    def __init__(self, blocks: str, length: int, cross_documents: bool, emit: Callable[[list[int]], None]) -> None:
        self._room = length - 2
        self._blocks = blocks
        self._cross_documents = cross_documents
        self._emit = emit
        self._block: list[int] = []

    def add(self, sentence: Sequence[int]) -> None:
        if self._blocks == "full":
            while len(self._block) + len(sentence) >= self._room:
                cut = self._room - len(self._block)
                self._block, sentence = [*self._block, *sentence[:cut]], sentence[cut:]
                self.flush()
        elif len(self._block) + len(sentence) > self._room or self._blocks == "sentence":
            self.flush()
        while len(sentence) > self._room:
            self._block, sentence = list(sentence[: self._room]), sentence[self._room :]
            self.flush()
        self._block += sentence

    def end_document(self) -> None:
        if not self._cross_documents:
            self.flush()

    def flush(self) -> None:
        """Emits the current block, if it isn't empty; call it at the end."""
        if self._block:
            self._emit([CLS, *self._block, SEP])
        self._block = []


@dataclass(frozen=True, kw_only=True)
class EncodeSlice(Job):
    """Writes the training and validation shards of one slice.

    Every validation_every-th document of the whole corpus is held out; the number of documents in
    earlier slices comes from the result of `TrainVocabulary`.
    """

    keys: CorpusKeys
    number: int
    corpus: Corpus

    def run(self, artifacts: Artifacts, progress: ProgressCallback) -> Output:
        sentences, vocabulary, corpus = self.keys.sentences[self.number], self.keys.vocabulary, self.corpus
        artifacts.verify(sentences)
        artifacts.verify(vocabulary)
        total = artifacts.read(sentences, SegmentedSlice).sentences
        made = artifacts.require(vocabulary)
        document = made.row(TrainedVocabulary).first_documents[self.number]
        encoder, vocab_size = _encoder(artifacts.path(self.keys.tokenizer), made.files[self.keys.tokenizer])
        train, validation = (artifacts.path(keys[self.number]) for keys in (self.keys.train, self.keys.validation))
        done = tokens = unknown = 0
        with (
            writing_shard(train, vocab_size) as train_shard,
            writing_shard(validation, vocab_size) as validation_shard,
        ):
            packers = [
                Packer(corpus.blocks, corpus.block_length, corpus.cross_documents, shard.add)
                for shard in (train_shard, validation_shard)
            ]
            for ids in _encoded(encoder, artifacts.path(f"{sentences}.txt")):
                packer = packers[document % corpus.validation_every == corpus.validation_every - 1]
                if ids is None:
                    packer.end_document()
                    document += 1
                    continue
                packer.add(ids)
                tokens += len(ids)
                unknown += ids.count(UNK)
                done += 1
                if done % BATCH == 0:
                    progress(Progress(done, total, f"{tokens:,} tokens"))
            for packer in packers:
                packer.flush()
        result = EncodedSlice(
            tokens=tokens, unknown_tokens=unknown,
            train_sequences=len(train_shard), validation_sequences=len(validation_shard),
        )  # fmt: skip
        return Output([*shard_files(train), *shard_files(validation)], result)


@lru_cache(maxsize=1)
def _encoder(tokenizer: Path, checksum: str) -> tuple[WordEncoder, int]:
    """Returns the encoder, which later jobs of this process reuse, and its vocabulary size.

    `checksum` is part of the cache key, since the file may be replaced by another tokenizer.
    """
    loaded = load_tokenizer(tokenizer)
    return WordEncoder(loaded), loaded.get_vocab_size()


def _encoded(encoder: WordEncoder, file: Path) -> Iterator[list[int] | None]:
    """Yields the ids of each sentence, and None at the end of each document."""
    batch: list[str | None] = []
    chars = 0
    for paragraph in read_sentences(file):
        batch += [None] if paragraph is None else paragraph
        chars += sum(map(len, paragraph or ()))
        if len(batch) >= BATCH or chars >= BATCH_CHARS:
            yield from _encoded_batch(encoder, batch)
            batch, chars = [], 0
    yield from _encoded_batch(encoder, batch)


def _encoded_batch(encoder: WordEncoder, batch: list[str | None]) -> Iterator[list[int] | None]:
    ids = encoder([line for line in batch if line is not None])
    for line in batch:
        yield None if line is None else next(ids)
