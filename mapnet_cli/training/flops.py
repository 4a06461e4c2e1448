"""Cost of training: floating-point operations, counted from the shapes, and peak memory."""

import resource
import sys
from dataclasses import dataclass

import torch

from mapnet_cli.config import Config, Transformer

TRAIN = 3  # cost of a training step in forward passes: one forward pass, and a backward pass that costs two


def stack_flops(config: Transformer, length: float, outputs: float | None = None) -> float:
    """Returns the forward FLOPs of the layers for one sequence of `length`: matrix products and attention.

    The last layer computes keys and values at all positions, but the rest only at `outputs` positions (None: all).
    Local attention computes all scores, too.
    """
    outputs = length if outputs is None else outputs
    keys_values = 2 * 2 * config.hidden**2
    matrices = 2 if config.architecture == "bert" else 3  # of the feed-forward layers
    others = 2 * (2 * config.hidden**2 + matrices * config.hidden * config.ffn) + 2 * 2 * length * config.hidden
    return float((config.layers - 1) * length * (keys_values + others) + length * keys_values + outputs * others)


def head_flops(config: Transformer, vocab_size: int, positions: float) -> float:
    """Returns the forward FLOPs of the MLM head at `positions` positions."""
    return 2.0 * positions * config.hidden * (config.hidden + vocab_size)


@dataclass(frozen=True)
class Work:
    """The part of a step's work that depends on its plan."""

    mask_rate: float
    proposal_passes: float = TRAIN  # MAP-Net's cost in forward passes; 0 if it doesn't run


def step_flops(
    encoder: Transformer, proposal: Transformer | None, vocab_size: int, batch: int, length: float, work: Work
) -> float:
    """Returns the FLOPs of one training step on `batch` sequences; `proposal` is None if there is no MAP-Net."""
    masked = work.mask_rate * length
    sequence = TRAIN * (stack_flops(encoder, length, masked) + head_flops(encoder, vocab_size, masked))
    if proposal:
        proposing = stack_flops(proposal, length) + 2.0 * length * encoder.hidden * proposal.hidden
        sequence += work.proposal_passes * proposing
    return batch * sequence


def electra_flops(
    encoder: Transformer, generator: Transformer, vocab_size: int, batch: int, length: float, mask_rate: float
) -> float:
    """Returns the FLOPs of one training step of ELECTRA, whose encoder and head run at every position."""
    masked = mask_rate * length
    generating = stack_flops(generator, length, masked) + 2.0 * length * encoder.hidden * generator.hidden
    generating += 2.0 * masked * encoder.hidden * (generator.hidden + vocab_size)
    detecting = stack_flops(encoder, length) + 2.0 * length * encoder.hidden * (encoder.hidden + 1)
    return TRAIN * batch * (generating + detecting)


def method_flops(config: Config, name: str, vocab_size: int, batch: int, length: float, work: Work) -> float:
    """Returns the FLOPs of one training step of one of the config's methods, on sequences of a mean `length`."""
    method, generator = config.method[name], config.generator(name)
    if generator is not None:
        return electra_flops(config.encoder, generator, vocab_size, batch, length, work.mask_rate)
    return step_flops(config.encoder, config.proposal if method.mapnet else None, vocab_size, batch, length, work)


def reset_peak_memory(device: torch.device) -> None:
    """Resets `peak_memory_mb` on a GPU; the peak of CPU memory can't be reset."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_mb(device: torch.device) -> float:
    """Returns the peak memory of this process so far, in MB: GPU memory, or its resident set on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1024**2
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)
