"""The jobs of the grid: one fine-tuning run, the run on MNLI that others start from, and what a run needs."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from mapnet_cli.config import Config, Transformer
from mapnet_cli.core import (
    Artifacts,
    Checkpoint,
    CorpusManifest,
    DamagedError,
    DivergedError,
    FinetuneRun,
    Imported,
    TunedEncoder,
    read_json,
)
from mapnet_cli.finetune_glue.prepare import load_task
from mapnet_cli.glue import TASKS, GridRun, fine_tuned, starts_from_mnli
from mapnet_cli.jobs import Job, Output, Progress, ProgressCallback
from mapnet_cli.lineage import RUN_SETTINGS, Lineage

if TYPE_CHECKING:
    from mapnet_cli.finetune_glue.loop import EncoderWeights, Tuned

EncoderRow = Checkpoint | Imported | TunedEncoder | CorpusManifest


@dataclass(frozen=True)
class EncoderSource:
    """Where a run's encoder is from; the corpus's manifest stands for random weights."""

    key: str
    kind: type[EncoderRow]


@dataclass(frozen=True)
class Start:
    """What a run fine-tunes."""

    encoder: Transformer
    weights: "EncoderWeights"
    checkpoint: str
    """SHA-256 of the pretrained weights; "" for random ones."""
    after_mnli: str
    """SHA-256 of the weights after MNLI; "" if the run doesn't start from there."""


@dataclass(frozen=True, kw_only=True)
class TuningJob(Job):
    """What all fine-tuning jobs have in common."""

    grid_run: GridRun
    start: EncoderSource
    data: str
    """Key of the tokenised task."""
    config: Config

    def tune(self, artifacts: Artifacts, progress: ProgressCallback, until: int | None = None) -> "tuple[Start, Tuned]":
        """Returns what the run started from, and the tuned model with its scores.

        `until` stops after that epoch; the learning rate's schedule is that of the whole run.
        """
        import torch

        from mapnet_cli.finetune_glue.loop import Setting, fine_tune
        from mapnet_cli.training import choose_device

        run, finetune = self.grid_run, self.config.finetune
        start = load_start(artifacts, self.start, self.config)
        torch.set_num_threads(finetune.threads)
        train, dev = load_task(artifacts, run.task, self.data)
        tuned = fine_tune(
            TASKS[run.task], train, dev, start.weights, start.encoder, finetune,
            Setting(run.batch_size, run.lr, run.seed), choose_device(finetune.device),
            lambda tuned: progress(Progress(len(tuned.epochs), finetune.epochs, "epochs")), until,
        )  # fmt: skip
        return start, tuned


@dataclass(frozen=True, kw_only=True)
class FineTune(TuningJob):
    """Fine-tunes one checkpoint on one task with one setting and seed; the result is its record."""

    def run(self, artifacts: Artifacts, progress: ProgressCallback) -> Output:
        from mapnet_cli.training import choose_device, device_name

        start, tuned = self.tune(artifacts, progress)
        train, dev = load_task(artifacts, self.grid_run.task, self.data)
        settings: dict[str, Any] = {name: getattr(self.config.finetune, name) for name in RUN_SETTINGS}
        if start.after_mnli:
            settings["mnli_start"] = start.after_mnli
        row = FinetuneRun(
            **asdict(self.grid_run), checkpoint=start.checkpoint, settings=settings, train_examples=len(train),
            dev_examples=sum(map(len, dev.values())), epochs=tuned.epochs, failure=tuned.failure,
            device=device_name(choose_device(self.config.finetune.device)),
        )  # fmt: skip
        return Output([], row)


@dataclass(frozen=True, kw_only=True)
class TuneOnMnli(TuningJob):
    """Fine-tunes an encoder on MNLI and keeps it, without its head, as RoBERTa's authors do."""

    def run(self, artifacts: Artifacts, progress: ProgressCallback) -> Output:
        from mapnet_cli.training import SEGMENT, save_checkpoint

        start, tuned = self.tune(artifacts, progress)
        if tuned.failure:
            raise DivergedError(f"{self.key}: {tuned.failure}; lower finetune.mnli_learning_rate")
        encoder, folder = tuned.model.encoder, artifacts.path(self.key)
        facts: dict[str, Any] = {"vocab_size": encoder.vocab_size, "encoder": encoder.config.model_dump(mode="json")}
        tensors = {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
        if tuned.model.segment is not None:
            tensors[SEGMENT] = tuned.model.segment
        checksum = save_checkpoint(folder, tensors, facts)
        row = TunedEncoder(
            path=self.key, fingerprint=checksum, checkpoint=start.checkpoint, encoder=facts["encoder"],
            epochs=tuned.epochs,
        )  # fmt: skip
        return Output(sorted(folder.iterdir()), row)


def load_start(artifacts: Artifacts, source: EncoderSource, config: Config) -> Start:
    """Returns the encoder that a run fine-tunes; raises DamagedError if it isn't the one that its record names."""
    from mapnet_cli.finetune_glue.loop import EncoderWeights, encoder_weights

    row = artifacts.read(source.key, source.kind)
    if isinstance(row, CorpusManifest):
        return Start(config.encoder, EncoderWeights(None, row.vocab_size), "", "")
    path = artifacts.path(row.path)
    if read_json(path / "facts.json")["sha256"] != row.fingerprint:
        raise DamagedError(f"{row.path} is not what its record names: make it again (`mapnet pretrain --force`)")
    if isinstance(row, Checkpoint):
        return Start(config.encoder, encoder_weights(path), row.fingerprint, "")
    encoder = Transformer.model_validate(row.encoder)
    if isinstance(row, TunedEncoder):
        return Start(encoder, encoder_weights(path), row.checkpoint, row.fingerprint)
    return Start(encoder, encoder_weights(path), row.fingerprint, "")


CONTEXT = 2**30
"""Bytes that CUDA and its libraries take of a GPU for each process."""
STATE = 16
"""Bytes a weight: float32 weight, gradient, and Adam's two moments."""
FLOAT = 4


class Requirements(TypedDict):
    """Fields of a Phase."""

    threads: int
    gpu_bytes: int
    jobs_per_gpu: int


def run_requirements(config: Config, lineage: Lineage) -> Requirements:
    """Returns the demands of the grid's largest run; raises UsageError for an import that isn't there."""
    finetune = config.finetune
    starts = [finetune.mnli_batch_size] if starts_from_mnli(config) else []
    largest_batch = max([*finetune.batch_sizes, *starts])
    models = dict.fromkeys(sizes(config, lineage, method) for method, _, _ in fine_tuned(config))
    largest = max(run_bytes(encoder, vocab_size, largest_batch) for encoder, vocab_size in models)
    return {
        "threads": finetune.threads,
        "gpu_bytes": 0 if finetune.device == "cpu" else largest,
        "jobs_per_gpu": finetune.runs_per_gpu,
    }


def sizes(config: Config, lineage: Lineage, method: str) -> tuple[Transformer, int]:
    """Returns the encoder's sizes and the largest vocabulary that a row of Table 3 may have."""
    if imported := lineage.tokenizer_of(method):
        row = lineage.imported(imported)
        return Transformer.model_validate(row.encoder), row.vocab_size
    return config.encoder, lineage.vocab_size


def run_bytes(encoder: Transformer, vocab_size: int, batch_size: int) -> int:
    """Returns a rough upper estimate of a run's bytes of GPU memory, its batches full of the longest examples.

    With H the hidden and F the feed-forward size, a layer keeps for each token's backward pass two sums and
    two norms (4 H), query, key and value without padding and with it (6 H), attention's output before and
    after its matrix and without padding (3 H), what dropout kept (under 2 H), and the feed-forward's two inner
    vectors (2 F). All count as float32, though autocast keeps most of them in half of that; attention keeps
    no scores, it is fused.
    """
    hidden, ffn = encoder.hidden, encoder.ffn
    layer_weights = 4 * hidden * (hidden + 1) + 2 * hidden * ffn + ffn + 5 * hidden
    embeddings = (vocab_size + encoder.max_length + 2) * hidden
    head = hidden * (hidden + 1)
    kept = batch_size * encoder.max_length * encoder.layers * (15 * hidden + 2 * ffn) * FLOAT
    return CONTEXT + STATE * (embeddings + encoder.layers * layer_weights + head) + kept
