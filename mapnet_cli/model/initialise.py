"""Initial weights, as BERT's and ModernBERT's."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mapnet_cli.config import Transformer
from mapnet_cli.core import derive_seed
from mapnet_cli.model.bert import Stack

EMBEDDING_STD = 0.02
SINUSOID_AMPLITUDE, SINUSOID_BASE = 0.05, 1000.0


def initialise(module: nn.Module, config: Transformer, generator: torch.Generator) -> None:
    """Initialises weights: embeddings N(0, 0.02), matrices N(0, init_std), biases 0, LayerNorm 1 and 0, as BERT does.

    ModernBERT truncates at two standard deviations, and that of matrices whose output is added to the residuals, and
    of the head's, is divided by sqrt(2 layers).
    """
    for name, part in module.named_modules():
        if isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, std=EMBEDDING_STD, generator=generator)
        elif isinstance(part, nn.Linear):
            if config.architecture == "bert":
                nn.init.normal_(part.weight, std=config.init_std, generator=generator)
            else:
                last = name.rpartition(".")[2] in ("out", "ffn_out", "dense")
                std = config.init_std / (math.sqrt(2 * config.layers) if last else 1)
                nn.init.trunc_normal_(part.weight, std=std, a=-2 * std, b=2 * std, generator=generator)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    for part in module.modules():
        if isinstance(part, Stack) and part.positions is not None and config.initial_positions == "sinusoidal":
            part.positions.weight.data.copy_(sinusoids(*part.positions.weight.shape))


def initialise_parts(seed: int, parts: Mapping[str, tuple[nn.Module, Transformer]]) -> None:
    """Initialises parts of a model by name, each from a generator of its own: adding one doesn't change the others."""
    for name, (part, config) in parts.items():
        initialise(part, config, torch.Generator().manual_seed(derive_seed(seed, "initial weights", name)))


def sinusoids(length: int, hidden: int) -> Tensor:
    """Returns [L, H]: sines in even columns and cosines in odd ones, with geometrically decreasing frequencies."""
    frequency_H = SINUSOID_BASE ** (-torch.arange(0, hidden, 2) / hidden)
    angle_LH = torch.arange(length)[:, None] * frequency_H
    both_LH = torch.stack([angle_LH.sin(), angle_LH.cos()], dim=2).reshape(length, -1)[:, :hidden]
    return SINUSOID_AMPLITUDE * both_LH
