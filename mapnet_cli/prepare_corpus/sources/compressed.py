"""Decompresses files block by block in bounded memory, bz2 files from any position.

bzip2 compresses blocks of at most 900 kB of text. Each block begins with the same 48 bits, at any bit
offset. A single block between a stream header and footer is a valid bz2 file, which `bz2` decompresses
and whose checksum it verifies. (Format: J. Tsai, "BZIP2: Format Specification", 2016.)
"""

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import zstandard

BLOCK, STREAM_END, MARK_BITS, CHECKSUM_BITS = 0x314159265359, 0x177245385090, 48, 32
HEADER = int.from_bytes(b"BZh9", "big")
WINDOW = 1 << 20
LARGEST = 1 << 24  # bits of a compressed block: 900 kB of text take at most a little more than that
CHUNK = 1 << 20
"""Maximum number of bytes decompressed at a time; a bz2 block with long runs of one byte can expand to 46 MB."""
ZSTD_WINDOW = 1 << 29  # maximum window size in bytes; the 2 GiB of --long=31 would exceed the memory bound of a worker
STREAMS: dict[str, tuple[Callable[[], Any], int, tuple[int, ...]]] = {
    ".gz": (lambda: zlib.decompressobj(wbits=16 + zlib.MAX_WBITS), 1 << 16, (CHUNK,)),
    ".xz": (lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ), 1 << 16, (CHUNK,)),
    # its output can't be limited: a block of 4 bytes may become 128 kB, so 32 bytes become CHUNK at most
    ".zst": (lambda: zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).decompressobj(), 32, ()),
}
"""Files that can only be decompressed from the beginning, by suffix: the decompressor, the number of bytes read at a
time, and the limit that `decompress` is given."""


class DamagedInput(Exception):
    """A file is truncated or corrupt; the data read before the damage is valid."""


def packing(path: str | Path) -> str:
    """Returns the suffix of a compressed file in lower case, or "" for any other file."""
    name = str(path).lower()
    return name[name.rfind(".") :] if name.endswith((*STREAMS, ".bz2")) else ""


def chunks(path: Path, begin: int = 0, size: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yields (byte offset in the file, decompressed bytes) from byte `begin` on, where the format allows.

    Of a file that isn't compressed, reads `size` bytes at a time (0: CHUNK). Raises DamagedInput.
    """
    packed = packing(path)
    with path.open("rb") as handle:
        if packed == ".bz2":
            yield from bz2_blocks(handle, begin)
        elif packed:
            yield from _stream(handle, *STREAMS[packed])
        else:
            handle.seek(begin)
            while chunk := handle.read(size or CHUNK):
                yield handle.tell() - len(chunk), chunk


def _stream(
    handle: IO[bytes], new: Callable[[], Any], size: int, limit: tuple[int, ...]
) -> Iterator[tuple[int, bytes]]:
    """Yields the contents of a file of one or more streams; the arguments are those of STREAMS."""
    decompressor, started = None, False
    try:
        while data := handle.read(size):
            offset = handle.tell() - len(data)
            while data:
                if decompressor is None:
                    data = data.lstrip(b"\0") if started else data  # streams may be followed by padding
                    if not data:
                        break
                    decompressor, started = new(), True
                while not decompressor.eof:  # at most CHUNK bytes at a time
                    text = decompressor.decompress(data, *limit)
                    if text:
                        yield offset, text
                    if len(text) < CHUNK:
                        break
                    data = getattr(decompressor, "unconsumed_tail", b"")  # LZMADecompressor buffers it internally
                data = decompressor.unused_data
                decompressor = None if decompressor.eof else decompressor
    except (zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
        raise DamagedInput(str(error)) from None
    if decompressor is not None:
        raise DamagedInput("the file ends in the middle of a compressed stream")


def bz2_blocks(handle: IO[bytes], begin: int) -> Iterator[tuple[int, bytes]]:
    """Yields (byte offset, contents) of all blocks that begin at or after byte `begin`.

    A block of more than CHUNK bytes is yielded in several parts. Raises DamagedInput at a corrupt or truncated block,
    or if the whole file contains no block.
    """
    start: int | None = None
    bit = -1
    for bit, ends in _marks(handle, begin):
        if start is not None:
            yield from ((start // 8, text) for text in _unpack(handle, start, bit))
        start = None if ends else bit
    if start is not None:
        raise DamagedInput("the file ends in the middle of a block")
    if bit < 0 and begin == 0 and handle.seek(0, 2):
        raise DamagedInput("it contains no bz2 block")


def _unpack(handle: IO[bytes], start: int, end: int) -> Iterator[bytes]:
    """Yields the contents of the block from bit `start` to bit `end`."""
    first, bits = start // 8, end - start
    if not MARK_BITS + CHECKSUM_BITS <= bits <= LARGEST:
        raise DamagedInput(f"the block at byte {first:,} has an impossible size")
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
    """Yields (bit offset, whether it ends a stream) of the marks from byte `begin` on; 1 bit in 10^14 is by chance."""
    offset, window = begin, b""
    while True:
        handle.seek(offset + len(window))
        fresh = handle.read(WINDOW)
        window += fresh
        # the last 7 bytes are searched again with the next window; at the end of the file, a mark may end there
        last = 8 * (len(window) - 7 if fresh else len(window))
        found = [
            (8 * offset + place, mark == STREAM_END)
            for mark in (BLOCK, STREAM_END)
            for shift in range(8)
            for place in _find(window, mark, shift)
            if place < last
        ]
        yield from sorted(found)
        if not fresh:
            return
        offset, window = offset + len(window) - len(window[-7:]), window[-7:]


def _find(window: bytes, mark: int, shift: int) -> Iterator[int]:
    """Yields the bit offsets at which the mark begins, `shift` bits after a byte boundary."""
    value, mask = mark << (8 - shift), ((1 << MARK_BITS) - 1) << (8 - shift)
    inside = value.to_bytes(7, "big")[1:6]
    at = window.find(inside, 1)
    while at >= 0:
        if int.from_bytes(window[at - 1 : at + 6].ljust(7, b"\0"), "big") & mask == value:
            yield 8 * (at - 1) + shift
        at = window.find(inside, at + 1)
