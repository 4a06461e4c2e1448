"""Reads bz2 and zstd files block by block, bz2 from any position, in bounded memory.

bzip2 compresses blocks of at most 900 kB of text. Each block begins with the same 48 bits, at any bit
offset. A single block between a stream header and footer is a valid bz2 file, which `bz2` decompresses
and whose checksum it verifies. (Format: J. Tsai, "BZIP2: Format Specification", 2016.)

A zstd file is a sequence of frames: a header, blocks that each decompress to at most 128 kB, and an
optional checksum. `zstandard` either decompresses its whole input at once, so that a few kilobytes can
become gigabytes, or streams it without reporting truncation. Passing it one block at a time avoids
both problems. (Format: Y. Collet, M. Kucherawy, RFC 8878, section 3.1.)
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
"""Maximum number of bytes decompressed at a time; a block with long runs of one byte can expand to 46 MB."""


class DamagedInput(Exception):
    """A file is truncated or corrupt; the data read before the damage is valid."""


def bz2_blocks(handle: IO[bytes], begin: int) -> Iterator[tuple[int, bytes]]:
    """Yields (byte offset, contents) of all blocks that begin at or after byte `begin`.

    A block of more than CHUNK bytes is yielded in several parts. Raises DamagedInput at a corrupt or truncated block,
    or if the whole file contains no block.
    """
    start: int | None = None
    empty = True
    for bit, ends in _marks(handle, begin):
        empty = False
        if start is not None:
            for text in _unpack(handle, start, bit):
                yield start // 8, text
        start = None if ends else bit
    if start is not None:
        raise DamagedInput("the file ends in the middle of a block")
    if empty and begin == 0 and handle.seek(0, 2):
        raise DamagedInput("it contains no bz2 block")


def _unpack(handle: IO[bytes], start: int, end: int) -> Iterator[bytes]:
    """Yields the contents of the block from bit `start` to bit `end`."""
    first, bits = start // 8, end - start
    handle.seek(first)
    data = handle.read((end + 7) // 8 - first)
    block = int.from_bytes(data, "big") >> (8 * (first + len(data)) - end) & ((1 << bits) - 1)
    checksum = block >> (bits - MARK_BITS - CHECKSUM_BITS) & ((1 << CHECKSUM_BITS) - 1)
    footer = STREAM_END << CHECKSUM_BITS | checksum  # the checksum of a one-block stream is the block's
    footer_bits = MARK_BITS + CHECKSUM_BITS
    padding = -(bits + footer_bits) % 8
    stream = ((HEADER << bits | block) << footer_bits | footer) << padding
    decompressor, packed = bz2.BZ2Decompressor(), stream.to_bytes((32 + bits + footer_bits + padding) // 8, "big")
    try:
        while not decompressor.eof:
            if decompressor.needs_input and not packed:
                raise EOFError("it is incomplete")
            text, packed = decompressor.decompress(packed, CHUNK), b""
            yield text
    except (OSError, EOFError) as error:
        raise DamagedInput(f"the block at byte {first:,}: {error}") from None


def _marks(handle: IO[bytes], begin: int) -> Iterator[tuple[int, bool]]:
    """Yields (bit offset, whether it is the end of a stream) of each block mark from byte `begin` on, in order.

    Compressed text contains a mark by chance about once in 10^14 bits; that block then counts as damaged.
    """
    patterns = [_Pattern(mark, shift) for mark in (BLOCK, STREAM_END) for shift in range(8)]
    offset, kept = begin, b""
    while True:
        handle.seek(offset + len(kept))
        fresh = handle.read(WINDOW)
        window = kept + fresh
        # the last 7 bytes are searched again with the next window; at the end of the file, a mark may end there
        last = len(window) - 7 if fresh else len(window)
        found = sorted(
            (8 * (offset + index) + pattern.shift, pattern.mark == STREAM_END)
            for pattern in patterns
            for index in pattern.find(window)
            if index < last
        )
        yield from found
        if not fresh:
            return
        keep = min(7, len(window))
        offset, kept = offset + len(window) - keep, window[len(window) - keep :]


class _Pattern:
    """A mark that begins `shift` bits after a byte boundary."""

    def __init__(self, mark: int, shift: int) -> None:
        self.mark, self.shift = mark, shift
        self._length = 6 if shift == 0 else 7
        spare = 8 * self._length - MARK_BITS - shift
        self._value = mark << spare
        self._mask = ((1 << MARK_BITS) - 1) << spare
        whole = self._value.to_bytes(self._length, "big")
        self._middle = whole[1:6] if shift else whole[:5]
        self._offset = 1 if shift else 0

    def find(self, window: bytes) -> Iterator[int]:
        """Yields the indices of the bytes in which the mark begins."""
        found = window.find(self._middle)
        while found >= 0:
            index = found - self._offset
            piece = window[index : index + self._length]
            if index >= 0 and len(piece) == self._length and int.from_bytes(piece, "big") & self._mask == self._value:
                yield index
            found = window.find(self._middle, found + 1)


ZSTD_WINDOW = 1 << 29
"""Maximum window size in bytes; the 2 GiB of --long=31 would exceed the memory bound of a worker."""
SKIPPABLE = range(0x184D2A50, 0x184D2A60)
"""Magic numbers of skippable frames, which contain no text."""
LONGEST_HEADER = 18
RLE = 1
"""Block type RLE_Block: one byte and its number of repetitions."""


def zstd_blocks(handle: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yields (byte offset, contents) of the blocks of the file; raises DamagedInput if it is corrupt or truncated."""
    import zstandard

    offset = 0
    while start := handle.read(4):
        magic = int.from_bytes(start, "little")
        if magic in SKIPPABLE:
            offset += 8 + int.from_bytes(_read_exactly(handle, 4), "little")
        else:
            handle.seek(offset)
            header = handle.read(LONGEST_HEADER)
            try:
                size = zstandard.frame_header_size(header)
                checked = zstandard.get_frame_parameters(header).has_checksum
                decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).decompressobj()
                decompressor.decompress(header[:size])
                offset += size
                last = False
                while not last:
                    handle.seek(offset)
                    mark = _read_exactly(handle, 3)
                    value = int.from_bytes(mark, "little")
                    last, kind, size = bool(value & 1), value >> 1 & 3, value >> 3
                    size = (1 if kind == RLE else size) + (4 if last and checked else 0)
                    yield offset, decompressor.decompress(mark + _read_exactly(handle, size))
                    offset += 3 + size
            except zstandard.ZstdError as error:
                raise DamagedInput(str(error)) from None
        handle.seek(offset)


def _read_exactly(handle: IO[bytes], size: int) -> bytes:
    data = handle.read(size)
    if len(data) < size:
        raise DamagedInput("the file ends in the middle of a compressed stream")
    return data
