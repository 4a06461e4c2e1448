"""Logs with one JSON object per line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


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
