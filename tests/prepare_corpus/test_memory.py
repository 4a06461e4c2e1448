"""Reading takes little memory, also for files that expand to hundreds of megabytes; measured in a subprocess."""

import bz2
import gzip
import lzma
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
import zstandard
from pyarrow import parquet

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path("/proc/self/status").exists(),
        # getrusage's ru_maxrss is inherited from the parent: with pytest's own peak these tests could never fail.
        # CI runs on Linux.
        reason="needs Linux, whose /proc has the peak memory of a single process",
    ),
]
MEASURE = """
import re, sys
from pathlib import Path
from mapnet_cli.config import Cleanup, Source
from mapnet_cli.prepare_corpus.cleanup import Dropped, clean
from mapnet_cli.prepare_corpus.sources.documents import read_piece
from mapnet_cli.prepare_corpus.sources.reading import Piece
from mapnet_cli.prepare_corpus.sources.reading import Reading

def peak(path):
    source, reading = Source(kind=sys.argv[1], path=path), Reading()
    for _ in clean(read_piece(Piece(Path(path)), "f", source, "repair", reading), Cleanup(), Dropped()):
        pass
    print(reading.problems.lines, file=sys.stderr)
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

before = peak(sys.argv[2])
print((peak(sys.argv[3]) - before) * 1024)
"""


def memory_growth(kind: str, small: Path, large: Path) -> tuple[float, str]:
    """Returns the megabytes by which peak memory grows with the large file after the small one, and the problems."""
    command = [sys.executable, "-c", MEASURE, kind, str(small), str(large)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    return int(done.stdout) / 1e6, done.stderr


def memory_growth_parquet(text: str, folder: Path) -> tuple[float, str]:
    for name, row in (("small", "Some text."), ("large", text)):
        parquet.write_table(pa.table({"text": [row]}), folder / name)
    return memory_growth("parquet", folder / "small", folder / "large")


PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lambda content: lzma.compress(content, preset=0),
    ".zst": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("suffix", PACK)
def test_a_compressed_file_of_one_overlong_line(suffix: str, tmp_path: Path) -> None:
    """100 MB of text in at most 100 kB; only 16 MB of a line are kept in memory."""
    small, large = tmp_path / f"small{suffix}", tmp_path / f"large{suffix}"
    small.write_bytes(PACK[suffix](b"Some text.\n"))
    large.write_bytes(PACK[suffix](b" " * 100_000_000 + b"\nSome text.\n"))
    megabytes, problems = memory_growth("text", small, large)
    assert "has over 16,000,000 bytes and was skipped" in problems
    assert megabytes < 50


def test_a_large_parquet_row(tmp_path: Path) -> None:
    """Arrow itself takes three times the 40 MB of the row; mapnet adds nothing."""
    megabytes, problems = memory_growth_parquet("Words of a long book.\n" * 1_900_000, tmp_path)
    assert "row 0 has 41,800,000 bytes and was skipped" in problems
    assert megabytes < 150


def test_a_large_row_of_a_data_set(tmp_path: Path) -> None:
    """The file is memory-mapped, and the row is not read."""
    for name, text in (("small", "Some text."), ("large", "Words of a long book.\n" * 1_900_000)):
        table = pa.table({"text": [text]})
        with pa.OSFile(str(tmp_path / name), "wb") as out, pa.ipc.new_stream(out, table.schema) as stream:
            stream.write_table(table)
    megabytes, problems = memory_growth("dataset", tmp_path / "small", tmp_path / "large")
    assert "row 0 has 41,800,000 bytes and was skipped" in problems
    assert megabytes < 10


def test_a_row_of_many_short_lines(tmp_path: Path) -> None:
    """15 MB of two-letter lines, which would take 300 MB as a list."""
    megabytes, problems = memory_growth_parquet("ab\n" * 5_000_000, tmp_path)
    assert problems.count("[]") == 2
    assert megabytes < 130
