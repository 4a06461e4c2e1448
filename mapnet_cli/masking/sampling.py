"""Sampling of positions without replacement, and corruption of the tokens at them.

All functions are pure: randomness is passed in as `MaskNoise`, drawn once for a whole batch, so masks
don't depend on the device, micro-batches or number of processes.

Shapes: B sequences, L positions, K masked positions per sequence (at most; `valid_BK` marks the valid ones).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mapnet_cli.text import FIRST_ORDINARY, MASK

BELOW_ONE = 1 - 2.0**-24


@dataclass(frozen=True)
class MaskNoise:
    """Uniform random numbers in [0, 1) for one batch."""

    rounding_B: Tensor
    order_BL: Tensor
    action_BL: Tensor
    token_BL: Tensor

    @staticmethod
    def draw(generator: torch.Generator, batch: int, length: int) -> "MaskNoise":
        def uniform(*shape: int) -> Tensor:
            # a float64 draw just below 1 can round to 1 in float32
            return torch.rand(*shape, generator=generator, dtype=torch.float64).float().clamp(max=BELOW_ONE)

        return MaskNoise(uniform(batch), *(uniform(batch, length) for _ in range(3)))

    def map(self, function: Callable[[Tensor], Tensor]) -> "MaskNoise":
        """Returns the noise with `function` applied to each tensor, e.g. to select rows or copy them to a GPU."""
        return MaskNoise(*map(function, (self.rounding_B, self.order_BL, self.action_BL, self.token_BL)))


@dataclass(frozen=True)
class Masks:
    """Masked positions in drawing order; entries where `valid_BK` is False are ignored."""

    positions_BK: Tensor
    valid_BK: Tensor
    log_q_BK: Tensor | None = None
    """Log-probability of each position under the distribution that it was drawn from, if there is one."""
    log_pi_BK: Tensor | None = None
    """Log inclusion probability of each position in float64, if the sampler knows it."""
    log_rest_B: Tensor | None = None
    """Log of the total probability of the positions that were not drawn, for sequential draws."""

    def masked(self, like_BL: Tensor) -> Tensor:
        """Returns True at the masked positions of tensors of this shape [B, L]."""
        # Invalid entries also hold positions, which they must not select, so add instead of assigning.
        zeros_BL = torch.zeros_like(like_BL, dtype=torch.int32)
        return zeros_BL.scatter_add(1, self.positions_BK, self.valid_BK.int()) > 0


def maskable_positions(tokens_BL: Tensor) -> Tensor:
    """Returns True where a token may be masked: neither a special token nor padding."""
    return tokens_BL >= FIRST_ORDINARY


def max_mask_count(length: int, rate: float) -> int:
    """Returns an upper bound on the number of masked positions in a sequence of `length` positions."""
    return max(1, min(length, math.floor(rate * length) + 1))


def mask_counts(maskable_BL: Tensor, rate: float, rounding_B: Tensor) -> Tensor:
    """Returns K [B]: `rate` x maskable positions, randomly rounded to an exact mean, at least 1 (as in fairseq)."""
    n_B = maskable_BL.sum(dim=1)
    k_B = (rate * n_B + rounding_B).long()
    return torch.minimum(k_B.clamp(min=1), n_B)


def valid_slots(counts_B: Tensor, max_masks: int) -> Tensor:
    """Returns the flat indices [N] of the valid slots in [B, `max_masks`]; N is the sum of the counts."""
    valid_BK = torch.arange(max_masks) < counts_B[:, None]
    return valid_BK.flatten().nonzero().squeeze(1)


def uniform_log_q(maskable_BL: Tensor) -> Tensor:
    """Returns log 1/n at the n maskable positions of each row, -inf elsewhere."""
    n_B1 = maskable_BL.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.where(maskable_BL, -torch.log(n_B1.float()), -torch.inf)


def mixed_with_uniform(log_q_BL: Tensor, maskable_BL: Tensor, share: float) -> Tensor:
    """Returns the log of share/n + (1 - share) q: a defensive mixture (Hesterberg 1995)."""
    if share == 0:
        return log_q_BL
    both = torch.stack([uniform_log_q(maskable_BL) + math.log(share), log_q_BL + math.log1p(-min(share, 1 - 1e-9))])
    # logsumexp of -inf and -inf has a NaN gradient, but not a NaN value, and no gradient is needed
    return torch.logsumexp(both, dim=0)


def gumbel_top_k(log_q_BL: Tensor, counts_B: Tensor, max_masks: int, noise_BL: Tensor) -> Masks:
    """Returns `counts_B` positions per row, drawn sequentially from q without replacement.

    Taking the largest values of log q plus Gumbel noise is equivalent (Kool et al. 2019): the k-th
    largest is the k-th draw from q restricted to the remaining positions.
    """
    tiny = torch.finfo(noise_BL.dtype).tiny
    gumbel_BL = -torch.log((-torch.log(noise_BL.clamp(min=tiny))).clamp(min=tiny))
    positions_BK = (log_q_BL + gumbel_BL).topk(max_masks, dim=1).indices
    valid_BK = torch.arange(max_masks, device=log_q_BL.device) < counts_B[:, None]
    return Masks(positions_BK, valid_BK, log_q_BL.gather(1, positions_BK))


def mixed(explore_B: Tensor, uniform: Masks, proposed: Masks) -> Masks:
    """Returns the positions of `uniform` where a sentence explores, else `proposed`'s, whose probabilities it has."""
    return replace(proposed, positions_BK=torch.where(explore_B[:, None], uniform.positions_BK, proposed.positions_BK))


def conditional_log_q(log_q_BK: Tensor, valid_BK: Tensor) -> Tensor:
    """Returns the log-probability of each sequential draw given the earlier ones: log q_k - log(1 - q_1 ... - q_(k-1)).

    Their sum is the log-probability of the ordered draw without replacement.
    """
    q_BK = torch.where(valid_BK, log_q_BK, -torch.inf).exp()
    return log_q_BK - torch.log1p(-(q_BK.cumsum(dim=1) - q_BK).clamp(max=BELOW_ONE))


def log_undrawn(log_q_BL: Tensor, masks: Masks) -> Tensor:
    """Returns the log of the total q of the positions that were not drawn [B]; -inf if all were.

    Summed directly, since 1 minus the sum of the others cancels if q is nearly all at one position.
    """
    return torch.logsumexp(log_q_BL.masked_fill(masks.masked(log_q_BL), -torch.inf).double(), dim=1)


def inclusion_probabilities(log_q_BL: Tensor, maskable_BL: Tensor, counts_B: Tensor, uniform_mix: float) -> Tensor:
    """Returns pi [B, L] in float64: alpha K/n + (1 - alpha) min(1, c q), with c such that each row sums to K.

    alpha is `uniform_mix`. pi is at least alpha K/n, so the weight K/(n pi) is at most 1/alpha.
    """
    counts_B1 = counts_B[:, None].double()
    uniform_BL = maskable_BL * counts_B1 / maskable_BL.sum(dim=1, keepdim=True).clamp(min=1)
    # the floor keeps positions with near-zero q drawable if q supports fewer than K positions
    q_BL = torch.where(maskable_BL, log_q_BL.double().exp().clamp(min=1e-12), 0.0)
    sorted_BL = q_BL.sort(dim=1, descending=True).values
    # with the t most likely at 1, c is (K - t) / (sum of the others); t is the first with the next c q at most 1
    behind_BL = sorted_BL.flip(1).cumsum(1).flip(1)
    t_L = torch.arange(q_BL.shape[1], device=q_BL.device)
    c_BL = (counts_B1 - t_L).clamp(min=0) / behind_BL.clamp(min=torch.finfo(torch.float64).tiny)
    first_B1 = (c_BL * sorted_BL <= 1).int().argmax(dim=1, keepdim=True)
    pi_BL = (c_BL.gather(1, first_B1) * q_BL).clamp(max=1)
    # if all maskable positions are masked, rounding of c must not exclude any
    pi_BL = torch.where(uniform_BL >= 1, uniform_BL, pi_BL)
    return uniform_mix * uniform_BL + (1 - uniform_mix) * pi_BL


def systematic(pi_BL: Tensor, log_q_BL: Tensor, counts_B: Tensor, max_masks: int, noise_BL: Tensor) -> Masks:
    """Returns `counts_B` positions per row with inclusion probabilities exactly pi. Rows of pi sum to `counts_B`.

    Madow's systematic sampling: the probabilities are laid end to end on a line in random order, and
    each of the marks spaced 1 apart from a random start selects the position that it falls on.
    """
    order_BL = noise_BL.argsort(dim=1)
    ends_BL = pi_BL.gather(1, order_BL).cumsum(dim=1)
    total_B1 = ends_BL[:, -1:].clamp(min=torch.finfo(torch.float64).tiny)
    draw_K = torch.arange(max_masks, device=pi_BL.device)
    # the first position is [CLS], which is never masked, so its noise can serve as the start; the offset of
    # half a float32 noise step keeps marks away from the boundaries of certain positions
    marks_BK = (draw_K + noise_BL[:, :1].double() + 2.0**-25) * total_B1 / counts_B[:, None].clamp(min=1)
    places_BK = torch.searchsorted(ends_BL, marks_BK, right=True).clamp(max=pi_BL.shape[1] - 1)
    positions_BK = order_BL.gather(1, places_BK)
    valid_BK = draw_K < counts_B[:, None]
    log_pi_BK = pi_BL.gather(1, positions_BK).log()
    return Masks(positions_BK, valid_BK, log_q_BL.gather(1, positions_BK), log_pi_BK)


def corrupt(
    tokens_BL: Tensor, masks: Masks, noise: MaskNoise, vocab_size: int, replace_mask: float, replace_random: float
) -> Tensor:
    """Returns the tokens with each chosen position set to [MASK] or a random ordinary token, or left unchanged."""
    chosen_BL, ordinary = masks.masked(tokens_BL), vocab_size - FIRST_ORDINARY
    random_BL = FIRST_ORDINARY + (noise.token_BL * ordinary).long().clamp(max=ordinary - 1)
    to_mask_BL = chosen_BL & (noise.action_BL < replace_mask)
    to_random_BL = chosen_BL & ~to_mask_BL & (noise.action_BL < replace_mask + replace_random)
    return torch.where(to_mask_BL, MASK, torch.where(to_random_BL, random_BL, tokens_BL))
