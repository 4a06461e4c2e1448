"""What is in an artifact directory, and what of it some configs don't use: for `mapnet runs`, `clean` and `status`."""

import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from mapnet_cli import core
from mapnet_cli.core import Artifacts

UNIT = re.compile(r"(.*?-[0-9a-f]{8})(?=/|$)")
"""A result, with all that is below it: the path up to its first fingerprint."""


def size_of(path: Path) -> int:
    """Returns the bytes of a result, given without suffix: of its marker and of its folder."""
    files = path.rglob("*") if path.is_dir() else ()
    marker = path.with_name(f"{path.name}.json")
    return sum(file.stat().st_size for file in (*files, marker) if file.is_file() and not file.is_symlink())


def not_used(artifacts: Artifacts, stage: str, used: Iterable[str], deep: bool = False) -> dict[str, int]:
    """Returns {key: bytes} of a stage's results that aren't among or above the `used` keys.

    Without `deep`, only those in the stage's own folder. Predictions, which no stage makes, are left out.
    """
    units = {match[1] for key in used if (match := UNIT.match(key))}
    found = dict[str, int]()
    folders = [artifacts.root / stage]
    while folders:
        for path in sorted(folders.pop().glob("*")):
            key = path.relative_to(artifacts.root).as_posix().removesuffix(".json")
            if UNIT.fullmatch(key):
                if key not in units and not path.name.startswith(("predictions-", core.TEMPORARY)):
                    found[key] = size_of(artifacts.path(key))
            elif path.is_dir() and deep:
                folders.append(path)
    return found


def inventory(artifacts: Artifacts) -> Iterator[dict[str, Any]]:
    """Yields the results of every folder: key, report that shows it, time of the last change, bytes, state in words."""
    shown_by = dict(_shown_by_reports(artifacts))
    for folder in (*core.FOLDERS, "report"):
        entries = (artifacts.root / folder).glob("[!.]*")
        for key in sorted({f"{folder}/{path.name.removesuffix('.json')}" for path in entries if path.name != "latest"}):
            path = artifacts.path(key)
            marker = path.with_name(f"{path.name}.json")
            made = (marker if marker.exists() else path).stat().st_mtime
            try:
                state = _state(artifacts, folder, key)
            except core.DamagedError:
                state = "damaged: mapnet verify"
            yield {"result": key, "report": shown_by.get(key, ""), "made": made, "bytes": size_of(path), "state": state}


def age(made: float) -> str:
    """Returns how long ago something was made: "5 min", "3 h", "12 d"."""
    minutes = max(0, int(time.time() - made)) // 60
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h" if minutes < 2880 else f"{minutes // 1440} d"


def _shown_by_reports(artifacts: Artifacts) -> Iterator[tuple[str, str]]:
    """Yields the results whose records are in a report, with the report's name, which is its config's."""
    for file in sorted((artifacts.root / "report").glob("*/records.jsonl"), key=lambda path: path.stat().st_mtime):
        if file.parent.is_symlink():
            continue
        yield f"report/{file.parent.name}", file.parent.name
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                record = "" if line.startswith('{"record": "FinetuneRun"') else line
                for place in re.findall(r'"(?:path|tokenizer)": "([^"]+)"', record):
                    if match := UNIT.match(place):
                        yield match[1], file.parent.name


def _state(artifacts: Artifacts, folder: str, key: str) -> str:
    """Returns what a result is, or how far it is."""
    path, marker = artifacts.path(key), artifacts.marker(key)
    if folder == "report":
        rows = core.read_json(path / "results.json")["rows"] if (path / "results.json").exists() else ()
        scores: dict[str, dict[int, list[float]]] = {}
        for row in (row for row in rows if row["metric"] == "mean"):
            scores.setdefault(row["method"], {}).setdefault(row["step"], []).append(row["value"])
        return ", ".join(f"{method} {fmean(by_step[max(by_step)]):.2f}" for method, by_step in scores.items())
    if folder == "prepare-corpus" and (corpus := artifacts.find(f"{key}/manifest", core.CorpusManifest)):
        return f"{core.format_count(corpus.tokens)} tokens, vocabulary {corpus.vocab_size:,}"
    if folder == "pretrain" and marker:
        totals = marker.row(core.PretrainingTotals)
        last_one = artifacts.find(f"{key}/step{totals.steps}", core.Checkpoint)
        loss = last_one.validation_loss if last_one else None
        return f"{totals.steps:,} steps" + (f", held-out loss {loss:.3f}" if loss is not None else "")
    if folder == "pretrain" and path.is_dir():
        lines = [row for _, row in core.log_rows(path / "log.jsonl") if {"loss", "diverged_at"} & row.keys()]
        if lines and "loss" in lines[-1]:
            return f"unfinished at step {lines[-1]['step']:,}, loss {lines[-1]['loss']:.3f}"
        return f"diverged at step {lines[-1]['diverged_at']:,}" if lines else "unfinished"
    if folder in ("finetune-glue", "minimal-pairs") and path.is_dir():
        return f"{sum(1 for _ in path.rglob('*.json')):,} records"
    return "" if marker is None else "done"
