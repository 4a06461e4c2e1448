"""A file, or an equal share of a large one, as lines with their places; compressed files are read through.

A share of a file is what begins there: it starts after the first line feed in its bytes, and whoever
reads it goes on over its end until the next document begins. So every byte is read by exactly one
share, whatever their number. Of a bz2 file a share is the blocks that begin in it, which can be
unpacked one by one; gzip, xz and zstd can only be read from their beginning.
"""

import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mapnet_cli.prepare_corpus import bz2_blocks

OVERLONG = 2_000_000
"""Characters of a line or paragraph that no clean-up setting lets through."""
READ = 8 * OVERLONG
"""Bytes of one line, and of one page of a dump, that are read; more are overlong in any encoding's length."""
CHUNK = 1 << 20
PACKED_CHUNK = 1 << 14
"""Small, because it may hold a thousand times as much text."""
ZSTD_WINDOW = 1 << 29
"""Bytes that a zstd file may ask for to be unpacked; 2 GiB (--long=31) would break the bound on a worker's memory."""
STREAMS = (".gz", ".xz", ".zst")


@dataclass(frozen=True)
class Piece:
    """Share `part` of `parts` equal ones of a file."""

    path: Path
    part: int = 0
    parts: int = 1

    @property
    def size(self) -> int:
        """Bytes on disk of the whole file."""
        return self.path.stat().st_size

    @property
    def begin(self) -> int:
        return self.size * self.part // self.parts

    @property
    def end(self) -> int:
        return self.size * (self.part + 1) // self.parts


@dataclass(frozen=True)
class Line:
    """One line without its line feed."""

    raw: bytes
    place: int
    """Byte of the file at which the line feed before it stands, of a compressed file where that block or chunk begins;
    -1 for the first line."""
    unread: int = 0
    """Its bytes if it is endless: it is left out."""


class DamagedInput(Exception):
    """A compressed file ends too early or is broken; what was read before is good."""


def raw_lines(piece: Piece) -> Iterator[Line]:
    """Yields the lines of the piece and all after it to the end of the file: stop where they are another's.

    Raises DamagedInput at a place where the file can't be read on.
    """
    exact = piece.path.suffix not in (*STREAMS, ".bz2")
    skip = piece.part > 0
    rest, place, unread = b"", piece.begin - 1, 0
    for start, chunk in _chunks(piece):
        if skip and start >= piece.end:
            return  # no line begins in the piece
        at = 0
        while (end := chunk.find(b"\n", at)) >= 0:
            if not skip:
                yield _line(rest + chunk[at:end], place, unread)
            skip = False
            rest, unread, at = b"", 0, end + 1
            place = start + end if exact else start
        rest += chunk[at:]
        if len(rest) > READ:
            unread += len(rest) - READ
            rest = rest[:READ]
    if rest and not skip:
        yield _line(rest, place, unread)


def _line(raw: bytes, place: int, unread: int) -> Line:
    size = len(raw) + unread
    return Line(b"", place, size) if size > READ else Line(raw, place)


def _chunks(piece: Piece) -> Iterator[tuple[int, bytes]]:
    """Yields the bytes from the piece's beginning on, unpacked, each chunk with its place in the file."""
    suffix = piece.path.suffix
    with piece.path.open("rb") as handle:
        if suffix == ".bz2":
            try:
                yield from bz2_blocks.blocks(handle, piece.begin)
            except bz2_blocks.DamagedBlock as error:
                raise DamagedInput(str(error)) from None
        elif suffix in STREAMS:
            yield from _stream(handle, *_machine(suffix))
        else:
            handle.seek(piece.begin)
            while chunk := handle.read(CHUNK):
                yield handle.tell() - len(chunk), chunk


def _stream(handle: IO[bytes], new: Callable[[], Any], broken: type[Exception]) -> Iterator[tuple[int, bytes]]:
    """Yields what a file of one or several compressed streams holds; `new` makes what unpacks one of them."""
    machine, begun = new(), False
    while data := handle.read(PACKED_CHUNK):
        place = handle.tell() - len(data)
        while data:
            if machine.eof:
                machine = new()
            try:
                yield place, machine.decompress(data)
            except broken as error:
                raise DamagedInput(str(error)) from None
            begun = True
            data = machine.unused_data if machine.eof else b""
    if begun and not machine.eof:
        raise DamagedInput("the file ends in the middle of a compressed stream")


def _machine(suffix: str) -> tuple[Callable[[], Any], type[Exception]]:
    """Returns what makes a decompressor with `decompress`, `eof` and `unused_data`, and what that raises."""
    if suffix == ".gz":
        return lambda: zlib.decompressobj(wbits=16 + zlib.MAX_WBITS), zlib.error
    if suffix == ".xz":
        return lzma.LZMADecompressor, lzma.LZMAError
    import zstandard

    return lambda: zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).decompressobj(), zstandard.ZstdError
