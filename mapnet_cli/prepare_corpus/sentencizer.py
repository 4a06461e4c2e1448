"""spaCy's rule-based sentencizer, its answers remembered for each chunk of text between two spaces.

A sentence starts at the first word after sentence punctuation. What the sentencizer makes of a chunk
thus depends on the chunk alone, and on whether sentence punctuation came last before it, so only
chunks with such punctuation and the ones after them are looked at. tests/text/plain.py is what this
is held to.
"""

import re
from collections import defaultdict
from functools import lru_cache
from itertools import pairwise
from typing import Any

from mapnet_cli.text import BoundedCache

_BEYOND_16_BITS = "\U00010000-\U0010ffff"
_Found = tuple[tuple[int, ...], bool]
"""Where sentences start in a chunk, and whether sentence punctuation is the last but for closing marks."""


class Sentencizer:
    """Call it with a paragraph to get spaCy's sentence starts.

    `nlp` is a blank pipeline, and its own from then on. Where memory matters, call it inside a memory zone of that.
    """

    def __init__(self, nlp: Any) -> None:
        from spacy.attrs import IS_PUNCT

        self.nlp = nlp
        self._marks = nlp.add_pipe("sentencizer").punct_chars
        vocabulary = nlp.vocab
        vocabulary.lex_attr_getters = {IS_PUNCT: vocabulary.lex_attr_getters[IS_PUNCT]}  # all that is asked of a word
        # Of larger characters all, as Python searches a class that lists some of them ten times as slowly.
        listed = "".join(sorted(mark for mark in self._marks if mark <= "\uffff"))
        self._any_mark = re.compile(f"[{re.escape(listed)}{_BEYOND_16_BITS}]")
        self._neighbours, self._specials = _special_cases(nlp.tokenizer)
        self._chunks = BoundedCache(self._ask)

    def __call__(self, text: str) -> list[int]:
        """Returns where the sentences start, the first at 0, as document.sents has them."""
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

    def _ask(self, chunk: str) -> tuple[_Found, _Found]:
        """Returns what the chunk is after a word, and after the end of a sentence."""
        tokens = self._tokens(chunk)
        return _found(tokens, False), _found(tokens, True)

    def _whole(self, text: str) -> list[int]:
        return [0, *_found(self._tokens(text), False)[0]]

    def _tokens(self, text: str) -> list[tuple[int, bool, bool]]:
        """Returns where each of spaCy's tokens starts, whether it is a mark, and whether it is punctuation."""
        return [(token.idx, token.text in self._marks, token.is_punct) for token in self.nlp.tokenizer(text)]

    def _special_across(self, text: str, space: int) -> bool:
        """Returns whether the tokens around a space may differ from those of its two chunks.

        spaCy looks for a special case (":-)", "a.m.") on both sides of the space as well. It finds none
        there, but one that it looks for hides the true ones that it overlaps.
        """
        for left, right in self._neighbours.get(text[space - 1 : space + 2 : 2], ()):
            if text.endswith(left, 0, space) and text.startswith(right, space + 1):
                chunks = text[text.rfind(" ", 0, space) + 1 : space + 1] + text[space + 1 :].partition(" ")[0]
                return bool(self._specials.search(chunks))
        return False


def _found(tokens: list[tuple[int, bool, bool]], ended: bool) -> _Found:
    """Returns what the sentencizer's rule makes of tokens that follow a word, or the end of a sentence."""
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
    """Returns this process's sentencizer, which later jobs find warm."""
    import spacy

    return Sentencizer(spacy.blank("en"))


def _special_cases(tokenizer: Any) -> tuple[dict[str, set[tuple[str, str]]], re.Pattern[str]]:
    """Returns the neighbouring tokens of special cases, by the two characters where they meet, and what finds one.

    It finds those that are cut in another way than without a rule, where a token can begin: not within a word.
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
