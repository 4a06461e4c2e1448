"""The text steps that the corpus and the GLUE fields share, so that the encoder sees one kind of text.

In the order of the paper's code family: Unicode NFC, Moses punctuation normalisation, removal of
non-printing characters (all on cased text), then, a sentence at a time, Moses tokenisation and
lower-casing. sacremoses is imported by what needs it: its import takes half a second.
"""

import unicodedata
from collections.abc import Callable
from functools import lru_cache
from typing import Any


def normalise(text: str) -> str:
    """Returns the text in NFC, with Moses' punctuation, printing characters only and single spaces.

    Line breaks count as spaces: pass a line or a paragraph.
    """
    text = _punctuation()(unicodedata.normalize("NFC", text))
    return " ".join(_without_non_printing(text).split())


class WordTokeniser:
    """Moses tokenisation and lower-casing of one normalised, cased sentence.

    `lowercase` is the key corpus.lowercase: "after-moses" (as the paper's code family does it),
    "before-moses" (as the paper's sentence lists the steps; Moses then takes a full stop inside a
    line for an abbreviation's, since the next word isn't upper-case), or "never". With "none" a
    sentence stays as it is: an imported tokenizer prepares its text itself.
    """

    def __init__(self, lowercase: str) -> None:
        self._moses = None if lowercase == "none" else _moses()
        self._lowercase = lowercase

    def __call__(self, sentence: str) -> str:
        """Returns the words separated by single spaces, not escaped."""
        if self._moses is None:
            return sentence
        if self._lowercase == "before-moses":
            sentence = sentence.lower()
        words = " ".join(self._moses.tokenize(sentence, escape=False))
        return words.lower() if self._lowercase == "after-moses" else words


def prepare_line(text: str, lowercase: str) -> str:
    """Returns a GLUE field as the corpus has its sentences: normalised, tokenised, lower-cased; "none": as it is."""
    return text if lowercase == "none" else _tokeniser(lowercase)(normalise(text))


@lru_cache
def _tokeniser(lowercase: str) -> WordTokeniser:
    return WordTokeniser(lowercase)


@lru_cache(maxsize=1)
def _punctuation() -> Callable[[str], str]:
    from sacremoses import MosesPunctNormalizer

    normalise: Callable[[str], str] = MosesPunctNormalizer(lang="en", perl_parity=True).normalize
    return normalise


@lru_cache(maxsize=1)
def _moses() -> Any:
    from sacremoses import MosesTokenizer

    moses = MosesTokenizer(lang="en")
    # The library builds these two sets of thousands of characters anew for every dotted word.
    lower, alphabetic = frozenset(moses.IsLower), frozenset(moses.IsAlpha)
    moses.islower = lower.issuperset
    moses.isanyalpha = lambda word: not alphabetic.isdisjoint(word)
    return moses


def _without_non_printing(text: str) -> str:
    """Returns the text with each character of Unicode's category C as a space (Moses' \\p{C})."""
    if text.isprintable():
        return text
    return "".join(" " if unicodedata.category(char).startswith("C") else char for char in text)
