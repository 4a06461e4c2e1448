"""The jobs of the grid: one fine-tuning run, and the run on MNLI that others start from."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mapnet_cli.config import Config, Transformer
from mapnet_cli.core.artifacts import Artifacts, read_json
from mapnet_cli.core.errors import DamagedError, DivergedError
from mapnet_cli.core.records import FinetuneRun, TunedEncoder
from mapnet_cli.finetune_glue.prepare import load_task
from mapnet_cli.glue.grid import GridRun
from mapnet_cli.glue.tasks import TASKS
from mapnet_cli.jobs.job import Output, Progress, ProgressCallback
from mapnet_cli.lineage.graph import RUN_SETTINGS

if TYPE_CHECKING:
    from mapnet_cli.finetune_glue.loop import EncoderWeights, Tuned


@dataclass(frozen=True)
class Start:
    """What a run fine-tunes."""

    encoder: Transformer
    weights: "EncoderWeights"
    checkpoint: str
    """SHA-256 of the pretrained weights; "" for random ones."""
    after_mnli: str
    """SHA-256 of the weights after MNLI; "" if the run doesn't start from there."""


def run_finetuning(
    artifacts: Artifacts, progress: ProgressCallback, run: GridRun, start: str, data: str, config: Config
) -> Output:
    """Fine-tunes one checkpoint on one task with one setting and seed; its record is the job's result."""
    from mapnet_cli.training.device import choose_device, device_name

    begin = load_start(artifacts, start, config)
    tuned = tune(artifacts, progress, run, begin, data, config)
    train, dev = load_task(artifacts, run.task, data)
    settings: dict[str, Any] = {name: getattr(config.finetune, name) for name in RUN_SETTINGS}
    if begin.after_mnli:
        settings["mnli_start"] = begin.after_mnli
    row = FinetuneRun(
        **asdict(run), checkpoint=begin.checkpoint, settings=settings, train_examples=len(train),
        dev_examples=sum(map(len, dev.values())), epochs=tuned.epochs, failure=tuned.failure,
        device=device_name(choose_device(config.finetune.device)),
    )  # fmt: skip
    return Output([], row.to_json())


def tune_on_mnli(
    artifacts: Artifacts, progress: ProgressCallback, run: GridRun, start: str, data: str, config: Config, key: str
) -> Output:
    """Fine-tunes an encoder on MNLI and keeps it, without its head, as RoBERTa's authors do."""
    from mapnet_cli.training.checkpoint import SEGMENT, save_checkpoint

    begin = load_start(artifacts, start, config)
    tuned = tune(artifacts, progress, run, begin, data, config)
    if tuned.failure:
        raise DivergedError(f"{key}: {tuned.failure}; lower finetune.mnli_learning_rate")
    encoder = tuned.model.encoder
    facts: dict[str, Any] = {"vocab_size": encoder.vocab_size, "encoder": encoder.config.model_dump(mode="json")}
    tensors = {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    if tuned.model.segment is not None:
        tensors[SEGMENT] = tuned.model.segment
    checksum = save_checkpoint(artifacts.path(key), tensors, facts)
    row = TunedEncoder(
        path=key, fingerprint=checksum, checkpoint=begin.checkpoint, encoder=facts["encoder"], epochs=tuned.epochs
    )
    return Output(sorted(artifacts.path(key).iterdir()), row.to_json())


def load_start(artifacts: Artifacts, key: str, config: Config) -> Start:
    """Returns the encoder of a milestone, an import or a TunedEncoder; a corpus manifest stands for random weights."""
    from mapnet_cli.finetune_glue.loop import EncoderWeights, encoder_weights

    marker = artifacts.marker(key)
    assert marker is not None
    record = marker.result
    if "path" not in record:
        return Start(config.encoder, EncoderWeights(None, record["vocab_size"]), "", "")
    path, fingerprint = artifacts.path(record["path"]), record["fingerprint"]
    if read_json(path / "facts.json")["sha256"] != fingerprint:
        raise DamagedError(f"{record['path']} is not what its record names: make it again (`mapnet pretrain --force`)")
    encoder = Transformer.model_validate(record["encoder"]) if "encoder" in record else config.encoder
    if "checkpoint" in record:  # a TunedEncoder
        return Start(encoder, encoder_weights(path), record["checkpoint"], fingerprint)
    return Start(encoder, encoder_weights(path), fingerprint, "")


def tune(
    artifacts: Artifacts,
    progress: ProgressCallback,
    run: GridRun,
    start: Start,
    data: str,
    config: Config,
    until: int | None = None,
) -> "Tuned":
    """Returns the tuned model with its scores; `until` stops after that epoch, the schedules going on as if not."""
    import torch

    from mapnet_cli.finetune_glue.loop import Setting, fine_tune
    from mapnet_cli.training.device import choose_device

    torch.set_num_threads(config.finetune.threads)
    train, dev = load_task(artifacts, run.task, data)
    return fine_tune(
        TASKS[run.task], train, dev, start.weights, start.encoder, config.finetune,
        Setting(run.batch_size, run.lr, run.seed), choose_device(config.finetune.device),
        lambda tuned: progress(Progress(len(tuned.epochs), config.finetune.epochs, "epochs")), until,
    )  # fmt: skip
