"""Importance weights: factors on the losses of masked positions that correct for non-uniform masks.

Shapes: B sequences, K masked positions per sequence (`valid_BK` marks the valid ones).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mapnet_cli.core import Registry
from mapnet_cli.masking.sampling import Masks


@dataclass(frozen=True)
class Drawn:
    """Masked positions of a batch in drawing order, and the number n of maskable positions of each sentence."""

    log_q_BK: Tensor
    valid_BK: Tensor
    n_B: Tensor
    log_pi_BK: Tensor | None = None  # log inclusion probabilities in float64, if the sampler knows them
    log_rest_B: Tensor | None = None  # log of the total probability of the positions that were not drawn

    @staticmethod
    def of(masks: Masks, n_B: Tensor) -> "Drawn":
        """Returns the draws of `masks`. Masks without a proposal are treated as uniform."""
        log_q_BK, log_rest_B = masks.log_q_BK, masks.log_rest_B
        if log_q_BK is None:
            log_q_BK = -torch.log(n_B.clamp(min=1).float())[:, None].expand_as(masks.positions_BK)
            log_rest_B = torch.log((n_B - masks.valid_BK.sum(dim=1)).double() / n_B.clamp(min=1))
        return Drawn(log_q_BK, masks.valid_BK, n_B, masks.log_pi_BK, log_rest_B)


@dataclass(frozen=True)
class Weights:
    """Weight of each masked position's loss, and whether it was clipped."""

    weight_BK: Tensor
    clipped_BK: Tensor


@dataclass(frozen=True)
class Estimator:
    weigh: Callable[[Drawn, float], Weights]  # from the draws and ratio_clip
    clips: bool = False  # uses ratio_clip
    sequential: bool = False  # defined only for draws one after the other (sampler "gumbel")
    needs_pi: bool = False  # defined only for known inclusion probabilities (sampler "systematic")

    def __call__(self, drawn: Drawn, clip: float) -> Weights:
        return self.weigh(drawn, clip)


def none(drawn: Drawn, clip: float) -> Weights:
    """Returns weight 1 for every position, whatever the proposal."""
    return Weights(torch.ones(drawn.valid_BK.shape, device=drawn.n_B.device), torch.zeros_like(drawn.valid_BK))


def sequence_ratio(drawn: Drawn, clip: float) -> Weights:
    """Returns the paper's r = (1/n)^K / prod_k q(pos_k) per sentence, clipped to [1 - clip, 1 + clip] (section 3.3)."""
    return _clipped(log_sequence_ratio(drawn)[:, None], clip, drawn)


def ordered_ratio(drawn: Drawn, clip: float) -> Weights:
    """Returns the clipped ratio of the probabilities of this ordered draw without replacement: uniform / proposal.

    Before clipping, its mean is 1, unlike that of the paper's product.
    """
    return _clipped(log_ordered_ratio(drawn)[:, None], clip, drawn)


def position_ratio(drawn: Drawn, clip: float) -> Weights:
    """Returns 1 / (n q_k) for each position, clipped, with pi_k / K for q_k if inclusion probabilities are known."""
    return _clipped(_log_position_ratio(drawn), clip, drawn)


def horvitz_thompson(drawn: Drawn, clip: float) -> Weights:
    """Returns K / (n pi_k), unclipped: the mean weighted loss is unbiased for the mean over all positions.

    Horvitz and Thompson 1952. Ignores that a position's loss depends on which other positions are masked.
    """
    assert drawn.log_pi_BK is not None
    return Weights(torch.exp(_log_position_ratio(drawn)).float(), torch.zeros_like(drawn.valid_BK))


def self_normalised(drawn: Drawn, clip: float) -> Weights:
    """Returns the unclipped position ratios divided by their mean over the sentence (Hajek's estimator)."""
    log_w_BK = _log_position_ratio(drawn).masked_fill(~drawn.valid_BK, -torch.inf)
    counts_B1 = drawn.valid_BK.sum(dim=1, keepdim=True)
    share_BK = torch.softmax(log_w_BK.masked_fill(counts_B1 == 0, 0.0), dim=1)
    return Weights((share_BK * counts_B1).float(), torch.zeros_like(drawn.valid_BK))


def log_sequence_ratio(drawn: Drawn) -> Tensor:
    """Returns log r [B] in float32. (1/n)^K underflows at n = 512, K = 77; its logarithm does not."""
    log_terms_BK = -drawn.log_q_BK - torch.log(drawn.n_B.clamp(min=1).float())[:, None]
    return torch.where(drawn.valid_BK, log_terms_BK, 0.0).sum(dim=1)


def log_ordered_ratio(drawn: Drawn) -> Tensor:
    """Returns the log of prod_k [1 / (n - k + 1)] / [q_k / (q_k + ... + q_K + rest)], [B]."""
    assert drawn.log_rest_B is not None
    log_q_BK = drawn.log_q_BK.double().masked_fill(~drawn.valid_BK, -torch.inf)
    # the mass remaining before each draw: its own, that of later draws, and that of undrawn positions
    behind_BK = torch.cat([log_q_BK, drawn.log_rest_B.double()[:, None]], dim=1).flip(1)
    left_BK = torch.logcumsumexp(behind_BK, dim=1).flip(1)[:, :-1]
    draw_K = torch.arange(log_q_BK.shape[1], device=log_q_BK.device)
    places_BK = (drawn.n_B[:, None] - draw_K).clamp(min=1)
    log_terms_BK = left_BK - log_q_BK - places_BK.double().log()
    return torch.where(drawn.valid_BK, log_terms_BK, 0.0).sum(dim=1).float()


def _log_position_ratio(drawn: Drawn) -> Tensor:
    """Returns log 1/(n q), or log K/(n pi) where pi is known, [B, K] in float64."""
    log_share_BK = drawn.log_q_BK.double()
    if drawn.log_pi_BK is not None:
        counts_B1 = drawn.valid_BK.sum(dim=1, keepdim=True).clamp(min=1)
        log_share_BK = drawn.log_pi_BK.double() - counts_B1.double().log()
    log_ratio_BK = -log_share_BK - torch.log(drawn.n_B.clamp(min=1).double())[:, None]
    return torch.where(drawn.valid_BK, log_ratio_BK, 0.0)


def _clipped(log_ratio_BK: Tensor, clip: float, drawn: Drawn) -> Weights:
    low, high = max(1 - clip, 0.0), 1 + clip
    ratio_BK = torch.exp(log_ratio_BK).float().expand_as(drawn.valid_BK)
    return Weights(ratio_BK.clamp(low, high), ((ratio_BK < low) | (ratio_BK > high)) & drawn.valid_BK)


_OWN = {
    "none": Estimator(none),
    "sequence-ratio": Estimator(sequence_ratio, clips=True, sequential=True),
    "ordered-ratio": Estimator(ordered_ratio, clips=True, sequential=True),
    "position-ratio": Estimator(position_ratio, clips=True),
    "horvitz-thompson": Estimator(horvitz_thompson, needs_pi=True),
    "self-normalised": Estimator(self_normalised),
}
ESTIMATORS = Registry("estimators", Estimator, ("weigh",), _OWN)
