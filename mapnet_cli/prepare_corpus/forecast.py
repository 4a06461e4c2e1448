"""What a corpus will take, said before it starts: words, disk and hours, from a sample of each source read now."""

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mapnet_cli.config import Config
from mapnet_cli.core import Artifacts, MapnetError, format_count, format_duration, format_size
from mapnet_cli.prepare_corpus.cleanup import Dropped, clean
from mapnet_cli.prepare_corpus.paragraphs import ROW, SORTED, read_slice
from mapnet_cli.prepare_corpus.slices import Slice
from mapnet_cli.prepare_corpus.sources.reading import Reading
from mapnet_cli.text import TOKENS_PER_WORD

SAMPLE_BYTES = 400_000
"""Of clean text that is read of a source, from the beginnings of slices all over it."""
LEAST_SLICES, MOST_SLICES = 3, 16
"""That are sampled, where a source has so many; more than the least if they hold little text."""
SAMPLE_INPUT = 32e6
"""Bytes of input after which a sample is enough, whatever text was in them."""
GOLDEN = 0.618034
"""Steps of this share of a list, round and round, are spread evenly over it, however many they are."""
SAMPLED_PROBLEMS = 3
"""Of a source's sample."""
SEGMENTED_BYTES = 200_000
"""Of it, what is cut into sentences and words to see how long that takes."""
SPACES = 1.03
"""A sentence file's size in that of the paragraphs: Moses puts spaces before full stops."""
HASHES = 1.08
"""A paragraph file's with its hashes."""
SHORTAGE = 0.8
"""The disk is clearly too small if it has no more than this share of what is expected to be written."""


@dataclass(frozen=True)
class Rate:
    """Of a source, from a sample: what a byte of its input becomes, or a slice where input isn't counted in bytes."""

    text: float
    """Bytes of clean paragraphs."""
    words: float
    seconds: float
    """That reading and cleaning take."""
    problems: tuple[str, ...] = ()
    """The first ones in the sample."""


@dataclass(frozen=True)
class Expected:
    """Of the whole corpus."""

    text: float
    words: float
    seconds: float
    """Of one worker, still to come."""
    working: float
    """Bytes of paragraphs and sentences still to be written, which later runs go on from."""
    passing: float
    """Bytes of temporary files."""
    final: float
    """Bytes of token shards still to be written."""
    problems: tuple[str, ...] = ()
    """The first ones in the samples."""


def samples(slices: list[Slice], config: Config) -> tuple[dict[int, Rate], list[str]]:
    """Returns the rate of each source, and clean paragraphs of all; the hub isn't asked.

    Raises InputError where what is read can't be, for instance without its column.
    """
    rates: dict[int, Rate] = {}
    paragraphs: list[str] = []
    for number in dict.fromkeys(part.number for part in slices if not part.source.of_hub):
        rates[number], some = _sample([part for part in slices if part.number == number], config)
        paragraphs += some
    return rates, paragraphs


def _sample(slices: list[Slice], config: Config) -> tuple[Rate, list[str]]:
    """Returns a source's rate and clean paragraphs, from some of its slices."""
    places = (int(len(slices) * ((0.5 + number * GOLDEN) % 1)) for number in range(MOST_SLICES))
    chosen = [slices[place] for place in dict.fromkeys(places)]
    least = min(LEAST_SLICES, len(chosen)) if chosen[0].pieces else 1
    paragraphs: list[str] = []
    problems: list[str] = []
    size = read = 0.0
    start = time.perf_counter()
    for done, part in enumerate(chosen):
        if done >= least and (size >= SAMPLE_BYTES or read >= SAMPLE_INPUT or not part.pieces):
            break
        some, measure, reading = _beginning(part, SAMPLE_BYTES / least, config)
        paragraphs += some
        problems += reading.problems.lines
        size += sum(len(paragraph.encode()) + 1 for paragraph in some)
        read += measure
    seconds = time.perf_counter() - start
    words = sum(paragraph.count(" ") + 1 for paragraph in paragraphs)
    read = max(read, 1e-9)
    return Rate(size / read, words / read, seconds / read, tuple(problems[:SAMPLED_PROBLEMS])), paragraphs


def _beginning(part: Slice, enough: float, config: Config) -> tuple[list[str], float, Reading]:
    """Returns a slice's first clean paragraphs, `enough` bytes if there are so many, and what it took to read them.

    That is bytes of input, or 1 for a slice that isn't counted in bytes.
    """
    reading, size = Reading(), 0
    paragraphs: list[str] = []
    lines = read_slice(part, "repair", reading, lambda progress: None)
    place = before = (0, 0.0)
    for paragraph in clean(lines, config.corpus.cleanup, Dropped()):
        place, before = (reading.pieces, reading.share), place
        if size >= enough and place > before:  # of a compressed file whole blocks have been read
            here = part.pieces[reading.pieces]
            read = sum(piece.end - piece.begin for piece in part.pieces[: reading.pieces])
            return paragraphs, read + reading.share * (here.end - here.begin), reading
        if paragraph:
            paragraphs.append(paragraph)
            size += len(paragraph.encode()) + 1
    return paragraphs, float(part.bytes) if part.pieces else 1.0, reading


def segmenting(paragraphs: list[str], config: Config) -> float:
    """Returns the seconds that sentences and words take for a byte of paragraphs."""
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
    """Yields paragraphs from all over the list."""
    every = max(1, sum(map(len, paragraphs)) // SEGMENTED_BYTES)
    yield from paragraphs[::every]


Done = Callable[[int], tuple[float | None, bool, bool]]
"""Of a slice by its number: bytes of its paragraph file if it is there, whether its sentences are, its shards."""


def expect(slices: list[Slice], rates: dict[int, Rate], done: Done, vocab_size: int, segment: float = 0.0) -> Expected:
    """Returns what is still to come; `segment` is what `segmenting` returned."""
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
    passing = hashes * ROW.itemsize / 16 if hashes > 16 * SORTED else 0.0
    problems = tuple(problem for rate in rates.values() for problem in rate.problems)
    return Expected(text, words, seconds, working, passing, final, problems)


def lines(expected: Expected, slices: list[Slice], free: int, workers: int) -> list[str]:
    """Returns what `--dry-run` prints."""
    read = sum(part.bytes for part in slices)
    hubs = sorted({part.source.path for part in slices if part.source.of_hub})
    unknown = [f"{path}: not counted, its size is not known before it is read" for path in hubs]
    if all(part.source.of_hub for part in slices):
        return unknown
    needed = expected.working + expected.passing + expected.final
    return [
        f"{format_size(read)} of input in {len(slices):,} slices; by a sample of each source read now about "
        f"{format_count(expected.words)} words, {format_count(expected.words * TOKENS_PER_WORD)} tokens",
        f"disk: about {format_size(expected.working)} of working files (paragraphs and sentences, which other "
        f"vocabularies reuse), {format_size(expected.passing)} of temporary files, {format_size(expected.final)} of "
        f"shards; {format_size(free)} free" + (": too little" if SHORTAGE * needed > free else ""),
        f"time: at most about {format_duration(expected.seconds / max(workers, 1))} on this machine with {workers} "
        "workers, vocabulary and shards not counted",
        *unknown,
        *(f"problem in the sample: {problem}" for problem in expected.problems),
    ]


def require_disk(expected: Expected, artifacts: Artifacts) -> None:
    """Raises MapnetError if what is expected to be written clearly doesn't fit on the disk."""
    needed, free = expected.working + expected.passing + expected.final, free_disk(artifacts)
    if SHORTAGE * needed > free:
        raise MapnetError(
            f"the corpus needs about {format_size(needed)} of disk, and {artifacts.root} has {format_size(free)} free: "
            "make room, name another --artifacts folder, or take less of a source (limit_mb)"
        )


def free_disk(artifacts: Artifacts) -> int:
    """Returns the bytes that are free where the artifacts are or will be."""
    place: Path = artifacts.root.resolve()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
