"""Progress of corpus preparation: slices done, throughput and time left per phase."""

import time
from collections.abc import Sequence
from typing import Any

from mapnet_cli.core import Artifacts, Marker, Row, format_duration
from mapnet_cli.jobs import Phase
from mapnet_cli.prepare_corpus.outputs import CleanedSlice, EncodedSlice, SegmentedSlice

RECENT = 32  # number of most recent slices that the rate is measured on
COUNTED: dict[str, tuple[str, type[Row]]] = {
    "clean": ("words", CleanedSlice),
    "sentences": ("words", SegmentedSlice),
    "encode": ("tokens", EncodedSlice),
}
"""Unit that each phase's rate is measured in, and a slice's result, which has their number."""


def slices_done(phases: Sequence[Phase], artifacts: Artifacts, running: bool) -> list[dict[str, Any]]:
    """Returns one row for each per-slice phase that has finished at least one slice.

    A row has phase, done, total, unit (words or tokens), per_second (all workers together) and seconds_left, which is
    None for an unfinished phase if nothing is `running`.
    """
    rows = []
    for phase in phases:
        made = [(job.key, artifacts.marker(job.key), job.fingerprint) for job in phase.jobs if phase.name in COUNTED]
        finished = [
            (artifacts.path(f"{key}.json").stat().st_mtime, marker)
            for key, marker, fingerprint in made
            if marker is not None and marker.fingerprint == fingerprint
        ]
        if finished:
            recent = sorted(finished, key=lambda pair: pair[0])[-RECENT:]
            rows.append(_row(phase, recent, len(finished), running))
    return rows


def _row(phase: Phase, recent: list[tuple[float, Marker]], done: int, running: bool) -> dict[str, Any]:
    (unit, kind), total = COUNTED[phase.name], len(phase.jobs)
    span = end = 0.0  # seconds in which a slice was being processed, so that pauses don't count
    for begin, at in sorted((at - marker.seconds, at) for at, marker in recent):
        span, end = span + max(0.0, at - max(begin, end)), max(at, end)
    rate = sum(getattr(marker.row(kind), unit) for _, marker in recent) / max(span, 1e-3)
    left = max(0.0, (total - done) * span / len(recent) - (time.time() - end)) if running or done == total else None
    return {"phase": phase.name, "done": done, "total": total, "unit": unit, "per_second": rate, "seconds_left": left}


def format_row(row: dict[str, Any]) -> str:
    """Returns a row as one line of text."""
    left = "not running" if row["seconds_left"] is None else f"{format_duration(row['seconds_left'])} left"
    return (
        f"{row['phase']}: {row['done']:,} of {row['total']:,} slices, {row['per_second']:,.0f} {row['unit']}/s, {left}"
    )
