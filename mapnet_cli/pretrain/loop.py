"""The pretraining loop: one for every method. Algorithm 1 itself is `step.algorithm_1`."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mapnet_cli.artifacts import Artifacts, Marker, write_json
from mapnet_cli.config import Config
from mapnet_cli.errors import DivergedError, Interrupted
from mapnet_cli.jobs.job import Progress, Report, library_versions
from mapnet_cli.lineage import fingerprint
from mapnet_cli.masking.exploration import exploration_probability, is_exploration_step
from mapnet_cli.masking.sampling import MaskNoise
from mapnet_cli.model.pretraining import PretrainingModel
from mapnet_cli.pretrain.batches import DataOrder, load_batch
from mapnet_cli.pretrain.step import StepPlan, algorithm_1
from mapnet_cli.pretrain.telemetry import Telemetry
from mapnet_cli.pretrain.validation import figure2_masks, validation_loss
from mapnet_cli.records import Checkpoint, CorpusManifest, ProposedMasks
from mapnet_cli.seeds import derive_seed
from mapnet_cli.text.shards import Sequences
from mapnet_cli.training import accounting, checkpoint
from mapnet_cli.training.device import device_name
from mapnet_cli.training.optim import (
    gradient_norm,
    learning_rate,
    optimizer_state,
    restore_optimizer,
    set_learning_rate,
)
from mapnet_cli.vocabulary import PAD


@dataclass
class Run:
    """One pretraining: its settings, its model, and how far it is."""

    config: Config
    method_name: str
    seed: int
    key: str
    fingerprint: str
    artifacts: Artifacts
    manifest: CorpusManifest
    device: torch.device
    model: PretrainingModel
    optimizer: torch.optim.AdamW
    step: int = 0
    tokens: int = 0
    flops: float = 0.0
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.artifacts.path(self.key)

    @property
    def rolling(self) -> Path:
        return self.folder / "resume"


def train(run: Run, report: Report) -> None:
    """Trains from where `run` stands to the last step, leaving milestones, a log and resume checkpoints."""
    pretrain, method = run.config.pretrain, run.config.method[run.method_name]
    sequences = Sequences([run.artifacts.path(name) for name in run.manifest.train])
    validation = Sequences([run.artifacts.path(name) for name in run.manifest.validation])
    order = DataOrder(len(sequences), pretrain.batch_size, run.seed)
    milestones = set(pretrain.milestone_steps())
    last = max(milestones)
    telemetry = Telemetry(run.folder / "log.jsonl", run.step, run.seconds)
    run.model.to(run.device).train()

    with stop_requested() as stopped:
        while run.step < last:
            started = time.monotonic()
            tokens_BL = load_batch(sequences, order.indices(run.step))
            noise = MaskNoise.draw(
                torch.Generator().manual_seed(derive_seed(run.seed, "masks", run.step)), *tokens_BL.shape
            )
            explore = is_exploration_step(method, run.seed, run.step, pretrain.steps)
            plan = StepPlan(
                method, explore, run.seed, run.step, pretrain.micro_batch_size or pretrain.batch_size,
                run.device, pretrain.precision,
            )  # fmt: skip
            run.optimizer.zero_grad(set_to_none=True)
            sums = algorithm_1(run.model, tokens_BL, noise, plan)
            norm = gradient_norm(run.model, pretrain.clip_norm)
            lr = learning_rate(run.step, pretrain.peak_lr, pretrain.warmup_steps, pretrain.steps)
            set_learning_rate(run.optimizer, lr)
            run.optimizer.step()

            seen = int((tokens_BL != PAD).sum())
            run.step += 1
            run.tokens += seen
            run.flops += _flops(run, tokens_BL, explore)
            run.seconds += time.monotonic() - started
            telemetry.add(sums, norm, seen, explore)

            stop = stopped()
            at_milestone = run.step in milestones
            save = at_milestone or stop or _is_due(run.step, pretrain.checkpoint_every)
            validate = at_milestone or _is_due(run.step, pretrain.validate_every)
            if save or validate or _is_due(run.step, pretrain.log_every):
                p = exploration_probability(method, run.step, pretrain.steps)
                row = telemetry.flush(run.step, run.seconds, lr=lr, p=p, flops=run.flops)
                _stop_if_not_finite(run, telemetry)
                report(Progress(run.step, last, _note(row)))
            if validate:
                loss = validation_loss(
                    run.model, validation, pretrain.validation_sequences, run.device, pretrain.precision
                )
                telemetry.write({"step": run.step, "validation_loss": loss})
            if at_milestone:
                masks = _publish_milestone(run, loss, validation)
                if masks.collapsed:
                    report(Progress(run.step, last, warning=_collapse(run, masks)))
            if save:
                _save_resume(run)
            if stop:
                raise Interrupted(f"{run.key}: stopped at step {run.step}; the same command goes on from there")


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _note(row: dict[str, Any]) -> str:
    return f"loss {row['loss']:.3f}, {row['tokens_per_second']:,.0f} tokens/s"


def _collapse(run: Run, masks: ProposedMasks) -> str:
    return (
        f"MAP-Net's proposal has collapsed by step {run.step}: its entropy is {masks.proposal_entropy:.2f} nats where "
        f"uniform masks have {masks.uniform_entropy:.2f}, so nearly the same positions are masked each time; raise "
        f"method.{run.method_name}.explore_end or lower method.{run.method_name}.loss_weight"
    )


def _flops(run: Run, tokens_BL: Tensor, explore: bool) -> float:
    method = run.config.method[run.method_name]
    proposes = method.objective != "none" and (method.learn_on_uniform_steps or not explore)
    proposal = run.config.proposal if proposes else None
    batch, length = tokens_BL.shape
    return accounting.step_flops(run.config.encoder, proposal, run.manifest.vocab_size, batch, length, method.mask_rate)


def _stop_if_not_finite(run: Run, telemetry: Telemetry) -> None:
    if telemetry.bad_step is not None:
        raise DivergedError(
            f"{run.key}: loss or gradient is not finite at step {telemetry.bad_step} (batch of sequences "
            f"{telemetry.bad_step * run.config.pretrain.batch_size} onward in the data order of seed {run.seed}); "
            f"the last good checkpoint is kept in {run.rolling}. Lower pretrain.peak_lr or set pretrain.clip_norm"
        )


def _publish_milestone(run: Run, loss: float, validation: Sequences) -> ProposedMasks:
    """Publishes the weights of a milestone, Figure 2's sentences, and a marker that finetune-glue reads.

    Returns the sentences, whose proposal may have collapsed.
    """
    name = f"{run.key}/step{run.step}"
    folder = run.artifacts.path(name)
    facts = {"step": run.step, "method": run.method_name, "vocab_size": run.manifest.vocab_size}
    weights = checkpoint.save_checkpoint(folder, run.model.state_dict(), facts)
    method = run.config.method[run.method_name]
    tokenizer = run.artifacts.path(run.manifest.tokenizer)
    masks = figure2_masks(run.model, validation, method, run.config, tokenizer)
    write_json(folder / "figure2.json", masks.to_json())
    row = Checkpoint(
        method=run.method_name, pretrain_seed=run.seed, step=run.step, path=name, fingerprint=weights,
        tokens=run.tokens, flops=run.flops, seconds=round(run.seconds, 3), device=device_name(run.device),
        validation_loss=loss,
    )  # fmt: skip
    files = run.artifacts.checksums([folder / checkpoint.TENSORS, folder / checkpoint.FACTS, folder / "figure2.json"])
    stamp = fingerprint(run.fingerprint, run.step)
    run.artifacts.publish(Marker(name, stamp, row.to_json(), files, round(run.seconds, 3), library_versions()))
    return masks


def _save_resume(run: Run) -> None:
    tensors = {f"model.{name}": tensor for name, tensor in run.model.state_dict().items()}
    tensors |= optimizer_state(run.model, run.optimizer)
    facts = {"step": run.step, "tokens": run.tokens, "flops": run.flops, "seconds": run.seconds}
    checkpoint.save_checkpoint(run.rolling / checkpoint.rolling_name(run.step), tensors, facts)
    checkpoint.prune_checkpoints(run.rolling, run.config.pretrain.keep_checkpoints)


def resume(run: Run) -> None:
    """Puts `run` where its newest undamaged checkpoint stands; leaves it at step 0 if there is none."""
    found = checkpoint.newest_checkpoint(run.rolling)
    if found is None:
        return
    tensors, facts, run.warnings = found
    run.model.load_state_dict({n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")})
    run.model.to(run.device)
    run.step, run.tokens, run.flops, run.seconds = (facts[n] for n in ("step", "tokens", "flops", "seconds"))
    restore_optimizer(run.model, run.optimizer, tensors)


@contextmanager
def stop_requested() -> Iterator[Any]:
    """Yields a function that tells whether SIGTERM has come since; the loop then saves and leaves."""
    flag = False

    def request(signum: int, frame: Any) -> None:
        nonlocal flag
        flag = True

    before = signal.signal(signal.SIGTERM, request)
    try:
        yield lambda: flag
    finally:
        signal.signal(signal.SIGTERM, before)
