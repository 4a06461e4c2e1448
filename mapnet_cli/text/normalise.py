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

from mapnet_cli.text.cache import BoundedCache

_GROUPS = re.compile(r"(?<!\\)\(.*?(?<!\\)\)")
_METACHARACTERS = frozenset(r"\.^$*+?{}[]|()")
_ESCAPED = re.compile(r"\\(\W)")


def normalise_text(text: str) -> str:
    """Returns the text in NFC, with Moses' punctuation, printing characters only and single spaces.

    Line breaks count as spaces: pass a line or a paragraph.
    """
    text = unicodedata.normalize("NFC", text)
    for needed, pattern, replacement in _substitutions(text.isascii()):
        if needed in text:
            text = pattern.sub(replacement, text) if pattern else text.replace(needed, replacement)
    if text.isprintable() and "  " not in text:
        return text.strip(" ")
    for char in set(text):
        if unicodedata.category(char).startswith("C"):  # Moses' \p{C}
            text = text.replace(char, " ")
    return " ".join(text.split())


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
    return text if lowercase == "none" else word_tokeniser(lowercase)(normalise_text(text))


class _Moses:
    """sacremoses' tokeniser, asked once for each chunk of text between two spaces that it may change.

    It leaves letters, digits and hyphens alone, and puts spaces around most punctuation wherever
    that stands. What else it does to a chunk depends on whether the chunk is the sentence's first or last
    and, after a full stop, on whether the next one begins with a lower-case letter, a digit or anything
    else. Only of two apostrophes that share one space does the first take it from the second; such
    sentences, those with odd spaces, and those with a word for its own stand-ins go through it whole.
    """

    def __init__(self) -> None:
        from sacremoses import MosesTokenizer

        self._library = MosesTokenizer(lang="en")
        # It builds these two sets of thousands of characters anew for every dotted word.
        self._lower, alphabetic = frozenset(self._library.IsLower), frozenset(self._library.IsAlpha)
        self._library.islower = self._lower.issuperset
        self._library.isanyalpha = lambda word: not alphabetic.isdisjoint(word)
        self._abbreviations = frozenset(self._library.NONBREAKING_PREFIXES + self._library.NUMERIC_ONLY_PREFIXES)
        self._untouched = frozenset(self._library.IsAlnum + "-")
        self._padded = [mark for mark in string.punctuation if self._library.PAD_NOT_ISALNUM[0].match(mark)]
        odd = set(string.punctuation).difference(self._padded, "-")
        self._odd = re.compile(f"[{re.escape(''.join(sorted(odd)))}\x80-\U0010ffff]")
        self._chunks = BoundedCache(self._ask)

    def __call__(self, sentence: str) -> str:
        if "' '" in sentence or "MULTI" in sentence or "  " in f" {sentence} " or not sentence.isprintable():
            return self._whole(sentence)
        text = sentence
        for mark in self._padded:
            if mark in text:
                text = text.replace(mark, f" {mark} ")
        text = text.replace(", ", " , ")
        while "  " in text:
            text = text.replace("  ", " ")
        text = text.strip(" ")
        parts: list[str] = []
        done = 0
        odd = self._odd.search(text)
        while odd:
            begin = text.rfind(" ", done, odd.start()) + 1 or done
            end = text.find(" ", begin)
            end = len(text) if end < 0 else end
            if end - begin > 1 or text[begin] != ",":
                parts += text[done:begin], self._chunks[f"{' ' * (begin > 0)}{text[begin:end]}{self._after(text, end)}"]
                done = end
            odd = self._odd.search(text, end)
        return "".join(parts) + text[done:]

    def _after(self, text: str, end: int) -> str:
        """Returns what stands for the chunk after the one that ends at `end`."""
        if end == len(text):
            return ""
        if text[end - 1] != ".":
            return " X"
        following = text[end + 1]
        return " x" if following in self._lower else " 0" if following in "0123456789" else " X"

    def _ask(self, chunk: str) -> str:
        """Returns the words of a chunk, given with a space before it unless it is the first, and what comes after."""
        itself, _, after = chunk.strip(" ").partition(" ")
        if self._untouched.issuperset(itself):
            return itself
        word = itself.removesuffix(".")
        if after != "x" and word and self._untouched.issuperset(word) and word not in self._abbreviations:
            return f"{word} ."
        follows = chunk[0] == " "
        words = self._whole(f"x{chunk}" if follows else chunk)
        return words[2 * follows : -2 if " " in chunk[1:] else None]

    def _whole(self, sentence: str) -> str:
        return " ".join(self._library.tokenize(sentence, escape=False))


@lru_cache
def word_tokeniser(lowercase: str) -> WordTokeniser:
    """Returns this process's tokeniser, which later jobs find warm."""
    return WordTokeniser(lowercase)


@lru_cache(maxsize=1)
def _moses() -> _Moses:
    return _Moses()


@lru_cache
def _substitutions(ascii_only: bool) -> list[tuple[str, Any, str]]:
    """Returns sacremoses' own substitutions, as (a text that it needs to change anything, pattern, replacement).

    Where the pattern is None, it is the needed text. Those that need more than ASCII are left out of `ascii_only`.
    """
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
    return [(needed, *change) for needed, *change in found if needed.isascii() or not ascii_only]
