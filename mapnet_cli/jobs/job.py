"""A job: one unit of work with one output, skipped when its fingerprint says that it is done.

Every engine calls the same `run_job` and decides only where it runs.
"""

import platform
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mapnet_cli.core import ArtifactId, Artifacts, Console, Marker, Row, Table

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
    """What a job returns: the files that it published, and a small typed result."""

    files: list[Path] = field(default_factory=list)
    result: Row | None = None


@dataclass(frozen=True)
class Progress:
    """How far a job is: `done` of `total` in the job's own unit, and a short note; warnings are never dropped."""

    done: float
    total: float
    note: str = ""
    warning: str = ""


ProgressCallback = Callable[[Progress], None]


def ignore_progress(progress: Progress) -> None:
    """For processes whose progress another one reports."""


@dataclass(frozen=True, kw_only=True)
class Job(ABC):
    """One unit of work. Subclasses add their inputs as fields; jobs are pickled on their way to workers.

    `artifact` says where the output goes: its key ends in the fingerprint's first digits (lineage/), so a
    job with other settings has another key. `needs` are the keys of earlier jobs whose results it reads.
    """

    artifact: ArtifactId
    needs: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return self.artifact.key

    @property
    def fingerprint(self) -> str:
        return self.artifact.fingerprint

    @abstractmethod
    def run(self, artifacts: Artifacts, progress: ProgressCallback) -> Output:
        """Does the work and returns what it published; `run_job` writes the marker."""


@dataclass(frozen=True)
class Phase:
    """Jobs that may run in any order and side by side. `unit` names one of them ("run", "slice")."""

    name: str
    jobs: Sequence[Job]
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


@dataclass(frozen=True)
class StageProgress:
    """How far a stage is, for `mapnet status`: facts as JSON values, and the same for a person."""

    facts: dict[str, Any] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    table: Table | None = None


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
        return artifacts.require(job.key)
    start = time.monotonic()
    output = job.run(artifacts, progress)
    marker = Marker(
        key=job.key,
        fingerprint=job.fingerprint,
        result={} if output.result is None else output.result.to_json(),
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
