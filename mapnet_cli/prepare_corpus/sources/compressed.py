"""Reading bz2 and zstd files block by block: from any place on, and within a bound on memory.

bzip2 packs at most 900 kB of text at a time, and each such block begins, at any bit, with the same 48
bits. A block by itself, between a stream's header and footer, is a bz2 file that `bz2` unpacks and
whose checksum it verifies. (Format: J. Tsai, "BZIP2: Format Specification", 2016.)

A zstd file is frames, one after another: a header, blocks that each unpack to at most 128 kB, perhaps a
checksum. `zstandard` unpacks whatever it is handed as a whole, so that a few kilobytes can become
gigabytes, or streams without saying that the file was cut off; handed the blocks one by one, it does
neither. (Format: Y. Collet, M. Kucherawy, RFC 8878, section 3.1.)
"""

import bz2
from collections.abc import Iterator
from typing import IO

BLOCK = 0x314159265359
STREAM_END = 0x177245385090
MARK_BITS = 48
HEADER = int.from_bytes(b"BZh9", "big")
WINDOW = 1 << 20
CHECKSUM_BITS = 32
CHUNK = 1 << 20
"""Bytes of text that are unpacked at a time, at most: runs of a byte can make a block 46 MB long."""


class DamagedInput(Exception):
    """A file ends too early or is broken; what was read before is good."""


def bz2_blocks(handle: IO[bytes], begin: int) -> Iterator[tuple[int, bytes]]:
    """Yields (byte in which it begins, contents) of the blocks that begin at or after byte `begin`, to the file's end.

    A block of more than CHUNK bytes comes in several parts. Raises DamagedInput where one is broken or cut off, or
    where there is no block in the whole file.
    """
    start: int | None = None
    none = True
    for bit, ends in _marks(handle, begin):
        none = False
        if start is not None:
            for text in _unpack(handle, start, bit):
                yield start // 8, text
        start = None if ends else bit
    if start is not None:
        raise DamagedInput("the file ends in the middle of a block")
    if none and begin == 0 and handle.seek(0, 2):
        raise DamagedInput("there is no bz2 block in it")


def _unpack(handle: IO[bytes], start: int, end: int) -> Iterator[bytes]:
    """Yields what the block at bits start to end holds."""
    first, bits = start // 8, end - start
    handle.seek(first)
    data = handle.read((end + 7) // 8 - first)
    block = int.from_bytes(data, "big") >> (8 * (first + len(data)) - end) & ((1 << bits) - 1)
    checksum = block >> (bits - MARK_BITS - CHECKSUM_BITS) & ((1 << CHECKSUM_BITS) - 1)
    footer = STREAM_END << CHECKSUM_BITS | checksum  # of a stream of one block, the block's own
    footer_bits = MARK_BITS + CHECKSUM_BITS
    padding = -(bits + footer_bits) % 8
    stream = ((HEADER << bits | block) << footer_bits | footer) << padding
    machine, packed = bz2.BZ2Decompressor(), stream.to_bytes((32 + bits + footer_bits + padding) // 8, "big")
    try:
        while not machine.eof:
            if machine.needs_input and not packed:
                raise EOFError("it has no end")
            text, packed = machine.decompress(packed, CHUNK), b""
            yield text
    except (OSError, EOFError) as error:
        raise DamagedInput(f"the block at byte {first:,}: {error}") from None


def _marks(handle: IO[bytes], begin: int) -> Iterator[tuple[int, bool]]:
    """Yields (bit, whether a stream ends there) of each mark from byte `begin` on, in order.

    A mark's six bytes may stand in packed text by chance, once in some 10^14 bits: that block then counts as damaged.
    """
    patterns = [_Pattern(mark, shift) for mark in (BLOCK, STREAM_END) for shift in range(8)]
    place, kept = begin, b""
    while True:
        handle.seek(place + len(kept))
        fresh = handle.read(WINDOW)
        window = kept + fresh
        # the last 7 bytes are looked at again with what follows them; a mark may end where the file does
        last = len(window) - 7 if fresh else len(window)
        found = sorted(
            (8 * (place + index) + pattern.shift, pattern.mark == STREAM_END)
            for pattern in patterns
            for index in pattern.places(window)
            if index < last
        )
        yield from found
        if not fresh:
            return
        keep = min(7, len(window))
        place, kept = place + len(window) - keep, window[len(window) - keep :]


class _Pattern:
    """A mark that begins `shift` bits after a byte does."""

    def __init__(self, mark: int, shift: int) -> None:
        self.mark, self.shift = mark, shift
        self._length = 6 if shift == 0 else 7
        spare = 8 * self._length - MARK_BITS - shift
        self._value = mark << spare
        self._mask = ((1 << MARK_BITS) - 1) << spare
        whole = self._value.to_bytes(self._length, "big")
        self._middle = whole[1:6] if shift else whole[:5]
        self._offset = 1 if shift else 0

    def places(self, window: bytes) -> Iterator[int]:
        """Yields the bytes in which the mark begins."""
        found = window.find(self._middle)
        while found >= 0:
            index = found - self._offset
            piece = window[index : index + self._length]
            if index >= 0 and len(piece) == self._length and int.from_bytes(piece, "big") & self._mask == self._value:
                yield index
            found = window.find(self._middle, found + 1)


ZSTD_WINDOW = 1 << 29
"""Bytes that a file may ask for to be unpacked; 2 GiB (--long=31) would break the bound on a worker's memory."""
SKIPPABLE = range(0x184D2A50, 0x184D2A60)
"""What frames that hold no text begin with."""
LONGEST_HEADER = 18
REPEATED = 1
"""The kind of a block that holds one byte, and how often it stands there."""


def zstd_blocks(handle: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yields (byte in which it begins, contents) of the file's blocks; raises DamagedInput."""
    import zstandard

    place = 0
    while start := handle.read(4):
        number = int.from_bytes(start, "little")
        if number in SKIPPABLE:
            place += 8 + int.from_bytes(_exactly(handle, 4), "little")
        else:
            handle.seek(place)
            header = handle.read(LONGEST_HEADER)
            try:
                size = zstandard.frame_header_size(header)
                checked = zstandard.get_frame_parameters(header).has_checksum
                machine = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).decompressobj()
                machine.decompress(header[:size])
                place += size
                last = False
                while not last:
                    handle.seek(place)
                    mark = _exactly(handle, 3)
                    value = int.from_bytes(mark, "little")
                    last, kind, size = bool(value & 1), value >> 1 & 3, value >> 3
                    size = (1 if kind == REPEATED else size) + (4 if last and checked else 0)
                    yield place, machine.decompress(mark + _exactly(handle, size))
                    place += 3 + size
            except zstandard.ZstdError as error:
                raise DamagedInput(str(error)) from None
        handle.seek(place)


def _exactly(handle: IO[bytes], size: int) -> bytes:
    data = handle.read(size)
    if len(data) < size:
        raise DamagedInput("the file ends in the middle of a compressed stream")
    return data
