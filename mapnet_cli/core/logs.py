"""Logs with one JSON object per line."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def lines_where(path: Path, keep: Callable[[dict[str, Any]], bool]) -> list[str]:
    """Returns the log's lines whose rows `keep` selects; skips lines that a crash left incomplete."""
    return [text for text, row in log_rows(path) if keep(row)]


def last_line(path: Path) -> dict[str, Any] | None:
    """Returns the newest log line with a training loss, or None."""
    rows = [row for _, row in log_rows(path) if "loss" in row]
    return rows[-1] if rows else None


def log_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the log's complete lines with their rows; none if there is no log."""
    if not path.exists():
        return
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        try:
            row = json.loads(text)
        except json.JSONDecodeError:
            continue
        if text.endswith("\n") and isinstance(row, dict) and isinstance(row.get("step"), int):
            yield text, row
