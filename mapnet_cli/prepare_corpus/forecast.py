"""Estimates words, disk space and time of a corpus before it is prepared, from a sample of each source."""

import time
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from mapnet_cli.config import Config
from mapnet_cli.core import Artifacts, MapnetError, format_count, format_duration, format_size, free_disk
from mapnet_cli.prepare_corpus.cleanup import Dropped, clean
from mapnet_cli.prepare_corpus.outputs import format_shares, lost
from mapnet_cli.prepare_corpus.paragraphs import read_slice
from mapnet_cli.prepare_corpus.sentences import Segmenter
from mapnet_cli.prepare_corpus.slices import Slice
from mapnet_cli.prepare_corpus.sources.reading import Reading
from mapnet_cli.text import TOKENS_PER_WORD, word_tokeniser

SAMPLE_BYTES = 400_000  # bytes of clean text sampled per source, from the beginnings of slices spread over it
LEAST_SLICES, MOST_SLICES = 3, 16
"""Minimum and maximum number of slices sampled per source; more than the minimum if they contain little text."""
SAMPLE_INPUT = 32e6  # bytes of input after which sampling a source stops, even if they contained little text
GOLDEN = 0.618034
"""Step between sampled slices as a fraction of the list, modulo 1: any number of such steps is evenly spread."""
SAMPLED_PROBLEMS = 3  # maximum number of problems reported per source
SEGMENTED_BYTES = 200_000  # approximate bytes of sampled text that are segmented to time the sentence phase
SPACES = 1.03  # size of a sentence file relative to its paragraph file: Moses puts spaces before full stops
HASHES = 1.08  # size of a paragraph file with its hashes relative to the paragraph file alone
SHORTAGE = 0.8  # the disk counts as too small if its free space is below this fraction of the expected output


class Rate(NamedTuple):
    """Output and time of a source per byte of input (per slice if it isn't measured in bytes), from a sample."""

    text: float  # bytes of clean paragraphs
    words: float
    seconds: float  # to read and clean the input
    paragraphs: list[str]  # the sample
    notes: list[str]  # what the clean-up drops of the sample, and the first problems found in it


class Expected(NamedTuple):
    """Estimates for a corpus; of time and disk space, what the unfinished jobs will take."""

    words: float  # of the whole corpus
    seconds: float  # with one worker
    working: float  # bytes of paragraph and sentence files, which later runs reuse
    final: float  # bytes of token shards
    notes: list[str]

    @property
    def bytes(self) -> float:
        return self.working + self.final


def expect(slices: list[Slice], left: Mapping[str, list[Slice]], config: Config, timed: bool = False) -> Expected:
    """Returns the estimates for the slices; `left` are those that each phase has yet to process.

    `timed` includes the time of the sentence phase, which is measured. Sources from the Hub are left out. Raises
    InputError if a sample can't be read, for instance because its column is missing.
    """
    numbers = dict.fromkeys(part.number for part in slices if not part.source.from_hub)
    rates = {number: _sample([part for part in slices if part.number == number], config) for number in numbers}

    def total(quantity: str, parts: list[Slice]) -> float:
        sizes = ((part.number, part.bytes if part.pieces else 1.0) for part in parts if part.number in rates)
        return sum(size * float(getattr(rates[number], quantity)) for number, size in sizes)

    segmenting = _segmenting([text for rate in rates.values() for text in rate.paragraphs], config) if timed else 0.0
    return Expected(
        words=total("words", slices),
        seconds=total("seconds", left["clean"]) + segmenting * total("text", left["sentences"]),
        working=HASHES * total("text", left["clean"]) + SPACES * total("text", left["sentences"]),
        final=total("words", left["encode"]) * TOKENS_PER_WORD * (2 if config.corpus.vocab_size <= 1 << 16 else 4),
        notes=[note for rate in rates.values() for note in rate.notes],
    )


def _sample(slices: list[Slice], config: Config) -> Rate:
    """Returns the rate of a source, from some of its slices."""
    places = (int(len(slices) * ((0.5 + number * GOLDEN) % 1)) for number in range(MOST_SLICES))
    chosen = [slices[place] for place in dict.fromkeys(places)]
    least = min(LEAST_SLICES, len(chosen)) if chosen[0].pieces else 1
    paragraphs: list[str] = []
    problems: list[str] = []
    dropped, amounts, read = Dropped(), Counter[str](), 0.0
    start = time.perf_counter()
    for done, part in enumerate(chosen):
        if done >= least and (_size(paragraphs) >= SAMPLE_BYTES or read >= SAMPLE_INPUT or not part.pieces):
            break
        reading = Reading()
        found, measure = _beginning(part, SAMPLE_BYTES / least, config, reading, dropped)
        amounts.update(reading.amounts)
        paragraphs += found
        problems += reading.problems.lines
        read += measure
    seconds, read = time.perf_counter() - start, max(read, 1e-9)
    words = sum(paragraph.count(" ") + 1 for paragraph in paragraphs)
    key = chosen[0].config_key
    notes = [f"{key}: clean-up drops {format_shares(dropped.counts, len(paragraphs))} of the sample"]
    if what := lost(amounts, chosen[0].source.max_lost_share):
        notes.append(f"{key}: {what} in the sample; a run stops if that is so in the whole source (max_lost_share)")
    notes += [f"problem in the sample: {problem}" for problem in problems[:SAMPLED_PROBLEMS]]
    return Rate(_size(paragraphs) / read, words / read, seconds / read, paragraphs, notes)


def _size(paragraphs: list[str]) -> int:
    return sum(len(paragraph.encode()) + 1 for paragraph in paragraphs)


def _beginning(
    part: Slice, enough: float, config: Config, reading: Reading, dropped: Dropped
) -> tuple[list[str], float]:
    """Returns a slice's first clean paragraphs, `enough` bytes, and the input read: bytes, or 1 if it has no size."""
    size, position = 0, (0, 0.0)
    paragraphs: list[str] = []
    for paragraph in clean(read_slice(part, "repair", reading, lambda progress: None), config.corpus.cleanup, dropped):
        previous, position = position, (reading.pieces, reading.share)
        if size >= enough and position > previous:  # compressed files advance by whole blocks
            sizes = [piece.end - piece.begin for piece in part.pieces[: reading.pieces + 1]]
            return paragraphs, sum(sizes[:-1]) + reading.share * sizes[-1]
        if paragraph:
            paragraphs.append(paragraph)
            size += len(paragraph.encode()) + 1
    return paragraphs, float(part.bytes) if part.pieces else 1.0


def _segmenting(paragraphs: list[str], config: Config) -> float:
    """Returns the seconds that the sentence phase takes per byte of paragraphs, measured on some of them."""
    split, tokenise = Segmenter(config.corpus.spacy_pipeline), word_tokeniser(config.corpus.preparation)
    chosen = paragraphs[:: max(1, sum(map(len, paragraphs)) // SEGMENTED_BYTES)]
    start = time.perf_counter()
    for sentences in split(chosen):
        for sentence in sentences or ():
            tokenise(sentence)
    return (time.perf_counter() - start) / max(1, _size(chosen))


def lines(expected: Expected, slices: list[Slice], artifacts: Artifacts, workers: int) -> list[str]:
    """Returns the lines that `--dry-run` prints."""
    hubs = sorted({part.source.path for part in slices if part.source.from_hub})
    unknown = [f"{path}: not included, its size is unknown until it is read" for path in hubs]
    if all(part.source.from_hub for part in slices):
        return unknown
    free = free_disk(artifacts.root)
    return [
        f"{format_size(sum(part.bytes for part in slices))} of input in {len(slices):,} slices; estimated from a "
        f"sample of each source: about {format_count(expected.words)} words, "
        f"{format_count(expected.words * TOKENS_PER_WORD)} tokens",
        f"disk: about {format_size(expected.working)} of working files (paragraphs and sentences, reused by "
        f"other vocabularies), {format_size(expected.final)} of shards; {format_size(free)} free"
        + (" (not enough)" if SHORTAGE * expected.bytes > free else ""),
        f"time: at most about {format_duration(expected.seconds / max(workers, 1))} on this machine with {workers} "
        "workers, without training the vocabulary and writing the shards",
        *expected.notes,
        *unknown,
    ]


def require_disk(expected: Expected, artifacts: Artifacts) -> None:
    """Raises MapnetError if the expected output clearly doesn't fit on the disk."""
    free = free_disk(artifacts.root)
    if SHORTAGE * expected.bytes > free:
        raise MapnetError(
            f"the corpus needs about {format_size(expected.bytes)} of disk space, but {artifacts.root} has only "
            f"{format_size(free)} free: make room, choose another --artifacts folder, or set limit_mb of a source"
        )
