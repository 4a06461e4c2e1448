"""Held-out sentences for the probe tasks, absent from the demo's corpus."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from mapnet_cli.text import Document, paragraphs

MIN_WORDS, MAX_WORDS = 5, 22
DEV_SHARE = 0.35
LARGEST_DEV_SHARE = 0.1
"""A document with more than this share of all sentences is used for training, so that it can't dominate the dev set."""
PLAIN_WORD = re.compile(r"['\"(]?[A-Za-z][a-z]*(-[a-z]+)?['\")]?[.,;:]?")
PLAIN_SHARE = 0.75
_ENDS = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")  # of sentences


@dataclass(frozen=True)
class Sentence:
    """One sentence of a held-out document, with the document's name."""

    text: str
    document: str

    @property
    def words(self) -> list[str]:
        """The words separated by spaces, without the final full stop; commas stay attached to their word."""
        return self.text.removesuffix(".").split()


def held_out_sentences(documents: Iterable[Document]) -> dict[str, list[Sentence]]:
    """Returns {document name: sentences in order}, without duplicates and sentences from the corpus."""
    corpus: list[str] = []
    candidates: dict[str, list[str]] = {}
    for document in documents:
        texts = [paragraph for docstring in document.docstrings for paragraph in paragraphs(docstring)]
        if document.held_out:
            sentences = (text for paragraph in texts for text in _ENDS.split(paragraph))
            candidates[document.name] = list(filter(_is_prose, sentences))
        else:
            corpus += map(fold, texts)
    haystack = f" {' | '.join(corpus)} "
    seen: set[str] = set()
    found: dict[str, list[Sentence]] = {}
    for name, texts in candidates.items():
        for text in texts:
            folded = fold(text)
            if folded not in seen and f" {folded} " not in haystack:
                seen.add(folded)
                found.setdefault(name, []).append(Sentence(text, name))
    return found


def split_documents(found: dict[str, list[Sentence]], rng: Random) -> tuple[list[str], list[str]]:
    """Returns the names of the training and the dev documents. Dev documents have at most 35 % of the sentences."""
    names = sorted(found)
    rng.shuffle(names)
    total = sum(map(len, found.values()))
    dev: list[str] = []
    taken = 0
    for name in names:
        size = len(found[name])
        if size <= LARGEST_DEV_SHARE * total and taken + size <= DEV_SHARE * total:
            dev.append(name)
            taken += size
    return sorted(set(names) - set(dev)), sorted(dev)


def fold(text: str) -> str:
    """Returns a normalised form for comparisons: lower-cased runs of letters and digits."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def _is_prose(text: str) -> bool:
    """Returns whether `text` is one English sentence of suitable length: ASCII, mostly plain words, a full stop."""
    words = text.split()
    if not MIN_WORDS <= len(words) <= MAX_WORDS or not re.fullmatch(r"[A-Z][ -~]*[a-z)'\"]\.", text):
        return False
    return sum(bool(PLAIN_WORD.fullmatch(word)) for word in words) >= PLAIN_SHARE * len(words)
