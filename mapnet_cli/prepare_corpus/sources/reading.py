"""What is noted down, repaired and found damaged while a source is read."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

Lines = Iterator[str | None]
"""A line, "" where a paragraph can't run on, None where a document ends."""

LISTED = 100
"""Problems kept by name, of a slice and of a corpus."""
SHOWN_PROBLEMS = 5
"""Of these, in the terminal."""


class DamagedInput(Exception):
    """A file ends too early or is broken; what was read before is good."""


def repaired(raw: bytes) -> tuple[str, int]:
    """Returns the text with U+FFFD for bytes that are not UTF-8, and in how many places they stood."""
    text = raw.decode("utf-8", errors="replace")
    return text, text.count("\ufffd") - raw.count("\ufffd".encode())


def printable(text: str) -> str:
    """Returns the text as one line that any file and terminal takes: file names and keys may hold lone surrogates."""
    return " ".join(text.splitlines()).encode("utf-8", "backslashreplace").decode()


@dataclass
class Problems:
    """What was repaired or left out. The first hundred are named, all are counted."""

    count: int = 0
    lines: list[str] = field(default_factory=list)

    def add(self, line: str) -> None:
        self.count += 1
        if len(self.lines) < LISTED:
            self.lines.append(printable(line))

    def merge(self, lines: list[str], count: int) -> None:
        """Adds another list, of which only some may be named."""
        self.lines += lines[: LISTED - len(self.lines)]
        self.count += count


@dataclass
class Reading:
    """Problems, what was left out because it is no article, what was taken out of lines, and how far it got."""

    problems: Problems = field(default_factory=Problems)
    left_out: Counter[str] = field(default_factory=Counter)
    """Pages of a dump, by reason."""
    markup: Counter[str] = field(default_factory=Counter)
    """Leftovers of wiki markup, by rule."""
    with_key: int = 0
    """Rows of JSONL that have the key of the text."""
    without_key: int = 0
    other_keys: str = ""
    """What the first row without it has instead, in words."""
    pieces: int = 0
    """Read before the one that is being read."""
    share: float = 0.0
    """Of that one, between 0 and 1."""
