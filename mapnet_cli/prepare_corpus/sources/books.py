"""Books as plain text: Project Gutenberg's licence, marks of typed books, and words that a line end divides."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property

from mapnet_cli.prepare_corpus.sources.compressed import DamagedInput
from mapnet_cli.prepare_corpus.sources.reading import OVERLONG, Lines, Piece, Reading, head, text_chunks, unescaped

HEADER_LINES, HEADER_CHARS = 1_000, 100_000  # how much of a document is searched for the end of its header
LONGEST_PART = 50  # bytes of a part of a divided word
COUNTED_BYTES = 1 << 26  # number of bytes of a slice in which words are counted

_START = re.compile(
    r"\W*(?:START OF TH(?:E|IS) PROJECT GUTENBERG[^*]*(?:\*+|$)|END\W+THE SMALL PRINT.*)", re.IGNORECASE
)
_END = re.compile(r"\W*END OF (?:TH(?:E|IS) )?PROJECT GUTENBERG", re.IGNORECASE)
_RULES = (
    ("illustrations", re.compile(r"\[(?i:illustration)(?:[^\[\]]|\[[^\[\]]*\])*(?:\]|$)"), ""),
    ("notes", re.compile(r"\[(?:Footnote|Sidenote)[ \w]*: ?((?:[^\[\]]|\[[^\[\]]*\])*)(?:\]|$)"), r" \1 "),
    ("notes", re.compile(r"(?:(?<=[a-z]{2})|(?<=[.,;:!?\"'”’]))\[(?:[A-Z]|[*†‡]+)\](?!\w)"), ""),
    ("notes", re.compile(r"\[(?:Pg|Page|p\.) ?\d{1,4}\]"), ""),
    ("notes", re.compile(r" ?\[\d{1,3}\](?=[\s.,;:!?)'\"’”-]|$)|\[\d{1,3}\]"), ""),
    ("italics", re.compile(r"(?<!\w)_(?=\S)([^_]{1,2000})(?<=\S)_(?!\w)"), r"\1"),
)
_LETTERS = bytes(
    byte | 32 if 65 <= byte <= 90 else byte if 97 <= byte <= 122 or byte == 45 or byte > 127 else 32
    for byte in range(256)
)
"""For bytes.translate: lower case, and spaces for everything but letters and hyphens."""


def without_licence(lines: Lines, reading: Reading) -> Lines:
    """Yields the lines of each document without what precedes and follows the text of a Project Gutenberg book."""
    header: list[str] | None = []  # lines that may precede the text; None: the header has ended
    size, dropping = 0, False
    for line in lines:
        if line and ("utenberg" in line or "UTENBERG" in line or "SMALL PRINT" in line):
            if start := _START.match(line):
                reading.markup["licence"] += len(header or ()) + 1
                header, dropping, line = None, False, line[start.end() :].strip()
            elif _END.match(line):
                yield from header or ()
                header, dropping = None, True
        if line is None:
            yield from header or ()
            yield None
            header, size, dropping = [], 0, False
        elif dropping:
            reading.markup["licence"] += 1
        elif header is None:
            yield line
        else:
            header.append(line)
            size += len(line)
            if len(header) > HEADER_LINES or size > HEADER_CHARS:
                yield from header
                header = None
    yield from header or ()


def without_marks(line: str, markup: Counter[str]) -> str:
    """Returns the line without _italics_, [37], [Illustration: ...] and HTML entities; counts them by rule."""
    if not ("_" in line or "[" in line or "&" in line) or len(line) > OVERLONG:
        return line
    if (plain := unescaped(line)) != line:
        markup["entities"] += 1
        line = plain
    for rule, pattern, replacement in _RULES:
        line, count = pattern.subn(replacement, line)
        if count:
            markup[rule] += count
    return line


class Words:
    """The words of a slice, by which hyphens at line ends are judged; they are counted when first needed."""

    def __init__(self, pieces: Sequence[Piece], encoding: str) -> None:
        self._pieces = pieces
        self._encoding = encoding

    @cached_property
    def _counts(self) -> Counter[bytes]:
        """Counts of the words that are divided somewhere, with hyphen and without."""
        wanted = {word for chunk in self._chunks() for parts in _divided(chunk) for word in _forms(*parts)}
        counts: Counter[bytes] = Counter()
        for chunk in self._chunks() if wanted else ():
            counts.update(filter(wanted.__contains__, chunk.translate(_LETTERS).split()))
        return counts

    def _chunks(self) -> Iterator[bytes]:
        read = 0
        for piece in self._pieces:
            with suppress(DamagedInput):  # which is reported when the piece is read
                encoding = head(piece.path, self._encoding)[0] if piece.parts == 1 else ""
                for _, chunk in text_chunks(piece, encoding):
                    yield chunk
                    read += len(chunk)
                    if read > COUNTED_BYTES:
                        return

    def joined(self, left: str, right: str) -> bool:
        """Returns whether the parts are more often one word than joined by a hyphen."""
        whole, hyphenated = _forms(left.encode(), right.encode())
        return self._counts[whole] > self._counts[hyphenated]


def _divided(chunk: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields the two parts of each word that is divided at the end of a line."""
    for end in re.finditer(rb"-\r?\n", chunk):
        yield chunk[max(0, end.start() - LONGEST_PART) : end.start()], chunk[end.end() : end.end() + LONGEST_PART]


def _forms(left: bytes, right: bytes) -> tuple[bytes, bytes]:
    """Returns the word whose parts end `left` and begin `right`, without and with a hyphen, in lower case."""
    parts = left.translate(_LETTERS).split()[-1:] + right.translate(_LETTERS).split()[:1]
    return b"".join(parts), b"-".join(parts)


def unwrapped(lines: Iterator[str], words: Words | None, markup: Counter[str]) -> Lines:
    """Yields each hard-wrapped paragraph (the lines up to the next blank line) as one line; `words` judges hyphens."""
    paragraph = ""
    for line in lines:
        line = line.strip()
        if not line or len(paragraph) > OVERLONG:  # the clean-up drops and counts it
            if paragraph:
                yield paragraph
            yield ""
            paragraph = line
        elif paragraph[-1:] == "-" and (line[0] == "-" or (line[0].islower() and paragraph[-2:-1].isalpha())):
            if words and line[0] != "-" and words.joined(paragraph[:-1].rpartition(" ")[2], line.partition(" ")[0]):
                markup["hyphens"] += 1
                paragraph = paragraph[:-1]
            paragraph += line
        else:
            paragraph += f" {line}" if paragraph else line
    if paragraph:
        yield paragraph
