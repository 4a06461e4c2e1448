"""The two losses of Algorithm 1: the encoder's (Eq. 5) and MAP-Net's (Eq. 10).

Shapes: B sequences, K masked positions of a sequence (`valid_BK` says which count).
"""

from collections.abc import Callable

import torch
from torch import Tensor


def encoder_loss(loss_BK: Tensor, valid_BK: Tensor, weight_B: Tensor, total_masked: Tensor | int) -> Tensor:
    """Returns Eq. 5: sum_b r_b sum_k l_bk / (number of masked positions), a scalar.

    The weight carries no gradient. `total_masked` counts the whole batch's positions, so that
    micro-batches add up to the batch.
    """
    return (weight_B.detach()[:, None] * torch.where(valid_BK, loss_BK, 0.0)).sum() / total_masked


def pairwise(log_q_BK: Tensor, loss_BK: Tensor, valid_BK: Tensor) -> Tensor:
    """Returns Eq. 10 for each sequence [B]: sum_k -log q(pos_k) (l_k - mean_k l).

    The losses carry no gradient. The coefficients of a sequence sum to zero.
    """
    loss_BK = torch.where(valid_BK, loss_BK.detach(), 0.0)
    mean_B1 = loss_BK.sum(dim=1, keepdim=True) / valid_BK.sum(dim=1, keepdim=True).clamp(min=1)
    advantage_BK = torch.where(valid_BK, loss_BK - mean_B1, 0.0)
    # -inf (nothing maskable) times 0 would be NaN
    return (-torch.where(valid_BK, log_q_BK, 0.0) * advantage_BK).sum(dim=1)


OBJECTIVES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"pairwise": pairwise}
