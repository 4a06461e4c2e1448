"""Masking strategies: where the masks of a batch go. One function each, one line in the table.

To add one, see docs/extend.md. Shapes: B sequences, L positions, K masked positions of a sequence.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mapnet_cli.masking.sampling import Masks, gumbel_top_k, uniform_log_q


@dataclass(frozen=True)
class MaskRequest:
    """What a strategy may look at. `log_q_BL` is MAP-Net's proposal, without gradient, where it exists."""

    tokens_BL: Tensor
    maskable_BL: Tensor
    counts_B: Tensor
    largest: int
    noise_BL: Tensor
    log_q_BL: Tensor | None = None


def uniform(request: MaskRequest) -> Masks:
    """Every set of K maskable positions is equally likely (the paper's RandMask)."""
    return gumbel_top_k(uniform_log_q(request.maskable_BL), request.counts_B, request.largest, request.noise_BL)


def mapnet(request: MaskRequest) -> Masks:
    """K positions drawn without replacement from MAP-Net's multinomial (section 3.3)."""
    assert request.log_q_BL is not None
    return gumbel_top_k(request.log_q_BL, request.counts_B, request.largest, request.noise_BL)


def spaced(request: MaskRequest) -> Masks:
    """A systematic sample: every n/K-th maskable position from a random offset on.

    Every position has inclusion probability K/n as under `uniform`, but masks keep their distance.
    """
    counts_B1, n_B1 = request.counts_B[:, None], request.maskable_BL.sum(dim=1, keepdim=True)
    draw_K = torch.arange(request.largest, device=counts_B1.device)
    place_BK = (draw_K + request.noise_BL[:, :1].double()) * n_B1 / counts_B1.clamp(min=1)
    place_BK = torch.minimum(place_BK.long(), (n_B1 - 1).clamp(min=0))
    maskable_first_BL = (~request.maskable_BL).int().argsort(dim=1, stable=True)
    return Masks(maskable_first_BL.gather(1, place_BK), draw_K < counts_B1)


@dataclass(frozen=True)
class Strategy:
    draw: Callable[[MaskRequest], Masks]
    needs_proposal: bool = False


STRATEGIES = {
    "uniform": Strategy(uniform),
    "spaced": Strategy(spaced),
    "mapnet": Strategy(mapnet, needs_proposal=True),
}
