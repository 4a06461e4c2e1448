"""The third phase: sentences by spaCy on cased text, words by Moses, lower case last."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from mapnet_cli.core.artifacts import Artifacts, publishing
from mapnet_cli.core.errors import UsageError
from mapnet_cli.jobs.job import Output, Progress, ProgressCallback
from mapnet_cli.prepare_corpus.sentencizer import sentencizer
from mapnet_cli.prepare_corpus.slices import finished, read_paragraphs
from mapnet_cli.text.normalise import word_tokeniser

ZONE_CHARS = 4_000_000
"""Characters after which spaCy's string store is emptied; it would grow without bound."""
LONGEST = 200
"""Words; sentences from there on are counted together."""
_UNNEEDED = ["ner", "tagger", "morphologizer", "lemmatizer", "attribute_ruler", "entity_linker", "textcat"]
_MARKS = "\"'(["
_OPENING_MARKS = re.compile(rf"(?<=\s)[{re.escape(_MARKS)}]+$")


def segment_slice(
    artifacts: Artifacts,
    progress: ProgressCallback,
    *,
    output: str,
    clean: str,
    deduplicate: str,
    keep: str,
    pipeline: str,
    lowercase: str,
) -> Output:
    """Writes the kept paragraphs' sentences (OUTPUT.txt).

    `clean` and `deduplicate` are keys of earlier phases, `keep` is this slice's file of the latter.
    """
    finished(artifacts, clean)
    finished(artifacts, deduplicate, only=keep)
    kept = np.load(artifacts.path(keep), allow_pickle=False)
    total = int(kept.sum())
    split, tokenise = Segmenter(pipeline), word_tokeniser(lowercase)
    counts = {"documents": 0, "paragraphs": 0, "sentences": 0, "words": 0}
    lengths: Counter[int] = Counter()
    file = artifacts.path(f"{output}.txt")
    with publishing(file) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as handle:
        filled = False
        for sentences in split(_kept(read_paragraphs(artifacts.path(f"{clean}.txt")), kept)):
            if sentences is None:
                handle.write("\n" if filled else "")
                counts["documents"] += filled
                filled = False
                continue
            lines = [words for words in map(tokenise, sentences) if words]
            if lines:
                handle.write("\n".join(lines) + "\n\n")
                filled = True
                counts["paragraphs"] += 1
                counts["sentences"] += len(lines)
                words = [line.count(" ") + 1 for line in lines]
                counts["words"] += sum(words)
                lengths.update(min(length, LONGEST) for length in words)
                if counts["paragraphs"] % 500 == 0:
                    progress(Progress(counts["paragraphs"], total, f"{counts['words']:,} words"))
    return Output([file], counts | {"lengths": [lengths[length] for length in range(LONGEST + 1)]})


def _kept(paragraphs: Iterable[str | None], keep: Any) -> Iterator[str | None]:
    flags = iter(keep)
    for paragraph in paragraphs:
        if paragraph is None or next(flags):
            yield paragraph


class Segmenter:
    """Cuts paragraphs into sentences with an installed spaCy pipeline, or "" for spaCy's English sentencizer.

    Raises UsageError if the pipeline sets no sentence starts.
    """

    def __init__(self, pipeline: str) -> None:
        self._name = pipeline
        self._sentencizer = None if pipeline else sentencizer()
        self._nlp = self._sentencizer.nlp if self._sentencizer else _pipeline(pipeline)

    def __call__(self, paragraphs: Iterable[str | None]) -> Iterator[list[str] | None]:
        """Yields each paragraph's sentences, and passes None (the end of a document) on."""
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
                yield None if text is None else _cut(text, next(starts))

    def _starts(self, document: Any) -> list[int]:
        if not document.has_annotation("SENT_START"):
            raise UsageError(f"corpus.spacy_pipeline: {self._name!r} sets no sentence starts (no parser or senter)")
        return [sentence.start_char for sentence in document.sents]


def _cut(text: str, starts: list[int]) -> list[str]:
    starts = _with_opening_marks(text, starts)
    sentences = (text[a:b].strip() for a, b in zip(starts, [*starts[1:], len(text)], strict=True))
    return [sentence for sentence in sentences if sentence]


def _with_opening_marks(text: str, starts: list[int]) -> list[int]:
    """Returns the sentence starts, moved before opening quotation marks and brackets.

    The sentencizer ends a sentence after all punctuation that follows a full stop, the next
    sentence's opening marks included: 'He came. " / Go!"'.
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

    return spacy.load(name, exclude=_UNNEEDED)
