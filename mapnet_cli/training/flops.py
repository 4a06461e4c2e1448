"""What training costs: floating-point operations, counted from the shapes, and memory."""

import resource
import sys
from dataclasses import dataclass

import torch

from mapnet_cli.config import Config, Transformer

TRAIN = 3
"""Passes of a training step: one forward, and a backward pass that costs twice as much."""


def stack_flops(config: Transformer, length: int, asked: float | None = None) -> float:
    """Returns the forward FLOPs of the layers for one sequence: matrices, and attention over `length`.

    `asked` positions, all if None, are all that the last layer computes beside keys and values.
    """
    asked = length if asked is None else asked
    keys_values = 2 * 2 * config.hidden**2
    others = 2 * (2 * config.hidden**2 + 2 * config.hidden * config.ffn) + 2 * 2 * length * config.hidden
    return float((config.layers - 1) * length * (keys_values + others) + length * keys_values + asked * others)


def head_flops(config: Transformer, vocab_size: int, positions: float) -> float:
    """Returns the forward FLOPs of the MLM head at `positions` positions."""
    return 2.0 * positions * config.hidden * (config.hidden + vocab_size)


def proposal_flops(encoder: Transformer, proposal: Transformer, length: int) -> float:
    """Returns the forward FLOPs of MAP-Net for one sequence."""
    return stack_flops(proposal, length) + 2.0 * length * encoder.hidden * proposal.hidden


@dataclass(frozen=True)
class Work:
    """What of a step's work its plan decides."""

    mask_rate: float
    proposal_passes: float = TRAIN
    """MAP-Net's, in forward passes (0: it rests)."""
    learns: bool = True
    """The proposal's signal is computed."""


def step_flops(
    encoder: Transformer, proposal: Transformer | None, vocab_size: int, batch: int, length: int, work: Work
) -> float:
    """Returns the FLOPs of one training step on `batch` sequences; `proposal` is None if there is no MAP-Net."""
    masked = work.mask_rate * length
    sequence = TRAIN * (stack_flops(encoder, length, masked) + head_flops(encoder, vocab_size, masked))
    if proposal:
        sequence += work.proposal_passes * proposal_flops(encoder, proposal, length)
    return batch * sequence


def electra_flops(
    encoder: Transformer, generator: Transformer, vocab_size: int, batch: int, length: int, mask_rate: float
) -> float:
    """Returns the FLOPs of one training step of ELECTRA: the encoder and its head work at every position."""
    masked = mask_rate * length
    generating = stack_flops(generator, length, masked) + 2.0 * length * encoder.hidden * generator.hidden
    generating += 2.0 * masked * encoder.hidden * (generator.hidden + vocab_size)
    detecting = stack_flops(encoder, length) + 2.0 * length * encoder.hidden * (encoder.hidden + 1)
    return TRAIN * batch * (generating + detecting)


def method_flops(config: Config, name: str, vocab_size: int, batch: int, length: int, work: Work) -> float:
    """Returns the FLOPs of a training step of one of the config's methods."""
    method, generator = config.method[name], config.generator(name)
    if generator is not None:
        return electra_flops(config.encoder, generator, vocab_size, batch, length, work.mask_rate)
    flops = step_flops(config.encoder, config.proposal if method.mapnet else None, vocab_size, batch, length, work)
    if (
        work.learns and method.learned and method.learned.signal == "logit-gradient"
    ):  # the probabilities times the embeddings
        flops += 2.0 * batch * work.mask_rate * length * vocab_size * config.encoder.hidden
    return flops


def forget_peak_memory(device: torch.device) -> None:
    """Makes `peak_memory_mb` begin again, where the system can: a GPU's does, a process's own does not."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_mb(device: torch.device) -> float:
    """Returns the most memory that this process has held so far, in MB: the GPU's, or its own."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1024**2
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)
