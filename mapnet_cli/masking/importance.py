"""Importance weights: what a sequence's loss is multiplied with because its masks were not uniform.

Shapes: B sequences, K masked positions of a sequence (`valid_BK` says which count).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Drawn:
    """The draws of a batch: log q of each drawn position, and the number n of maskable positions."""

    log_q_BK: Tensor
    valid_BK: Tensor
    n_B: Tensor


@dataclass(frozen=True)
class Weights:
    """Weight of each sequence's loss, and where it was clipped."""

    weight_B: Tensor
    clipped_B: Tensor


def none(drawn: Drawn, clip: float) -> Weights:
    """Weight 1: the loss of the masks as they fell, whatever their proposal."""
    ones_B = torch.ones_like(drawn.n_B, dtype=torch.float32)
    return Weights(ones_B, torch.zeros_like(ones_B, dtype=torch.bool))


def sequence_ratio(drawn: Drawn, clip: float) -> Weights:
    """The paper's r = (1/n)^K / prod_k q(pos_k), clipped to [1 - clip, 1 + clip] (section 3.3)."""
    log_r_B = log_sequence_ratio(drawn)
    low, high = max(1 - clip, 0.0), 1 + clip
    ratio_B = torch.exp(log_r_B)
    return Weights(ratio_B.clamp(low, high), (ratio_B < low) | (ratio_B > high))


def log_sequence_ratio(drawn: Drawn) -> Tensor:
    """Returns log r [B] in float32. (1/n)^K underflows at n = 512, K = 77; its logarithm does not."""
    log_terms_BK = -drawn.log_q_BK - torch.log(drawn.n_B.clamp(min=1).float())[:, None]
    return torch.where(drawn.valid_BK, log_terms_BK, 0.0).sum(dim=1)


ESTIMATORS: dict[str, Callable[[Drawn, float], Weights]] = {
    "none": none,
    "sequence-ratio": sequence_ratio,
}
