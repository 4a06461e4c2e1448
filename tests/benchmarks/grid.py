"""Large grids: `mapnet status` and `mapnet report` over the paper's 10,240 fine-tuning runs, all finished.

The records are as large as real ones. CPU seconds (user and system) and peak memory are those of the whole command.
The last line on stdout is one JSON object: the measurement that is farthest from its target, with `ours`, `theirs`
(the target), and all measurements.

    python -m tests.benchmarks.grid
    python -m tests.benchmarks.grid --folder existing-or-new-folder
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from mapnet_cli.config import Config
from mapnet_cli.config.loading import resolve
from mapnet_cli.core.artifacts import ArtifactId, Artifacts, Marker, write_json
from mapnet_cli.core.records import (
    Baseline,
    Baselines,
    Checkpoint,
    CorpusManifest,
    EpochScores,
    FinetuneRun,
    ProposedMasks,
    Row,
    TaskFacts,
)
from mapnet_cli.finetune_glue.stage import FinetuneGlue
from mapnet_cli.glue.grid import GridRun, grid_runs
from mapnet_cli.glue.scoring import DIGITS, SPLITS
from mapnet_cli.glue.tasks import TASKS
from mapnet_cli.jobs.job import library_versions
from mapnet_cli.lineage.graph import Lineage
from mapnet_cli.pretrain.stage import Pretrain

SETTINGS = ('corpus.sources=[{kind="cpython"}]', 'finetune.data="probe"')
TARGETS = {"status": {"CPU seconds": 3.0}, "report": {"CPU seconds": 10.0, "peak MB": 500.0}}
FAILURES = 20
"""Every run with a multiple of this number failed, alternately before its first epoch and after its second."""


def grid_config(*settings: str) -> Config:
    return resolve("paper", None, [*SETTINGS, *settings], {}).config


def epochs(task: str, count: int, rng: np.random.Generator) -> list[EpochScores]:
    """Returns scores with as many digits as real ones."""
    names = TASKS[task].metrics
    names = (*names, *(f"{name}-mm" for name in names if task == "MNLI"))

    def draw(digits: int) -> dict[str, float]:
        return {name: round(rng.random(), digits) for name in names}

    return [
        EpochScores(
            epoch=number, train_loss=rng.random(), metrics=draw(17),
            halves=[(draw(DIGITS), draw(DIGITS)) for _ in range(SPLITS)],
        )
        for number in range(1, count + 1)
    ]  # fmt: skip


def finetune_run(run: GridRun, config: Config, scores: list[EpochScores], failure: str = "") -> FinetuneRun:
    """Returns a record with the fields of a real one."""
    return FinetuneRun(
        **asdict(run), checkpoint="0" * 64, settings=config.finetune.run_settings(), train_examples=8551,
        dev_examples=1043, epochs=scores, failure=failure, device="cpu, 1 thread",
    )  # fmt: skip


def finished(lineage: Lineage) -> Iterator[tuple[ArtifactId, Row | None]]:
    """Yields every artifact of the config with its result, or None if neither status nor report reads it.

    Of the corpus there is only the manifest, as after its working files are deleted.
    """
    config, rng = lineage.config, np.random.default_rng(0)
    yield ArtifactId(lineage.manifest, "0" * 64), _manifest(lineage)
    results: dict[str, Row] = {}
    for task in config.finetune.tasks:
        facts = TaskFacts(task=task, train_examples=400, dev_examples=100, official=False, probe=True, notes=[])
        results[lineage.main_task(task).key] = facts
        metrics = epochs(task, 1, rng)[0].metrics
        rows = [Baseline(task=task, name=name, metrics=metrics) for name in ("majority", "bag of words")]
        results[lineage.baseline(task).key] = Baselines(rows=rows)
    runs = {lineage.finetuning(run).key: (number, run) for number, run in enumerate(grid_runs(config), 1)}
    for stage in (Pretrain(lineage), FinetuneGlue(lineage)):
        for job in (job for phase in stage.plan(1) for job in phase.jobs):
            result = results.get(job.key)
            if job.key in runs:
                number, run = runs[job.key]
                failure = "" if number % FAILURES else "the loss is not finite"
                count = 2 * (number // FAILURES % 2) if failure else config.finetune.epochs
                result = finetune_run(run, config, epochs(run.task, count, rng), failure)
            yield job.artifact, result


def checkpoints(lineage: Lineage) -> Iterator[Checkpoint]:
    for method, seed in lineage.config.pretraining_runs():
        for step in lineage.config.milestone_steps(method):
            loss, path = 2 + 1e5 / step, f"{lineage.pretraining(method, seed).key}/step{step}"
            yield Checkpoint(
                method=method, pretrain_seed=seed, step=step, path=path, fingerprint="0" * 64,
                tokens=1000 * step, flops=1e9 * step, seconds=float(step), device="cpu",
                validation_loss=loss, validation={"validation_loss": loss, "validation_loss_refit": loss - 0.1},
            )  # fmt: skip


def make_grid(lineage: Lineage) -> None:
    """Writes the markers of a finished config, without the files that neither status nor report reads."""
    artifacts, versions = lineage.artifacts, library_versions()
    for artifact, result in finished(lineage):
        value = {} if result is None else result.to_json()
        artifacts.publish(Marker(artifact.key, artifact.fingerprint, value, {}, 12.345, versions))
    for row in checkpoints(lineage):
        masks = ProposedMasks(sentences=[], collapsed=False, proposal_entropy=2.0, uniform_entropy=3.0)
        write_json(artifacts.path(f"{row.path}/figure2.json"), masks.to_json())
        artifacts.publish(Marker(row.path, row.fingerprint, row.to_json(), {}, 12.345, versions))


def _manifest(lineage: Lineage) -> CorpusManifest:
    names = ("documents", "paragraphs", "sentences", "words", "tokens", "unknown_tokens", "train_sequences")
    return CorpusManifest(
        **dict.fromkeys((*names, "validation_sequences"), 1000), dropped={}, problem_count=0, problems=[],
        vocab_size=500, block_length=64, train=[], validation=[], tokenizer=f"{lineage.corpus.key}/tokenizer.json",
    )  # fmt: skip


def measure(command: str, artifacts: Path) -> dict[str, float]:
    """Runs a mapnet command; returns the CPU seconds and peak memory of its process."""
    options = ["--recipe", "paper", *(word for setting in SETTINGS for word in ("--set", setting))]
    arguments = [sys.executable, "-m", "mapnet_cli", command, *options, "--artifacts", str(artifacts)]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"{command} failed"
    return {"CPU seconds": usage.ru_utime + usage.ru_stime, "peak MB": usage.ru_maxrss / 1000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="artifact directory to keep; used as it is if it exists")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each command; the best one counts")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = chosen.folder or Path(name)
        if not (folder / "finetune-glue").exists():
            make_grid(Lineage(grid_config(), Artifacts(folder)))
        rows = []
        for command, targets in TARGETS.items():
            rounds = [measure(command, folder) for _ in range(chosen.rounds)]
            for unit, target in targets.items():
                values = [measured[unit] for measured in rounds]
                row = {"name": f"mapnet {command}, 10,240 runs, {unit}", "ours": min(values), "theirs": target}
                rows.append(row | {"ratio": min(values) / target, "rounds": values})
                print(json.dumps(rows[-1]), file=sys.stderr)
    print(json.dumps(max(rows, key=lambda row: row["ratio"]) | {"all": rows}))


if __name__ == "__main__":
    main()
