"""A job: one unit of work with one output, skipped if a marker with its fingerprint exists.

Every engine calls the same `run_job`; engines differ only in where it runs.
"""

import platform
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from mapnet_cli.core import ArtifactId, Artifacts, Console, Marker, Row, Table, installed_version

VERSIONED = ("mapnet", "torch", "tokenizers", "spacy", "sacremoses", "numpy", "scikit-learn", "scipy")

USABLE_SHARE = 0.9  # fraction of a GPU's memory available to jobs; the rest allows for fragmentation


@dataclass(frozen=True)
class Output:
    """Return value of a job: the files that it published, and a small typed result."""

    files: list[Path] = field(default_factory=list)
    result: Row | None = None


@dataclass(frozen=True)
class Progress:
    """Progress of a job: `done` of `total` in the job's own unit, and a short note. Warnings are never dropped."""

    done: float
    total: float
    note: str = ""
    warning: str = ""


ProgressCallback = Callable[[Progress], None]


def ignore_progress(progress: Progress) -> None:
    """Does nothing; used by ranks other than 0, since only rank 0 reports progress."""


@dataclass(frozen=True, kw_only=True)
class Job(ABC):
    """One unit of work. Subclasses add their inputs as fields; they must be picklable, to be sent to workers.

    `artifact` identifies the output: its key ends in the fingerprint's first digits (see lineage/), so a job
    with other settings has another key. `needs` are the keys of earlier jobs whose results it reads.
    """

    artifact: ArtifactId
    needs: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return self.artifact.key

    @property
    def fingerprint(self) -> str:
        return self.artifact.fingerprint

    @property
    def parts(self) -> tuple[ArtifactId, ...]:
        """Results that the job publishes besides its own; without one of them it is not done."""
        return ()

    @abstractmethod
    def run(self, artifacts: Artifacts, progress: ProgressCallback) -> Output:
        """Does the work and returns its output; `run_job` writes the marker."""


@dataclass(frozen=True)
class Phase:
    """Jobs that may run in any order and in parallel. `unit` is the noun for one of them ("run", "slice")."""

    name: str
    jobs: Sequence[Job]
    unit: str = "job"
    max_parallel: int | None = None  # maximum number of jobs at a time on one machine; None: the number of workers
    threads: int = 1  # CPU threads per job
    gpus: int = 0  # GPUs that a job uses exclusively, on machines that have GPUs
    gpu_bytes: int = 0
    """Estimated peak memory of a job on a GPU that it shares with other jobs; 0: unknown, or it doesn't share one."""
    jobs_per_gpu: int = 0  # jobs that share a GPU; 0: as many as fit into its memory

    @property
    def shares_gpus(self) -> bool:
        """Whether jobs use a part of a GPU each, where there are GPUs."""
        return bool(self.gpu_bytes or self.jobs_per_gpu)

    def on_gpu(self, memory: int) -> int:
        """Returns the number of jobs that share a GPU with `memory` bytes, at least 1."""
        return self.jobs_per_gpu or max(1, int(USABLE_SHARE * memory) // self.gpu_bytes)


@dataclass(frozen=True)
class StageProgress:
    """Progress of a stage for `mapnet status`: facts as JSON values, and the same as text lines and a table."""

    facts: dict[str, Any] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    table: Table | None = None
    done: dict[str, int] = field(default_factory=dict)
    """Number of finished jobs by phase, for phases whose markers the stage has read anyway."""


class Stage(Protocol):
    """A command whose work consists of jobs, for one config and artifact directory."""

    @property
    def preload(self) -> tuple[str, ...]:
        """Modules to import before workers start; torch imports torch._dynamo for a process's first optimiser."""

    def validate(self) -> None:
        """Raises UsageError or InputError if the config is invalid for the stage."""

    def plan(self, workers: int) -> list[Phase]:
        """Returns all jobs, done or not; phases run one after another."""

    def forecast(self, workers: int) -> list[str]:
        """Returns lines for `--dry-run` about the remaining jobs: time, memory, disk."""

    def check_data(self, force: bool) -> None:
        """Reads the data of jobs that will run, raises InputError: before earlier stages, which may take hours, start.

        With `force`, all jobs will run.
        """
        return

    def preflight(self) -> None:
        """Raises MapnetError if this machine can't do the work; called just before it starts."""
        return

    def progress(self) -> StageProgress:
        """Returns what `status` shows in addition to job counts."""
        return StageProgress()

    def summary(self) -> list[str]:
        """Returns lines to print when the stage is done."""
        return []


def is_done(job: Job, artifacts: Artifacts) -> bool:
    """Returns whether the job and its parts have markers with their fingerprints, and all their files exist."""
    return all(artifacts.stands(artifact.key, artifact.fingerprint) for artifact in (job.artifact, *job.parts))


def missing_needs(job: Job, artifacts: Artifacts) -> list[str]:
    """Returns the keys of the job's inputs that don't exist yet."""
    return [key for key in job.needs if artifacts.marker(key) is None]


def run_job(job: Job, artifacts: Artifacts, progress: ProgressCallback) -> Marker:
    """Runs the job unless it is done, publishes its marker last, and returns the marker."""
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
    """Shows a job's progress or warning on the console."""
    if progress.warning:
        console.warn(f"{key}: {progress.warning}")
    else:
        console.progress(key, progress.done, progress.total, progress.note)


@cache  # looking up versions reads files, which can take longer than a small job
def library_versions() -> dict[str, str]:
    """Returns the versions of Python and of the installed libraries that results may depend on."""
    # not every machine has all of them: spaCy isn't needed for training
    found = {name: installed_version(name) for name in VERSIONED}
    return {"python": platform.python_version()} | {name: version for name, version in found.items() if version}
