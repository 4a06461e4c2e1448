"""Phase 3: splits cased text into sentences (spaCy) and words (Moses), and lower-cases it."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mapnet_cli.core import Artifacts, UsageError, publishing
from mapnet_cli.jobs import Job, Output, Progress, ProgressCallback
from mapnet_cli.prepare_corpus.outputs import CorpusKeys, SegmentedSlice, read_paragraphs
from mapnet_cli.prepare_corpus.sentencizer import sentencizer
from mapnet_cli.text import word_tokeniser

ZONE_CHARS = 4_000_000
"""Characters after which spaCy's string store is emptied, since it grows without bound."""
LONGEST = 200
"""Words; sentences of this length and longer are counted together."""
_EXCLUDED = ["ner", "tagger", "morphologizer", "lemmatizer", "attribute_ruler", "entity_linker", "textcat"]
_MARKS = "\"'(["
_OPENING_MARKS = re.compile(rf"(?<=\s)[{re.escape(_MARKS)}]+$")


@dataclass(frozen=True, kw_only=True)
class SegmentSlice(Job):
    """Writes the sentences of the paragraphs kept from a slice (KEY.txt)."""

    keys: CorpusKeys
    number: int
    pipeline: str
    lowercase: str

    def run(self, artifacts: Artifacts, progress: ProgressCallback) -> Output:
        clean, keep = self.keys.each("clean")[self.number], self.keys.keep(self.number)
        artifacts.verify(clean)
        artifacts.verify(self.keys.of("deduplicate"), only=keep)
        kept = np.load(artifacts.path(keep), allow_pickle=False)
        total = int(kept.sum())
        split, tokenise = Segmenter(self.pipeline), word_tokeniser(self.lowercase)
        documents = paragraphs = sentences = words = 0
        lengths: Counter[int] = Counter()
        file = artifacts.path(f"{self.key}.txt")
        with publishing(file) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as handle:
            nonempty = False
            for found in split(_kept(read_paragraphs(artifacts.path(f"{clean}.txt")), kept)):
                if found is None:
                    handle.write("\n" if nonempty else "")
                    documents += nonempty
                    nonempty = False
                    continue
                lines = [line for line in map(tokenise, found) if line]
                if lines:
                    handle.write("\n".join(lines) + "\n\n")
                    nonempty = True
                    paragraphs += 1
                    sentences += len(lines)
                    counts = [line.count(" ") + 1 for line in lines]
                    words += sum(counts)
                    lengths.update(min(count, LONGEST) for count in counts)
                    if paragraphs % 500 == 0:
                        progress(Progress(paragraphs, total, f"{words:,} words"))
        result = SegmentedSlice(
            documents=documents, paragraphs=paragraphs, sentences=sentences, words=words,
            lengths=[lengths[length] for length in range(LONGEST + 1)],
        )  # fmt: skip
        return Output([file], result)


def _kept(paragraphs: Iterable[str | None], keep: Any) -> Iterator[str | None]:
    flags = iter(keep)
    for paragraph in paragraphs:
        if paragraph is None or next(flags):
            yield paragraph


class Segmenter:
    """Splits paragraphs into sentences with an installed spaCy pipeline, or with spaCy's English sentencizer for "".

    Raises UsageError if the pipeline sets no sentence starts.
    """

    def __init__(self, pipeline: str) -> None:
        self._name = pipeline
        self._sentencizer = None if pipeline else sentencizer()
        self._nlp = self._sentencizer.nlp if self._sentencizer else _pipeline(pipeline)

    def __call__(self, paragraphs: Iterable[str | None]) -> Iterator[list[str] | None]:
        """Yields the sentences of each paragraph; None (the end of a document) is passed through."""
        batch: list[str | None] = []
        size = 0
        for paragraph in paragraphs:
            batch.append(paragraph)
            size += len(paragraph or "")
            if size >= ZONE_CHARS:
                yield from self._segment(batch)
                batch, size = [], 0
        yield from self._segment(batch)

    def _segment(self, batch: list[str | None]) -> Iterator[list[str] | None]:
        texts = [text for text in batch if text is not None]
        with self._nlp.memory_zone():
            starts = map(self._sentencizer, texts) if self._sentencizer else map(self._starts, self._nlp.pipe(texts))
            for text in batch:
                yield None if text is None else _split(text, next(starts))

    def _starts(self, document: Any) -> list[int]:
        if not document.has_annotation("SENT_START"):
            raise UsageError(f"corpus.spacy_pipeline: {self._name!r} sets no sentence starts (no parser or senter)")
        return [sentence.start_char for sentence in document.sents]


def _split(text: str, starts: list[int]) -> list[str]:
    starts = _with_opening_marks(text, starts)
    sentences = (text[a:b].strip() for a, b in zip(starts, [*starts[1:], len(text)], strict=True))
    return [sentence for sentence in sentences if sentence]


def _with_opening_marks(text: str, starts: list[int]) -> list[int]:
    """Returns the sentence starts, moved before opening quotation marks and brackets.

    The sentencizer ends a sentence after all punctuation that follows a full stop, including the
    opening marks of the next sentence: 'He came. " / Go!"'.
    """
    moved = [0]
    for start in starts[1:]:
        marks = text[start - 1] in _MARKS and _OPENING_MARKS.search(text, moved[-1], start)
        begin = marks.start() if marks else start
        if begin > moved[-1]:
            moved.append(begin)
    return moved


def _pipeline(name: str) -> Any:
    import spacy

    return spacy.load(name, exclude=_EXCLUDED)
