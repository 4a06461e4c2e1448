"""kill -9 at random moments of a corpus: no finished slice is lost or made again, and the bytes are the same."""

import json
import sys
from pathlib import Path

from tests.faults.kills import KILLS, undisturbed_and_killed
from tests.prepare_corpus.corpora import prose
from tests.prepare_corpus.test_stage import snapshot


def finished(root: Path) -> dict[str, int]:
    """Returns when each finished job's marker was written."""
    return {p.name: p.stat().st_mtime_ns for p in root.glob("prepare-corpus/*/*.json") if p.name[0] != "."}


def test_kill_9_anywhere_in_a_corpus_costs_only_the_slices_in_hand(tmp_path: Path) -> None:
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps({"text": prose(n, 12)}) + "\n" for n in range(150 + 60 * KILLS)))

    def command(root: Path) -> list[str]:
        settings = (
            f'corpus.sources=[{{kind="jsonl", path="{text}"}}]', "corpus.slice_mb=0.02", "corpus.vocab_size=400",
            "corpus.validation_every=5",
        )  # fmt: skip
        options = [part for setting in settings for part in ("--set", setting)]
        stage = [sys.executable, "-m", "mapnet_cli", "prepare-corpus", "--recipe", "demo", "--artifacts", str(root)]
        return [*stage, *options, "--workers", "2"]

    seen: dict[str, int] = {}

    def nothing_lost_or_made_again(root: Path) -> None:
        now = finished(root)
        assert seen.items() <= now.items()
        seen.update(now)

    empty = tmp_path / "empty"
    empty.mkdir()
    undisturbed, killed = undisturbed_and_killed(
        empty, tmp_path, command, 600, lambda root: len(finished(root)), 0.1, nothing_lost_or_made_again
    )
    assert len(seen) > 5
    assert snapshot(killed) == snapshot(undisturbed)
    assert not list(killed.rglob(".tmp-*"))
