"""A task's examples as token ids on disk: written by one job, read by many runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mapnet_cli.core import DamagedError, publishing
from mapnet_cli.finetune_glue.examples import Examples
from mapnet_cli.text import CLS, SEP, encode_lines, load_tokenizer, padded, prepare_line

ARRAYS = ("tokens", "offsets", "labels", "second")
IDS = "ids.npy"


@dataclass(frozen=True)
class Tokenised:
    """The examples of one split as concatenated token ids, and their labels."""

    tokens: npt.NDArray[np.uint32]
    offsets: npt.NDArray[np.int64]
    labels: npt.NDArray[np.float32]
    second: npt.NDArray[np.int64]
    """Start of the second text in each example; the example's length if there is none."""

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        return np.diff(self.offsets)

    def __getitem__(self, index: int) -> npt.NDArray[np.uint32]:
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]

    def batch(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Returns the examples' token ids [B, L], padded to the longest example."""
        return padded([self[index] for index in indices], int(self.lengths[indices].max()))


def tokenise(examples: Examples, tokenizer: Path, lowercase: str, max_length: int) -> tuple[Tokenised, int]:
    """Returns the examples as token ids, and how many were truncated to `max_length` (at the longer text's end).

    The layout is fairseq's: `[CLS] a [SEP]` or `[CLS] a [SEP] [SEP] b [SEP]`. With lowercase "none" (an import), it is
    that of the tokenizer if it defines one, as in transformers.
    """
    pieces = load_tokenizer(tokenizer)
    if lowercase == "none" and pieces.post_processor is not None:
        pieces.enable_truncation(max_length, strategy="longest_first")
        encoded = pieces.encode_batch([row[0] if len(row) == 1 else row for row in examples.texts])
        second = [len(encoding.ids) - sum(encoding.type_ids) for encoding in encoded]
        return _concatenate([e.ids for e in encoded], examples, second), sum(bool(e.overflowing) for e in encoded)
    columns = zip(*examples.texts, strict=True)
    fields = [encode_lines(pieces, [prepare_line(text, lowercase) for text in column]) for column in columns]
    sequences, second, cut = [], [], 0
    for row in zip(*fields, strict=True):
        texts = [list(ids) for ids in row]
        room = max_length - (2 if len(texts) == 1 else 4)
        cut += sum(map(len, texts)) > room
        while sum(map(len, texts)) > room:
            max(texts, key=len).pop()
        sequence = [CLS, *texts[0], SEP]
        second.append(len(sequence))
        for text in texts[1:]:
            sequence += [SEP, *text, SEP]
        sequences.append(sequence)
    return _concatenate(sequences, examples, second), cut


def _concatenate(sequences: list[list[int]], examples: Examples, second: list[int]) -> Tokenised:
    offsets = np.cumsum([0, *map(len, sequences)], dtype=np.int64)
    tokens = np.array([token for sequence in sequences for token in sequence], dtype=np.uint32)
    return Tokenised(tokens, offsets, np.array(examples.labels, dtype=np.float32), np.array(second, dtype=np.int64))


def save(folder: Path, data: Tokenised, ids: Sequence[str]) -> list[Path]:
    """Writes the examples and their ids, and returns the files."""
    with publishing(folder) as temporary:
        temporary.mkdir()
        for name in ARRAYS:
            np.save(temporary / f"{name}.npy", getattr(data, name))
        np.save(temporary / IDS, np.array(ids, dtype=str))
    return sorted(folder.iterdir())


@lru_cache(maxsize=32)
def load(folder: Path) -> Tokenised:
    """Returns a split's examples as memory maps, whose pages all runs on a machine share."""
    try:
        return Tokenised(*(np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r")) for name in ARRAYS))
    except (OSError, ValueError) as error:
        raise DamagedError(f"{folder} can't be read ({error}): run `mapnet finetune-glue --force`") from None


def load_ids(folder: Path) -> list[str]:
    """Returns the ids of a split's examples."""
    return [str(row_id) for row_id in np.load(folder / IDS)]
