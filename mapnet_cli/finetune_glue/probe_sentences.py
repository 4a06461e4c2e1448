"""Sentences for the probe tasks: held-out, absent from the demo's corpus, split by module."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from mapnet_cli.text.cpython_prose import Document, paragraphs

MIN_WORDS, MAX_WORDS = 6, 24
DEV_SHARE = 0.35


@dataclass(frozen=True)
class Sentence:
    """One sentence of a held-out document. `words` are separated by blanks in `text`."""

    text: str
    owner: str
    paragraph: int
    position: int
    opens: bool

    @property
    def words(self) -> list[str]:
        return self.text.split()


def split_sentences(paragraph: str) -> list[str]:
    return re.split(r"(?<=[.!?])\s+(?=[A-Z])", paragraph)


def key(text: str) -> str:
    """Returns what two spellings of a sentence share: its letters and digits, lower-case."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def is_prose(text: str) -> bool:
    words = text.split()
    plain = sum(bool(re.fullmatch(r"['\"(]?[A-Za-z][a-z]*(-[a-z]+)?['\")]?[.,;:]?", word)) for word in words)
    return (
        MIN_WORDS <= len(words) <= MAX_WORDS
        and bool(re.fullmatch(r"[A-Z][ -~]*[a-z)'\"]\.", text))
        and plain >= 0.75 * len(words)
    )


def held_out_sentences(documents: Sequence[Document]) -> dict[str, list[Sentence]]:
    corpus = " \n ".join(
        key(paragraph)
        for document in documents
        if not document.held_out
        for docstring in document.docstrings
        for paragraph in paragraphs(docstring.text)
    )
    corpus = f" {corpus} "
    seen: set[str] = set()
    found: dict[str, list[Sentence]] = {}
    for document in documents:
        if document.held_out:
            n = 0
            for docstring in document.docstrings:
                for i, paragraph in enumerate(paragraphs(docstring.text)):
                    n += 1
                    for position, text in enumerate(split_sentences(paragraph)):
                        mark = key(text)
                        if is_prose(text) and mark not in seen and f" {mark} " not in corpus:
                            seen.add(mark)
                            found.setdefault(document.name, []).append(
                                Sentence(text, docstring.owner, n, position, i == 0 and position == 0)
                            )
    return found


def split(found: dict[str, list[Sentence]], rng: Random) -> tuple[list[str], list[str]]:
    names = sorted(found)
    rng.shuffle(names)
    total = sum(map(len, found.values()))
    dev: list[str] = []
    for name in names:
        if len(found[name]) < 0.1 * total and sum(len(found[n]) for n in dev) + len(found[name]) <= DEV_SHARE * total:
            dev.append(name)
    return sorted(set(names) - set(dev)), sorted(dev)
