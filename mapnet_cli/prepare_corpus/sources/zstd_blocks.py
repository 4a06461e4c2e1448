"""Unpacking a zstd file block by block, so that a few kilobytes never become gigabytes at once.

A file is frames, one after another: a header, blocks that each unpack to at most 128 kB, perhaps a checksum.
`zstandard` unpacks whatever it is handed as a whole, or streams without saying that the file was cut off; handed
the blocks one by one, it does neither. (Format: Y. Collet, M. Kucherawy, RFC 8878, section 3.1.)
"""

from collections.abc import Iterator
from typing import IO

from mapnet_cli.prepare_corpus.sources.reading import DamagedInput

WINDOW = 1 << 29
"""Bytes that a file may ask for to be unpacked; 2 GiB (--long=31) would break the bound on a worker's memory."""
SKIPPABLE = range(0x184D2A50, 0x184D2A60)
"""What frames that hold no text begin with."""
LONGEST_HEADER = 18
REPEATED = 1
"""The kind of a block that holds one byte, and how often it stands there."""


def blocks(handle: IO[bytes]) -> Iterator[tuple[int, bytes]]:
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
                machine = zstandard.ZstdDecompressor(max_window_size=WINDOW).decompressobj()
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
