"""kill -9 at random moments of corpus preparation: no finished slice is lost or redone; the output is identical."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.kills import KILLS, Kill, kill_any_process, uninterrupted_and_killed
from tests.prepare_corpus.corpora import prose
from tests.prepare_corpus.test_stage import snapshot

pytestmark = pytest.mark.slow


def finished(root: Path) -> dict[str, int]:
    """Returns the modification time of each finished job's marker."""
    markers = (p for p in root.glob("prepare-corpus/*/*.json") if p.name[0] != "." and p.name != "tokenizer.json")
    return {p.name: p.stat().st_mtime_ns for p in markers}


def campaign(
    folder: Path, engine: Callable[[Path], list[str]], kill: Kill = kill_any_process, kills: int = KILLS
) -> None:
    """Prepares a corpus with and without kills; `engine` returns the engine options for an artifact directory."""
    text, empty = folder / "text.jsonl", folder / "empty"
    text.write_text("".join(json.dumps({"text": prose(n, 12)}) + "\n" for n in range(150 + 60 * kills)))
    empty.mkdir()
    settings = (
        f'corpus.sources=[{{kind="jsonl", path="{text}"}}]', "corpus.slice_mb=0.02", "corpus.vocab_size=400",
        "corpus.validation_every=5",
    )  # fmt: skip
    options = [part for setting in settings for part in ("--set", setting)]

    def command(root: Path) -> list[str]:
        stage = [sys.executable, "-m", "mapnet_cli", "prepare-corpus", "--recipe", "demo", "--artifacts", str(root)]
        return [*stage, *options, *engine(root)]

    seen: dict[str, int] = {}

    def none_lost(root: Path) -> None:
        now = finished(root)
        assert seen.items() <= now.items(), "a finished slice was lost or redone"
        seen.update(now)

    uninterrupted, killed = uninterrupted_and_killed(
        empty, folder, command, 600, lambda root: len(finished(root)), 0.1, none_lost, kill, kills
    )
    assert len(seen) > 5
    assert snapshot(killed) == snapshot(uninterrupted)
    assert not list(killed.rglob(".tmp-*"))


def test_kill_9_during_corpus_preparation_affects_only_running_slices(tmp_path: Path) -> None:
    campaign(tmp_path, lambda root: ["--workers", "2"])
