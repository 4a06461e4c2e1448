"""What the readers of all sources share: parts of files, and a record of what was wrong, repaired or left out."""

import lzma
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

from mapnet_cli.core import InputError
from mapnet_cli.prepare_corpus.sources import compressed

Lines = Iterator[str | None]
"""A line, "" where a paragraph can't run on, None where a document ends."""

LISTED = 100
"""Problems kept by name, of a slice and of a corpus."""
SHOWN_PROBLEMS = 5
"""Of these, in the terminal."""


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


OVERLONG = 2_000_000
"""Characters of a line or paragraph that no clean-up setting lets through."""
READ = 8 * OVERLONG
"""Bytes of one line, of one row and of one page of a dump that are read; more are overlong in any encoding's length."""
CHUNK = 1 << 20
"""Bytes that are read or unpacked at a time, at most."""
PACKED_CHUNK = 1 << 16
STREAMS = (".gz", ".xz", ".zst")
"""What can only be unpacked from its beginning."""
COMPRESSED = (*STREAMS, ".bz2")


def packing(path: Path) -> str:
    """Returns the suffix of a file that is read through its compression, in lower case; "" for any other file."""
    suffix = path.suffix.lower()
    return suffix if suffix in COMPRESSED else ""


@dataclass(frozen=True)
class Piece:
    """Share `part` of `parts` equal ones of a file as it is now: shares of different states would not fit together."""

    path: Path
    part: int = 0
    parts: int = 1
    size: int = field(init=False)
    """Bytes on disk of the whole file."""
    written: int = field(init=False)
    """When that was last done, in nanoseconds."""

    def __post_init__(self) -> None:
        stat = self.path.stat()
        object.__setattr__(self, "size", stat.st_size)
        object.__setattr__(self, "written", stat.st_mtime_ns)

    @property
    def begin(self) -> int:
        return self.size * self.part // self.parts

    @property
    def end(self) -> int:
        return self.size * (self.part + 1) // self.parts

    def require_unchanged(self, name: str) -> None:
        """Raises InputError, which calls the piece `name`, if the file is no longer what it was."""
        stat = self.path.stat() if self.path.exists() else None
        if stat is None or (stat.st_size, stat.st_mtime_ns) != (self.size, self.written):
            raise InputError(f"{name} changed while it was read: run again")


class Line(NamedTuple):
    """One line without its line feed."""

    raw: bytes
    place: int
    """Byte of the file at which the line feed before it stands, of a compressed file where that block or chunk begins;
    -1 for the first line."""
    unread: int = 0
    """Its bytes if it is endless: it is left out."""


def raw_lines(piece: Piece) -> Iterator[Line]:
    """Yields the lines of the piece and all after it to the end of the file: stop where they are another's.

    Raises DamagedInput at a place where the file can't be read on.
    """
    exact = not packing(piece.path)
    skip = piece.part > 0
    rest, place, unread = bytearray(), piece.begin - 1, 0
    for start, chunk in _chunks(piece):
        if skip and start >= piece.end:
            return  # no line begins in the piece
        at = 0
        while (end := chunk.find(b"\n", at)) >= 0:
            if rest:
                rest += chunk[at:end]
                line = _line(rest, place, unread)
                rest, unread = bytearray(), 0
            else:
                line = _line(chunk[at:end], place, 0)
            if not skip:
                yield line
            skip, at = False, end + 1
            place = start + end if exact else start
        if len(rest) <= READ:
            rest += chunk[at:]
        else:  # endless, and only counted from here on
            unread += len(chunk) - at
    if rest and not skip:
        yield _line(rest, place, unread)


def _line(raw: bytes | bytearray, place: int, unread: int) -> Line:
    size = len(raw) + unread
    return Line(b"", place, size) if size > READ else Line(bytes(raw), place)


def _chunks(piece: Piece) -> Iterator[tuple[int, bytes]]:
    """Yields the bytes from the piece's beginning on, unpacked, each chunk with its place in the file."""
    packed = packing(piece.path)
    with piece.path.open("rb") as handle:
        try:
            if packed == ".bz2":
                yield from compressed.bz2_blocks(handle, piece.begin)
            elif packed == ".zst":
                yield from compressed.zstd_blocks(handle)
            elif packed == ".gz":
                yield from _stream(handle, lambda: zlib.decompressobj(wbits=16 + zlib.MAX_WBITS))
            elif packed == ".xz":
                yield from _stream(handle, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ))
            else:
                handle.seek(piece.begin)
                while chunk := handle.read(CHUNK):
                    yield handle.tell() - len(chunk), chunk
        except (zlib.error, lzma.LZMAError) as error:
            raise compressed.DamagedInput(str(error)) from None


def _stream(handle: IO[bytes], new: Callable[[], Any]) -> Iterator[tuple[int, bytes]]:
    """Yields what a file of one or several gzip or xz streams holds; `new` makes what unpacks one of them."""
    machine, begun = None, False
    while data := handle.read(PACKED_CHUNK):
        place = handle.tell() - len(data)
        while data:
            if machine is None:
                data = data.lstrip(b"\0") if begun else data  # padding between and after streams is no damage
                if not data:
                    break
                machine, begun = new(), True
            for text in _unpacked(machine, data):
                yield place, text
            data = machine.unused_data
            machine = None if machine.eof else machine
    if machine is not None:
        raise compressed.DamagedInput("the file ends in the middle of a compressed stream")


def _unpacked(machine: Any, data: bytes) -> Iterator[bytes]:
    """Yields what the data unpack to, at most CHUNK bytes at a time."""
    while not machine.eof:
        text = machine.decompress(data, CHUNK)
        yield text
        if len(text) < CHUNK:
            return
        data = getattr(machine, "unconsumed_tail", b"")  # xz keeps it to itself
