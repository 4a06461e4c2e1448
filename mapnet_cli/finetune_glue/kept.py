"""The best run of an encoder on a task, and its model, which is kept on request (`finetune.keep`).

The runs of a grid don't save their models (the paper's has 10,240), so the best run is repeated, which makes the same
model again.
"""

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mapnet_cli.config import Config
from mapnet_cli.core import Artifacts, Baseline, Baselines, FinetuneRun, TunedEncoder, write_text
from mapnet_cli.finetune_glue.prepare import load_task
from mapnet_cli.finetune_glue.run import TuningJob
from mapnet_cli.finetune_glue.tokenised import load_ids
from mapnet_cli.glue import GlueTask, GridRun, get_task, task_result
from mapnet_cli.jobs import Output, Progress, ProgressCallback

if TYPE_CHECKING:
    from torch import Tensor


def best_run(
    config: Config, runs: Mapping[GridRun, FinetuneRun], baselines: Iterable[Baseline]
) -> tuple[tuple[GridRun, int] | None, tuple[str, ...]]:
    """Returns the best setting's run with the highest dev score, the epoch whose score counts, and doubts about it.

    `runs` are those of one encoder on one task. None: no run succeeded.
    """
    result = task_result(runs.values(), config, baselines)
    by_seed = next(iter(result.scores.values())) if result else {}
    scores = {seed: score for seed, score in by_seed.items() if not score.failed}
    if result is None or not scores:
        return None, ()
    seed = max(scores, key=lambda seed: scores[seed].counted)
    chosen = next(run for run in runs if (run.batch_size, run.lr, run.seed) == (*result.setting, seed))
    return (chosen, scores[seed].epoch), result.doubts


@dataclass(frozen=True, kw_only=True)
class KeepBest(TuningJob):
    """Repeats the best run of an encoder on a task, and saves its model and its predictions for the dev sets."""

    runs: tuple[tuple[GridRun, str], ...]  # the encoder's runs on the task, with the keys of their records
    baseline: str

    def run(self, artifacts: Artifacts, progress: ProgressCallback) -> Output:
        from mapnet_cli.finetune_glue.loop import outputs

        records = {run: artifacts.read(key, FinetuneRun) for run, key in self.runs}
        known = artifacts.find(self.baseline, Baselines)
        best, doubtful = best_run(self.config, records, known.rows if known else [])
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
            text = predictions(task, ids, data.labels.tolist(), outputs(tuned.model, data))
            write_text(folder / f"{split}.tsv", text)
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
