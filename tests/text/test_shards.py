import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapnet_cli.core.errors import DamagedError
from mapnet_cli.text.shards import Sequences, padded, shard_files, writing_shard


def write(path: Path, sequences: list[list[int]], vocab_size: int = 1000) -> Path:
    with writing_shard(path, vocab_size) as shard:
        for ids in sequences:
            shard.add(ids)
    return path


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.lists(st.integers(0, 70_000), max_size=9), max_size=6), max_size=4), st.booleans())
def test_sequences_round_trip(
    tmp_path_factory: pytest.TempPathFactory, shards: list[list[list[int]]], wide: bool
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    shards = [[[i % (1 << 16) if not wide else i for i in ids] for ids in shard] for shard in shards]
    vocab_size = 70_001 if wide else 1 << 16
    sequences = Sequences([write(folder / f"s{n}", shard, vocab_size) for n, shard in enumerate(shards)])
    flat = [ids for shard in shards for ids in shard]
    assert len(sequences) == len(flat)
    assert sequences.lengths.tolist() == [len(ids) for ids in flat]
    assert [sequences[i].tolist() for i in range(len(flat))] == flat


def test_dtype_is_the_smallest_for_the_vocabulary(tmp_path: Path) -> None:
    assert Sequences([write(tmp_path / "small", [[1]], 65_535)])[0].dtype == np.uint16
    assert Sequences([write(tmp_path / "large", [[65_536]], 65_537)])[0].dtype == np.uint32


def test_batches_are_right_padded(tmp_path: Path) -> None:
    sequences = Sequences([write(tmp_path / "a", [[5, 6, 7], [8]]), write(tmp_path / "b", [[9, 10]])])
    batch = padded([sequences[index] for index in (2, 0, 1)], 4)
    assert batch.dtype == np.int64
    assert batch.tolist() == [[9, 10, 0, 0], [5, 6, 7, 0], [8, 0, 0, 0]]
    with pytest.raises(ValueError, match="3 tokens, not at most 2"):
        padded([sequences[0]], 2)
    with pytest.raises(IndexError):
        sequences[3]
    with pytest.raises(IndexError):
        sequences[-1]


def test_an_unfinished_shard_is_not_published(tmp_path: Path) -> None:
    with pytest.raises(KeyError), writing_shard(tmp_path / "a", 10) as shard:
        shard.add([1])
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_damage_is_detected_on_opening(tmp_path: Path) -> None:
    path = write(tmp_path / "a", [[1, 2, 3], [4, 5]])
    other = write(tmp_path / "b", [[1], [2]])
    tokens, offsets = shard_files(path)
    whole = tokens.read_bytes()
    tokens.write_bytes(whole[:-2])
    with pytest.raises(DamagedError):
        Sequences([path])
    tokens.write_bytes(whole[:50])
    with pytest.raises(DamagedError):
        Sequences([path])
    tokens.write_bytes(whole)
    offsets.write_bytes(shard_files(other)[1].read_bytes())
    with pytest.raises(DamagedError, match="don't match"):
        Sequences([path])
    offsets.write_bytes(b"")
    with pytest.raises(DamagedError):
        Sequences([path])
    offsets.unlink()
    with pytest.raises(DamagedError):
        Sequences([path])
    np.save(offsets, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DamagedError):
        Sequences([path])


def test_the_open_file_limit_is_raised_for_many_shards(tmp_path: Path) -> None:
    """Runs in a subprocess; above the hard limit, the error says what to do."""
    path = write(tmp_path / "s", [[5, 6], [7]])
    code = (
        "import resource, sys; from pathlib import Path; from mapnet_cli.core.errors import UsageError\n"
        "from mapnet_cli.text.shards import Sequences\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 1000))\n"
        "assert Sequences([Path(sys.argv[1])] * 300)[599].tolist() == [7]\n"
        "try:\n    Sequences([Path(sys.argv[1])] * 600)\n"
        "except UsageError as error:\n    print(error)\n"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, cwd=root, check=True)
    assert "600 shards must be open at once, but this machine allows only 1,000 open files" in done.stdout
