"""How far a corpus is: slices done, at what rate, and when the phase will be over."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from mapnet_cli.core import Artifacts, Marker, format_duration
from mapnet_cli.jobs import Phase
from mapnet_cli.prepare_corpus.outputs import CleanedSlice, EncodedSlice, SegmentedSlice

RECENT = 32
"""Slices that the rate is taken from."""
SLACK = 5.0
"""Seconds between two slices that are no pause yet: starting workers takes as long."""
COUNTED: dict[str, tuple[str, Callable[[Marker], int]]] = {
    "clean": ("words", lambda marker: marker.row(CleanedSlice).words),
    "sentences": ("words", lambda marker: marker.row(SegmentedSlice).words),
    "encode": ("tokens", lambda marker: marker.row(EncodedSlice).tokens),
}
"""What a phase's slices count in their results."""


def slices_done(phases: Sequence[Phase], artifacts: Artifacts, running: bool) -> list[dict[str, Any]]:
    """Returns a row for each phase of slices that has begun.

    A row has phase, done, total, unit (words or tokens), per_second (of all workers together) and, unless nothing is
    `running`, seconds_left (None else).
    """
    rows = []
    for phase in phases:
        if phase.name not in COUNTED:
            continue
        made = sorted(
            (
                (artifacts.path(f"{job.key}.json").stat().st_mtime, marker)
                for job in phase.jobs
                if (marker := artifacts.marker(job.key)) is not None and marker.fingerprint == job.fingerprint
            ),
            key=lambda pair: pair[0],
        )
        if made:
            rows.append(_row(phase, _since_the_last_pause(made[-RECENT:]), len(made), running))
    return rows


def _since_the_last_pause(made: list[tuple[float, Marker]]) -> list[tuple[float, Marker]]:
    """Returns the last ones that were made without a pause; slices that a kill cost look like one of their length."""
    longest = max(marker.seconds for _, marker in made)
    begun = made[-1][0] - made[-1][1].seconds
    for number in range(len(made) - 1, 0, -1):
        begun = min(begun, made[number][0] - made[number][1].seconds)
        if begun - made[number - 1][0] > longest + SLACK:
            return made[number:]
    return made


def _row(phase: Phase, recent: list[tuple[float, Marker]], done: int, running: bool) -> dict[str, Any]:
    (unit, counted), total = COUNTED[phase.name], len(phase.jobs)
    end = recent[-1][0]
    span = max(end - min(at - marker.seconds for at, marker in recent), 1e-3)  # from when the first of them began
    rate = sum(counted(marker) for _, marker in recent) / span
    left = max(0.0, (total - done) * span / len(recent) - (time.time() - end)) if running or done == total else None
    return {"phase": phase.name, "done": done, "total": total, "unit": unit, "per_second": rate, "seconds_left": left}


def in_words(row: dict[str, Any]) -> str:
    """Returns a row for a person."""
    left = "not running" if row["seconds_left"] is None else f"{format_duration(row['seconds_left'])} left"
    return (
        f"{row['phase']}: {row['done']:,} of {row['total']:,} slices, {row['per_second']:,.0f} {row['unit']}/s, {left}"
    )
