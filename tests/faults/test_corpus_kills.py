"""kill -9 at random moments of a corpus: no finished slice is lost or made again, and the bytes are the same.

A few kills in the test suite; `make faults` does KILLS of them.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults.test_training_kills import KILLS, family, wait_for_orphans
from tests.prepare_corpus.corpora import prose
from tests.prepare_corpus.test_stage import snapshot


def start(root: Path, text: Path) -> "subprocess.Popen[bytes]":
    settings = (
        f'corpus.sources=[{{kind="jsonl", path="{text}"}}]', "corpus.slice_mb=0.02", "corpus.vocab_size=400",
        "corpus.validation_every=5",
    )  # fmt: skip
    options = [part for setting in settings for part in ("--set", setting)]
    command = [sys.executable, "-m", "mapnet_cli", "prepare-corpus", "--recipe", "demo", "--artifacts", str(root)]
    environ = os.environ | {"KILLS_IN": str(root)}  # by which its whole family is known
    with (root.parent / f"{root.name}.txt").open("ab") as said:
        return subprocess.Popen([*command, *options, "--workers", "2"], env=environ, stdout=said, stderr=said)


def finished(root: Path) -> dict[Path, int]:
    """Returns when each finished job's marker was written."""
    return {path: path.stat().st_mtime_ns for path in root.glob("prepare-corpus/*/*.json") if path.name[0] != "."}


# Linux, CI's too, has /proc; elsewhere nothing tells which processes belong to a run, and a kill could hit others
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="which processes to kill is read from Linux's /proc")
def test_kill_9_anywhere_in_a_corpus_costs_only_the_slices_in_hand(tmp_path: Path) -> None:
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps({"text": prose(n, 12)}) + "\n" for n in range(150 + 60 * KILLS)))
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert start(undisturbed, text).wait(600) == 0
    chance = random.Random(KILLS)
    process, kills, seen = start(killed, text), 0, finished(killed)
    while kills < KILLS:
        while process.poll() is None and len(finished(killed)) == len(seen):
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.1))
        if process.poll() is None:
            # the driver, or anyone of its family: then the driver itself goes on, in a fresh worker if it must
            os.kill(chance.choice(family(killed)) if kills % 2 else process.pid, signal.SIGKILL)
            kills += 1
            time.sleep(0.1)
        now = finished(killed)
        assert seen.items() <= now.items(), "a finished slice was lost, or was made again"
        seen = now
        if process.poll() is not None:
            assert process.returncode != 0, "the corpus was ready before it was killed as often as it should"
            wait_for_orphans(killed)
            seen = finished(killed)
            process = start(killed, text)
    while process.wait(600) != 0:
        process = start(killed, text)
    assert seen.items() <= finished(killed).items()
    assert len(seen) > 5
    assert snapshot(killed) == snapshot(undisturbed)
    assert not list(killed.rglob(".tmp-*"))
