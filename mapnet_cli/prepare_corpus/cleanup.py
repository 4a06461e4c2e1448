"""The clean-up rules of the paper's code family (MC-BERT's and TUPE's preprocessing).

Lines that were broken in mid-sentence are joined, and paragraphs that are too short, too long or
hardly prose (tables, links, formulas) are dropped. Each rule is a config key of its own name.
"""

import string
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from mapnet_cli.config import Cleanup
from mapnet_cli.prepare_corpus.sources.reading import OVERLONG, Lines
from mapnet_cli.text import normalise_text

_RUNS_ON = frozenset(string.ascii_letters + string.digits + ",")
_LETTERS = string.ascii_letters.encode()
_SYMBOLS = "/\\|"


EXAMPLES = 3
"""Paragraphs that are kept to show, of each rule."""
EXAMPLE_CHARS = 200


@dataclass
class Dropped:
    """What the rules dropped: counts, and how the first ones begin."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, rule: str, paragraph: str) -> None:
        self.counts[rule] += 1
        shown = self.examples.setdefault(rule, [])
        if len(shown) < EXAMPLES:
            shown.append(paragraph[:EXAMPLE_CHARS])


def clean(lines: Iterable[str | None], settings: Cleanup, dropped: Dropped) -> Lines:
    """Yields the normalised paragraphs that pass the rules, and None at the end of each document that has any.

    Notes in `dropped` what doesn't pass.
    """
    kept = False
    for paragraph in _joined(_normalised(lines, dropped), settings.join_lines):
        if paragraph is None:
            if kept:
                yield None
            kept = False
        elif rule := broken_rule(paragraph, settings):
            dropped.add(rule, paragraph)
        else:
            kept = True
            yield paragraph


def broken_rule(paragraph: str, settings: Cleanup) -> str:
    """Returns the config key of the first rule that drops the paragraph, "" if it stays."""
    length = len(paragraph)
    if length < settings.min_chars:
        return "min_chars"
    if length > settings.max_chars:
        return "max_chars"
    encoded = paragraph.encode()
    letters = len(encoded) - len(encoded.translate(None, _LETTERS))
    if letters < settings.min_letters:
        return "min_letters"
    if letters < settings.min_letter_share * length:
        return "min_letter_share"
    if any(paragraph.count(symbol) > settings.max_symbol_share * length for symbol in _SYMBOLS):
        return "max_symbol_share"
    return ""


def _normalised(lines: Iterable[str | None], dropped: Dropped) -> Lines:
    for line in lines:
        if line and len(line) > OVERLONG:  # not worth minutes of regular expressions
            dropped.add("max_chars", normalise_text(line[:EXAMPLE_CHARS]))
            line = ""
        yield line and normalise_text(line)


def _joined(lines: Lines, join: bool) -> Iterator[str | None]:
    """Yields paragraphs, and None at the end of a document.

    A line runs on into the next if it ends in an ASCII letter, a digit or a comma and the next
    starts with a lower-case ASCII letter.
    """
    paragraph = ""
    for line in lines:
        runs_on = join and line and line[0] in string.ascii_lowercase and paragraph and paragraph[-1] in _RUNS_ON
        if runs_on and len(paragraph) <= OVERLONG:
            paragraph += f" {line}"
            continue
        if paragraph:
            yield paragraph
        paragraph = line or ""
        if line is None:
            yield None
    if paragraph:
        yield paragraph
