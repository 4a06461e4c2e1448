"""Progress lines: on a terminal of 80 columns, in a log without one, and in a log file."""

import io
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console as RichConsole

from mapnet_cli.core import Console, console, format_duration
from mapnet_cli.core.console import job_name

RUN = "finetune-glue/bert-seed1/step2000/RTE/batch32-lr0.0015-seed1-0123abcd"
TRAINING = "pretrain/mapnet-seed1-0123abcd"


def made(monkeypatch: pytest.MonkeyPatch, terminal: bool = False, **options: Any) -> tuple[Console, io.StringIO]:
    """Returns a console, and what it writes to stderr; `tick` advances its clock."""
    shown = Console(**options)
    file = io.StringIO()
    shown.err = RichConsole(file=file, width=80, force_terminal=terminal, soft_wrap=True, highlight=False)
    now = [1000.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(Console, "tick", lambda self, seconds: now.__setitem__(0, now[0] + seconds), raising=False)
    return shown, file


def test_durations_have_minutes_and_seconds() -> None:
    assert [format_duration(s) for s in (3, 59.7, 192, 3600)] == ["3 s", "1 min 0 s", "3 min 12 s", "1.0 h"]


def test_names_of_jobs_are_short() -> None:
    assert job_name(TRAINING) == "mapnet-seed1"
    assert job_name(RUN) == "bert-seed1/step2000/RTE/batch32-lr0.0015-seed1"
    assert job_name("prepare-corpus/text-0123abcd/clean-00000") == "text/clean-00000"


def test_lines_of_a_resumed_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """The step that it resumes from, the first loss at once, then a line every ten seconds, and the last loss."""
    shown, file = made(monkeypatch)
    with shown.phase("pretrain", "run", 2, 0):
        for seconds, done, note in ((0, 400, "from step 401"), (1, 401, "loss 3.100"), (5, 500, "loss 3.000"),
                                    (6, 600, "loss 2.900, 9 tokens/s, 0 s left")):  # fmt: skip
            shown.tick(seconds)
            shown.progress(TRAINING, done, 1000, note)
        shown.tick(88)
        shown.advance(TRAINING)
    assert file.getvalue().splitlines() == [
        "pretrain: 2 runs", "  mapnet-seed1:  40% from step 401", "  mapnet-seed1:  40% loss 3.100",
        "  mapnet-seed1:  60% loss 2.900, 9 tokens/s, 0 s left",
        "pretrain: 1/2 runs, 1 min 40 s left; mapnet-seed1: loss 2.900",
    ]  # fmt: skip


def test_lines_of_a_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one line per short run, but scores and the time left from the first finished run on; all of them with -v."""
    for verbose in (False, True):
        shown, file = made(monkeypatch, verbose=verbose)
        with shown.phase("finetune", "run", 110, 10):
            for number in range(100):
                key = RUN.replace("seed1-", f"seed{number}-")
                shown.progress(key, 1, 3, "epoch 1 accuracy 51.2")
                shown.tick(2)
                shown.progress(key, 3, 3, "epoch 3 accuracy 61.2")
                shown.advance(key)
        lines = file.getvalue().splitlines()
        first = f"finetune: 11/110 runs, 3 min 18 s left; {job_name(RUN)[:-1]}0: epoch 3 accuracy 61.2"
        assert next(line for line in lines if "left" in line) == first
        assert lines[-1].startswith("finetune: 110/110 runs; ")
        assert (len(lines) > 300) == verbose
        assert (len(lines) < 40) == (not verbose)


def test_a_terminal_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are shortened at their beginning, the numbers stay."""
    shown, file = made(monkeypatch, terminal=True)
    with shown.phase("finetune", "run", 3, 0):
        shown.progress(RUN, 1, 3, "loss 10.123, 123,456 tokens/s, 59 min 59 s left")
        shown._bars.refresh()
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue()).replace("\r", "\n").splitlines()
    line = next(line for line in lines if "tokens/s" in line)
    assert len(line.rstrip()) <= 80
    assert line.startswith("…")
    assert "lr0.0015-seed1 " in line
    assert "59 min 59 s left" in line


def test_the_log_file_has_times_and_what_a_terminal_shows_as_bars(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for terminal in (True, False):
        path = tmp_path / f"{terminal}.log"
        shown, _ = made(monkeypatch, terminal, log_file=path)
        with shown.phase("pretrain", "run", 1, 0):
            shown.progress(TRAINING, 1, 10, "loss 3.100")
            shown.advance(TRAINING)
            shown.warn("careful")
        lines = path.read_text(encoding="utf-8").splitlines()
        assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in lines)
        assert [line[20:] for line in lines] == [
            "pretrain: 1 run", "  mapnet-seed1:  10% loss 3.100", "pretrain: 1/1 runs; mapnet-seed1: loss 3.100",
            "warning: careful",
        ]  # fmt: skip


def test_quiet_shows_only_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, file = made(monkeypatch, quiet=True)
    with shown.phase("pretrain", "run", 1, 0):
        shown.progress(TRAINING, 1, 10, "loss 3.100")
        shown.advance(TRAINING)
        shown.warn("careful")
    assert file.getvalue() == "warning: careful\n"
