"""End-to-end test of every strategy in STRATEGIES, given only its name: training, resuming, variance."""

import json
import math
import signal
from collections.abc import Callable, Iterator

import pytest

from mapnet_cli.config import PROPOSALS, Config
from mapnet_cli.core.artifacts import Artifacts, sha256
from mapnet_cli.core.console import Console
from mapnet_cli.core.errors import Interrupted
from mapnet_cli.core.records import Checkpoint
from mapnet_cli.jobs.job import Progress, ProgressCallback, ignore_progress, run_job
from mapnet_cli.lineage.graph import Lineage
from mapnet_cli.lineage.milestones import find_milestone
from mapnet_cli.masking.schedule import plan_step
from mapnet_cli.masking.strategies import STRATEGIES
from mapnet_cli.pretrain.stage import Pretrain, TrainModel
from mapnet_cli.training.checkpoint import TENSORS, rolling_name
from mapnet_cli.variance.results import NORMS, VarianceReport
from mapnet_cli.variance.stage import Settings, measure_variance
from tests.conftest import small_config

pytestmark = pytest.mark.slow

ALWAYS = ("mask", "sentence", "visits", "difference", "mask_to_uniform", "visits_to_uniform")
"""Estimates that are defined for any masks; the other two are ratios whose denominators may be negative."""


@pytest.mark.parametrize("name", STRATEGIES)
def test_resume_is_bit_identical_and_variance_is_measured(
    name: str, make_corpus: Callable[[Config], object], artifacts: Artifacts
) -> None:
    """SIGTERM arrives between two visits of the same sentences."""
    config = small_config(f"method.one.strategy={name}", 'methods=["one"]', "pretrain.visits=2", "encoder.dropout=0.1")
    make_corpus(config)
    lineage = Lineage(config, artifacts)
    remaining = [plan_step(config.method["one"], 1, step, 10) for step in range(5, 10)]
    assert name == "uniform" or not all(plan.explore for plan in remaining), (
        "some masks must be non-uniform after the stop"
    )

    undisturbed = train(lineage)
    weights, logged = sha256(artifacts.path(undisturbed.path) / TENSORS), log(lineage)
    assert weights == undisturbed.fingerprint
    assert logged[-1]["step"] == 10
    assert all(math.isfinite(value) for row in logged for value in row.values())

    key = lineage.pretraining("one", 1).key
    artifacts.discard(key)
    with pytest.raises(Interrupted, match="stopped at step 5"):
        train(lineage, terminating_after(4))
    assert max(path.name for path in artifacts.path(f"{key}/resume").iterdir()) == rolling_name(5)
    assert artifacts.find(undisturbed.path, Checkpoint) is None
    resumed = train(lineage)
    assert sha256(artifacts.path(resumed.path) / TENSORS) == weights
    assert resumed.validation == undisturbed.validation
    assert resumed.health == undisturbed.health  # the stop came between two log lines
    assert timeless(log(lineage)) == timeless(logged)

    assert_measured(name, lineage, resumed)


def train(lineage: Lineage, report: ProgressCallback = ignore_progress) -> Checkpoint:
    """Runs the stage's only job in this process and returns the last milestone."""
    stage = Pretrain(lineage)
    stage.validate()
    (job,) = stage.plan(0)[0].jobs
    assert isinstance(job, TrainModel)
    run_job(job, lineage.artifacts, report)
    return find_milestone(lineage, "one", 1, None)


def terminating_after(step: int) -> ProgressCallback:
    """Returns a progress callback that sends SIGTERM after this step, so that the run stops after the next one."""

    def report(progress: Progress) -> None:
        if progress.done == step:
            signal.raise_signal(signal.SIGTERM)

    return report


def log(lineage: Lineage) -> list[dict[str, float]]:
    text = lineage.artifacts.path(f"{lineage.pretraining('one', 1).key}/log.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def timeless(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    times = {"tokens_per_second", "step_seconds", "flops_per_second", "mfu", "data_wait", "peak_memory_mb"}
    return [{name: value for name, value in row.items() if name not in times} for row in rows]


def assert_measured(name: str, lineage: Lineage, milestone: Checkpoint) -> None:
    """Checks the method, and without a proposal also the strategy by name, which must give the same numbers."""
    names = ["one"] if name in PROPOSALS else ["one", name]
    report, folder = measure_variance(lineage, Console(quiet=True), names, milestone, Settings(4, 4, 2))
    assert {path.name for path in folder.iterdir()} == {"variance.json", "variance.md", "variance.png"}
    assert report == VarianceReport.model_validate_json((folder / "variance.json").read_text(encoding="utf-8"))
    rows = {row.name: row for row in report.measured}
    assert list(rows) == list(dict.fromkeys(["uniform", *names]))
    assert (rows["one"].strategy, bool(rows["one"].proposal)) == (name, name in PROPOSALS)
    assert all(rows[alias].variances == rows["one"].variances for alias in names)
    assert all(math.isfinite(value) for value in numbers(report))
    assert all(row.variances[norm].mask.value > 0 for row in rows.values() for norm in NORMS)


def numbers(report: VarianceReport) -> Iterator[float]:
    """Yields the values and errors of all estimates that are always defined; NaN for missing ones."""
    for row in report.measured:
        estimates = [getattr(row.variances[norm], part) for norm in NORMS for part in ALWAYS]
        if row.clipping is not None:
            estimates += [row.clipping.clipped, row.clipping.effective]
        for estimate in estimates:
            yield from (math.nan if number is None else number for number in (estimate.value, estimate.error))
