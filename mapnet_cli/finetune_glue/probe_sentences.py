"""Sentences for the probe tasks: prose of held-out modules that stands nowhere in the demo's corpus."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random

from mapnet_cli.text.cpython_prose import Document, paragraphs

MIN_WORDS, MAX_WORDS = 5, 30
DEV_SHARE = 0.35
LARGEST_DEV_MODULE = 0.1
"""Of all sentences: a module beyond it trains, so that the dev set isn't one module's."""
PLAIN_SHARE = 0.75


@dataclass(frozen=True)
class Sentence:
    """One sentence of a held-out document. `opens` says that it is its docstring's first."""

    text: str
    opens: bool

    @cached_property
    def bare(self) -> tuple[str, ...]:
        """The words, without the final full stop."""
        return tuple(self.text.rstrip(".").split())


def held_out_sentences(documents: Sequence[Document]) -> dict[str, list[Sentence]]:
    """Returns the prose sentences of each held-out document, each once, none that the corpus contains."""
    corpus = "\n".join(
        f" {_letters(paragraph)} "
        for document in documents
        if not document.held_out
        for docstring in document.docstrings
        for paragraph in paragraphs(docstring.text)
    )
    seen: set[str] = set()
    found: dict[str, list[Sentence]] = {}
    for document in documents:
        if not document.held_out:
            continue
        for docstring in document.docstrings:
            for number, paragraph in enumerate(paragraphs(docstring.text)):
                for place, text in enumerate(re.split(r"(?<=[.!?])\s+(?=[A-Z])", paragraph)):
                    mark = _letters(text)
                    if _is_prose(text) and mark not in seen and f" {mark} " not in corpus:
                        seen.add(mark)
                        found.setdefault(document.name, []).append(Sentence(text, number == place == 0))
    return found


def split_modules(found: dict[str, list[Sentence]], draw: Random) -> tuple[list[str], list[str]]:
    """Returns the modules of the training rows and those of the dev rows, about a third of the sentences."""
    total = sum(map(len, found.values()))
    dev: list[str] = []
    size = 0
    for name in draw.sample(sorted(found), len(found)):
        here = len(found[name])
        if here < LARGEST_DEV_MODULE * total and size + here <= DEV_SHARE * total:
            dev.append(name)
            size += here
    return sorted(set(found) - set(dev)), sorted(dev)


def _letters(text: str) -> str:
    """Returns what two spellings of a sentence share: its letters and digits, lower-case."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def _is_prose(text: str) -> bool:
    words = text.split()
    plain = sum(bool(re.fullmatch(r"['\"(]?[A-Za-z][a-z]*(-[a-z]+)?['\")]?[.,;:]?", word)) for word in words)
    return (
        MIN_WORDS <= len(words) <= MAX_WORDS
        and re.fullmatch(r"[A-Z][ -~]*[a-z)'\"]\.", text) is not None
        and plain >= PLAIN_SHARE * len(words)
    )
