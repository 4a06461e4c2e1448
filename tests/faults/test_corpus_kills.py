"""kill -9 at random moments of a corpus: no finished slice is lost or made again, and the bytes are the same."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

from tests.faults.kills import KILLS, Kill, any_of_the_family, undisturbed_and_killed
from tests.prepare_corpus.corpora import prose
from tests.prepare_corpus.test_stage import snapshot


def finished(root: Path) -> dict[str, int]:
    """Returns when each finished job's marker was written."""
    markers = (p for p in root.glob("prepare-corpus/*/*.json") if p.name[0] != "." and p.name != "tokenizer.json")
    return {p.name: p.stat().st_mtime_ns for p in markers}


def campaign(
    folder: Path, how: Callable[[Path], list[str]], kill: Kill = any_of_the_family, kills: int = KILLS
) -> None:
    """Prepares a corpus in peace and under kills, `how` being the engine's options for an artifact directory."""
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
        return [*stage, *options, *how(root)]

    seen: dict[str, int] = {}

    def none_lost(root: Path) -> None:
        now = finished(root)
        assert seen.items() <= now.items(), "a finished slice was lost, or was made again"
        seen.update(now)

    undisturbed, killed = undisturbed_and_killed(
        empty, folder, command, 600, lambda root: len(finished(root)), 0.1, none_lost, kill, kills
    )
    assert len(seen) > 5
    assert snapshot(killed) == snapshot(undisturbed)
    assert not list(killed.rglob(".tmp-*"))


def test_kill_9_anywhere_in_a_corpus_costs_only_the_slices_in_hand(tmp_path: Path) -> None:
    campaign(tmp_path, lambda root: ["--workers", "2"])
