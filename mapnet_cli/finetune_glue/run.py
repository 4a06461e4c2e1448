"""Jobs of the grid: a run, the run on MNLI that others start from, and the best run again; the memory they need."""

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from mapnet_cli import core
from mapnet_cli.config import Config, Transformer
from mapnet_cli.finetune_glue.prepare import load_task
from mapnet_cli.finetune_glue.tokenised import load_ids
from mapnet_cli.glue import GlueTask, GridRun, fine_tuned, get_task, starts_from_mnli, task_result
from mapnet_cli.jobs import Job, Output, Progress, ProgressCallback
from mapnet_cli.lineage import Lineage

if TYPE_CHECKING:
    from torch import Tensor

    from mapnet_cli.finetune_glue.classifier import Start
    from mapnet_cli.finetune_glue.loop import Tuned

FLOAT = 4


@dataclass(frozen=True, kw_only=True)
class TuningJob(Job):
    """Base class of fine-tuning jobs."""

    start: str  # key of the initial weights; that of the corpus's manifest means random ones
    data: str  # key of the tokenised task
    config: Config

    def tune(
        self, artifacts: core.Artifacts, progress: ProgressCallback, run: GridRun, until: int | None = None
    ) -> "tuple[Start, Tuned]":
        """Returns a run's initial state and tuned model, made by the whole run's schedule up to epoch `until`."""
        import torch

        from mapnet_cli.finetune_glue.classifier import load_start
        from mapnet_cli.finetune_glue.loop import fine_tune
        from mapnet_cli.training import choose_device, keep_freed_memory

        task, finetune = get_task(self.config, run.task), self.config.finetune
        start = load_start(artifacts, self.start, self.config)
        torch.set_num_threads(finetune.threads)
        keep_freed_memory()
        train, dev = load_task(artifacts, task, self.data)
        metric = finetune.metrics.get(run.task) or task.metric

        def scored(epoch: core.EpochScores) -> str:
            return f"epoch {epoch.epoch} {metric} {100 * epoch.metrics[metric]:.1f}"

        tuned = fine_tune(
            task, train, dev, start, finetune, run, choose_device(finetune.device),
            lambda tuned: progress(Progress(len(tuned.epochs), finetune.epochs, scored(tuned.epochs[-1]))), until,
        )  # fmt: skip
        return start, tuned

    def repeat(
        self, artifacts: core.Artifacts, progress: ProgressCallback, record: core.FinetuneRun, run: GridRun, epoch: int
    ) -> "tuple[Start, Tuned]":
        """Returns what `tune` returns for a recorded run, and warns if the scores aren't the recorded ones."""
        start, tuned = self.tune(artifacts, progress, run, epoch)
        if tuned.epochs[-1].metrics != record.epochs[epoch - 1].metrics:
            warning = "dev scores differ from the recorded ones (different device?), so predictions differ too"
            progress(Progress(1, 1, warning=warning))
        return start, tuned

    def saved(self, artifacts: core.Artifacts, start: "Start", tuned: "Tuned", run: str = "") -> core.TunedEncoder:
        """Saves a tuned model in the job's folder, with the description of its run, or without its head."""
        from mapnet_cli.training import save_checkpoint

        model = tuned.model
        encoder = model.encoder.config.model_dump(mode="json")
        tensors = {name: tensor for name, tensor in model.state_dict().items() if run or not name.startswith("head.")}
        facts = {"vocab_size": model.encoder.vocab_size, "encoder": encoder}
        return core.TunedEncoder(
            path=self.key, fingerprint=save_checkpoint(artifacts.path(self.key), tensors, facts),
            checkpoint=start.checkpoint, encoder=encoder, epochs=tuned.epochs, run=run,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FineTune(TuningJob):
    """Fine-tunes one checkpoint on one task with one setting and seed, and records the scores."""

    grid_run: GridRun

    def run(self, artifacts: core.Artifacts, progress: ProgressCallback) -> Output:
        from mapnet_cli.training import choose_device, device_name

        start, tuned = self.tune(artifacts, progress, self.grid_run)
        train, dev = load_task(artifacts, get_task(self.config, self.grid_run.task), self.data)
        settings = self.config.finetune.run_settings()
        if start.after_mnli:
            settings["mnli_start"] = start.after_mnli
        row = core.FinetuneRun(
            **asdict(self.grid_run), checkpoint=start.checkpoint, settings=settings, train_examples=len(train),
            dev_examples=sum(map(len, dev.values())), epochs=tuned.epochs, failure=tuned.failure,
            device=device_name(choose_device(self.config.finetune.device)),
        )  # fmt: skip
        return Output([], row)


@dataclass(frozen=True, kw_only=True)
class TuneOnMnli(TuningJob):
    """Fine-tunes an encoder on MNLI and saves it without its head, as RoBERTa's authors do."""

    grid_run: GridRun

    def run(self, artifacts: core.Artifacts, progress: ProgressCallback) -> Output:
        start, tuned = self.tune(artifacts, progress, self.grid_run)
        if tuned.failure:
            raise core.DivergedError(f"{self.key}: {tuned.failure}; lower finetune.mnli_learning_rate")
        row = self.saved(artifacts, start, tuned)
        return Output(sorted(artifacts.path(self.key).iterdir()), row)


def best_run(
    config: Config, runs: Mapping[GridRun, core.FinetuneRun], baselines: Iterable[core.Baseline]
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
    """Repeats an encoder's best run on a task; saves its model and predictions for the dev sets (`finetune.keep`).

    The runs of a grid don't save their models (the paper's has 10,240), and repeating one makes the same model again.
    """

    runs: tuple[tuple[GridRun, str], ...]  # the encoder's runs on the task, with the keys of their records
    baseline: str

    def run(self, artifacts: core.Artifacts, progress: ProgressCallback) -> Output:
        from mapnet_cli.finetune_glue.loop import outputs

        records = {run: artifacts.read(key, core.FinetuneRun) for run, key in self.runs}
        known = artifacts.find(self.baseline, core.Baselines)
        best, doubtful = best_run(self.config, records, known.rows if known else [])
        for doubt in doubtful:
            progress(Progress(0, 1, warning=doubt))
        if best is None:
            progress(Progress(1, 1, warning="every run failed: there is no model to keep"))
            return Output([], core.TunedEncoder(path="", fingerprint="", checkpoint="", encoder={}, epochs=[]))
        run, epoch = best
        start, tuned = self.repeat(artifacts, progress, records[run], run, epoch)
        setting = f"batch {run.batch_size}, lr {run.lr:g}, seed {run.seed}, epoch {epoch}"
        row, folder = self.saved(artifacts, start, tuned, setting), artifacts.path(self.key)
        task = get_task(self.config, run.task)
        for suffix, data in load_task(artifacts, task, self.data)[1].items():
            split = task.dev[suffix]
            ids = load_ids(artifacts.path(f"{self.data}/{split}"))
            text = predictions(task, ids, data.labels.tolist(), outputs(tuned.model, data))
            core.write_text(folder / f"{split}.tsv", text)
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


def run_requirements(config: Config, lineage: Lineage) -> dict[str, int]:
    """Returns the fields of a Phase that the grid's largest run requires. Raises UsageError for a missing import."""
    finetune = config.finetune
    starts = [finetune.mnli_batch_size] if starts_from_mnli(config) else []
    largest_batch = max([*finetune.batch_sizes, *starts])
    models = dict.fromkeys(lineage.sizes(method) for method, _, _ in fine_tuned(config))
    largest = max(run_bytes(encoder, vocab_size, largest_batch) for encoder, vocab_size in models)
    on_gpus = {} if finetune.device == "cpu" else {"gpu_bytes": largest, "jobs_per_gpu": finetune.runs_per_gpu}
    return {"threads": finetune.threads, **on_gpus}


def run_bytes(encoder: Transformer, vocab_size: int, batch_size: int) -> int:
    """Returns a rough upper bound on a run's GPU memory in bytes, for batches of examples of maximum length.

    With hidden size H and feed-forward size F, each layer stores per token for the backward pass: two sums and
    two norms (4 H), query, key and value with and without padding (6 H), the attention output before and after
    its projection and without padding (3 H), dropout masks (under 2 H), and the inner vectors of the feed-forward
    block (2 F, with GeGLU 4 F). All are counted as float32, although autocast stores most of them in half of that.
    Fused attention stores no scores.
    """
    hidden, ffn = encoder.hidden, encoder.ffn
    matrices, vectors = (2, 2) if encoder.architecture == "bert" else (3, 4)
    layer_weights = 4 * hidden * (hidden + 1) + matrices * hidden * ffn + ffn + 5 * hidden
    embeddings = (vocab_size + encoder.max_length + 2) * hidden
    head = hidden * (hidden + 1)
    kept = batch_size * encoder.max_length * encoder.layers * (15 * hidden + vectors * ffn) * FLOAT
    return core.CUDA_BYTES + core.TRAINING_BYTES * (embeddings + encoder.layers * layer_weights + head) + kept
