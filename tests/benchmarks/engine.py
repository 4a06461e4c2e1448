"""Engine overhead: the paper's 10,240 fine-tuning runs as no-op jobs, each of which must be recorded exactly once.

The records are as large as real ones. Compared with concurrent.futures' ProcessPoolExecutor, which runs the same jobs
through the same `run_job` with the same number of workers, but fails all pending jobs when a worker dies. The last line
on stdout is one JSON object with `ours` and `theirs` in seconds (target: below two minutes on two cores).

    python -m tests.benchmarks.engine
    python -m tests.benchmarks.engine --engine ray --ray-address auto
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np

from mapnet_cli.config import Config
from mapnet_cli.config.loading import resolve
from mapnet_cli.core.artifacts import ArtifactId, Artifacts
from mapnet_cli.core.console import Console
from mapnet_cli.core.records import EpochScores
from mapnet_cli.glue.grid import GridRun
from mapnet_cli.jobs.engine import Engine
from mapnet_cli.jobs.job import Job, Output, Phase, ProgressCallback, ignore_progress, is_done, run_job
from mapnet_cli.jobs.local import LocalEngine
from mapnet_cli.jobs.ray import RayEngine
from tests.benchmarks.grid import epochs, finetune_run

LEDGER = "ledger.txt"
TARGET = 120.0
PRELOAD = ["mapnet_cli.jobs.job", "mapnet_cli.config.loading", "mapnet_cli.core.records", "tests.benchmarks.grid"]


@dataclass(frozen=True, kw_only=True)
class NoOpRun(Job):
    """A fine-tuning run that does nothing except append its number to the ledger file, which all runs share."""

    number: int
    config: Config

    def run(self, artifacts: Artifacts, progress: ProgressCallback) -> Output:
        handle = os.open(artifacts.path(LEDGER), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, f"{self.number}\n".encode())
        os.close(handle)
        run = GridRun("bert", 1, self.number, "CoLA", 16, 1e-5, 1)
        return Output([], finetune_run(run, self.config, scores(self.config.finetune.epochs)))


@cache
def scores(count: int) -> list[EpochScores]:
    return epochs("CoLA", count, np.random.default_rng(0))


def make_jobs(count: int) -> list[Job]:
    config = resolve("paper", None, [], {}).config
    keys = [f"finetune-glue/bert-seed1/step{n % 4}/task{n % 8}/batch16-lr1e-05-seed{n}" for n in range(count)]
    return [NoOpRun(artifact=ArtifactId(key, "f"), number=n, config=config) for n, key in enumerate(keys)]


def seconds(run: Callable[[Artifacts, list[Job]], object], count: int, parent: Path | None) -> float:
    """Returns the wall time of all jobs up to the last marker, in seconds; checks that each ran exactly once."""
    with tempfile.TemporaryDirectory(dir=parent) as name:
        artifacts, jobs = Artifacts(Path(name)), make_jobs(count)
        start = time.perf_counter()
        run(artifacts, jobs)
        elapsed = time.perf_counter() - start
        ledger = Counter(artifacts.path(LEDGER).read_text().split())
        assert ledger == {str(n): 1 for n in range(count)}, "a run is missing or ran twice"
        assert all(is_done(job, artifacts) for job in jobs)
    return elapsed


def with_pool(workers: int, artifacts: Artifacts, jobs: list[Job]) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    with ProcessPoolExecutor(workers, context) as pool:
        for _ in pool.map(partial(run_quietly, artifacts), jobs):
            pass


def run_quietly(artifacts: Artifacts, job: Job) -> None:
    run_job(job, artifacts, ignore_progress)


def with_engine(chosen: argparse.Namespace, artifacts: Artifacts, jobs: list[Job]) -> None:
    console = Console(quiet=True)
    engine: Engine
    if chosen.engine == "ray":
        engine = RayEngine(
            artifacts, console, chosen.ray_address
        )  # the cluster's size determines the number of workers
    else:
        engine = LocalEngine(artifacts, console, chosen.workers, preload=PRELOAD)
    with engine if isinstance(engine, RayEngine) else nullcontext():
        engine.run([Phase("no-op runs", jobs, "run")])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=["local", "ray"], default="local")
    parser.add_argument("--ray-address", default="auto")
    parser.add_argument("--jobs", type=int, default=10_240)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="existing folder for the artifact directories")
    chosen = parser.parse_args()
    ours = seconds(partial(with_engine, chosen), chosen.jobs, chosen.folder)
    print(f"{chosen.engine} engine: {ours:.1f} s for {chosen.jobs:,} runs", file=sys.stderr)
    theirs = seconds(partial(with_pool, chosen.workers), chosen.jobs, chosen.folder)
    print(f"ProcessPoolExecutor: {theirs:.1f} s", file=sys.stderr)
    print(
        json.dumps(
            {
                "name": f"{chosen.jobs} no-op runs, {chosen.engine} engine, {chosen.workers} workers, seconds",
                "ours": ours,
                "theirs": theirs,
                "ratio": ours / theirs,
                "target": TARGET,
            }
        )
    )


if __name__ == "__main__":
    main()
