"""spaCy's rule-based sentencizer, with results cached per chunk (the text between two spaces).

A sentence starts at the first word after sentence punctuation. The result for a chunk thus depends
only on the chunk and on whether sentence punctuation precedes it, so only chunks with such
punctuation and the chunks after them are processed. The output equals that of the reference
implementation, tests/text/plain.py.
"""

import re
from bisect import bisect_left
from collections import defaultdict
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any

from mapnet_cli.text import BoundedCache

LONGEST_CHUNK, KEPT = 100, 20
"""Characters of a chunk, and of the end of a longer one, in which sentence punctuation is found."""
_OVERLONG = re.compile(rf"\S{{{LONGEST_CHUNK + 1},}}")
_BEYOND_16_BITS = "\U00010000-\U0010ffff"
_Found = tuple[tuple[int, ...], bool]
"""Sentence starts in a chunk, and whether it ends in sentence punctuation, ignoring closing marks."""


class Sentencizer:
    """Callable that returns the offsets at which spaCy starts sentences in a paragraph.

    `nlp` must be a blank pipeline; it is modified. To bound memory, call the sentencizer within `nlp.memory_zone()`.
    """

    def __init__(self, nlp: Any) -> None:
        from spacy.attrs import IS_PUNCT

        self.nlp = nlp
        self._marks = nlp.add_pipe("sentencizer").punct_chars
        vocabulary = nlp.vocab
        vocabulary.lex_attr_getters = {IS_PUNCT: vocabulary.lex_attr_getters[IS_PUNCT]}  # the only attribute used
        # Includes all characters beyond 16 bits: a class that lists only some of them is ten times slower to search.
        listed = "".join(sorted(mark for mark in self._marks if mark <= "\uffff"))
        self._any_mark = re.compile(f"[{re.escape(listed)}{_BEYOND_16_BITS}]")
        self._neighbours, self._specials = _special_cases(nlp.tokenizer)
        self._chunks = BoundedCache(self._compute)

    def __call__(self, text: str) -> list[int]:
        """Returns the sentence starts (character offsets) as in document.sents; the first is 0."""
        if "  " in f" {text} " or not text.isprintable():
            return self._whole(text)
        starts, begin, ended = [0], 0, False
        while begin < len(text):
            if not ended:
                mark = self._any_mark.search(text, begin)
                if mark is None:
                    break
                begin = text.rfind(" ", begin, mark.start()) + 1 or begin
                if begin and self._special_across(text, begin - 1):
                    return self._whole(text)
            end = text.find(" ", begin)
            end = len(text) if end < 0 else end
            if self._special_across(text, end):
                return self._whole(text)
            offsets, ended = self._chunks[text[begin:end]][ended]
            starts += [begin + offset for offset in offsets]
            begin = end + 1
        return starts

    def _compute(self, chunk: str) -> tuple[_Found, _Found]:
        """Returns the chunk's result when it follows a word, and when it follows the end of a sentence."""
        tokens = self._tokens(chunk)
        return _found(tokens, False), _found(tokens, True)

    def _whole(self, text: str) -> list[int]:
        return [0, *_found(self._tokens(text), False)[0]]

    def _tokens(self, text: str) -> list[tuple[int, bool, bool]]:
        """Returns (start, whether it is a sentence mark, whether it is punctuation) of each spaCy token.

        Of overlong chunks, spaCy sees only the ends, since its time grows with the square of their length.
        """
        cuts: list[tuple[int, int]] = []
        if len(text) > LONGEST_CHUNK:
            cuts = [(chunk.start() + 1, chunk.end() - KEPT) for chunk in _OVERLONG.finditer(text)]
        ends = [0, *(end for _, end in cuts)]
        short = "".join(text[a:b] for a, b in zip(ends, [*(begin for begin, _ in cuts), len(text)], strict=True))
        tokens = [(token.idx, token.text in self._marks, token.is_punct) for token in self.nlp.tokenizer(short)]
        if cuts:
            removed = [0, *accumulate(end - begin for begin, end in cuts)]
            places = [begin - before for (begin, _), before in zip(cuts, removed, strict=False)]
            tokens = [(start + removed[bisect_left(places, start)], *kinds) for start, *kinds in tokens]
        return tokens

    def _special_across(self, text: str, space: int) -> bool:
        """Returns whether the tokens around a space may differ from those of the two chunks on their own.

        spaCy also matches special cases (":-)", "a.m.") across a space. It then rejects such a match, but
        not before it has suppressed the valid matches that overlap with it.
        """
        for left, right in self._neighbours.get(text[space - 1 : space + 2 : 2], ()):
            if text.endswith(left, 0, space) and text.startswith(right, space + 1):
                begin, end = text.rfind(" ", 0, space) + 1, text.find(" ", space + 1)
                return bool(self._specials.search(text, begin, end if end >= 0 else len(text)))
        return False


def _found(tokens: list[tuple[int, bool, bool]], ended: bool) -> _Found:
    """Applies the sentencizer's rule to tokens; `ended` says whether a sentence ended just before them."""
    starts = []
    for start, is_mark, is_punctuation in tokens:
        if is_mark:
            ended = True
        elif ended and not is_punctuation:
            starts.append(start)
            ended = False
    return tuple(starts), ended


@lru_cache(maxsize=1)
def sentencizer() -> Sentencizer:
    """Returns the sentencizer of this process; later jobs reuse it and its cache."""
    import spacy

    return Sentencizer(spacy.blank("en"))


def _special_cases(tokenizer: Any) -> tuple[dict[str, set[tuple[str, str]]], re.Pattern[str]]:
    """Returns the adjacent token pairs of special cases, keyed by the two characters where they meet, and a pattern.

    The pattern matches the special cases whose rule changes the tokens, where a token can begin: not within a word.
    """
    from spacy.attrs import ORTH
    from spacy.tokenizer import Tokenizer

    without_rules = Tokenizer(
        tokenizer.vocab,
        prefix_search=tokenizer.prefix_search,
        suffix_search=tokenizer.suffix_search,
        infix_finditer=tokenizer.infix_finditer,
    )
    neighbours = defaultdict(set)
    specials = []
    for special, rule in tokenizer.rules.items():
        tokens = [token.text for token in without_rules(special)]
        for left, right in pairwise(tokens):
            neighbours[left[-1] + right[0]].add((left, right))
        if len(tokens) > 1 and tokens != [token[ORTH] for token in rule]:
            specials.append(re.escape(special))
    return dict(neighbours), re.compile(f"(?<![^\\W\\d_])(?:{'|'.join(specials)})")
