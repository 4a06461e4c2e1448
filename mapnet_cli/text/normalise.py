"""The text steps that the corpus and the GLUE fields share, so that the encoder sees one kind of text.

In the order of the paper's code family: Unicode NFC, Moses punctuation normalisation, removal of
non-printing characters (all on cased text), then, a sentence at a time, Moses tokenisation and
lower-casing. sacremoses is imported by what needs it: its import takes half a second.

Both Moses steps give sacremoses' own answers, byte for byte, in less time: tests/text/plain.py is
what they are held to.
"""

import re
import string
import unicodedata
from functools import lru_cache
from typing import Any

from mapnet_cli.text.remembered import Remembered

_GROUPS = re.compile(r"(?<!\\)\(.*?(?<!\\)\)")
_METACHARACTERS = frozenset(r"\.^$*+?{}[]|()")
_ESCAPED = re.compile(r"\\(\W)")


def normalise(text: str) -> str:
    """Returns the text in NFC, with Moses' punctuation, printing characters only and single spaces.

    Line breaks count as spaces: pass a line or a paragraph.
    """
    text = unicodedata.normalize("NFC", text)
    for needed, pattern, replacement in _substitutions():
        if needed in text:
            text = pattern.sub(replacement, text) if pattern else text.replace(needed, replacement)
    if text.isprintable() and "  " not in text:
        return text.strip(" ")
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
        words = self._moses(sentence)
        return words.lower() if self._lowercase == "after-moses" else words


def prepare_line(text: str, lowercase: str) -> str:
    """Returns a GLUE field as the corpus has its sentences: normalised, tokenised, lower-cased; "none": as it is."""
    return text if lowercase == "none" else _tokeniser(lowercase)(normalise(text))


class _Moses:
    """sacremoses' tokeniser, its answers remembered for each chunk of text between two spaces.

    What it makes of a chunk depends on little around it. A letter or digit at a chunk's edge never
    looks beyond it. Punctuation there asks whether it is the sentence's edge, and a full stop
    whether the next chunk begins with a lower-case letter, a digit or anything else. Only of two
    apostrophes that share one space does the first take it from the second; such sentences, and
    those with odd spaces, go through the library whole.
    """

    def __init__(self) -> None:
        from sacremoses import MosesTokenizer

        self._library = MosesTokenizer(lang="en")
        self._marks = [mark for mark in string.punctuation if self._library.PAD_NOT_ISALNUM[0].match(mark)]
        # It builds these two sets of thousands of characters anew for every dotted word.
        self._lower, alphabetic = frozenset(self._library.IsLower), frozenset(self._library.IsAlpha)
        self._library.islower = self._lower.issuperset
        self._library.isanyalpha = lambda word: not alphabetic.isdisjoint(word)
        self._inside = Remembered(self._ask_inside)
        self._placed = Remembered(self._ask)

    def __call__(self, sentence: str) -> str:
        if not sentence or "' '" in sentence or "  " in f" {sentence} " or not sentence.isprintable():
            return self._whole(sentence)
        padded = sentence.replace(", ", " , ")
        for mark in self._marks:
            if mark in padded:
                padded = padded.replace(mark, f" {mark} ")
        chunks = padded.split()
        words = list(map(self._inside.__getitem__, chunks))
        last = len(chunks) - 1
        if not chunks[0][0].isalnum():
            words[0] = self._placed[f"{chunks[0]}{self._after(chunks, 0)}"]
        if "" in words:
            for i, word in enumerate(words):
                if not word:
                    words[i] = self._placed[f"{' ' * (i > 0)}{chunks[i]}{self._after(chunks, i)}"]
        if not chunks[last][-1].isalnum():
            words[last] = self._placed[f"{' ' * (last > 0)}{chunks[last]}"]
        return " ".join(words)

    def _after(self, chunks: list[str], i: int) -> str:
        """Returns the shortest text that, after chunk i, a full stop takes for the one that stands there."""
        if i + 1 == len(chunks):
            return ""
        first = chunks[i + 1][0]
        return " x" if first in self._lower else " 0" if first in "0123456789" else " X"

    def _ask_inside(self, chunk: str) -> str:
        if chunk.isascii() and chunk.isalnum() and "MULTI" not in chunk:
            return chunk
        return "" if chunk[-1] == "." else self._ask(f" {chunk} X")

    def _ask(self, placed: str) -> str:
        """Returns the words of a chunk, given with a space before it unless it is the first, and what comes after."""
        follows = placed[0] == " "
        words = self._whole(f"x{placed}" if follows else placed)
        return words[2 * follows : -2 if " " in placed[1:] else None]

    def _whole(self, sentence: str) -> str:
        return " ".join(self._library.tokenize(sentence, escape=False))


@lru_cache
def _tokeniser(lowercase: str) -> WordTokeniser:
    return WordTokeniser(lowercase)


@lru_cache(maxsize=1)
def _moses() -> _Moses:
    return _Moses()


@lru_cache(maxsize=1)
def _substitutions() -> list[tuple[str, Any, str]]:
    """Returns sacremoses' own substitutions: a text that each needs to change anything, pattern (None: it), result."""
    from sacremoses import MosesPunctNormalizer

    found: list[tuple[str, Any, str]] = []
    for pattern, replacement in MosesPunctNormalizer(lang="en", perl_parity=True).substitutions:
        pattern = {" +": "  +", r"\r": "\r"}.get(pattern, pattern)  # a space for a space changes nothing
        without_groups = _GROUPS.sub("", pattern).removesuffix("+")
        needed = _ESCAPED.sub(r"\1", without_groups)
        if not _METACHARACTERS.isdisjoint(_ESCAPED.sub("", without_groups)):
            needed = ""  # a kind of pattern that isn't there today: always try it
        literal = needed and without_groups == pattern and "\\" not in replacement
        found.append((needed, None if literal else re.compile(pattern), replacement))
    return found


def _without_non_printing(text: str) -> str:
    """Returns the text with each character of Unicode's category C as a space (Moses' \\p{C})."""
    if text.isprintable():
        return text
    return "".join(" " if unicodedata.category(char).startswith("C") else char for char in text)
