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
"""Number of hashes compared at a time, in about 400 MB; they are partitioned by value into files of about as many."""
REPORTED = 2_000  # paragraphs between two progress reports

ROW = np.dtype([("hash", f"S{HASH_BYTES}"), ("number", "<i8")])  # A paragraph's hash and its number in the corpus
Rows = npt.NDArray[np.void]  # array of dtype ROW in corpus order


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
        with (
            publishing(text_file) as unfinished, publishing(hash_file) as unfinished_hashes,
            unfinished.open("w", encoding="utf-8", newline="\n") as text, unfinished_hashes.open("wb") as hashes,
        ):  # fmt: skip
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
    sources: tuple[tuple[int, float], ...] = ()  # the number of each slice's source, and that source's max_lost_share

    def run(self, artifacts: Artifacts, progress: ProgressCallback) -> Output:
        slices = self.keys.each("clean")
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
                    keep[_firsts(bucket)["number"]] = True
            else:
                keep[:] = True
            for file, flags in zip(files, np.split(keep, np.cumsum(counts)[:-1]), strict=True):
                dropped.append(int(len(flags) - flags.sum()))
                with publishing(file) as unfinished, unfinished.open("wb") as handle:
                    np.save(handle, np.asarray(flags), allow_pickle=False)
        return Output(files, Deduplication(dropped=sum(dropped), dropped_by_slice=dropped))


def _buckets(hash_files: list[Path], count: int, folder: Path) -> Iterator[Rows]:
    """Yields all paragraphs in buckets of about SORTED rows, with equal hashes in the same bucket.

    Each bucket is a file in `folder`. Of equal hashes read together only the first is kept, so that a paragraph that is
    repeated very often doesn't make a bucket larger.
    """
    buckets = max(1, -(-count // SORTED))
    files = [folder / f"bucket-{number}" for number in range(buckets)]
    with ExitStack() as stack:
        handles = [stack.enter_context(file.open("wb")) for file in files]
        for rows in _hashed(hash_files):
            rows = _firsts(rows)
            bucket = np.ascontiguousarray(rows["hash"]).view("<u4")[:: HASH_BYTES // 4] % buckets
            order = np.argsort(bucket, kind="stable")
            ends = np.searchsorted(bucket[order], np.arange(1, buckets))
            for handle, part in zip(handles, np.split(rows[order], ends), strict=True):
                part.tofile(handle)
    for file in files:
        yield np.fromfile(file, ROW)
        file.unlink()


def _hashed(hash_files: list[Path]) -> Iterator[Rows]:
    number = 0
    for file in hash_files:
        with file.open("rb") as handle:
            while len(hashes := np.fromfile(handle, ROW["hash"], SORTED)):
                rows = np.empty(len(hashes), ROW)
                rows["hash"], rows["number"] = hashes, np.arange(number, number + len(hashes))
                number += len(hashes)
                yield rows


def _firsts(rows: Rows) -> Rows:
    """Returns the rows whose hash no earlier row has."""
    return rows[np.sort(np.unique(rows["hash"], return_index=True)[1])]
