"""The best run of an encoder on a task, and its model, which is kept on request (`finetune.keep`).

The runs of a grid don't save their models (the paper's has 10,240), so the best run is repeated, which makes the same
model again.
"""

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mapnet_cli.config import Config, Transformer
from mapnet_cli.core import Artifacts, Baselines, FinetuneRun, TunedEncoder, write_text
from mapnet_cli.finetune_glue.prepare import load_task
from mapnet_cli.finetune_glue.run import TuningJob
from mapnet_cli.finetune_glue.tokenised import load_ids
from mapnet_cli.glue import (
    GlueTask,
    GridRun,
    baseline_scores,
    best_setting,
    columns_of,
    doubts,
    get_task,
    metrics_by_task,
    run_grids,
)
from mapnet_cli.jobs import Output, Progress, ProgressCallback

if TYPE_CHECKING:
    from torch import Tensor

    from mapnet_cli.finetune_glue.loop import Tuned


def best_run(
    config: Config, artifacts: Artifacts, baseline: str, runs: Mapping[GridRun, FinetuneRun]
) -> tuple[tuple[GridRun, int] | None, list[str]]:
    """Returns the best setting's run with the highest dev score, the epoch whose score counts, and doubts about it.

    `runs` are those of one encoder on one task, `baseline` is the key of the task's baselines. None: no run succeeded.
    """
    if not runs:
        return None, []
    run = next(iter(runs))
    column = columns_of({run.task: metrics_by_task(config)[run.task]})[0]
    known = artifacts.find(baseline, Baselines)
    baselines = baseline_scores(known.rows if known else [], (column,))
    grid = run_grids(runs.values(), config, (column,), baselines)[run.method, run.pretrain_seed, run.step, column.name]
    setting = best_setting(grid)
    scored = {seed: score for seed, score in grid[setting].items() if not score.failed} if setting else {}
    if setting is None or not scored:
        return None, []
    seed = max(scored, key=lambda seed: scored[seed].counted)
    best = GridRun(run.method, run.pretrain_seed, run.step, run.task, *setting, seed), scored[seed].epoch
    return best, doubts(runs.values(), config, column, baselines)


@dataclass(frozen=True, kw_only=True)
class KeepBest(TuningJob):
    """Repeats the best run of an encoder on a task, and saves its model and its predictions for the dev sets."""

    runs: tuple[tuple[GridRun, str], ...]
    """The encoder's runs on the task, with the keys of their records."""
    baseline: str

    def run(self, artifacts: Artifacts, progress: ProgressCallback) -> Output:
        records = {run: artifacts.read(key, FinetuneRun) for run, key in self.runs}
        best, doubtful = best_run(self.config, artifacts, self.baseline, records)
        for doubt in doubtful:
            progress(Progress(0, 1, warning=doubt))
        if best is None:
            progress(Progress(1, 1, warning="every run failed: there is no model to keep"))
            return Output([], TunedEncoder(path="", fingerprint="", checkpoint="", encoder={}, epochs=[]))
        run, epoch = best
        start, tuned = self.repeat(artifacts, progress, records[run], run, epoch)
        setting = f"batch {run.batch_size}, lr {run.lr:g}, seed {run.seed}, epoch {epoch}"
        row, folder = self.saved(artifacts, start, tuned, setting), artifacts.path(self.key)
        task = get_task(self.config, run.task)
        for suffix, data in load_task(artifacts, task, self.data)[1].items():
            split = task.dev[suffix]
            ids = load_ids(artifacts.path(f"{self.data}/{split}"))
            write_text(folder / f"{split}.tsv", predictions(task, ids, data.labels.tolist(), tuned.outputs(data)))
        return Output(sorted(folder.iterdir()), row)


def predictions(task: GlueTask, ids: Iterable[str], labels: Iterable[float], out_NC: "Tensor") -> str:
    """Returns TSV with one line per example: its id, label, prediction, and the probability of each class."""
    from mapnet_cli.finetune_glue.loop import decide

    text = io.StringIO()
    table = csv.writer(text, "excel-tab", lineterminator="\n")
    table.writerow(["index", "label", "prediction", *(f"probability of {name}" for name in task.labels)])
    chosen = decide(task, out_NC).tolist()
    shares = [[]] * len(out_NC) if task.regression else out_NC.softmax(dim=1).tolist()
    for row_id, label, value, probabilities in zip(ids, labels, chosen, shares, strict=True):
        numbers = (f"{probability:.6f}" for probability in probabilities)
        table.writerow([row_id, task.shown(label), task.shown(value), *numbers])
    return text.getvalue()


def load_kept(artifacts: Artifacts, key: str, task: GlueTask, config: Config) -> "Tuned":
    """Returns a model that `KeepBest` saved. Raises DamagedError if a file was altered."""
    import torch

    from mapnet_cli.finetune_glue.classifier import Classifier
    from mapnet_cli.finetune_glue.loop import Tuned
    from mapnet_cli.training import SEGMENT, choose_device, load_checkpoint

    torch.set_num_threads(config.finetune.threads)
    row = artifacts.read(key, TunedEncoder)
    artifacts.verify(key)
    tensors, facts = load_checkpoint(artifacts.path(row.path))
    encoder, outputs = Transformer.model_validate(row.encoder), max(len(task.labels), 1)
    model = Classifier(encoder, facts["vocab_size"], outputs, config.finetune, tensors.get(SEGMENT))
    model.load_state_dict(tensors)
    return Tuned(model.to(choose_device(config.finetune.device)), [], "")
