"""Outputs of the corpus phases: artifact keys, typed results and two text formats.

Paragraph files contain one paragraph per line. Sentence files contain one sentence per line, with an
empty line after each paragraph. In both formats, one more empty line ends a document.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from mapnet_cli.core import ArtifactId, InputError, Row
from mapnet_cli.prepare_corpus.sources.reading import Problems


class CleanedSlice(Row):
    """Result of `CleanSlice`."""

    paragraphs: int
    words: int
    bytes: int
    dropped: dict[str, int]  # number of paragraphs dropped by each clean-up rule
    examples: dict[str, list[str]]
    left_out: dict[str, int]
    markup: dict[str, int]
    problems: list[str]
    problem_count: int
    amounts: dict[str, int] = Field(default_factory=dict)  # rows and bytes, as in `Reading.amounts`


class Deduplication(Row):
    """Result of `Deduplicate`: number of paragraphs dropped, in total and per slice."""

    dropped: int
    dropped_by_slice: list[int]


class SegmentedSlice(Row):
    """Result of `SegmentSlice`. `lengths[n]` counts the sentences of n words; the last entry includes longer ones."""

    documents: int
    paragraphs: int
    sentences: int
    words: int
    lengths: list[int]


class TrainedVocabulary(Row):
    """Result of `TrainVocabulary`. `first_documents[n]` is the corpus-wide index of slice n's first document."""

    vocab_size: int
    sample_words: int
    long_words: int = 0  # number of words of the sample that were left out because of their length
    longest_word: str = ""  # the beginning of the longest one
    first_documents: list[int]


class EncodedSlice(Row):
    """Result of `EncodeSlice`."""

    tokens: int
    unknown_tokens: int
    train_sequences: int
    validation_sequences: int


@dataclass(frozen=True)
class CorpusKeys:
    """Keys of all artifacts of a corpus; lists have one key per slice."""

    text: ArtifactId
    corpus: ArtifactId
    slices: int

    def of(self, name: Literal["deduplicate", "vocabulary", "tokenizer.json", "card"]) -> str:
        """Returns the key of an artifact of the whole corpus."""
        return f"{(self.text if name == 'deduplicate' else self.corpus).key}/{name}"

    def each(self, name: Literal["clean", "sentences", "encode", "train", "validation"]) -> list[str]:
        """Returns the keys of a phase's results, or of the shards of a split."""
        owner = self.text if name in ("clean", "sentences") else self.corpus
        return [f"{owner.key}/{name}-{number:05}" for number in range(self.slices)]

    def keep(self, number: int) -> str:
        """Returns the key of the file that marks which paragraphs of a slice are kept."""
        return f"{self.of('deduplicate')}-{number:05}.npy"


def lost(amounts: Mapping[str, int], limit: float) -> str:
    """Returns which rows or bytes of a source yield no text, if they are more than the fraction `limit`, else ""."""
    for unit in ("rows", "bytes"):
        total, without = amounts.get(unit, 0), amounts.get(f"lost {unit}", 0)
        if without > limit * total:
            return f"{without:,} of {total:,} {unit} yield no text"
    return ""


def found_problems(slices: Sequence[CleanedSlice], others: Problems | None = None) -> Problems:
    """Returns the problems with the input of the slices, after the others."""
    problems = others or Problems()
    for row in slices:
        problems.merge(row.problems, row.problem_count)
    return problems


def require_text(slices: Sequence[CleanedSlice], number: int, limit: float) -> None:
    """Raises InputError if more than the fraction `limit` of a source's rows or bytes yield no text."""
    if what := lost(total(row.amounts for row in slices), limit):
        raise InputError(
            f"corpus.sources.{number}: {what}: check its kind, column and encoding, or raise its max_lost_share "
            f"({limit:g}). The first problems:{found_problems(slices).shown}"
        )


def total(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Returns the sum of counts by name, without zeros."""
    found = Counter[str]()
    for count in counts:
        found.update(count)
    return {name: number for name, number in sorted(found.items()) if number}


def format_shares(dropped: Mapping[str, int], kept: int) -> str:
    """Returns the share of paragraphs that the clean-up drops, in all and by rule."""
    total = kept + sum(dropped.values())
    rules = sorted(dropped.items(), key=lambda item: -item[1])
    by_rule = ", ".join(f"{rule} {count:,} ({count / total:.1%})" for rule, count in rules if count)
    return f"{1 - kept / total:.1%} of {total:,} paragraphs: {by_rule}" if by_rule else "no paragraphs"


def read_paragraphs(path: Path) -> Iterator[str | None]:
    """Yields the paragraphs of a paragraph file, and None at the end of each document."""
    with path.open(encoding="utf-8", newline="\n") as handle:
        yield from (line.rstrip("\n") or None for line in handle)


def read_sentences(path: Path) -> Iterator[list[str] | None]:
    """Yields the paragraphs of a sentence file as lists of sentences, and None at the end of each document."""
    sentences: list[str] = []
    with path.open(encoding="utf-8", newline="\n") as handle:
        for line in handle:
            if line != "\n":
                sentences.append(line.rstrip("\n"))
            else:
                yield sentences or None
                sentences = []
