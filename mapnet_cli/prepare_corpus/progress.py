"""Progress of corpus preparation: slices done, throughput and time left per phase."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from mapnet_cli.core import Artifacts, Marker, format_duration
from mapnet_cli.jobs import Phase
from mapnet_cli.prepare_corpus.outputs import CleanedSlice, EncodedSlice, SegmentedSlice

RECENT = 32
"""Number of most recent slices that the rate is measured on."""
SLACK = 5.0
"""Seconds by which a gap may exceed the longest slice without being a pause; starting workers takes as long."""
COUNTED: dict[str, tuple[str, Callable[[Marker], int]]] = {
    "clean": ("words", lambda marker: marker.row(CleanedSlice).words),
    "sentences": ("words", lambda marker: marker.row(SegmentedSlice).words),
    "encode": ("tokens", lambda marker: marker.row(EncodedSlice).tokens),
}
"""Unit that each phase's rate is measured in, and how to read it from a slice's result."""


def slices_done(phases: Sequence[Phase], artifacts: Artifacts, running: bool) -> list[dict[str, Any]]:
    """Returns one row for each per-slice phase that has finished at least one slice.

    A row has phase, done, total, unit (words or tokens), per_second (all workers together) and seconds_left, which is
    None for an unfinished phase if nothing is `running`.
    """
    rows = []
    for phase in phases:
        if phase.name not in COUNTED:
            continue
        finished = sorted(
            (
                (artifacts.path(f"{job.key}.json").stat().st_mtime, marker)
                for job in phase.jobs
                if (marker := artifacts.marker(job.key)) is not None and marker.fingerprint == job.fingerprint
            ),
            key=lambda pair: pair[0],
        )
        if finished:
            rows.append(_row(phase, _since_last_pause(finished[-RECENT:]), len(finished), running))
    return rows


def _since_last_pause(finished: list[tuple[float, Marker]]) -> list[tuple[float, Marker]]:
    """Returns the slices after the last pause; a gap as long as the longest slice may be work lost to a kill."""
    longest = max(marker.seconds for _, marker in finished)
    start = finished[-1][0] - finished[-1][1].seconds
    for number in range(len(finished) - 1, 0, -1):
        start = min(start, finished[number][0] - finished[number][1].seconds)
        if start - finished[number - 1][0] > longest + SLACK:
            return finished[number:]
    return finished


def _row(phase: Phase, recent: list[tuple[float, Marker]], done: int, running: bool) -> dict[str, Any]:
    (unit, count), total = COUNTED[phase.name], len(phase.jobs)
    end = recent[-1][0]
    span = max(end - min(at - marker.seconds for at, marker in recent), 1e-3)  # from the start of the first one
    rate = sum(count(marker) for _, marker in recent) / span
    left = max(0.0, (total - done) * span / len(recent) - (time.time() - end)) if running or done == total else None
    return {"phase": phase.name, "done": done, "total": total, "unit": unit, "per_second": rate, "seconds_left": left}


def format_row(row: dict[str, Any]) -> str:
    """Returns a row as one line of text."""
    left = "not running" if row["seconds_left"] is None else f"{format_duration(row['seconds_left'])} left"
    return (
        f"{row['phase']}: {row['done']:,} of {row['total']:,} slices, {row['per_second']:,.0f} {row['unit']}/s, {left}"
    )
