"""Shares of a file: each document is read by exactly one of them, whatever the file's format; damage is named."""

import bz2
import gzip
import lzma
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from mapnet_cli.config import Source
from mapnet_cli.prepare_corpus import bz2_blocks, pieces
from mapnet_cli.prepare_corpus.documents import read_piece
from mapnet_cli.prepare_corpus.pieces import DamagedInput, Piece, raw_lines
from mapnet_cli.prepare_corpus.reading import Reading
from tests.prepare_corpus.corpora import prose, read_shares

PACK: dict[str, Callable[[bytes], bytes]] = {
    "": lambda content: content,
    ".gz": lambda content: gzip.compress(content, mtime=0),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


def real_documents(lines: list[str | None]) -> list[list[str]]:
    """Returns the lines of each document that has any."""
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
def test_shares_are_the_whole(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], parts: int, ends: bool, kind: str
) -> None:
    file = tmp_path_factory.getbasetemp() / "shares"
    file.write_text("\n".join(lines) + "\n" * ends, encoding="utf-8")
    source = {"documents": kind} if kind == "blank-lines" else {"kind": kind}
    whole, reading = read_shares(file, 1, **source)
    found, in_shares = read_shares(file, parts, **source)
    assert real_documents(found) == real_documents(whole)
    if kind == "jsonl" and any(lines):
        assert in_shares.problems.count == reading.problems.count


def blocks_of(text: bytes) -> bytes:
    """Returns the text as several bz2 streams, of several blocks each."""
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
        assert len(list(bz2_blocks.blocks(handle, 0))) > 8
    lines, reading = read_shares(file, parts, kind="jsonl")
    assert [f'{{"text": "{line}"}}' for line in lines if line] == jsonl.decode().splitlines()
    assert reading.problems.lines == []


def test_blocks_are_found_at_any_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same text as bzip2 itself unpacks, wherever one begins and windows end."""
    draw = random.Random(2)
    text = bytes(draw.choices(range(256), k=450_000))
    file = tmp_path / "f.bz2"
    file.write_bytes(bz2.compress(text, 1))
    with file.open("rb") as handle:
        whole = list(bz2_blocks.blocks(handle, 0))
    assert b"".join(data for _, data in whole) == bz2.decompress(file.read_bytes()) == text
    assert len(whole) > 4
    monkeypatch.setattr(bz2_blocks, "WINDOW", 1 << 12)
    with file.open("rb") as handle:
        for (before, _), (place, _) in pairwise(whole):
            for begin in (before + 1, place - 1, place):
                assert list(bz2_blocks.blocks(handle, begin)) == whole[[p for p, _ in whole].index(place) :]


@pytest.mark.parametrize("suffix", PACK)
def test_compressed_files_are_read_through(suffix: str, jsonl: bytes, tmp_path: Path) -> None:
    file = tmp_path / f"f.jsonl{suffix}"
    file.write_bytes(PACK[suffix](jsonl))
    assert [line.raw for line in raw_lines(Piece(file))] == jsonl.splitlines()
    with file.open("ab") as handle:
        handle.write(PACK[suffix](b"one more\n"))
    assert [line.raw for line in raw_lines(Piece(file))][-1] == b"one more"
    file.write_bytes(PACK[suffix](b""))
    assert list(raw_lines(Piece(file))) == []


@pytest.mark.parametrize("suffix", [suffix for suffix in PACK if suffix])
def test_truncated_and_broken_files_keep_what_came_before(suffix: str, jsonl: bytes, tmp_path: Path) -> None:
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
        assert reading.problems.count <= 2, "and perhaps a row that is cut off"


def test_a_broken_block_costs_what_follows_in_its_share_only(jsonl: bytes, tmp_path: Path) -> None:
    file = tmp_path / "f.jsonl.bz2"
    packed = bytearray(blocks_of(jsonl))
    packed[len(packed) // 2 + 20_000] ^= 1
    file.write_bytes(packed)
    lines, reading = read_shares(file, 6, kind="jsonl")
    assert 900 < len([line for line in lines if line]) < 1200
    assert "the block at byte" in reading.problems.lines[0]


def test_an_endless_line_takes_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tracemalloc

    monkeypatch.setattr(pieces, "READ", 100_000)
    monkeypatch.setattr(pieces, "CHUNK", 10_000)
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


def test_nothing_is_read_of_a_missing_block(tmp_path: Path) -> None:
    file = tmp_path / "f.bz2"
    file.write_bytes(b"no bz2")
    with pytest.raises(DamagedInput, match="no bz2 block in it"):
        list(raw_lines(Piece(file)))
    file.write_bytes(b"")
    assert list(raw_lines(Piece(file))) == []
