"""Shared by the readers of all sources: pieces of files, their lines, and a record of problems and skipped input."""

import codecs
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html import unescape
from html.entities import html5
from pathlib import Path
from typing import Any, NamedTuple

from mapnet_cli.core import InputError
from mapnet_cli.prepare_corpus.sources import compressed, encodings

Lines = Iterator[str | None]  # lines of text, "" at a paragraph boundary, and None at the end of a document

LISTED = 100  # maximum number of problems recorded as text, per slice and per corpus
SHOWN_PROBLEMS = 5  # maximum number of problems printed to the terminal
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});")


def unescaped(text: str, written: Callable[[str], str] = str) -> str:
    """Returns the text with its HTML entities replaced by `written` of the characters that they stand for."""
    if "&" not in text:
        return text
    return _ENTITY.sub(lambda e: written(unescape(e[0]) if e[0][1] == "#" else html5.get(e[0][1:], e[0])), text)


def printable(text: str) -> str:
    """Returns the text as one line that can be encoded: file names and keys may contain lone surrogates."""
    return " ".join(text.splitlines()).encode("utf-8", "backslashreplace").decode()


@dataclass
class Problems:
    """Problems with the input: text of the first LISTED ones, and the total count."""

    count: int = 0
    lines: list[str] = field(default_factory=list)

    def add(self, line: str) -> None:
        self.count += 1
        if len(self.lines) < LISTED:
            self.lines.append(printable(line))

    def merge(self, lines: list[str], count: int) -> None:
        """Adds `count` problems, of which `lines` are the recorded ones."""
        self.lines += lines[: LISTED - len(self.lines)]
        self.count += count

    @property
    def shown(self) -> str:
        """The first problems as lines of a message."""
        return "".join(f"\n  {line}" for line in self.lines[:SHOWN_PROBLEMS])


@dataclass
class Reading:
    """Record of reading a slice: problems, amounts, skipped pages, removed marks, keys, progress; how it is read."""

    problems: Problems = field(default_factory=Problems)
    left_out: Counter[str] = field(default_factory=Counter)  # number of skipped dump pages, by reason
    markup: Counter[str] = field(default_factory=Counter)  # number of removals of marks and leftover markup, by rule
    amounts: Counter[str] = field(default_factory=Counter)
    """Number of "rows" and "bytes" read, and of "lost rows" and "lost bytes", which yield no text."""
    fallback: str = ""  # encoding of bytes that aren't UTF-8, "" if unknown
    invalid: str = ""  # position of the first invalid UTF-8 of the current piece in words, "" if there is none
    repairs: int = 0  # number of places with invalid UTF-8 in the current piece
    words: Any = None  # the words of the slice (`books.Words`), None if each piece is judged by its own
    with_key: int = 0  # number of JSONL rows that have the text key
    without_key: int = 0
    other_keys: str = ""  # description of the keys of the first row without the text key, for messages
    pieces: int = 0  # number of pieces finished before the current one
    share: float = 0.0  # fraction of the current piece that has been read

    def lose(self, problem: str, bytes_: int, unread: bool = False) -> None:
        """Records a problem that loses bytes; `unread`: they were not counted as read."""
        self.problems.add(problem)
        self.amounts.update({"bytes": bytes_ * unread, "lost bytes": bytes_})

    def repaired(self, raw: bytes, where: str) -> str:
        """Returns the text, with what isn't UTF-8 read in the encoding `fallback`; else, or if it fails, U+FFFD."""
        self.invalid = self.invalid or where

        def repair(error: UnicodeError) -> tuple[str, int]:
            assert isinstance(error, UnicodeDecodeError)
            self.repairs += 1
            wrong = error.object[error.start : error.end]
            return wrong.decode(self.fallback, "replace") if self.fallback else "\ufffd", error.end

        codecs.register_error("mapnet-repair", repair)
        return raw.decode("utf-8", "mapnet-repair")

    def report_repairs(self, name: str) -> None:
        """Records what was done to the invalid UTF-8 of a piece."""
        if self.repairs:
            done = f"read {{}} places in {self.fallback}" if self.fallback else "repaired invalid UTF-8 in {} places"
            self.problems.add(f"{name}: {done.format(f'{self.repairs:,}')}, the first at {self.invalid}")
        self.repairs, self.invalid = 0, ""


OVERLONG = 2_000_000  # characters; the clean-up drops longer lines and paragraphs with any settings
READ = 8 * OVERLONG  # maximum bytes of one line, row or dump page; anything longer also exceeds OVERLONG in characters


def suffix_of(path: str | Path) -> str:
    """Returns a file's suffix in lower case, ignoring a compression suffix."""
    name = str(path).lower()  # pathlib takes ten times as long
    name = name.removesuffix(compressed.packing(name))
    return name[name.rfind(".") :] if name.rfind(".") > name.rfind("/") else ""


@dataclass(frozen=True)
class Piece:
    """Share `part` of `parts` equal shares of a file, with the file's current size and modification time."""

    path: Path
    part: int = 0
    parts: int = 1
    size: int = -1  # size of the whole file on disk, in bytes; -1: look it up now
    modified: int = -1  # modification time in nanoseconds

    def __post_init__(self) -> None:
        if self.size < 0:
            stat = self.path.stat()
            object.__setattr__(self, "size", stat.st_size)
            object.__setattr__(self, "modified", stat.st_mtime_ns)

    @property
    def begin(self) -> int:
        return self.size * self.part // self.parts

    @property
    def end(self) -> int:
        return self.size * (self.part + 1) // self.parts

    def require_unchanged(self, name: str) -> None:
        """Raises InputError if the file has changed since the piece was created; `name` is used in the message."""
        stat = self.path.stat() if self.path.exists() else None
        if stat is None or (stat.st_size, stat.st_mtime_ns) != (self.size, self.modified):
            raise InputError(f"{name} changed while it was being read: run again")


class Line(NamedTuple):
    """One line without its line feed, or one record with its end."""

    raw: bytes
    offset: int
    """Byte offset of the end of the line before (in a compressed file, of the block or chunk that contains it);
    -1 for the first line."""
    unread: int = 0  # length of the line in bytes if it exceeds READ; `raw` is empty then


def raw_lines(piece: Piece, end: bytes = b"\n", encoding: str = "") -> Iterator[Line]:
    """Yields the lines that begin in the piece or after it; the caller stops where the next piece begins.

    With another `end`, yields the records that end with it. They are in UTF-8; `encoding` is the file's, "" for UTF-8.
    Raises DamagedInput where the file is damaged.
    """
    exact, more = not (encoding or compressed.packing(piece.path)), len(end) - 1
    skip, kept, held = piece.part > 0, b"", 0  # the last bytes of a chunk may begin an end; `held` is their offset
    rest, offset, unread = bytearray(), piece.begin - 1, 0
    for start, chunk in text_chunks(piece, encoding):
        overlap, size = len(kept), len(chunk)
        held = start - overlap if exact else held if kept else start
        if skip and held >= piece.end:
            return  # the piece contains no line start
        chunk, at = kept + chunk if kept else chunk, 0
        while (place := chunk.find(end, at)) >= 0:
            cut = place + len(end) if more else place
            if rest:
                rest += chunk[at:cut]
                line = _line(rest, offset, unread)
                rest, unread = bytearray(), 0
            else:
                line = Line(chunk[at:cut], offset) if cut - at <= READ else _line(chunk[at:cut], offset, 0)
            if not skip:
                yield line
            skip, at = False, place + len(end)
            offset = held + place if exact else start if place >= overlap else held
        kept = chunk[max(at, len(chunk) - more) :] if more else b""
        held = start if size >= len(kept) else held
        if len(rest) <= READ:
            rest += chunk[at : len(chunk) - len(kept)]
        else:  # too long: only count the rest
            unread += len(chunk) - at - len(kept)
    if (rest or kept) and not skip:
        yield _line(rest + kept, offset, unread)


def text_chunks(piece: Piece, encoding: str) -> encodings.Chunks:
    """Returns the piece's contents from its beginning on, in UTF-8; `encoding` is the file's, "" for UTF-8."""
    found = compressed.chunks(piece.path, piece.begin)
    return encodings.recoded(found, encoding) if encoding else found


def head(path: Path, encoding: str) -> tuple[str, str]:
    """Returns the encoding of a text file, detected unless given, and the beginning of its text, if it can be read."""
    found = b""
    try:
        for _, chunk in compressed.chunks(path, 0, encodings.HEAD):
            found += chunk
            if len(found) >= encodings.HEAD:
                break
    except compressed.DamagedInput:
        pass
    found = found[: encodings.HEAD]
    encoding = encoding or encodings.detect(found)
    return encoding, found.decode(encoding or "utf-8", "replace").replace("\0", "").lstrip(encodings.BOM)


def _line(raw: bytes | bytearray, offset: int, unread: int) -> Line:
    size = len(raw) + unread
    return Line(b"", offset, size) if size > READ else Line(bytes(raw), offset)
