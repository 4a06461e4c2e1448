"""Estimates of words, disk space and time before a corpus is prepared."""

import bz2
import json
import re
import time
from pathlib import Path

import pytest

from mapnet_cli.cli.stages import run_stages
from mapnet_cli.config import Source
from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.core.console import Console
from mapnet_cli.core.errors import InputError, MapnetError
from mapnet_cli.lineage.graph import Lineage
from mapnet_cli.prepare_corpus import forecast
from mapnet_cli.prepare_corpus.slices import input_slices
from tests.prepare_corpus.corpora import corpus_config, plan, prepare, prose, stage


def rows(count: int) -> bytes:
    return b"".join(json.dumps({"text": prose(number, 5)}).encode() + b"\n" for number in range(count))


@pytest.mark.parametrize("suffix", ["", ".bz2"])
def test_estimates_match_the_result(suffix: str, tmp_path: Path, artifacts: Artifacts) -> None:
    """A sample of a quarter of the text predicts words and bytes within 15 percent."""
    text, file = rows(2_500), tmp_path / f"a.jsonl{suffix}"
    file.write_bytes(bz2.compress(text, 1) if suffix else text)
    config = corpus_config(Source(kind="jsonl", path=str(file)), slice_mb=1.0, vocab_size=2000, block_length=128)
    phases = plan(config, artifacts, 1)
    slices = [job.part for job in phases[0].jobs]
    expected = forecast.expect(slices, dict.fromkeys(("clean", "sentences", "encode"), slices), config)
    lines = stage(config, artifacts).forecast(2)
    assert "slices; estimated from a sample of each source" in lines[0]
    assert "not enough" not in lines[1]
    assert "with 2 workers" in lines[2]
    manifest = prepare(config, artifacts)
    assert expected.words == pytest.approx(manifest.words / 1.1, rel=0.15), "Moses separates full stops as words"
    files = [file for file in artifacts.root.rglob("*") if file.suffix in (".txt", ".hashes")]
    assert expected.working == pytest.approx(sum(file.stat().st_size for file in files), rel=0.15)
    assert stage(config, artifacts).forecast(2) == [], "nothing is left to do"


def test_uneven_slices_are_sampled(tmp_path: Path, artifacts: Artifacts) -> None:
    """No single slice is representative: files of prose, of short lines that are dropped, and of blank lines."""
    folder = tmp_path / "text"
    folder.mkdir()
    for number in range(18):
        line = (prose(number, 40), "Too short.\n" * 250, "\n" * 2_800)[number % 3]
        (folder / f"{number:02}.txt").write_text(line + "\n")
    config = corpus_config(Source(path=str(folder)), slice_mb=0.001)
    slices = input_slices(config)
    assert len(slices) == 18
    expected = forecast.expect(slices, dict.fromkeys(("clean", "sentences", "encode"), slices), config)
    assert expected.words == pytest.approx(6 * 40 * 16, rel=0.3)


def test_a_dump_with_one_page_in_many_shares_has_words(tmp_path: Path, artifacts: Artifacts) -> None:
    """The middle share is inside a page that begins in another share."""
    text = "\n\n".join(prose(number, 8) for number in range(60))
    page = f"<page>\n<title>T</title>\n<ns>0</ns>\n<revision><text>{text}</text></revision>\n</page>\n"
    (tmp_path / "d.xml").write_text(page.join(["<mediawiki>\n", "</mediawiki>\n"]))
    config = corpus_config(Source(kind="mediawiki", path=str(tmp_path / "d.xml")), slice_mb=0.006)
    assert 6 < len(input_slices(config)) < 16
    line = stage(config, artifacts).forecast(1)[0]
    assert re.search(r"about (6|7|8|9)\.\d thousand words", line), line


def test_a_dry_run_shows_the_problems_of_its_sample(tmp_path: Path, artifacts: Artifacts) -> None:
    lines = rows(20).splitlines(keepends=True)
    lines[3] = b"no row\n"
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"".join(lines))
    source = Source(kind="jsonl", path=str(file))
    out = stage(corpus_config(source), artifacts).forecast(1)
    assert re.match(r"problem in the sample: corpus.sources.0: a.jsonl \(part 2 of \d+\): row 1 is not JSON", out[-1])
    assert out[-2] == "corpus.sources.0: clean-up drops no paragraphs of the sample"
    assert re.search(r"of input in \d+ slices; .* about 1\.\d thousand words, 2\.\d thousand tokens", out[0]), out
    assert re.match(r"\d+\.\d kB of input", out[0])
    with pytest.raises(InputError, match="no row has the key 'nope', only text"):
        stage(corpus_config(source.model_copy(update={"column": "nope"})), artifacts).forecast(1)


def test_a_dry_run_shows_what_the_clean_up_drops(tmp_path: Path, artifacts: Artifacts) -> None:
    file = tmp_path / "a.jsonl"
    texts = [prose(number, 5) for number in range(6)] + ["Short."] * 3 + ["1 2 3 4 5 6 7 8 9 10 " * 9, "", "", ""]
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts * 4))
    out = stage(corpus_config(Source(kind="jsonl", path=str(file)), slice_mb=8.0), artifacts).forecast(1)
    shares = "40.0% of 40 paragraphs: min_chars 12 (30.0%), min_letters 4 (10.0%)"
    assert out[3] == f"corpus.sources.0: clean-up drops {shares} of the sample"
    assert "yield no text" not in "".join(out)
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in ["Good.", "", ""]))
    out = stage(corpus_config(Source(kind="jsonl", path=str(file))), artifacts).forecast(1)
    assert any(line.startswith("corpus.sources.0: 2 of 3 rows yield no text in the sample") for line in out)


def test_too_small_a_disk_is_an_error_before_anything_is_written(
    tmp_path: Path, artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bz2 file expands to about 400 times its size."""
    line = json.dumps({"text": prose(1, 8)}).encode() + b"\n"
    file = tmp_path / "bomb.jsonl.bz2"
    file.write_bytes(bz2.compress(line * (1_700_000 // len(line))) * 4)
    config = corpus_config(Source(kind="jsonl", path=str(file)), slice_mb=1e6)
    monkeypatch.setattr(forecast, "free_disk", lambda artifacts: 5_000_000)
    with pytest.raises(MapnetError, match=r"the corpus needs about .* MB of disk space, but .* 5\.0 MB free: make"):
        run_stages(["prepare-corpus"], Lineage(config, artifacts), Console(quiet=True), 0, False)
    assert "not enough" in stage(config, artifacts).forecast(1)[1]
    assert not list(artifacts.root.glob("prepare-corpus/*/*"))
    monkeypatch.setattr(forecast, "free_disk", lambda artifacts: 500_000_000)
    assert "not enough" not in stage(config, artifacts).forecast(1)[1]


def test_an_unreachable_hub_is_an_error_before_other_sources_are_read(
    tmp_path: Path, artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", constants.HF_HUB_OFFLINE)  # restored afterwards
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    (tmp_path / "a.jsonl").write_bytes(rows(20))
    config = corpus_config(
        Source(kind="jsonl", path=str(tmp_path / "a.jsonl")), Source(kind="dataset", path="hub:some/prose")
    )
    start = time.monotonic()
    with pytest.raises(InputError, match="hub:some/prose: the Hub can't be reached"):
        run_stages(["prepare-corpus"], Lineage(config, artifacts), Console(quiet=True), 0, False)
    assert time.monotonic() - start < 15
    assert not list(artifacts.root.glob("prepare-corpus/*/*"))
    assert "hub:some/prose: not included" in stage(config, artifacts).forecast(1)[-1], "a dry run works offline"
