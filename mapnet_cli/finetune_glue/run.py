"""The jobs of the grid: one fine-tuning run, and the run on MNLI that others start from."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mapnet_cli.artifacts import Artifacts, read_json
from mapnet_cli.config import Config, Transformer
from mapnet_cli.errors import DamagedError, DivergedError
from mapnet_cli.finetune_glue.prepare import load_task
from mapnet_cli.finetune_glue.tasks import TASKS
from mapnet_cli.glue import GridRun
from mapnet_cli.jobs.job import Output, Progress, Report
from mapnet_cli.lineage import RUN_SETTINGS
from mapnet_cli.records import FinetuneRun, TunedEncoder

if TYPE_CHECKING:
    from mapnet_cli.finetune_glue.loop import Tuned


def run_finetuning(artifacts: Artifacts, report: Report, run: GridRun, start: str, data: str, config: Config) -> Output:
    """Fine-tunes one checkpoint on one task with one setting and seed; its record is the job's result."""
    tuned, (checkpoint, after_mnli), device = tune(artifacts, report, run, start, data, config)
    train, dev = load_task(artifacts, run.task, data)
    settings: dict[str, Any] = {name: getattr(config.finetune, name) for name in RUN_SETTINGS}
    if after_mnli:
        settings["mnli_start"] = after_mnli
    row = FinetuneRun(
        **asdict(run), checkpoint=checkpoint, settings=settings, train_examples=len(train),
        dev_examples=sum(map(len, dev.values())), epochs=tuned.epochs, failure=tuned.failure, device=device,
    )  # fmt: skip
    return Output([], row.to_json())


def tune_on_mnli(
    artifacts: Artifacts, report: Report, run: GridRun, start: str, data: str, config: Config, key: str
) -> Output:
    """Fine-tunes an encoder on MNLI and keeps it, without its head, as RoBERTa's authors do."""
    from mapnet_cli.training.checkpoint import SEGMENT, save_checkpoint

    tuned, (checkpoint, _), _ = tune(artifacts, report, run, start, data, config)
    if tuned.failure:
        raise DivergedError(f"{key}: {tuned.failure}; lower finetune.mnli_learning_rate")
    encoder = tuned.model.encoder
    facts: dict[str, Any] = {"vocab_size": encoder.vocab_size, "encoder": encoder.config.model_dump(mode="json")}
    tensors = {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    if tuned.model.segment is not None:
        tensors[SEGMENT] = tuned.model.segment
    checksum = save_checkpoint(artifacts.path(key), tensors, facts)
    row = TunedEncoder(
        path=key, fingerprint=checksum, checkpoint=checkpoint, encoder=facts["encoder"], epochs=tuned.epochs
    )
    return Output(sorted(artifacts.path(key).iterdir()), row.to_json())


def tune(
    artifacts: Artifacts, report: Report, run: GridRun, start: str, data: str, config: Config, until: int | None = None
) -> tuple["Tuned", tuple[str, str], str]:
    """Returns (the tuned model with its scores, (SHA-256 of the pretrained weights, of those after MNLI), the device).

    `start` is the key of a milestone, an import or a TunedEncoder; a corpus manifest's stands for random weights.
    `until` stops after that epoch, the schedules going on as if it didn't.
    """
    import torch

    from mapnet_cli.finetune_glue.loop import EncoderWeights, Setting, encoder_weights, fine_tune
    from mapnet_cli.training.device import choose_device, device_name

    torch.set_num_threads(config.finetune.threads)
    device = choose_device(config.finetune.device)
    marker = artifacts.marker(start)
    assert marker is not None
    encoder, fingerprint = config.encoder, marker.result.get("fingerprint", "")
    if fingerprint:
        path = artifacts.path(marker.result["path"])
        if read_json(path / "facts.json")["sha256"] != fingerprint:
            raise DamagedError(
                f"{marker.result['path']} is not what its record names: make it again (`mapnet pretrain --force`)"
            )
        weights = encoder_weights(path)
        if "encoder" in marker.result:
            encoder = Transformer.model_validate(marker.result["encoder"])
    else:
        weights = EncoderWeights(None, marker.result["vocab_size"])
    train, dev = load_task(artifacts, run.task, data)
    tuned = fine_tune(
        TASKS[run.task], train, dev, weights, encoder, config.finetune,
        Setting(run.batch_size, run.lr, run.seed), device,
        lambda tuned: report(Progress(len(tuned.epochs), config.finetune.epochs, "epochs")), until,
    )  # fmt: skip
    after_mnli = "checkpoint" in marker.result
    sums = (marker.result["checkpoint"], fingerprint) if after_mnli else (fingerprint, "")
    return tuned, sums, device_name(device)
