"""The training log as a file: JSON lines, the last of which a kill may have cut off. Needs no torch."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def lines_up_to(path: Path, step: int) -> list[str]:
    """Returns the log's lines up to a step; what a kill or a power cut left half-written is left out."""
    return [text for text, row in _rows(path) if row["step"] <= step]


def last_line(path: Path) -> dict[str, Any] | None:
    """Returns the newest line about training itself, None if there is none yet."""
    rows = [row for _, row in _rows(path) if "loss" in row]
    return rows[-1] if rows else None


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if not path.exists():
        return
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        try:
            row = json.loads(text)
        except json.JSONDecodeError:
            continue
        if text.endswith("\n") and isinstance(row, dict) and isinstance(row.get("step"), int):
            yield text, row
