"""Cost estimates for `mapnet pretrain --dry-run`: FLOPs, time at a rate measured now, memory, disk."""

import math
import time
from contextlib import nullcontext

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from mapnet_cli.config import Config
from mapnet_cli.core import TRAINING_BYTES, format_duration, format_size, main_memory
from mapnet_cli.masking import ProposalWork, StepPlan, max_mask_count, plan_step
from mapnet_cli.model import AnyPretrainingModel, as_on_gpu, build_model, padded_vocabulary
from mapnet_cli.pretrain.batches import sample_batch
from mapnet_cli.pretrain.electra import build_losses
from mapnet_cli.pretrain.segments import segments
from mapnet_cli.pretrain.step import Algorithm1, Losses, work_of
from mapnet_cli.training import Work, choose_device, device_name, method_flops, precision_advice

SAMPLED_STEPS = 2_000  # number of steps, spread over the run, from whose plans the total FLOPs are estimated
ENOUGH_SECONDS = 1.0  # once a measured step takes this long, no larger batch is tried


def forecast(config: Config, vocab_size: int, processes: int, side_by_side: int, threads: int) -> list[str]:
    """Returns the lines that `--dry-run` prints, for runs of `processes` processes with `threads` CPU threads each."""
    pretrain, length = config.pretrain, config.corpus.block_length
    device = choose_device(pretrain.device)
    torch.set_num_threads(threads)
    steps = segments(pretrain)[-1].end
    branches = f", {steps - pretrain.milestone_steps()[-1]:,} of them in branches" if pretrain.schedule == "wsd" else ""
    parallel = f"; {side_by_side} runs in parallel" if side_by_side > 1 else ""
    lines = [
        f"{steps:,} steps of {pretrain.batch_size} x {length}: at most {steps * pretrain.batch_size * length:,} tokens "
        f"per run{branches}, unless a method has its own steps or batch size; rates measured now on "
        f"{device_name(device)}, in {pretrain.precision}{parallel}",
        *precision_advice(device, pretrain.precision, "pretrain"),
    ]
    total, longest, first = 0.0, 0.0, 0.0
    for name in config.methods:
        own = config.for_method(name)
        settings, parts = own.pretrain, segments(own.pretrain)
        share = settings.micro_batch_size or settings.batch_size // processes
        model = build_model(own, name, vocab_size)
        flops, parameters = training_flops(own, name, vocab_size), sum(p.numel() for p in model.parameters())
        rate, batch = _measure(own, name, model.to(device), device, share)
        seconds = flops * parts[-1].end / parts[-1].last / rate / processes
        fixed, memory, activations = TRAINING_BYTES * parameters, [], dict[str, tuple[float, float]]()
        for precision in ("bfloat16", "float32"):
            once, each = activation_bytes(own, name, vocab_size, precision, device.type == "cuda")
            activations[precision] = once, each
            needed = format_size(fixed + once + share * each)
            memory.append(f"{needed} in {precision} ({format_size(each)} per sequence)")
        # milestones have weights, resume checkpoints also Adam's moments: one more is being written, and with
        # branches the beginning of one is kept, too
        resume = settings.keep_checkpoints + 1 + (settings.schedule == "wsd")
        disk = parameters * (4 * len(settings.milestone_steps()) + 12 * resume)
        lines += [
            f"{name}: {flops:.3g} FLOPs in {settings.steps:,} steps, about {format_duration(seconds)} with {processes} "
            f"process{'es' if processes > 1 else ''} at {rate:.3g} FLOP/s (measured with a batch size of {batch})",
            f"{name}: memory with {share} sequences per pass: about {', '.join(memory)}; {format_size(fixed)} of it "
            f"is for {parameters:,} weights, their gradients and Adam's moments",
            *too_much(fixed, activations[settings.precision], share, processes * side_by_side, device),
            f"{name}: disk: {format_size(disk)} per run, for milestones and resume checkpoints",
        ]
        total, longest = total + seconds * len(config.seeds_of(name)), max(longest, seconds)
        first = first or flops
        if not math.isclose(flops, first, rel_tol=0.01):
            equal = round(settings.steps * first / flops)
            lines.append(f"{name}: to match {config.methods[0]}'s FLOPs, set method.{name}.steps={equal}")
    if len(config.pretraining_runs()) > 1:
        together = format_duration(max(total / side_by_side, longest))
        lines.append(f"all {len(config.pretraining_runs())} runs, including finished ones: about {together}")
    return lines


def too_much(
    fixed: float, activations: tuple[float, float], share: int, processes: int, device: torch.device
) -> list[str]:
    """Returns a warning if the processes need more memory than is free, and the sequences per pass that fit."""
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0] / math.ceil(processes / torch.cuda.device_count())
    else:
        free = main_memory()[1] / processes
    once, each = activations
    if not free or fixed + once + share * each <= free:
        return []
    fits = int((free - fixed - once) / each)
    advice = f"set pretrain.micro_batch_size={fits}" if fits > 0 else "use fewer --workers, or a smaller encoder"
    return [f"warning: only {format_size(free)} of memory is free for each process: {advice}"]


def training_flops(config: Config, name: str, vocab_size: int) -> float:
    """Returns the FLOPs of a run up to its last milestone, without other branches, assuming full blocks."""
    steps = max(config.pretrain.milestone_steps())
    sampled = range(0, steps, max(1, steps // SAMPLED_STEPS))
    work = [work_of(plan_step(config.method[name], 1, step, config.pretrain.steps)) for step in sampled]
    batch_size, length = config.pretrain.batch_size, config.corpus.block_length
    total = sum(method_flops(config, name, vocab_size, batch_size, length, w) for w in work)
    return total / len(work) * steps


def _measure(
    config: Config, name: str, model: AnyPretrainingModel, device: torch.device, share: int
) -> tuple[float, int]:
    """Returns (FLOP/s, sequences); doubles the batch up to `share` while it fits in memory and takes under a second."""
    method, length = config.method[name], config.corpus.block_length
    losses = build_losses(model.train(), method, device, config.pretrain.precision)
    batch, rate, measured = 1, 0.0, 0
    while True:
        try:
            seconds = _step(config, losses, batch)
            if seconds < ENOUGH_SECONDS:  # the first step of each size includes warm-up
                seconds = min(seconds, _step(config, losses, batch))
        except torch.OutOfMemoryError:
            if not measured:
                raise
            return rate, measured
        work = method_flops(config, name, model.encoder.vocab_size, batch, length, Work(method.highest_rate))
        rate, measured = max(rate, work / seconds), batch
        if seconds > ENOUGH_SECONDS or batch >= share:
            return rate, measured
        batch = min(2 * batch, share)


def _step(config: Config, losses: Losses, size: int) -> float:
    """Returns the seconds that the gradients of one step take."""
    batch = sample_batch(size, config.corpus.block_length, losses.method.highest_rate)
    losses.zero_grad(set_to_none=True)
    start = time.perf_counter()
    sums = Algorithm1(losses, losses.device)(batch, _plan(losses))
    sums["loss"].item()  # waits for a GPU
    return time.perf_counter() - start


def _plan(losses: Losses) -> StepPlan:
    """Returns the plan of the most expensive kind of step."""
    work = ProposalWork.REST if losses.model.proposal is None else ProposalWork.LEARN
    return StepPlan(0, 0, True, work, losses.method.highest_rate)


def activation_bytes(config: Config, name: str, vocab_size: int, precision: str, gpu: bool) -> tuple[float, float]:
    """Returns the bytes that a forward pass keeps for the backward pass: (independent of the batch, per sequence).

    The former are the bfloat16 copies of the weights. The gradient of ELECTRA's logits, the largest tensor created in
    the backward pass, is counted too; that of other methods replaces the probabilities.
    """
    two, four = (_kept_bytes(config, name, vocab_size, precision, batch, gpu) for batch in (2, 4))
    slots = max_mask_count(config.corpus.block_length, config.method[name].highest_rate)
    gradient = slots * padded_vocabulary(vocab_size) * (6 if precision == "bfloat16" else 4)
    return 2.0 * two - four, (four - two) / 2 + gradient * bool(config.method[name].electra)


def _kept_bytes(config: Config, name: str, vocab_size: int, precision: str, batch: int, gpu: bool) -> int:
    """Returns the bytes kept, counted on fake tensors. For a GPU, attention keeps no L x L probabilities."""
    method = config.method[name]
    without = {"attention_dropout": 0.0} if gpu else {}  # with dropout, torch's CPU kernel keeps the probabilities
    parts = {part: getattr(config, part).model_copy(update=without) for part in ("encoder", "proposal")}
    part = sample_batch(batch, config.corpus.block_length, method.highest_rate).parts[0]
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()  # the data pointer of a fake tensor is 0
        return tensor

    with FakeTensorMode(allow_non_fake_inputs=True), as_on_gpu() if gpu else nullcontext():
        model = build_model(config.model_copy(update=parts), name, vocab_size)
        losses = build_losses(model.train(), method, torch.device("cpu"), precision)
        weights = {p.untyped_storage()._cdata for p in model.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss, _, _ = losses(part, _plan(losses))
        del loss
    return sum(size for storage, size in kept.items() if storage not in weights)
