"""Masking strategies: where the masks of a batch go. One function each, one line in the table.

To add one, see docs/extend.md. Shapes: B sequences, L positions, K masked positions of a sequence.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from mapnet_cli.config import Method
from mapnet_cli.masking import sampling
from mapnet_cli.masking.context import CorpusFacts, MaskContext, no_context, rarity, words
from mapnet_cli.masking.pmi import collocations
from mapnet_cli.masking.sampling import MaskNoise, Masks, gumbel_top_k, uniform_log_q

SPAN_END, LONGEST_SPAN = 0.2, 10
"""SpanBERT's: a span ends after each token with this probability, and has at most so many tokens."""


@dataclass(frozen=True)
class MaskRequest:
    """What a strategy may look at."""

    tokens_BL: Tensor
    maskable_BL: Tensor
    counts_B: Tensor
    max_masks: int
    noise_BL: Tensor
    log_q_BL: Tensor | None = None
    """The proposal, without gradient, for strategies that have one."""
    sampler: Literal["gumbel", "systematic"] = "gumbel"
    uniform_mix: float = 0.0
    """Share of uniform masks in what the sampler draws from the proposal."""
    visit_B: Tensor | None = None
    """For `successive` strategies: which visit of the sentence under the same noise this is, from 0."""
    unit_starts_BL: Tensor | None = None
    """For strategies whose context finds units: True where one begins."""


def uniform(request: MaskRequest) -> Masks:
    """Every set of K maskable positions is equally likely (the paper's RandMask)."""
    return gumbel_top_k(uniform_log_q(request.maskable_BL), request.counts_B, request.max_masks, request.noise_BL)


def proposed(request: MaskRequest) -> Masks:
    """K positions drawn without replacement from a proposal, for MAP-Net the multinomial of section 3.3."""
    assert request.log_q_BL is not None
    log_q_BL, counts_B, mix = request.log_q_BL, request.counts_B, request.uniform_mix
    if request.sampler == "gumbel":
        log_q_BL = sampling.mixed_with_uniform(log_q_BL, request.maskable_BL, mix)
        masks = gumbel_top_k(log_q_BL, counts_B, request.max_masks, request.noise_BL)
        return replace(masks, log_rest_B=sampling.log_undrawn(log_q_BL, masks))
    pi_BL = sampling.inclusion_probabilities(log_q_BL, request.maskable_BL, counts_B, mix)
    return sampling.systematic(pi_BL, log_q_BL, counts_B, request.max_masks, request.noise_BL)


def spaced(request: MaskRequest) -> Masks:
    """A systematic sample: every n/K-th maskable position from a random offset on.

    Every position has inclusion probability K/n as under `uniform`, but masks keep their distance.
    """
    counts_B1, n_B1 = request.counts_B[:, None], request.maskable_BL.sum(dim=1, keepdim=True)
    draw_K = torch.arange(request.max_masks, device=counts_B1.device)
    place_BK = (draw_K + request.noise_BL[:, :1].double()) * n_B1 / counts_B1.clamp(min=1)
    place_BK = torch.minimum(place_BK.long(), (n_B1 - 1).clamp(min=0))
    maskable_first_BL = (~request.maskable_BL).int().argsort(dim=1, stable=True)
    return Masks(maskable_first_BL.gather(1, place_BK), draw_K < counts_B1)


def disjoint(request: MaskRequest) -> Masks:
    """Successive visits of a sentence mask successive parts of one random order of its positions.

    Each mask is uniform by itself; together they leave no position out and repeat none, but for
    what rounding K leaves over (fully-explored masking).
    """
    assert request.visit_B is not None
    shuffled_BL = torch.where(request.maskable_BL, request.noise_BL, torch.inf).argsort(dim=1)
    counts_B1, n_B1 = request.counts_B[:, None], request.maskable_BL.sum(dim=1, keepdim=True)
    draw_K = torch.arange(request.max_masks, device=counts_B1.device)
    place_BK = (request.visit_B[:, None] * counts_B1 + draw_K) % n_B1.clamp(min=1)
    return Masks(shuffled_BL.gather(1, place_BK), draw_K < counts_B1)


def whole_units(request: MaskRequest) -> Masks:
    """Whole units (words, collocations) in random order until K positions are masked; the last may be cut."""
    assert request.unit_starts_BL is not None
    return _in_turn(request.unit_starts_BL, request.noise_BL, request)


def span(request: MaskRequest) -> Masks:
    """The sentence is cut into spans of random length, and spans are masked like words (after SpanBERT).

    The first few positions are somewhat likelier than others: a span begins there, and ends are what is cut.
    """
    starts_BL = request.noise_BL < SPAN_END
    # whether a span starts and how its turn falls are independent: what is left of a draw is uniform again
    left_BL = torch.where(starts_BL, request.noise_BL / SPAN_END, (request.noise_BL - SPAN_END) / (1 - SPAN_END))
    place_BL = request.maskable_BL.cumsum(dim=1)
    begun_BL = torch.where(starts_BL & request.maskable_BL, place_BL, 1).cummax(dim=1).values
    starts_BL = starts_BL | ((place_BL - begun_BL) % LONGEST_SPAN == 0)
    return _in_turn(starts_BL, left_BL, request)


def _in_turn(starts_BL: Tensor, turn_BL: Tensor, request: MaskRequest) -> Masks:
    """Masks the K positions of the units whose first position has the lowest turn; a unit runs to the next start."""
    maskable_BL = request.maskable_BL
    first_BL = starts_BL & maskable_BL | (maskable_BL & (maskable_BL.cumsum(dim=1) == 1))
    place_L = torch.arange(maskable_BL.shape[1], device=maskable_BL.device)
    unit_BL = torch.where(first_BL, place_L, 0).cummax(dim=1).values
    turn_BL = torch.where(maskable_BL, turn_BL.gather(1, unit_BL), torch.inf)
    positions_BK = turn_BL.argsort(dim=1, stable=True)[:, : request.max_masks]
    valid_BK = torch.arange(request.max_masks, device=maskable_BL.device) < request.counts_B[:, None]
    return Masks(positions_BK, valid_BK)


@dataclass(frozen=True)
class Strategy:
    draw: Callable[[MaskRequest], Masks]
    prepare: Callable[[CorpusFacts], MaskContext] = no_context
    """Called once, before the first step: what the strategy wants to know of the corpus."""
    successive: bool = False
    """Several visits of a sentence share their noise and are counted."""


STRATEGIES = {
    "uniform": Strategy(uniform),
    "spaced": Strategy(spaced),
    "disjoint": Strategy(disjoint, successive=True),
    "whole-word": Strategy(whole_units, prepare=words),
    "span": Strategy(span),
    "pmi": Strategy(whole_units, prepare=collocations),
    "mapnet": Strategy(proposed),
    "table": Strategy(proposed),
    "frequency": Strategy(proposed, prepare=rarity),
}
"""Those of `config.PROPOSALS` draw from a proposal, which `MaskRequest.log_q_BL` is."""


def draw_masks(
    method: Method,
    tokens_BL: Tensor,
    noise: MaskNoise,
    context: MaskContext,
    log_q_BL: Tensor | None = None,
    visit_B: Tensor | None = None,
) -> Masks:
    """Returns masks as a method draws them when it doesn't explore, outside of training: on the host."""
    maskable_BL = sampling.maskable_positions(tokens_BL)
    counts_B = sampling.mask_counts(maskable_BL, method.mask_rate, noise.rounding_B)
    return STRATEGIES[method.strategy].draw(
        MaskRequest(
            tokens_BL, maskable_BL, counts_B, sampling.max_mask_count(tokens_BL.shape[1], method.mask_rate),
            noise.order_BL, log_q_BL, method.drawing.sampler, method.drawing.uniform_mix,
            torch.zeros_like(counts_B) if visit_B is None else visit_B,
            None if context.unit_starts is None else context.unit_starts(tokens_BL),
        )
    )  # fmt: skip


def visits_in_turn(rate: float) -> int:
    """Returns how many successive visits of a sentence it takes to mask all of it, at this rate."""
    return math.ceil(1 / rate - 1e-9)
