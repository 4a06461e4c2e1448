"""The two losses of Algorithm 1: the encoder's (Eq. 5) and MAP-Net's (Eq. 10, or an alternative with a fixed point).

Shapes: B sequences, K masked positions per sequence (`valid_BK` marks the valid ones).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from mapnet_cli.config import MapNetProposal
from mapnet_cli.masking.sampling import Masks, conditional_log_q


def encoder_loss(loss_BK: Tensor, valid_BK: Tensor, weight_BK: Tensor, total_masked: Tensor | int) -> Tensor:
    """Returns Eq. 5: sum_b sum_k r_bk l_bk / (number of masked positions), a scalar.

    The weight carries no gradient. `total_masked` is the number of masked positions in the whole batch,
    so the losses of micro-batches add up to that of the batch.
    """
    return (weight_BK.detach() * torch.where(valid_BK, loss_BK, 0.0)).sum() / total_masked


def pairwise(log_q_BK: Tensor, signal_BK: Tensor, valid_BK: Tensor, baseline_B1: Tensor | None = None) -> Tensor:
    """Returns Eq. 10 for each sequence [B]: sum_k -log q(pos_k) (l_k - mean_k l), or with another baseline.

    The signal l (the loss in the paper) carries no gradient. The coefficients of a sequence sum to zero,
    so only a q with all of its mass at one position minimises the objective.
    """
    signal_BK = torch.where(valid_BK, signal_BK.detach(), 0.0)
    if baseline_B1 is None:
        baseline_B1 = signal_BK.sum(dim=1, keepdim=True) / valid_BK.sum(dim=1, keepdim=True).clamp(min=1)
    advantage_BK = torch.where(valid_BK, signal_BK - baseline_B1, 0.0)
    # -inf (nothing maskable) times 0 would be NaN
    return (-torch.where(valid_BK, log_q_BK, 0.0) * advantage_BK).sum(dim=1)


def mean_of_others(signal_BK: Tensor, valid_BK: Tensor) -> Tensor:
    """Returns the mean signal [B, 1] over the other sentences' masks, a baseline that a sentence's draw can't affect.

    With the log-probabilities of the draws given the earlier ones (`sampling.conditional_log_q`) for log q, it leaves
    the expected gradient of `pairwise` as it is without a baseline, which a sentence's own mean doesn't.
    """
    signal_B1 = torch.where(valid_BK, signal_BK.detach(), 0.0).sum(dim=1, keepdim=True)
    counts_B1 = valid_BK.sum(dim=1, keepdim=True)
    return (signal_B1.sum() - signal_B1) / (counts_B1.sum() - counts_B1).clamp(min=1)


def entropy(log_q_BL: Tensor, maskable_BL: Tensor) -> Tensor:
    """Returns the entropy of each sentence's proposal [B], in nats."""
    return -(log_q_BL.exp() * log_q_BL.masked_fill(~maskable_BL, 0.0)).sum(dim=1)


def loss_matching(log_q_BK: Tensor, signal_BK: Tensor, valid_BK: Tensor) -> Tensor:
    """Returns the cross-entropy [B] between the normalised signal and q, both restricted to the masked positions.

    The signal carries no gradient. The fixed point is q proportional to the signal, for any distribution
    of masks (a listwise ranking loss; Cao et al. 2007).
    """
    signal_BK = torch.where(valid_BK, signal_BK.detach(), 0.0)
    share_BK = signal_BK / signal_BK.sum(dim=1, keepdim=True).clamp(min=torch.finfo(signal_BK.dtype).tiny)
    masked_BK = torch.where(valid_BK, log_q_BK, -torch.inf)
    # a row without masks is all -inf: its softmax would be NaN
    log_here_BK = torch.log_softmax(torch.where(valid_BK.any(dim=1, keepdim=True), masked_BK, 0.0), dim=1)
    return -(share_BK * torch.where(valid_BK, log_here_BK, 0.0)).sum(dim=1)


def mapnet_loss(
    settings: MapNetProposal, log_q_BL: Tensor, maskable_BL: Tensor, masks: Masks, signal_BK: Tensor, learned_BK: Tensor
) -> Tensor:
    """Returns MAP-Net's loss for each sequence [B], learned from the masks where `learned_BK` is True."""
    log_q_BK = log_q_BL.gather(1, masks.positions_BK)
    if settings.baseline == "batch":
        log_q_BK = conditional_log_q(log_q_BK, masks.valid_BK)
        loss_B = pairwise(log_q_BK, signal_BK, learned_BK, mean_of_others(signal_BK, learned_BK))
    else:
        loss_B = OBJECTIVES[settings.objective](log_q_BK, signal_BK, learned_BK)
    bonus = settings.entropy_bonus
    return loss_B - bonus * entropy(log_q_BL, maskable_BL) if bonus else loss_B


OBJECTIVES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "pairwise": pairwise,
    "loss-matching": loss_matching,
}
