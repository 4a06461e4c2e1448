"""Rate and time left that `mapnet status` shows for a running corpus, from markers with known times."""

import os
import time
from pathlib import Path

import pytest

from mapnet_cli.config import Config, Source
from mapnet_cli.core.artifacts import Artifacts, Marker
from mapnet_cli.core.formatting import format_duration
from mapnet_cli.jobs.job import Phase
from mapnet_cli.prepare_corpus.outputs import CleanedSlice
from mapnet_cli.prepare_corpus.stage import format_row, slices_done
from tests.prepare_corpus.corpora import corpus_config, plan, prepare, stage, text_folder

HOUR = 3600.0


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return corpus_config(Source(path=str(text_folder(tmp_path / "text", files=8))))


def mark(artifacts: Artifacts, phase: Phase, *times: tuple[float, float]) -> None:
    """Creates a slice of 600 words for each (seconds since it finished, seconds that it took)."""
    now = time.time()
    row = CleanedSlice(
        paragraphs=6, words=600, bytes=4000, dropped={}, examples={}, left_out={}, markup={}, problems=[],
        problem_count=0,
    )  # fmt: skip
    for job, (ago, seconds) in zip(phase.jobs, times, strict=False):
        artifacts.publish(Marker(job.key, job.fingerprint, row.to_json(), seconds=seconds))
        os.utime(artifacts.path(f"{job.key}.json"), (now - ago, now - ago))


def test_the_rate_includes_all_workers(config: Config, artifacts: Artifacts) -> None:
    phases = plan(config, artifacts, 1)
    total = len(phases[0].jobs)
    assert slices_done(phases, artifacts, True) == []
    mark(artifacts, phases[0], (20, 20), (20, 20), (0, 20), (0, 20))  # two workers, 40 seconds
    [row] = slices_done(phases, artifacts, True)
    assert (row["phase"], row["done"], row["total"], row["unit"]) == ("clean", 4, total, "words")
    assert row["per_second"] == pytest.approx(4 * 600 / 40)
    assert row["seconds_left"] == pytest.approx((total - 4) * 10, abs=2)
    left = format_duration(row["seconds_left"])
    assert format_row(row) == f"clean: 4 of {total} slices, 60 words/s, {left} left"


def test_a_pause_does_not_count(config: Config, artifacts: Artifacts) -> None:
    phases = plan(config, artifacts, 1)
    mark(artifacts, phases[0], (8 * HOUR, 20), (20, 20), (0, 20))
    [row] = slices_done(phases, artifacts, True)
    assert row["per_second"] == pytest.approx(600 / 20)
    assert row["seconds_left"] == pytest.approx((row["total"] - 3) * 20, abs=2)


def test_no_time_left_is_shown_when_nothing_runs(config: Config, artifacts: Artifacts) -> None:
    mark(artifacts, plan(config, artifacts, 1)[0], (9 * HOUR, 20))
    [row] = stage(config, artifacts).progress().facts["slices"]
    assert row["seconds_left"] is None
    assert format_row(row).endswith("30 words/s, not running")
    with artifacts.lock("prepare-corpus"):
        [row] = stage(config, artifacts).progress().facts["slices"]
    assert row["seconds_left"] == 0, "the estimate has passed"


def test_a_finished_phase_has_no_time_left(config: Config, artifacts: Artifacts) -> None:
    prepare(config, artifacts)
    found = stage(config, artifacts).progress().facts["slices"]
    assert [row["phase"] for row in found] == ["clean", "sentences", "encode"]
    assert all(row["done"] == row["total"] and row["seconds_left"] == 0 for row in found)
