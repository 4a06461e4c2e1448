"""Phases 1 and 2: the clean paragraphs of each slice, and exact de-duplication over the whole corpus."""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mapnet_cli.config import Cleanup
from mapnet_cli.core import TEMPORARY, Artifacts, publishing
from mapnet_cli.jobs import Job, Output, Progress, ProgressCallback
from mapnet_cli.prepare_corpus.cleanup import Dropped, clean
from mapnet_cli.prepare_corpus.outputs import CleanedSlice, CorpusKeys, Deduplication, require_text
from mapnet_cli.prepare_corpus.slices import Slice
from mapnet_cli.prepare_corpus.sources.books import Words
from mapnet_cli.prepare_corpus.sources.documents import read_cpython, read_hub, read_piece
from mapnet_cli.prepare_corpus.sources.reading import Lines, Reading, printable
from mapnet_cli.prepare_corpus.sources.records import require_key

HASH_BYTES = 16
"""Two of n distinct paragraphs collide (and one is lost) with probability n^2 / 2^129: 10^-21 for n = 10^9."""
SORTED = 2_000_000
"""Number of hashes compared at a time, in about 400 MB. More are first partitioned by value into files on disk."""
REPORTED = 2_000
"""Paragraphs between two progress reports."""

# Array shapes: n paragraphs of a slice, of a bucket or of the corpus.
Hashes = npt.NDArray[np.uint64]
"""[n, 2]"""
ROW = np.dtype([("hash", "<u8", 2), ("number", "<i8")])
"""A paragraph's hash and its number in the corpus."""
HashRows = Iterator[npt.NDArray[np.void]]
"""Arrays of dtype ROW in corpus order, each of at most SORTED rows."""


@dataclass(frozen=True, kw_only=True)
class CleanSlice(Job):
    """Writes the slice's paragraphs (KEY.txt) and their 128-bit hashes (KEY.hashes, 16 bytes each)."""

    part: Slice
    cleanup: Cleanup
    on_bad_utf8: str

    def run(self, artifacts: Artifacts, progress: ProgressCallback) -> Output:
        reading, dropped = Reading(), Dropped()
        text_file, hash_file = artifacts.path(f"{self.key}.txt"), artifacts.path(f"{self.key}.hashes")
        count = words = 0
        with ExitStack() as stack:
            unfinished = stack.enter_context(publishing(text_file))
            text = stack.enter_context(unfinished.open("w", encoding="utf-8", newline="\n"))
            hashes = stack.enter_context(stack.enter_context(publishing(hash_file)).open("wb"))
            lines = read_slice(self.part, self.on_bad_utf8, reading, progress)
            for paragraph in clean(lines, self.cleanup, dropped):
                text.write(f"{paragraph or ''}\n")
                if paragraph:
                    count += 1
                    words += paragraph.count(" ") + 1
                    hashes.write(hashlib.blake2b(paragraph.encode(), digest_size=HASH_BYTES).digest())
                    if count % REPORTED == 0:
                        done = reading.pieces + reading.share
                        progress(Progress(done, max(1, len(self.part.pieces)), f"{words:,} words"))
            size = text.tell()
        result = CleanedSlice(
            paragraphs=count, words=words, bytes=size,
            dropped=dict(sorted(dropped.counts.items())), examples=dict(sorted(dropped.examples.items())),
            left_out=dict(sorted(reading.left_out.items())),
            markup=dict(sorted((reading.markup + dropped.changed).items())),
            problems=reading.problems.lines, problem_count=reading.problems.count, amounts=dict(reading.amounts),
        )  # fmt: skip
        return Output([text_file, hash_file], result)


def read_slice(part: Slice, on_bad_utf8: str, reading: Reading, progress: ProgressCallback) -> Lines:
    """Yields the lines of a slice and records problems in `reading`. Raises InputError like `read_piece`."""
    if part.source.kind == "cpython":
        yield from read_cpython(part.part, part.parts, part.source.limit)
    elif part.source.from_hub:
        yield from read_hub(part.source, part.part, part.parts, part.config_key, reading)
    for note in part.notes:
        reading.problems.add(note)
    reading.words = Words(part.pieces, part.source.encoding)
    for done, piece in enumerate(part.pieces):
        progress(Progress(done, len(part.pieces), printable(piece.path.name)))
        reading.pieces = done
        yield from read_piece(piece, part.name(piece), part.source, on_bad_utf8, reading)
    require_key(part.source.column, part.config_key, reading)


@dataclass(frozen=True, kw_only=True)
class Deduplicate(Job):
    """Writes which paragraphs of each slice are kept (KEY-N.npy, [n] bool): the first one of each set of equal ones."""

    keys: CorpusKeys
    enabled: bool
    sources: tuple[tuple[int, float], ...] = ()
    """The number of each slice's source, and that source's max_lost_share."""

    def run(self, artifacts: Artifacts, progress: ProgressCallback) -> Output:
        slices = self.keys.clean
        for key in slices:
            artifacts.verify(key)
        cleaned = [artifacts.read(key, CleanedSlice) for key in slices]
        for source in dict.fromkeys(self.sources):
            require_text([row for row, of in zip(cleaned, self.sources, strict=True) if of == source], *source)
        counts = [row.paragraphs for row in cleaned]
        files = [artifacts.path(self.keys.keep(number)) for number in range(len(slices))]
        dropped = []
        with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=artifacts.path(self.key).parent) as temporary:
            keep = np.memmap(Path(temporary) / "keep", np.bool_, "w+", shape=max(sum(counts), 1))[: sum(counts)]
            if self.enabled:
                hash_files = [artifacts.path(f"{name}.hashes") for name in slices]
                for bucket in _buckets(hash_files, sum(counts), Path(temporary)):
                    keep[_firsts(bucket)] = True
            else:
                keep[:] = True
            for file, flags in zip(files, np.split(keep, np.cumsum(counts)[:-1]), strict=True):
                dropped.append(int(len(flags) - flags.sum()))
                with publishing(file) as unfinished, unfinished.open("wb") as handle:
                    np.save(handle, np.asarray(flags), allow_pickle=False)
        return Output(files, Deduplication(dropped=sum(dropped), dropped_by_slice=dropped))


def _rows(hash_files: list[Path]) -> HashRows:
    parts: list[Hashes] = []
    number = pending = 0

    def join() -> npt.NDArray[np.void]:
        rows = np.empty(pending, ROW)
        rows["hash"], rows["number"] = np.concatenate(parts), np.arange(number, number + pending)
        return rows

    for file in hash_files:
        with file.open("rb") as handle:
            while len(hashes := np.fromfile(handle, "<u8", 2 * (SORTED - pending)).reshape(-1, 2)):
                parts.append(hashes)
                pending += len(hashes)
                if pending == SORTED:
                    yield join()
                    number, pending, parts = number + pending, 0, []
    if pending:
        yield join()


def _buckets(hash_files: list[Path], count: int, folder: Path) -> Iterator[HashRows]:
    """Yields all rows in buckets, with equal hashes in the same bucket; more than SORTED rows go through files."""
    buckets = -(-count // SORTED)
    if buckets <= 1:
        yield _rows(hash_files)
        return
    files = [folder / f"bucket-{number}" for number in range(buckets)]
    with ExitStack() as stack:
        handles = [stack.enter_context(file.open("wb")) for file in files]
        for rows in _rows(hash_files):
            bucket = ((rows["hash"][:, 0] >> np.uint64(32)) * np.uint64(buckets)) >> np.uint64(32)
            order = np.argsort(bucket, kind="stable")
            ends = np.searchsorted(bucket[order], np.arange(buckets + 1))
            for handle, begin, end in zip(handles, ends[:-1], ends[1:], strict=True):
                rows[order[begin:end]].tofile(handle)
    for file in files:
        yield _read_rows(file)
        file.unlink()


def _read_rows(file: Path) -> HashRows:
    with file.open("rb") as handle:
        while len(rows := np.fromfile(handle, ROW, SORTED)):
            yield rows


def _firsts(bucket: HashRows) -> npt.NDArray[np.int64]:
    """Returns the numbers of the bucket's rows whose hash doesn't occur in an earlier row."""
    seen: Hashes = np.empty((0, 2), np.uint64)
    numbers = [np.empty(0, np.int64)]
    for rows in bucket:
        both = np.concatenate([seen, rows["hash"]])
        keep = _first_occurrences(both)
        numbers.append(rows["number"][keep[len(seen) :]])
        seen = both[keep]
    return np.concatenate(numbers)


def _first_occurrences(hashes: Hashes) -> npt.NDArray[np.bool_]:
    """Returns for each row of [n, 2] whether no earlier row equals it."""
    order = np.lexsort((hashes[:, 1], hashes[:, 0]))  # stable: equal rows stay in corpus order
    ordered = hashes[order]
    keep = np.ones(len(hashes), dtype=np.bool_)
    keep[order[1:]] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return keep
