"""`mapnet status`: what is done and running, once or again and again, with the losses as sparklines."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from mapnet_cli.cli.stages import status
from mapnet_cli.core import Console, format_duration, log_rows, to_rich
from mapnet_cli.jobs import StageProgress
from mapnet_cli.lineage import Lineage

BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH = 24  # characters of a sparkline


def watch(console: Console, make: Callable[[], Lineage], every: float) -> None:
    """Refreshes the status every `every` seconds until all work is done, with losses and the estimated time left.

    `make` returns a new lineage each time, since inputs may change.
    """
    started: dict[tuple[str, str], tuple[float, int]] = {}
    with Live(console=console.out, auto_refresh=False) as live:
        while True:
            lineage = make()
            rows = status(lineage)
            live.update(Group(*status_lines(rows), *_losses(lineage), *_time_left(rows, started)), refresh=True)
            if all(row["done"] == row["total"] for row, _ in rows):
                return
            time.sleep(every)


def status_lines(rows: Sequence[tuple[dict[str, Any], StageProgress]]) -> list[RenderableType]:
    """Returns the status as lines and tables."""
    shown: list[RenderableType] = []
    for row, progress in rows:
        state = "done" if row["done"] == row["total"] else "running" if row["running"] else "to do"
        state = f"missing: {row['error']}" if "error" in row else state
        shown.append(Text(f"{row['stage']:<15} {row['phase']:<14} {row['done']:>6}/{row['total']:<6} {state}"))
        shown += [Text(f"{'':<15} {line}") for line in progress.lines]
        shown += [to_rich(progress.table)] if progress.table is not None else []
    if unused := [f"{key} ({size:,.0f} MB)" for row, _ in rows for key, size in row.get("unused_mb", {}).items()]:
        shown.append(Text(f"Not used with these settings: {', '.join(unused)}"))
    return shown


def sparkline(values: Sequence[float], width: int = WIDTH) -> str:
    """Returns values as a line of blocks, each the mean of as many values; "" without values."""
    size = max(1, -(-len(values) // width))
    means = [sum(part) / len(part) for start in range(0, len(values), size) if (part := values[start : start + size])]
    if not means:
        return ""
    low, span = min(means), max(means) - min(means) or 1.0
    return "".join(BLOCKS[round((value - low) / span * (len(BLOCKS) - 1))] for value in means)


def _losses(lineage: Lineage) -> list[Text]:
    """Returns the training loss of each run so far, with the time that its other steps take at the current rate."""
    lines = []
    for method, seed in lineage.config.pretraining_runs():
        path = lineage.artifacts.path(f"{lineage.pretraining(method, seed).key}/log.jsonl")
        logged = [row for _, row in log_rows(path) if "loss" in row and "branch" not in row]
        if logged:
            last, steps = logged[-1], lineage.config.last_step(method)
            left = max(0, steps - last["step"]) * last["step_seconds"]
            loss = sparkline([row["loss"] for row in logged])
            lines.append(Text(f"{method} seed {seed:<3} {loss} {last['loss']:.3f}, {format_duration(left)} left"))
    return lines


def _time_left(
    rows: Sequence[tuple[dict[str, Any], StageProgress]], started: dict[tuple[str, str], tuple[float, int]]
) -> list[Text]:
    """Returns rate and time left of each running phase, from the jobs that finished since it was first seen."""
    lines, now = [], time.monotonic()
    for row, _ in rows:
        since, done = started.setdefault((row["stage"], row["phase"]), (now, row["done"]))
        if row["running"] and row["done"] > done:
            rate = (row["done"] - done) / (now - since)
            left = (row["total"] - row["done"]) / rate
            lines.append(Text(f"{row['phase']}: {60 * rate:.1f} jobs/min, {format_duration(left)} left"))
    return lines
