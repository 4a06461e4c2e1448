"""What is said before a corpus is made, and while it is: disk, time, slices."""

import bz2
import json
import time
from pathlib import Path

import pytest

from mapnet_cli.artifacts import Artifacts
from mapnet_cli.config import Source
from mapnet_cli.console import Console
from mapnet_cli.errors import InputError, MapnetError
from mapnet_cli.prepare_corpus import forecast, stage
from mapnet_cli.stages import run_stages
from tests.prepare_corpus.corpora import corpus_config, prepare, prose


def rows(count: int) -> bytes:
    return b"".join(json.dumps({"text": prose(number, 5)}).encode() + b"\n" for number in range(count))


@pytest.mark.parametrize("suffix", ["", ".bz2"])
def test_what_is_expected_is_what_comes(suffix: str, tmp_path: Path, artifacts: Artifacts) -> None:
    """From a sample of a quarter of the text, within 15 percent."""
    text, file = rows(2_500), tmp_path / f"a.jsonl{suffix}"
    file.write_bytes(bz2.compress(text, 1) if suffix else text)
    config = corpus_config(Source(kind="jsonl", path=str(file)), slice_mb=1.0, vocab_size=2000, block_length=128)
    phases = stage.plan(config, artifacts, 1)
    slices = [job.args["part"] for job in phases[0].jobs]
    rates, _ = forecast.samples(slices, config)
    expected = forecast.expect(slices, rates, lambda number: (None, False, False), 2000)
    said = stage.estimate(config, artifacts, 2)
    assert "slices; by a sample of each source" in said[0]
    assert "too little" not in said[1]
    assert "with 2 workers" in said[2]
    manifest = prepare(config, artifacts)
    assert expected.words == pytest.approx(manifest.words / 1.1, rel=0.15), "Moses makes full stops words"
    files = [file for file in artifacts.root.rglob("*") if file.suffix in (".txt", ".hashes")]
    assert expected.working == pytest.approx(sum(file.stat().st_size for file in files), rel=0.15)
    assert stage.estimate(config, artifacts, 2) == [], "nothing is left to be done"


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(tmp_path: Path, artifacts: Artifacts) -> None:
    """A few megabytes of bz2 that hold more text than the disk has room for."""
    line = json.dumps({"text": prose(1, 8)}).encode() + b"\n"
    stream = bz2.compress(line * (1_700_000 // len(line)))
    free = forecast.free_disk(artifacts)
    file = tmp_path / "bomb.jsonl.bz2"
    file.write_bytes(stream * (free // 1_700_000 + 10))
    config = corpus_config(Source(kind="jsonl", path=str(file)), slice_mb=1e6)
    with pytest.raises(MapnetError, match=r"the corpus needs about .* GB of disk, and .* GB free: make room"):
        run_stages(["prepare-corpus"], config, artifacts, Console(quiet=True), 0, False)
    assert "too little" in stage.estimate(config, artifacts, 1)[1]
    assert not list(artifacts.root.glob("prepare-corpus/*/*"))


def test_a_hub_out_of_reach_stops_the_run_before_other_sources_are_read(
    tmp_path: Path, artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", constants.HF_HUB_OFFLINE)  # put back afterwards
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    (tmp_path / "a.jsonl").write_bytes(rows(20))
    config = corpus_config(
        Source(kind="jsonl", path=str(tmp_path / "a.jsonl")), Source(kind="dataset", path="hub:some/prose")
    )
    start = time.monotonic()
    with pytest.raises(InputError, match="hub:some/prose: the hub can't be reached"):
        run_stages(["prepare-corpus"], config, artifacts, Console(quiet=True), 0, False)
    assert time.monotonic() - start < 15
    assert not list(artifacts.root.glob("prepare-corpus/*/*"))
    assert "hub:some/prose: not counted" in stage.estimate(config, artifacts, 1)[-1], "a dry run works offline"
