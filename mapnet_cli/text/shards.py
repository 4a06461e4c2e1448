"""Token shards: sequences of token ids in two memory-mapped files.

`NAME.tokens.npy` contains the concatenated ids (uint16, or uint32 for vocabularies of more than
65,536 entries), `NAME.offsets.npy` (int64, n + 1) the start of each of the n sequences and the end.
"""

import resource
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from mapnet_cli.core import Artifacts, DamagedError, UsageError, publishing
from mapnet_cli.text.words import PAD

OTHER_FILES = 512  # number of files that a process may open in addition to its shards

Ids = npt.NDArray[np.unsignedinteger[Any]]

# Array shapes: B sequences of the batch, L tokens of a row.


def shard_files(path: Path) -> list[Path]:
    """Returns the tokens and offsets files of the shard `path` (a path without suffix)."""
    return [path.with_name(path.name + ".tokens.npy"), path.with_name(path.name + ".offsets.npy")]


class ShardWriter:
    """Appends sequences to a shard; made by `writing_shard`, which publishes both files at the end."""

    def __init__(self, handle: IO[bytes], vocab_size: int) -> None:
        self._handle = handle
        self._dtype = np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")
        self.offsets = array("q", [0])

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def add(self, ids: Sequence[int]) -> None:
        self._handle.write(np.asarray(ids, dtype=self._dtype).tobytes())
        self.offsets.append(self.offsets[-1] + len(ids))

    def write_header(self) -> None:
        """Writes the number of tokens so far; numpy pads the header so that the number may grow in place."""
        self._handle.seek(0)
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": (self.offsets[-1],)}
        np.lib.format.write_array_header_1_0(self._handle, header)


@contextmanager
def writing_shard(path: Path, vocab_size: int) -> Iterator[ShardWriter]:
    """Yields a writer for the shard `path`, which is published if the block ends without an exception."""
    tokens, offsets = shard_files(path)
    with publishing(tokens) as temporary, publishing(offsets) as temporary_offsets:
        with temporary.open("wb") as handle:
            writer = ShardWriter(handle, vocab_size)
            writer.write_header()
            yield writer
            writer.write_header()
        with temporary_offsets.open("wb") as handle:
            np.save(handle, np.asarray(writer.offsets, dtype="<i8"), allow_pickle=False)


class Sequences:
    """Sequences of many shards as one list, read from disk on access (12 bytes of memory each). Raises DamagedError."""

    def __init__(self, paths: Sequence[Path]) -> None:
        _allow_open_files(len(paths))
        shards = [_open(path) for path in paths]
        self._tokens = [tokens for tokens, _ in shards]
        self._offsets = [offsets for _, offsets in shards]
        self._firsts = np.cumsum([0] + [len(offsets) - 1 for offsets in self._offsets])
        lengths = [np.diff(offsets).astype(np.int32) for offsets in self._offsets]
        self.lengths: npt.NDArray[np.int32] = np.concatenate(lengths) if lengths else np.zeros(0, dtype=np.int32)
        """Number of tokens of each sequence."""

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def __getitem__(self, index: int) -> Ids:
        """Returns the ids of one sequence, [L]; raises IndexError."""
        if not 0 <= index < len(self):
            raise IndexError(f"sequence {index} of {len(self)}")
        shard = int(np.searchsorted(self._firsts, index, side="right")) - 1
        begin, end = self._offsets[shard][index - self._firsts[shard] :][:2]
        return self._tokens[shard][begin:end]


def padded(sequences: Sequence[Ids], length: int) -> npt.NDArray[np.int64]:
    """Returns sequences as rows [B, L] with L = `length`, padded with [PAD]. Raises ValueError if one is longer."""
    rows_BL = np.full((len(sequences), length), PAD, dtype=np.int64)
    for row, ids in zip(rows_BL, sequences, strict=True):
        if len(ids) > length:
            raise ValueError(f"a sequence has {len(ids)} tokens, not at most {length}")
        row[: len(ids)] = ids
    return rows_BL


def open_shards(artifacts: Artifacts, names: Sequence[str]) -> Sequences:
    """Returns the sequences of a corpus split; `names` are the keys of its shards from the manifest."""
    return Sequences([artifacts.path(name) for name in names])


def _allow_open_files(shards: int) -> None:
    """Raises the open-file limit of the process if needed (memory maps keep files open), or UsageError if it can't."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = shards + OTHER_FILES
    if resource.RLIM_INFINITY != hard < wanted:
        raise UsageError(
            f"{shards:,} shards must be open at once, but this machine allows only {hard:,} open files per process "
            "(ulimit -Hn): raise the limit, or prepare the corpus with a larger corpus.slice_mb"
        )
    if resource.RLIM_INFINITY != soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _open(path: Path) -> tuple[Ids, npt.NDArray[np.int64]]:
    tokens_file, offsets_file = shard_files(path)
    try:
        tokens = np.load(tokens_file, mmap_mode="r", allow_pickle=False)
        offsets = np.load(offsets_file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DamagedError(f"shard {path} can't be read ({error}): run prepare-corpus again with --force") from None
    typed = tokens.dtype.str in ("<u2", "<u4") and offsets.dtype.str == "<i8" and tokens.ndim == offsets.ndim == 1
    whole = typed and len(offsets) > 0 and offsets[0] == 0 and offsets[-1] == len(tokens)
    if not (whole and (np.diff(offsets) >= 0).all()):
        raise DamagedError(f"shard {path} is damaged (its offsets don't match its tokens): run again with --force")
    return tokens, offsets
