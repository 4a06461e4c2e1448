"""What a pretraining will cost, said before it starts: FLOPs, hours at a rate measured now, memory, disk."""

import math
import time
from dataclasses import dataclass

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from mapnet_cli.config import Config
from mapnet_cli.core import format_size
from mapnet_cli.masking import ProposalWork, StepPlan, max_mask_count, plan_step
from mapnet_cli.model import AnyPretrainingModel, Attention, build_model, padded_vocabulary
from mapnet_cli.pretrain.batches import sample_batch
from mapnet_cli.pretrain.electra import build_losses
from mapnet_cli.pretrain.step import Algorithm1, Losses, work_of
from mapnet_cli.training import Work, choose_device, device_name, method_flops, precision_advice, resolve_precision

PROBES = 2_000
"""Steps, spread over the training, whose plans stand for all."""
ENOUGH = 1.0
"""Seconds of a measured step after which no larger one is tried."""
OPTIMISER_BYTES = 16
"""A float32 weight, its gradient and Adam's two moments."""


@dataclass(frozen=True)
class Cost:
    """Of one method's training with one seed."""

    flops: float
    parameters: int
    flops_per_second: float
    """Of one process, measured now."""
    measured_batch: int
    """Sequences of the measured step."""
    activations: dict[str, tuple[float, float]]
    """By precision: bytes kept for the backward pass whatever the batch, and a sequence."""


def forecast(config: Config, vocab_size: int, processes: int, side_by_side: int, threads: int) -> list[str]:
    """Returns the lines that `--dry-run` prints, for trainings of `processes` processes with `threads` CPU threads."""
    pretrain, length = config.pretrain, config.corpus.block_length
    device = choose_device(pretrain.device)
    torch.set_num_threads(threads)
    steps, share = max(pretrain.milestone_steps()), pretrain.micro_batch_size or pretrain.batch_size // processes
    beside = f"; {side_by_side} trainings run side by side" if side_by_side > 1 else ""
    own = ", unless a method has steps of its own" if any(config.method[m].steps for m in config.methods) else ""
    lines = [
        f"{steps:,} steps of {pretrain.batch_size} x {length}: at most {steps * pretrain.batch_size * length:,} "
        f"tokens a training{own}; rates measured now on {device_name(device)}, in "
        f"{resolve_precision(device, pretrain.precision)}{beside}",
        *precision_advice(device, pretrain.precision, "pretrain"),
    ]
    total, longest, first = 0.0, 0.0, 0.0
    for name in config.methods:
        cost = cost_of(config.of(name), name, vocab_size, device, share)
        hours = cost.flops / cost.flops_per_second / processes / 3600
        fixed = OPTIMISER_BYTES * cost.parameters
        memory = ", ".join(
            f"{format_size(fixed + once + share * each)} in {precision} ({format_size(each)} a sequence)"
            for precision, (once, each) in cost.activations.items()
        )
        own = f" in {config.method[name].steps:,} steps" if config.method[name].steps else ""
        lines += [
            f"{name}: {cost.flops:.3g} FLOPs{own}, about {hours:,.3g} hours with {processes} process"
            f"{'es' if processes > 1 else ''} at {cost.flops_per_second:.3g} FLOP/s (measured with "
            f"{cost.measured_batch} sequences a pass)",
            f"{name}: memory at {share} sequences a pass about {memory}; {format_size(fixed)} of it are "
            f"{cost.parameters:,} weights, their gradients and Adam",
            f"{name}: disk {format_size(_disk(config, cost))} a training, for milestones and resume checkpoints",
        ]
        total, longest = total + hours * len(config.seeds_of(name)), max(longest, hours)
        first = first or cost.flops
        if not math.isclose(cost.flops, first, rel_tol=0.01):
            equal = round(config.of(name).pretrain.steps * first / cost.flops)
            lines.append(f"{name}: at {config.methods[0]}'s FLOPs with method.{name}.steps={equal}")
    if len(config.trainings()) > 1:
        together = max(total / side_by_side, longest)
        lines.append(f"all {len(config.trainings())} trainings, finished ones included: about {together:,.3g} hours")
    return lines


def cost_of(config: Config, name: str, vocab_size: int, device: torch.device, share: int) -> Cost:
    """Returns what a training costs; runs steps of up to `share` sequences to find the rate."""
    model = build_model(config, name, vocab_size)
    rate, batch = _measure(config, name, model.to(device), device, share)
    return Cost(
        training_flops(config, name, vocab_size), sum(p.numel() for p in model.parameters()), rate, batch,
        {precision: activation_bytes(config, name, vocab_size, precision) for precision in ("bfloat16", "float32")},
    )  # fmt: skip


def training_flops(config: Config, name: str, vocab_size: int) -> float:
    """Returns a training's FLOPs on full blocks."""
    steps = max(config.pretrain.milestone_steps())
    probes = range(0, steps, max(1, steps // PROBES))
    work = [work_of(plan_step(config.method[name], 1, step, config.pretrain.steps)) for step in probes]
    batch_size, length = config.pretrain.batch_size, config.corpus.block_length
    total = sum(method_flops(config, name, vocab_size, batch_size, length, w) for w in work)
    return total / len(work) * steps


def _measure(
    config: Config, name: str, model: AnyPretrainingModel, device: torch.device, share: int
) -> tuple[float, int]:
    """Returns FLOP/s of steps as large as they may be, as fit, or as take a second, and their sequences."""
    losses = build_losses(model.train(), config.method[name], device, config.pretrain.precision)
    batch, rate, measured = 1, 0.0, 0
    while True:
        try:
            seconds = _step(config, losses, batch)
            if seconds < ENOUGH:  # the first of a size also warms up
                seconds = min(seconds, _step(config, losses, batch))
        except torch.OutOfMemoryError:
            if not measured:
                raise
            return rate, measured
        work = method_flops(
            config, name, model.encoder.vocab_size, batch, config.corpus.block_length,
            Work(losses.method.highest_rate),
        )  # fmt: skip
        rate, measured = max(rate, work / seconds), batch
        if seconds > ENOUGH or batch >= share:
            return rate, measured
        batch = min(2 * batch, share)


def _step(config: Config, losses: Losses, size: int) -> float:
    """Returns the seconds of one step's gradients."""
    batch = sample_batch(size, config.corpus.block_length, losses.method.highest_rate)
    losses.zero_grad(set_to_none=True)
    start = time.perf_counter()
    sums = Algorithm1(losses, losses.device)(batch, _plan(losses))
    sums["loss"].item()  # waits for a GPU
    return time.perf_counter() - start


def _plan(losses: Losses) -> StepPlan:
    """Returns the plan of a step with all there is to do."""
    work = ProposalWork.REST if losses.model.proposal is None else ProposalWork.LEARN
    return StepPlan(0, 0, True, work, losses.method.highest_rate)


def activation_bytes(config: Config, name: str, vocab_size: int, precision: str) -> tuple[float, float]:
    """Returns the bytes that a forward pass keeps for the backward pass: (whatever the batch, a sequence).

    The former are the weights' copies in bfloat16. The logits' gradient, the largest thing that only the backward
    pass makes, is counted too. bfloat16 is as on a GPU; on a CPU attention keeps float32, so there it is more.
    """
    two, four = (_kept_bytes(config, name, vocab_size, precision, batch) for batch in (2, 4))
    slots = max_mask_count(config.corpus.block_length, config.method[name].highest_rate)
    gradient = slots * padded_vocabulary(vocab_size) * (6 if precision == "bfloat16" else 4)
    return 2.0 * two - four, (four - two) / 2 + gradient


def _kept_bytes(config: Config, name: str, vocab_size: int, precision: str, batch: int) -> int:
    """Counts on a graph without data. Attention is as in the flash kernels, which keep no L x L probabilities."""
    method = config.method[name]
    without = {"attention_dropout": 0.0}  # with dropout, the CPU's kernel would keep the probabilities
    parts = {part: getattr(config, part).model_copy(update=without) for part in ("encoder", "proposal")}
    part = sample_batch(batch, config.corpus.block_length, method.highest_rate).parts[0]
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()  # its address would be 0: there is no data
        return tensor

    with FakeTensorMode(allow_non_fake_inputs=True):
        model = build_model(config.model_copy(update=parts), name, vocab_size)
        for module in model.modules():
            if isinstance(module, Attention):
                module.float32_on_cpu = False
        losses = build_losses(model.train(), method, torch.device("cpu"), precision)
        weights = {p.untyped_storage()._cdata for p in model.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss, _, _ = losses(part, _plan(losses))
        del loss
    return sum(size for storage, size in kept.items() if storage not in weights)


def _disk(config: Config, cost: Cost) -> float:
    """Returns bytes: milestones hold the weights, resume checkpoints Adam's moments too; one is being written."""
    pretrain = config.pretrain
    return cost.parameters * (4 * len(pretrain.milestone_steps()) + 12 * (pretrain.keep_checkpoints + 1))
