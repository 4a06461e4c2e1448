"""A job: one piece of work with one output, skipped when its fingerprint says that it is done.

Every engine calls the same `run_job` and decides only where it runs.
"""

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mapnet_cli.core.artifacts import Artifacts, Marker
from mapnet_cli.core.console import Console

VERSIONED = (
    "mapnet",
    "torch",
    "tokenizers",
    "spacy",
    "sacremoses",
    "mwparserfromhell",
    "numpy",
    "scikit-learn",
    "scipy",
)


@dataclass(frozen=True)
class Output:
    """What a job's function returns: the files it published and a small JSON result."""

    files: list[Path] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress:
    """How far a job is: `done` of `total` in the job's own unit, and a few words; a warning is never left out."""

    done: float
    total: float
    note: str = ""
    warning: str = ""


ProgressCallback = Callable[[Progress], None]


@dataclass(frozen=True)
class Job:
    """`fn(artifacts, progress, **args) -> Output`, a module-level function; `key` is where its output goes.

    The key ends in the fingerprint's first digits (lineage/), so a job with other settings has
    another key. `needs` are the keys of jobs of earlier phases whose markers it reads.
    """

    key: str
    fingerprint: str
    fn: Callable[..., Output]
    args: dict[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Phase:
    """Jobs that may run in any order and side by side. `unit` names one of them ("run", "slice")."""

    name: str
    jobs: list[Job]
    unit: str = "job"
    side_by_side: int | None = None
    """At most so many at a time on one machine (one training a GPU); None: as many as there are workers."""
    threads: int = 1
    """CPU cores that a job keeps busy."""
    gpus: int = 0
    """GPUs that a job has to itself, where there are any."""
    gpu_bytes: int = 0
    """Memory that a job takes at most, roughly, of a GPU that it shares with others; 0: it shares none."""
    jobs_per_gpu: int = 0
    """How many share a GPU; 0: as many as its memory holds."""


def is_done(job: Job, artifacts: Artifacts) -> bool:
    """Returns whether the job's output stands, made from the same settings and inputs, with all its files."""
    marker = artifacts.marker(job.key)
    if marker is None or marker.fingerprint != job.fingerprint:
        return False
    return all(artifacts.path(name).exists() for name in marker.files)


def missing_needs(job: Job, artifacts: Artifacts) -> list[str]:
    """Returns the keys of the job's inputs that don't stand yet."""
    return [key for key in job.needs if artifacts.marker(key) is None]


def run_job(job: Job, artifacts: Artifacts, progress: ProgressCallback) -> Marker:
    """Runs the job unless it is done, publishes its marker last, and returns it."""
    if is_done(job, artifacts):
        marker = artifacts.marker(job.key)
        assert marker is not None
        return marker
    start = time.monotonic()
    output = job.fn(artifacts, progress, **job.args)
    marker = Marker(
        key=job.key,
        fingerprint=job.fingerprint,
        result=output.result,
        files=artifacts.checksums(output.files),
        seconds=round(time.monotonic() - start, 3),
        versions=library_versions(),
    )
    artifacts.publish(marker)
    return marker


def show(console: Console, key: str, progress: Progress) -> None:
    """Shows a person how far a job is."""
    if progress.warning:
        console.warn(f"{key}: {progress.warning}")
    else:
        console.progress(key, progress.done, progress.total, progress.note)


@cache  # finding a version reads files: more time than many a job's own work
def library_versions() -> dict[str, str]:
    """Returns the versions of Python and of the libraries that results may depend on; of those that are there."""
    versions = {"python": platform.python_version()}
    for name in VERSIONED:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue  # a machine that only trains needs no spaCy
    return versions
