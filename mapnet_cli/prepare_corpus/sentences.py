"""Phase 3: splits cased text into sentences (spaCy) and words (Moses), and lower-cases it."""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np

from mapnet_cli.core import Artifacts, UsageError, publishing
from mapnet_cli.jobs import Job, Output, Progress, ProgressCallback
from mapnet_cli.prepare_corpus.outputs import CorpusKeys, SegmentedSlice, read_paragraphs
from mapnet_cli.text import word_tokeniser

LONGEST_CHUNK, KEPT = 100, 20
"""Characters of a chunk (the text between two spaces), and of the end of a longer one, that spaCy sees."""
MOST_WORDS = 300_000
"""Number of words, in about 200 MB, after which spaCy's vocabulary is replaced, since it grows without bound."""
ZONE_CHARS = 4_000_000  # characters after which the string store of another pipeline is emptied
LONGEST = 200  # words; sentences of this length and longer are counted together
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
    """Splits paragraphs into sentences with an installed spaCy pipeline, or for "" with spaCy's English sentencizer."""

    def __init__(self, pipeline: str) -> None:
        import spacy

        self._name = pipeline
        self._nlp = spacy.load(pipeline, exclude=_EXCLUDED) if pipeline else None

    def __call__(self, paragraphs: Iterable[str | None]) -> Iterator[list[str] | None]:
        """Yields the sentences of each paragraph; None (the end of a document) is passed through."""
        if self._nlp is None:
            starts = _sentencizer()
            yield from (None if text is None else _split(text, starts(text)) for text in paragraphs)
            return
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
        assert self._nlp is not None
        with self._nlp.memory_zone():
            documents = self._nlp.pipe(text for text in batch if text is not None)
            for text in batch:
                yield None if text is None else _split(text, self._starts(next(documents)))

    def _starts(self, document: Any) -> list[int]:
        if not document.has_annotation("SENT_START"):
            raise UsageError(f"corpus.spacy_pipeline: {self._name!r} sets no sentence starts (no parser or senter)")
        return [sentence.start_char for sentence in document.sents]


class Sentencizer:
    """Callable that returns the offsets at which spaCy's English sentencizer starts sentences in a paragraph."""

    def __init__(self) -> None:
        self._load()

    def _load(self) -> None:
        import spacy
        from spacy.attrs import IS_PUNCT

        nlp: Any = spacy.blank("en")
        nlp.vocab.lex_attr_getters = {IS_PUNCT: nlp.vocab.lex_attr_getters[IS_PUNCT]}  # the only attribute used
        self._tokenizer = nlp.tokenizer
        self._tokenizer.max_cache_size = MOST_WORDS
        ends = nlp.add_pipe("sentencizer").punct_chars
        self._ends = {nlp.vocab.strings.add(mark) for mark in ends}
        # A class that lists only some of the characters beyond 16 bits is ten times slower to search.
        marks = re.escape("".join(sorted(mark for mark in ends if mark <= "\uffff"))) + "\U00010000-\U0010ffff"
        plain = "(?!space )[A-Za-z]{2,} "  # "<space>" is a special case of spaCy's
        overlong = rf"\S(\S{{{LONGEST_CHUNK - KEPT},}})\S{{{KEPT}}}(?!\S)"
        self._unseen = re.compile(rf"(?<!\S)(?:{plain}([^{marks}]* )(?={plain})|{overlong})")

    def __call__(self, text: str) -> list[int]:
        """Returns the sentence starts as in document.sents; the first is 0.

        spaCy doesn't see what lies between two plain words if no sentence can end in it: none of its special cases,
        which may hinder each other across spaces, links one side of such a word with the other. Of overlong chunks it
        sees only the ends, since its time grows with the square of their length.
        """
        if len(self._tokenizer.vocab) > MOST_WORDS:
            self._load()
        cuts = [match.span(match.lastindex or 0) for match in self._unseen.finditer(text)]
        ends = [0, *(end for _, end in cuts)]
        short = "".join(text[a:b] for a, b in zip(ends, [*(begin for begin, _ in cuts), len(text)], strict=True))
        starts, ended = [0], False
        for token in self._tokenizer(short):
            if token.orth in self._ends:
                ended = True
            elif ended and not token.is_punct:
                starts.append(token.idx)
                ended = False
        if cuts:
            removed = [0, *accumulate(end - begin for begin, end in cuts)]
            places = [begin - before for (begin, _), before in zip(cuts, removed, strict=False)]
            starts = [start + removed[bisect_left(places, start)] for start in starts]
        return starts


_sentencizer = lru_cache(maxsize=1)(Sentencizer)  # later jobs of this process reuse its vocabulary


def _split(text: str, starts: list[int]) -> list[str]:
    starts = _with_opening_marks(text, starts)
    sentences = (text[a:b].strip() for a, b in zip(starts, [*starts[1:], len(text)], strict=True))
    return [sentence for sentence in sentences if sentence]


def _with_opening_marks(text: str, starts: list[int]) -> list[int]:
    """Returns the sentence starts, moved before opening marks: the sentencizer splits 'He came. " / Go!"'."""
    moved = [0]
    for start in starts[1:]:
        marks = text[start - 1] in _MARKS and _OPENING_MARKS.search(text, moved[-1], start)
        begin = marks.start() if marks else start
        if begin > moved[-1]:
            moved.append(begin)
    return moved
