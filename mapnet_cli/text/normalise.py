"""Text preparation shared by the corpus and the GLUE fields, so that the encoder sees the same kind of text.

The order is that of the code that the paper builds on: Unicode NFC, Moses punctuation normalisation
and removal of non-printing characters, all on cased text, followed by Moses tokenisation and
lower-casing of single sentences. sacremoses is imported lazily, which saves half a second.

Tokenisation is faster than sacremoses, with byte-identical results; the reference implementation is
tests/text/plain.py.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable
from functools import lru_cache

MAX_ENTRIES, LONGEST_KEY = 300_000, 60
"""Maximum number of chunks in the cache of the tokeniser, in about 60 MB, and of their characters."""
_GROUPS = re.compile(r"(?<!\\)\(.*?(?<!\\)\)")
_METACHARACTERS = frozenset(r"\.^$*+?{}[]|()")
_ESCAPED = re.compile(r"\\(\W)")
INVISIBLE = re.compile("[\u00ad\u034f\u061c\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]")
"""Soft hyphens, zero-width spaces and joiners, direction marks and variation selectors."""
_NOT_BETWEEN_LETTERS = re.compile("’(?![a-zA-Z])|(?<![a-zA-Z])’")


def normalise_text(text: str, characters: str = "repair", changed: Counter[str] | None = None) -> str:
    """Returns the text in NFC, with normalised punctuation, without non-printing characters, and with single spaces.

    `characters` is the config key corpus.cleanup.characters: "repair" removes invisible characters and makes ’ an
    apostrophe, counting both in `changed`; "moses" does as Moses' scripts. Line breaks become spaces, so pass a single
    line or paragraph.
    """
    repair = characters == "repair"
    if not text.isascii():
        if repair:
            text, count = INVISIBLE.subn("", text)
            if changed is not None and (count or "’" in text):
                found = {"invisible_characters": count, "apostrophes": len(_NOT_BETWEEN_LETTERS.findall(text))}
                changed.update({name: number for name, number in found.items() if number})
        text = unicodedata.normalize("NFC", text)
    for needed, pattern, replacement in _substitutions(repair, text.isascii()):
        if needed in text:
            text = pattern.sub(replacement, text)
    if text.isprintable() and "  " not in text:
        return text.strip(" ")
    other = [ord(char) for char in set(text) if unicodedata.category(char).startswith("C")]  # Moses' \p{C}
    return " ".join((text.translate(dict.fromkeys(other, " ")) if other else text).split())


@lru_cache
def word_tokeniser(lowercase: str) -> Callable[[str], str]:
    """Returns Moses tokenisation with lower-casing of one normalised, cased sentence; later jobs reuse its cache.

    Words are separated by single spaces and not escaped. `lowercase` is the config key corpus.lowercase: "after-moses"
    (as in the code that the paper builds on), "before-moses" (the order in the paper's text; Moses then takes a full
    stop within a line for part of an abbreviation, since the next word isn't upper-case) or "never". "none" leaves
    sentences unchanged, since imported tokenizers prepare text themselves.
    """
    when = lowercase.partition(" ")[0]
    if when == "none":
        return str
    moses = _Moses()
    if when == "before-moses":
        return lambda sentence: moses(sentence.lower())
    return (lambda sentence: moses(sentence).lower()) if when == "after-moses" else moses


def prepare_line(text: str, preparation: str) -> str:
    """Returns a GLUE field prepared like a corpus sentence, by the corpus's `Corpus.preparation`; "none": unchanged."""
    characters = preparation.partition(" ")[2] or "repair"
    return text if preparation == "none" else word_tokeniser(preparation)(normalise_text(text, characters))


class _Moses:
    """sacremoses' tokeniser, with results cached per chunk (the text between two spaces).

    sacremoses doesn't change letters, digits and hyphens, and puts spaces around most punctuation in any
    context. Its other changes to a chunk depend on whether the chunk is the first or last of the sentence
    and, after a full stop, on whether the next chunk begins with a lower-case letter, a digit or
    something else. sacremoses processes the whole sentence if it contains two apostrophes around a space
    (the only effect across chunks), unusual spaces, or the placeholder words of sacremoses.
    """

    def __init__(self) -> None:
        from sacremoses import MosesTokenizer

        self._library = MosesTokenizer(lang="en")
        # sacremoses rebuilds these two sets of thousands of characters for every word with a full stop.
        self._lower, alphabetic = frozenset(self._library.IsLower), frozenset(self._library.IsAlpha)
        self._library.islower = self._lower.issuperset
        self._library.isanyalpha = lambda word: not alphabetic.isdisjoint(word)
        self._abbreviations = frozenset(self._library.NONBREAKING_PREFIXES + self._library.NUMERIC_ONLY_PREFIXES)
        self._untouched = frozenset(self._library.IsAlnum + "-")
        self._padded = [mark for mark in string.punctuation if self._library.PAD_NOT_ISALNUM[0].match(mark)]
        odd = set(string.punctuation).difference(self._padded, "-")
        self._odd = re.compile(f"[{re.escape(''.join(sorted(odd)))}\x80-\U0010ffff]")
        self._cached = lru_cache(MAX_ENTRIES)(self._tokenise_chunk)

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
                tokenise = self._cached if end - begin <= LONGEST_KEY else self._tokenise_chunk
                parts += text[done:begin], tokenise(f"{' ' * (begin > 0)}{text[begin:end]}{self._after(text, end)}")
                done = end
            odd = self._odd.search(text, end)
        return "".join(parts) + text[done:]

    def _after(self, text: str, end: int) -> str:
        """Returns a space and a placeholder for the chunk after the one ending at `end`, or "" if there is none."""
        if end == len(text):
            return ""
        if text[end - 1] != ".":
            return " X"
        following = text[end + 1]
        return " x" if following in self._lower else " 0" if following in "0123456789" else " X"

    def _tokenise_chunk(self, chunk: str) -> str:
        """Returns the words of a chunk, given with a leading space unless it is the first, and `_after` appended."""
        text, _, after = chunk.strip(" ").partition(" ")
        if self._untouched.issuperset(text):
            return text
        word = text.removesuffix(".")
        if after != "x" and word and self._untouched.issuperset(word) and word not in self._abbreviations:
            return f"{word} ."
        follows = chunk[0] == " "
        words = self._whole(f"x{chunk}" if follows else chunk)
        return words[2 * follows : -2 if " " in chunk[1:] else None]

    def _whole(self, sentence: str) -> str:
        return " ".join(self._library.tokenize(sentence, escape=False))


def moses_substitutions(repair: bool) -> list[tuple[str, str]]:
    """Returns sacremoses' patterns and replacements, the Perl script's; with `repair`, ’ is always an apostrophe."""
    from sacremoses import MosesPunctNormalizer

    rules = MosesPunctNormalizer(lang="en", perl_parity=True).substitutions
    return [("’", "'") if repair and pattern == "’" else (pattern, replacement) for pattern, replacement in rules]


@lru_cache
def _substitutions(repair: bool, ascii_only: bool) -> list[tuple[str, re.Pattern[str], str]]:
    """Returns the substitutions, of ASCII text or any, as (text that must occur for a match, pattern, replacement)."""
    found = []
    for pattern, replacement in moses_substitutions(repair):
        pattern = "  +" if pattern == " +" else pattern  # replacing a space by a space is a no-op
        fixed = _GROUPS.sub("", pattern).removesuffix("+")
        literal = _METACHARACTERS.isdisjoint(_ESCAPED.sub("", fixed))
        found.append((_ESCAPED.sub(r"\1", fixed) if literal else "", re.compile(pattern), replacement))
    return [rule for rule in found if rule[0].isascii()] if ascii_only else found
