"""Shares of a file: exactly one of them reads each document, in every file format; damage is reported."""

import bz2
import gzip
import lzma
import os
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from mapnet_cli.config import Source
from mapnet_cli.core.errors import InputError
from mapnet_cli.prepare_corpus.sources import compressed, reading
from mapnet_cli.prepare_corpus.sources.compressed import DamagedInput, chunks
from mapnet_cli.prepare_corpus.sources.documents import divisible, read_piece
from mapnet_cli.prepare_corpus.sources.reading import Piece, Reading, raw_lines
from tests.prepare_corpus.corpora import prose, read_shares

PACK: dict[str, Callable[[bytes], bytes]] = {
    "": lambda content: content,
    ".gz": lambda content: gzip.compress(content, mtime=0),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


def real_documents(lines: list[str | None]) -> list[list[str]]:
    """Returns the lines of each non-empty document."""
    documents: list[list[str]] = [[]]
    for line in lines:
        if line is None:
            documents.append([])
        elif line.strip():
            documents[-1].append(line)
    return [document for document in documents if document]


texts = st.lists(st.sampled_from(["", "", " ", "a", "bé", "<doc x>", "ccc ccc", '{"text": "x"}']), max_size=30)


@settings(deadline=None, max_examples=300)
@given(texts, st.integers(1, 9), st.booleans(), st.sampled_from(["blank-lines", "jsonl", "wikiextractor"]))
def test_shares_together_are_the_whole_file(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], parts: int, ends: bool, kind: str
) -> None:
    file = tmp_path_factory.getbasetemp() / "shares"
    file.write_text("\n".join(lines) + "\n" * ends, encoding="utf-8")
    source = {"documents": kind} if kind == "blank-lines" else {"kind": kind}
    parts = parts if divisible(Source(path="f", **source), file) else 1
    whole, reading = read_shares(file, 1, **source)
    found, in_shares = read_shares(file, parts, **source)
    assert real_documents(found) == real_documents(whole)
    if kind == "jsonl" and any(line.strip() for line in lines):
        assert in_shares.problems.count == reading.problems.count


def blocks_of(text: bytes) -> bytes:
    """Returns the text as two bz2 streams of several blocks each."""
    half = len(text) // 2
    return bz2.compress(text[:half], 1) + bz2.compress(text[half:], 1)


@pytest.fixture(scope="module")
def jsonl() -> bytes:
    draw = random.Random(1)
    return b"".join(b'{"text": "%s"}\n' % prose(n, draw.randint(1, 20)).encode() for n in range(1200))


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 50])
def test_shares_of_bz2_files(parts: int, jsonl: bytes, tmp_path: Path) -> None:
    file = tmp_path / "f.jsonl.bz2"
    file.write_bytes(blocks_of(jsonl))
    with file.open("rb") as handle:
        assert len(list(compressed.bz2_blocks(handle, 0))) > 8
    lines, reading = read_shares(file, parts, kind="jsonl")
    assert [f'{{"text": "{line}"}}' for line in lines if line] == jsonl.decode().splitlines()
    assert reading.problems.lines == []


def test_blocks_are_found_at_any_bit_offset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text equals that of bzip2, for any start position and window size."""
    draw = random.Random(2)
    text = bytes(draw.choices(range(256), k=450_000))
    file = tmp_path / "f.bz2"
    file.write_bytes(bz2.compress(text, 1))
    with file.open("rb") as handle:
        whole = list(compressed.bz2_blocks(handle, 0))
    assert b"".join(data for _, data in whole) == bz2.decompress(file.read_bytes()) == text
    assert len(whole) > 4
    monkeypatch.setattr(compressed, "WINDOW", 1 << 12)
    with file.open("rb") as handle:
        for (before, _), (place, _) in pairwise(whole):
            for begin in (before + 1, place - 1, place):
                assert list(compressed.bz2_blocks(handle, begin)) == whole[[p for p, _ in whole].index(place) :]


@pytest.mark.parametrize("suffix", PACK)
def test_compressed_files_are_decompressed(suffix: str, jsonl: bytes, tmp_path: Path) -> None:
    file = tmp_path / f"f.jsonl{suffix.upper()}"
    file.write_bytes(PACK[suffix](jsonl))
    assert [line.raw for line in raw_lines(Piece(file))] == jsonl.splitlines()
    with file.open("ab") as handle:
        handle.write(PACK[suffix](b"one more\n"))
    assert [line.raw for line in raw_lines(Piece(file))][-1] == b"one more"
    file.write_bytes(PACK[suffix](b""))
    assert list(raw_lines(Piece(file))) == []


@pytest.mark.parametrize("suffix", [suffix for suffix in PACK if suffix])
def test_text_before_the_damage_is_read(suffix: str, jsonl: bytes, tmp_path: Path) -> None:
    file = tmp_path / f"f.jsonl{suffix}"
    packed = blocks_of(jsonl) if suffix == ".bz2" else PACK[suffix](jsonl)
    for content in (packed[: len(packed) // 2], packed[:-14], b"this is no such file" * 9):
        file.write_bytes(content)
        source = Source(kind="jsonl", path=str(file))
        reading = Reading()
        found = [line for line in read_piece(Piece(file), "f", source, "repair", reading) if line]
        assert found == [line[10:-2] for line in jsonl.decode().splitlines()][: len(found)]
        assert content == packed[:-14] or len(found) < 1200
        assert "damaged or truncated" in reading.problems.lines[0]
        assert reading.problems.count <= 2, "and possibly a truncated row"


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
def test_padding_is_not_damage(suffix: str, jsonl: bytes, tmp_path: Path) -> None:
    file = tmp_path / f"f.jsonl{suffix}"
    file.write_bytes(PACK[suffix](jsonl) + bytes(70_000) + PACK[suffix](b"one more\n") + bytes(512))
    assert [line.raw for line in raw_lines(Piece(file))] == [*jsonl.splitlines(), b"one more"]
    file.write_bytes(PACK[suffix](jsonl) + bytes(512) + b"no stream")
    with pytest.raises(DamagedInput):
        list(raw_lines(Piece(file)))
    file.write_bytes(bytes(512))
    with pytest.raises(DamagedInput):
        list(raw_lines(Piece(file)))


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_chunks_are_bounded(suffix: str, tmp_path: Path) -> None:
    """Three streams that expand to a thousand times their size yield at most a megabyte at a time."""
    text = b"x" * 29 + b" " * 9_999_970 + b"\n"
    file = tmp_path / f"f{suffix}"
    file.write_bytes(PACK[suffix](text) * 3)
    found = [chunk for _, chunk in chunks(file)]
    assert b"".join(found) == text * 3
    assert max(map(len, found)) <= 1 << 20


def zstd_files() -> dict[str, bytes]:
    """Returns frames with and without checksum and size, with raw, RLE and compressed blocks, and a skippable one."""
    draw = random.Random(3)
    noise, words = draw.randbytes(300_000), prose(1, 5_000).encode()
    streamed = zstandard.ZstdCompressor(write_checksum=True).compressobj()
    return {
        "noise": zstandard.ZstdCompressor(write_checksum=True).compress(noise),
        "words": zstandard.ZstdCompressor(write_content_size=False).compress(words),
        "spaces": zstandard.ZstdCompressor(level=19).compress(b" " * 1_000_000),
        "small": zstandard.ZstdCompressor().compress(b"a"),
        "empty": zstandard.ZstdCompressor(write_checksum=True).compress(b""),
        "streamed": streamed.compress(words) + streamed.flush(),
        "skippable": (0x184D2A57).to_bytes(4, "little") + (9).to_bytes(4, "little") + b"not text!",
    }


def test_zstd_frames_equal_the_output_of_zstd(tmp_path: Path) -> None:
    frames = zstd_files()
    file = tmp_path / "f.zst"
    file.write_bytes(b"".join(frames.values()))
    reader = zstandard.ZstdDecompressor().stream_reader(file.open("rb"), read_across_frames=True, closefd=True)
    with reader:
        assert b"".join(data for _, data in chunks(file)) == reader.read(1 << 30)
    whole = frames["noise"]
    for end in (*range(1, 30), 150_000, len(whole) - 1):
        file.write_bytes(frames["words"] + whole[:end])
        with pytest.raises(DamagedInput):
            list(chunks(file))


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_file_that_changes_is_an_error(suffix: str, jsonl: bytes, tmp_path: Path) -> None:
    """Shares of the old and the new file would miss or repeat text."""
    file = tmp_path / f"f.jsonl{suffix}"
    source = Source(kind="jsonl", path=str(file))
    file.write_bytes(PACK[suffix](jsonl))
    planned = Piece(file)
    assert len(list(read_piece(planned, "f", source, "repair", Reading()))) == 2400
    started = read_piece(planned, "f", source, "repair", Reading())
    next(started)
    with file.open("ab") as handle:
        handle.write(PACK[suffix](jsonl))
    with pytest.raises(InputError, match="f changed while it was being read: run again"):
        list(started)
    for part in (0, 1):
        shares = Piece(file, part, 2)
        os.utime(file, ns=(0, part))
        with pytest.raises(InputError, match="f changed while it was being read: run again"):
            next(read_piece(shares, "f", source, "repair", Reading()))
    gone = Piece(file)
    file.unlink()
    with pytest.raises(InputError, match="f changed"):
        next(read_piece(gone, "f", source, "repair", Reading()))


def test_a_corrupt_block_only_loses_the_rest_of_its_share(jsonl: bytes, tmp_path: Path) -> None:
    file = tmp_path / "f.jsonl.bz2"
    packed = bytearray(blocks_of(jsonl))
    packed[len(packed) // 2 + 20_000] ^= 1
    file.write_bytes(packed)
    lines, reading = read_shares(file, 6, kind="jsonl")
    assert 900 < len([line for line in lines if line]) < 1200
    assert "the block at byte" in reading.problems.lines[0]


def test_an_overlong_line_takes_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tracemalloc

    monkeypatch.setattr(reading, "READ", 100_000)
    monkeypatch.setattr(compressed, "CHUNK", 10_000)
    file = tmp_path / "f"
    with file.open("wb") as handle:
        for _ in range(500):
            handle.write(b"x" * 20_000)
        handle.write(b"\nend\n")
    tracemalloc.start()
    found = list(raw_lines(Piece(file)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [(line.raw, line.unread) for line in found] == [(b"", 10_000_000), (b"end", 0)]
    assert peak < 1_000_000


def test_an_overlong_line_is_copied_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copying it with each chunk would move 50 GB."""
    import time

    monkeypatch.setattr(compressed, "CHUNK", 1 << 12)
    file = tmp_path / "f"
    file.write_bytes(b"x" * 30_000_000 + b"\nend")
    start = time.process_time()
    assert [line.unread for line in raw_lines(Piece(file))] == [30_000_000, 0]
    assert time.process_time() - start < 2


def test_a_file_without_blocks_is_damaged(tmp_path: Path) -> None:
    file = tmp_path / "f.bz2"
    file.write_bytes(b"no bz2")
    with pytest.raises(DamagedInput, match="it contains no bz2 block"):
        list(raw_lines(Piece(file)))
    file.write_bytes(b"")
    assert list(raw_lines(Piece(file))) == []
