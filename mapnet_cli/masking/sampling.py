"""Drawing positions without replacement, and what is written at them.

All functions are pure: randomness comes in as `MaskNoise`, drawn once for a whole batch, so that the
masks depend on neither device, micro-batches nor processes.

Shapes: B sequences, L positions, K masked positions of a sequence (at most; `valid_BK` says which count).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mapnet_cli.vocabulary import FIRST_ORDINARY, MASK


@dataclass(frozen=True)
class MaskNoise:
    """Uniform draws in [0, 1) for one batch."""

    rounding_B: Tensor
    order_BL: Tensor
    action_BL: Tensor
    token_BL: Tensor

    @staticmethod
    def draw(generator: torch.Generator, batch: int, length: int) -> "MaskNoise":
        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator, dtype=torch.float64).float()

        return MaskNoise(uniform(batch), *(uniform(batch, length) for _ in range(3)))

    def map(self, function: Callable[[Tensor], Tensor]) -> "MaskNoise":
        """Returns the draws with a function applied to each: some rows of them, or their copies on a GPU."""
        return MaskNoise(*map(function, (self.rounding_B, self.order_BL, self.action_BL, self.token_BL)))


@dataclass(frozen=True)
class Masks:
    """The chosen positions in the order of their drawing; entries where `valid_BK` is False don't count."""

    positions_BK: Tensor
    valid_BK: Tensor


def maskable_positions(tokens_BL: Tensor) -> Tensor:
    """Returns True where a token may be masked: not a special token, not padding."""
    return tokens_BL >= FIRST_ORDINARY


def largest_count(length: int, rate: float) -> int:
    """Returns an upper bound on the masks of a sequence of `length` positions."""
    return max(1, min(length, math.floor(rate * length) + 1))


def mask_counts(maskable_BL: Tensor, rate: float, rounding_B: Tensor) -> Tensor:
    """Returns K [B]: `rate` of the maskable positions, rounded up or down at random so that the mean is exact.

    At least 1 where anything can be masked (fairseq rounds the same way).
    """
    n_B = maskable_BL.sum(dim=1)
    k_B = (rate * n_B + rounding_B).long()
    return torch.minimum(k_B.clamp(min=1), n_B)


def valid_slots(counts_B: Tensor, largest: int) -> Tensor:
    """Returns the places [N] of the masked positions among B x `largest`, row by row; N is the counts' sum."""
    valid_BK = torch.arange(largest) < counts_B[:, None]
    return valid_BK.flatten().nonzero().squeeze(1)


def gumbel_top_k(log_q_BL: Tensor, counts_B: Tensor, largest: int, noise_BL: Tensor) -> Masks:
    """Returns `counts_B` positions a row, drawn one after the other from q without replacement.

    Adding Gumbel noise to log q and taking the largest is exactly that (Kool et al. 2019): the k-th
    largest is the k-th draw from q restricted to what is left.
    """
    tiny = torch.finfo(noise_BL.dtype).tiny
    gumbel_BL = -torch.log((-torch.log(noise_BL.clamp(min=tiny))).clamp(min=tiny))
    positions_BK = (log_q_BL + gumbel_BL).topk(largest, dim=1).indices
    valid_BK = torch.arange(largest, device=log_q_BL.device) < counts_B[:, None]
    return Masks(positions_BK, valid_BK)


def uniform_log_q(maskable_BL: Tensor) -> Tensor:
    """Returns log 1/n at the n maskable positions of each row, -inf elsewhere."""
    n_B1 = maskable_BL.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.where(maskable_BL, -torch.log(n_B1.float()), -torch.inf)


def corrupt(
    tokens_BL: Tensor, masks: Masks, noise: MaskNoise, vocab_size: int, replace_mask: float, replace_random: float
) -> Tensor:
    """Returns the tokens with the chosen positions replaced: [MASK], a random ordinary token, or as before."""
    chosen_BL = torch.zeros_like(tokens_BL, dtype=torch.bool)
    # Invalid entries of a row name positions too: they must not set theirs, so add instead of assign.
    chosen_BL = chosen_BL.int().scatter_add(1, masks.positions_BK, masks.valid_BK.int()) > 0
    ordinary = vocab_size - FIRST_ORDINARY
    random_BL = FIRST_ORDINARY + (noise.token_BL * ordinary).long().clamp(max=ordinary - 1)
    to_mask_BL = chosen_BL & (noise.action_BL < replace_mask)
    to_random_BL = chosen_BL & ~to_mask_BL & (noise.action_BL < replace_mask + replace_random)
    return torch.where(to_mask_BL, MASK, torch.where(to_random_BL, random_BL, tokens_BL))
