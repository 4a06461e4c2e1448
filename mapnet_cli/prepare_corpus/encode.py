"""Phase 5: encodes sentences, packs the token ids into blocks and splits them into training and validation."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path

from tokenizers import Tokenizer

from mapnet_cli.config import Corpus
from mapnet_cli.core import Artifacts
from mapnet_cli.jobs import Job, Output, Progress, ProgressCallback
from mapnet_cli.prepare_corpus import outputs
from mapnet_cli.text import CLS, SEP, SPACE, UNK, encode_lines, load_tokenizer, shard_files, writing_shard

BATCH = 4_096  # maximum number of lines encoded together
BATCH_CHARS = 4_000_000
MOST_WORDS, LONGEST_WORD = 300_000, 60
"""Number of words whose ids are kept for later lines, in about 60 MB, and their maximum length."""


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
        full, begin = self._blocks == "full", 0
        if not full and (len(self._block) + len(sentence) > self._room or self._blocks == "sentence"):
            self.flush()
        while len(self._block) + len(sentence) - begin > self._room - full:
            end = begin + self._room - len(self._block)
            self._block += sentence[begin:end]
            begin = end
            self.flush()
        self._block += sentence[begin:]

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

    keys: outputs.CorpusKeys
    number: int
    corpus: Corpus

    def run(self, artifacts: Artifacts, progress: ProgressCallback) -> Output:
        keys, corpus = self.keys, self.corpus
        sentences, train, validation = (keys.each(of)[self.number] for of in ("sentences", "train", "validation"))
        artifacts.verify(sentences)
        artifacts.verify(keys.of("vocabulary"))
        total = artifacts.read(sentences, outputs.SegmentedSlice).sentences
        made, tokenizer = artifacts.require(keys.of("vocabulary")), keys.of("tokenizer.json")
        document = made.row(outputs.TrainedVocabulary).first_documents[self.number]
        encoder = _encoder(artifacts.path(tokenizer), made.files[tokenizer], not corpus.tokenizer)
        vocab_size = encoder.tokenizer.get_vocab_size()
        shards = [artifacts.path(train), artifacts.path(validation)]
        done = tokens = unknown = 0
        with writing_shard(shards[0], vocab_size) as held_in, writing_shard(shards[1], vocab_size) as held_out:
            layout = corpus.blocks, corpus.block_length, corpus.cross_documents
            packers = Packer(*layout, held_in.add), Packer(*layout, held_out.add)
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
        result = outputs.EncodedSlice(
            tokens=tokens, unknown_tokens=unknown,
            train_sequences=len(held_in), validation_sequences=len(held_out),
        )  # fmt: skip
        return Output([file for shard in shards for file in shard_files(shard)], result)


class WordIds(dict[str, tuple[int, ...]]):
    """The token ids of each word, asked of the tokenizer once."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self._tokenizer = tokenizer

    def __missing__(self, word: str) -> tuple[int, ...]:
        ids = tuple(self._tokenizer.encode(word, add_special_tokens=False).ids)
        if len(word) <= LONGEST_WORD:
            if len(self) >= MOST_WORDS:
                self.clear()
            self[word] = ids
        return ids


class Encoder:
    """A tokenizer; with `by_word`, one that treats the words of a line separately, as mapnet's own does."""

    def __init__(self, tokenizer: Tokenizer, by_word: bool) -> None:
        self.tokenizer = tokenizer
        self._ids = WordIds(tokenizer) if by_word else None

    def __call__(self, lines: Sequence[str]) -> Iterator[list[int]]:
        """Yields the token ids of each line, whose words are separated by single spaces."""
        if self._ids is None:
            yield from encode_lines(self.tokenizer, lines)
            return
        for line in lines:
            if SPACE in line:  # the tokenizer takes its own mark of a space for one
                yield from encode_lines(self.tokenizer, [line])
            else:
                yield list(chain.from_iterable(map(self._ids.__getitem__, line.split(" "))))


@lru_cache(maxsize=1)
def _encoder(tokenizer: Path, checksum: str, by_word: bool) -> Encoder:
    """Returns the encoder, also to later jobs; its checksum is part of the key, since the file may be replaced."""
    return Encoder(load_tokenizer(tokenizer), by_word)


def _encoded(encoder: Encoder, file: Path) -> Iterator[list[int] | None]:
    """Yields the ids of each sentence, and None at the end of each document."""
    batch: list[str | None] = []
    chars = 0
    for paragraph in chain(outputs.read_sentences(file), [[]]):
        batch += [None] if paragraph is None else paragraph
        chars += sum(map(len, paragraph or ()))
        if len(batch) >= BATCH or chars >= BATCH_CHARS or paragraph == []:
            ids = encoder([line for line in batch if line is not None])
            yield from (None if line is None else next(ids) for line in batch)
            batch, chars = [], 0
