"""Estimates words, disk space and time of a corpus before it is prepared, from a sample of each source."""

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mapnet_cli.config import Config
from mapnet_cli.core import Artifacts, MapnetError, format_count, format_duration, format_size
from mapnet_cli.prepare_corpus.cleanup import Dropped, clean
from mapnet_cli.prepare_corpus.outputs import format_shares, lost
from mapnet_cli.prepare_corpus.paragraphs import ROW, SORTED, read_slice
from mapnet_cli.prepare_corpus.slices import Slice
from mapnet_cli.prepare_corpus.sources.reading import Reading
from mapnet_cli.text import TOKENS_PER_WORD

SAMPLE_BYTES = 400_000
"""Bytes of clean text sampled per source, from the beginnings of slices spread over it."""
LEAST_SLICES, MOST_SLICES = 3, 16
"""Minimum and maximum number of slices sampled per source; more than the minimum if they contain little text."""
SAMPLE_INPUT = 32e6
"""Bytes of input after which sampling a source stops, even if they contained little text."""
GOLDEN = 0.618034
"""Step between sampled slices as a fraction of the list, modulo 1: any number of such steps is evenly spread."""
SAMPLED_PROBLEMS = 3
"""Maximum number of problems reported per source."""
SEGMENTED_BYTES = 200_000
"""Approximate bytes of sampled text that are segmented to time the sentence phase."""
SPACES = 1.03
"""Size of a sentence file relative to its paragraph file: Moses puts spaces before full stops."""
HASHES = 1.08
"""Size of a paragraph file with its hashes relative to the paragraph file alone."""
SHORTAGE = 0.8
"""The disk counts as too small if its free space is below this fraction of the expected output."""


@dataclass(frozen=True)
class Rate:
    """Output and time of a source per byte of input (per slice if it isn't measured in bytes), from a sample."""

    text: float
    """Bytes of clean paragraphs."""
    words: float
    seconds: float
    """Seconds to read and clean the input."""
    notes: tuple[str, ...] = ()
    """What the clean-up drops of the sample, and the first problems found in it."""


@dataclass(frozen=True)
class Expected:
    """Estimates for the whole corpus."""

    text: float
    words: float
    seconds: float
    """Remaining seconds with one worker."""
    working: float
    """Bytes of paragraph and sentence files still to be written, which later runs reuse."""
    temporary: float
    """Bytes of temporary files."""
    final: float
    """Bytes of token shards still to be written."""
    notes: tuple[str, ...] = ()
    """What the clean-up drops of the samples, and the first problems found in them."""


def samples(slices: list[Slice], config: Config) -> tuple[dict[int, Rate], list[str]]:
    """Returns the rate of each source by its index, and clean paragraphs of all; sources from the Hub are skipped.

    Raises InputError if a sample can't be read, for instance because its column is missing.
    """
    rates: dict[int, Rate] = {}
    paragraphs: list[str] = []
    for number in dict.fromkeys(part.number for part in slices if not part.source.from_hub):
        rates[number], some = _sample([part for part in slices if part.number == number], config)
        paragraphs += some
    return rates, paragraphs


def _sample(slices: list[Slice], config: Config) -> tuple[Rate, list[str]]:
    """Returns the rate and clean paragraphs of a source, from some of its slices."""
    places = (int(len(slices) * ((0.5 + number * GOLDEN) % 1)) for number in range(MOST_SLICES))
    chosen = [slices[place] for place in dict.fromkeys(places)]
    least = min(LEAST_SLICES, len(chosen)) if chosen[0].pieces else 1
    paragraphs: list[str] = []
    problems: list[str] = []
    dropped, amounts = Dropped(), Counter[str]()
    size = read = 0.0
    start = time.perf_counter()
    for done, part in enumerate(chosen):
        if done >= least and (size >= SAMPLE_BYTES or read >= SAMPLE_INPUT or not part.pieces):
            break
        some, measure, reading = _beginning(part, SAMPLE_BYTES / least, config, dropped)
        amounts.update(reading.amounts)
        paragraphs += some
        problems += reading.problems.lines
        size += sum(len(paragraph.encode()) + 1 for paragraph in some)
        read += measure
    seconds = time.perf_counter() - start
    words = sum(paragraph.count(" ") + 1 for paragraph in paragraphs)
    read = max(read, 1e-9)
    key = chosen[0].config_key
    notes = [f"{key}: clean-up drops {format_shares(dropped.counts, len(paragraphs))} of the sample"]
    if what := lost(amounts, chosen[0].source.max_lost_share):
        notes.append(f"{key}: {what} in the sample; a run stops if that is so in the whole source (max_lost_share)")
    notes += [f"problem in the sample: {problem}" for problem in problems[:SAMPLED_PROBLEMS]]
    return Rate(size / read, words / read, seconds / read, tuple(notes)), paragraphs


def _beginning(part: Slice, enough: float, config: Config, dropped: Dropped) -> tuple[list[str], float, Reading]:
    """Returns a slice's first clean paragraphs (at least `enough` bytes, if available), the input read, and its record.

    The input read is in bytes, or 1 for a slice that isn't measured in bytes. Other paragraphs go to `dropped`.
    """
    reading, size = Reading(), 0
    paragraphs: list[str] = []
    lines = read_slice(part, "repair", reading, lambda progress: None)
    position = previous = (0, 0.0)
    for paragraph in clean(lines, config.corpus.cleanup, dropped):
        position, previous = (reading.pieces, reading.share), position
        if size >= enough and position > previous:  # compressed files advance by whole blocks
            current = part.pieces[reading.pieces]
            read = sum(piece.end - piece.begin for piece in part.pieces[: reading.pieces])
            return paragraphs, read + reading.share * (current.end - current.begin), reading
        if paragraph:
            paragraphs.append(paragraph)
            size += len(paragraph.encode()) + 1
    return paragraphs, float(part.bytes) if part.pieces else 1.0, reading


def segmenting(paragraphs: list[str], config: Config) -> float:
    """Returns the seconds that the sentence phase takes per byte of paragraphs."""
    from mapnet_cli.prepare_corpus.sentences import Segmenter
    from mapnet_cli.text import word_tokeniser

    split, tokenise = Segmenter(config.corpus.spacy_pipeline), word_tokeniser(config.corpus.preparation)
    chosen = list(_some(paragraphs))
    start = time.perf_counter()
    for sentences in split(chosen):
        for sentence in sentences or ():
            tokenise(sentence)
    return (time.perf_counter() - start) / max(1, sum(len(paragraph.encode()) for paragraph in chosen))


def _some(paragraphs: list[str]) -> Iterator[str]:
    """Yields paragraphs spread evenly over the list."""
    every = max(1, sum(map(len, paragraphs)) // SEGMENTED_BYTES)
    yield from paragraphs[::every]


Done = Callable[[int], tuple[float | None, bool, bool]]
"""Returns for a slice number the size of its paragraph file (None if missing), and if sentences and shards exist."""


def expect(slices: list[Slice], rates: dict[int, Rate], done: Done, vocab_size: int, segment: float = 0.0) -> Expected:
    """Returns the estimates; `segment` is the result of `segmenting`."""
    text = words = seconds = working = final = 0.0
    for number, part in enumerate(slices):
        rate = rates.get(part.number)
        made, segmented, encoded = done(number)
        if rate is None and made is None:
            continue
        measure = part.bytes if part.pieces else 1.0
        own = made if made is not None else (rate.text * measure if rate else 0.0)
        own_words = own * (rate.words / rate.text if rate and rate.text else 1 / 6)
        text, words = text + own, words + own_words
        if made is None and rate:
            working += own * HASHES
            seconds += rate.seconds * measure
        if not segmented:
            working += own * SPACES
            seconds += own * segment
        if not encoded:
            final += own_words * TOKENS_PER_WORD * (2 if vocab_size <= 1 << 16 else 4)
    hashes = text * (HASHES - 1)  # 16 bytes each
    temporary = hashes * ROW.itemsize / 16 if hashes > 16 * SORTED else 0.0
    notes = tuple(note for rate in rates.values() for note in rate.notes)
    return Expected(text, words, seconds, working, temporary, final, notes)


def lines(expected: Expected, slices: list[Slice], free: int, workers: int) -> list[str]:
    """Returns the lines that `--dry-run` prints."""
    read = sum(part.bytes for part in slices)
    hubs = sorted({part.source.path for part in slices if part.source.from_hub})
    unknown = [f"{path}: not included, its size is unknown until it is read" for path in hubs]
    if all(part.source.from_hub for part in slices):
        return unknown
    needed = expected.working + expected.temporary + expected.final
    return [
        f"{format_size(read)} of input in {len(slices):,} slices; estimated from a sample of each source: about "
        f"{format_count(expected.words)} words, {format_count(expected.words * TOKENS_PER_WORD)} tokens",
        f"disk: about {format_size(expected.working)} of working files (paragraphs and sentences, reused by "
        f"other vocabularies), {format_size(expected.temporary)} of temporary files, {format_size(expected.final)} of "
        f"shards; {format_size(free)} free" + (" (not enough)" if SHORTAGE * needed > free else ""),
        f"time: at most about {format_duration(expected.seconds / max(workers, 1))} on this machine with {workers} "
        "workers, without training the vocabulary and writing the shards",
        *expected.notes,
        *unknown,
    ]


def require_disk(expected: Expected, artifacts: Artifacts) -> None:
    """Raises MapnetError if the expected output clearly doesn't fit on the disk."""
    needed, free = expected.working + expected.temporary + expected.final, free_disk(artifacts)
    if SHORTAGE * needed > free:
        raise MapnetError(
            f"the corpus needs about {format_size(needed)} of disk space, but {artifacts.root} has only "
            f"{format_size(free)} free: make room, choose another --artifacts folder, or set limit_mb of a source"
        )


def free_disk(artifacts: Artifacts) -> int:
    """Returns the number of free bytes on the disk of the artifacts folder, which need not exist yet."""
    folder: Path = artifacts.root.resolve()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
