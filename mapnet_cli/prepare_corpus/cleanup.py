"""Clean-up rules from the code that the paper builds on (the preprocessing of MC-BERT and TUPE).

Lines that were broken in mid-sentence are joined. Paragraphs that are too short, too long or mostly
not prose (tables, links, formulas) are dropped. Each rule is named after its config key.
"""

import string
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from mapnet_cli.config import Cleanup
from mapnet_cli.prepare_corpus.sources.reading import OVERLONG, Lines
from mapnet_cli.text import normalise_text

_CONTINUES = frozenset(string.ascii_letters + string.digits + ",")
_LETTERS = string.ascii_letters.encode()
_SYMBOLS = "/\\|"
EXAMPLES = 3  # number of dropped paragraphs kept as examples per rule
EXAMPLE_CHARS = 200
JOINED = 2_000  # characters of short paragraphs that are joined
_SHORT = ("min_chars", "min_letters")


@dataclass
class Dropped:
    """Dropped paragraphs by rule: counts, and the beginnings of the first few; and characters changed in the others."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    changed: Counter[str] = field(default_factory=Counter)

    def add(self, rule: str, paragraph: str) -> None:
        self.counts[rule] += 1
        shown = self.examples.setdefault(rule, [])
        if len(shown) < EXAMPLES:
            shown.append(paragraph[:EXAMPLE_CHARS])


def clean(lines: Iterable[str | None], settings: Cleanup, dropped: Dropped) -> Lines:
    """Yields the normalised paragraphs that pass the rules, and None after a document; records the others."""
    kept = False
    paragraphs = _joined(_normalised(lines, settings.characters, dropped), settings.join_lines)
    for paragraph in _with_short_ones(paragraphs, settings) if settings.short_paragraphs == "join" else paragraphs:
        if paragraph is None:
            if kept:
                yield None
            kept = False
        elif rule := broken_rule(paragraph, settings):
            dropped.add(rule, paragraph)
        else:
            kept = True
            yield paragraph


def _with_short_ones(paragraphs: Iterable[str | None], settings: Cleanup) -> Lines:
    """Joins short paragraphs that follow each other, if together they break no rule."""
    short, size = list[str](), 0

    def joined() -> list[str]:
        together = " ".join(short)
        return short if broken_rule(together, settings) else [together]

    for paragraph in paragraphs:
        is_short = paragraph is not None and broken_rule(paragraph, settings) in _SHORT
        if short and (not is_short or size > JOINED):
            yield from joined()
            short, size = [], 0
        if paragraph is not None and is_short:
            short.append(paragraph)
            size += len(paragraph) + 1
        else:
            yield paragraph
    yield from joined()


def broken_rule(paragraph: str, settings: Cleanup) -> str:
    """Returns the config key of the first rule that drops the paragraph, or "" if none does."""
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


def _normalised(lines: Iterable[str | None], characters: str, dropped: Dropped) -> Lines:
    for line in lines:
        if line and len(line) > OVERLONG:  # the regular expressions would take minutes
            dropped.add("max_chars", normalise_text(line[:EXAMPLE_CHARS], characters))
            line = ""
        yield line and normalise_text(line, characters, dropped.changed)


def _joined(lines: Lines, join: bool) -> Iterator[str | None]:
    """Yields paragraphs, with `join` of lines that MC-BERT's rule joins, and None at the end of a document."""
    paragraph = ""
    for line in lines:
        continued = join and line and line[0] in string.ascii_lowercase and paragraph and paragraph[-1] in _CONTINUES
        if continued and len(paragraph) <= OVERLONG:
            paragraph += f" {line}"
            continue
        if paragraph:
            yield paragraph
        paragraph = line or ""
        if line is None:
            yield None
    if paragraph:
        yield paragraph
