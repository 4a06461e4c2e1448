"""Encodings and line ends: what UTF-8 files with LF or CRLF need not pass through."""

import codecs
import io
from collections.abc import Iterator

Chunks = Iterator[tuple[int, bytes]]  # offsets in a file, and the bytes that begin there
HEAD = 1 << 16  # bytes by which the encoding is recognised
BOM = "\ufeff"
_WIDE = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")  # UTF-32's mark of byte order begins with UTF-16's
MOST, FEW = 0.6, 0.1  # shares of zeros from which, and up to which, a place counts as 0 or as not 0


def detect(head: bytes) -> str:
    """Returns UTF-16 or UTF-32, by byte order mark or zeros in ASCII text; "utf-8" if CR alone ends lines; else ""."""
    for encoding in _WIDE:
        if head.startswith(BOM.encode(encoding)):
            return encoding
    shares = [head[place::4].count(0) / max(1, len(head[place::4])) for place in range(4)]
    if all(share <= FEW or share >= MOST for share in shares) and any(shares):
        # in each encoding, other ones of four successive bytes are 0 (RFC 4627, section 3)
        zeros = [share > FEW for share in shares]
        return next((code for code in _WIDE if [byte == 0 for byte in "aa".encode(code)[:4]] == zeros), "")
    return "utf-8" if b"\r" in head and b"\n" not in head else ""


def recoded(chunks: Chunks, encoding: str) -> Chunks:
    """Yields the text in UTF-8 with LF line ends; what isn't valid in the encoding is not valid UTF-8 either."""
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(encoding)("mapnet-invalid"), translate=True)
    offset = 0
    for offset, chunk in chunks:
        yield offset, decoder.decode(chunk).encode("utf-8", "surrogateescape")
    yield offset, decoder.decode(b"", final=True).encode("utf-8", "surrogateescape")


def _mark_invalid(error: UnicodeError) -> tuple[str, int]:
    """Replaces what can't be decoded by a lone surrogate, which becomes byte 0xFF, invalid in UTF-8, too."""
    assert isinstance(error, UnicodeDecodeError)
    return "\udcff", error.end


codecs.register_error("mapnet-invalid", _mark_invalid)
