"""Masking strategies, which choose the masked positions of a batch. Each is one function and one table entry.

To add one, see docs/extend.md. Shapes: B sequences, L positions, K masked positions per sequence.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from mapnet_cli.config import Method
from mapnet_cli.core import Registry
from mapnet_cli.masking import sampling
from mapnet_cli.masking.context import NO_CONTEXT, CorpusFacts, MaskContext, rarity, words
from mapnet_cli.masking.pmi import collocations
from mapnet_cli.masking.sampling import MaskNoise, Masks, gumbel_top_k, uniform_log_q

SPAN_END, LONGEST_SPAN = 0.2, 10
"""Probability that a span ends after each token, and maximum span length in tokens, as in SpanBERT."""


@dataclass(frozen=True)
class MaskRequest:
    """Inputs of a strategy."""

    tokens_BL: Tensor
    maskable_BL: Tensor
    counts_B: Tensor
    max_masks: int
    noise_BL: Tensor
    log_q_BL: Tensor | None = None
    """Log-probabilities of the proposal, without gradient, for strategies that have one."""
    sampler: Literal["gumbel", "systematic"] = "gumbel"
    uniform_mix: float = 0.0  # share of uniform masks mixed into the draws from the proposal
    visit_B: Tensor | None = None
    """For `successive` strategies: index of this visit of the sentence under the same noise, from 0."""
    unit_starts_BL: Tensor | None = None
    """For strategies whose context defines units: True where a unit begins."""


def uniform(request: MaskRequest) -> Masks:
    """Every set of K maskable positions is equally likely (the paper's RandMask)."""
    return gumbel_top_k(uniform_log_q(request.maskable_BL), request.counts_B, request.max_masks, request.noise_BL)


def proposed(request: MaskRequest) -> Masks:
    """K positions drawn without replacement from a proposal; for MAP-Net, the multinomial of section 3.3."""
    assert request.log_q_BL is not None
    log_q_BL, counts_B, mix = request.log_q_BL, request.counts_B, request.uniform_mix
    if request.sampler == "gumbel":
        log_q_BL = sampling.mixed_with_uniform(log_q_BL, request.maskable_BL, mix)
        masks = gumbel_top_k(log_q_BL, counts_B, request.max_masks, request.noise_BL)
        return replace(masks, log_rest_B=sampling.log_undrawn(log_q_BL, masks))
    pi_BL = sampling.inclusion_probabilities(log_q_BL, request.maskable_BL, counts_B, mix)
    return sampling.systematic(pi_BL, log_q_BL, counts_B, request.max_masks, request.noise_BL)


def spaced(request: MaskRequest) -> Masks:
    """Systematic sample: every n/K-th maskable position from a random offset; each has inclusion probability K/n."""
    counts_B1, n_B1 = request.counts_B[:, None], request.maskable_BL.sum(dim=1, keepdim=True)
    draw_K = torch.arange(request.max_masks, device=counts_B1.device)
    index_BK = (draw_K + request.noise_BL[:, :1].double()) * n_B1 / counts_B1.clamp(min=1)
    index_BK = torch.minimum(index_BK.long(), (n_B1 - 1).clamp(min=0))
    maskable_first_BL = (~request.maskable_BL).int().argsort(dim=1, stable=True)
    return Masks(maskable_first_BL.gather(1, index_BK), draw_K < counts_B1)


def disjoint(request: MaskRequest) -> Masks:
    """Successive visits of a sentence mask successive parts of one random order of its positions.

    Each mask alone is uniform. Together the masks cover every position exactly once, up to the
    rounding of K (fully-explored masking).
    """
    assert request.visit_B is not None
    shuffled_BL = torch.where(request.maskable_BL, request.noise_BL, torch.inf).argsort(dim=1)
    counts_B1, n_B1 = request.counts_B[:, None], request.maskable_BL.sum(dim=1, keepdim=True)
    draw_K = torch.arange(request.max_masks, device=counts_B1.device)
    index_BK = (request.visit_B[:, None] * counts_B1 + draw_K) % n_B1.clamp(min=1)
    return Masks(shuffled_BL.gather(1, index_BK), draw_K < counts_B1)


def whole_units(request: MaskRequest) -> Masks:
    """Whole units (words, collocations) in random order until K positions are masked; the last may be truncated."""
    assert request.unit_starts_BL is not None
    return _mask_units(request.unit_starts_BL, request.noise_BL, request)


def span(request: MaskRequest) -> Masks:
    """Spans of random length, masked like words (after SpanBERT).

    The first few positions are somewhat more likely: a span always begins there, and truncation removes span ends.
    """
    starts_BL = request.noise_BL < SPAN_END
    # rescaled, the noise is again uniform and independent of whether a span starts, so it can order the spans
    rescaled_BL = torch.where(starts_BL, request.noise_BL / SPAN_END, (request.noise_BL - SPAN_END) / (1 - SPAN_END))
    index_BL = request.maskable_BL.cumsum(dim=1)
    span_start_BL = torch.where(starts_BL & request.maskable_BL, index_BL, 1).cummax(dim=1).values
    starts_BL = starts_BL | ((index_BL - span_start_BL) % LONGEST_SPAN == 0)
    return _mask_units(starts_BL, rescaled_BL, request)


def _mask_units(starts_BL: Tensor, order_BL: Tensor, request: MaskRequest) -> Masks:
    """Masks K positions, unit by unit in the order of `order_BL` at their starts; a unit extends to the next start."""
    maskable_BL = request.maskable_BL
    first_BL = starts_BL & maskable_BL | (maskable_BL & (maskable_BL.cumsum(dim=1) == 1))
    index_L = torch.arange(maskable_BL.shape[1], device=maskable_BL.device)
    unit_BL = torch.where(first_BL, index_L, 0).cummax(dim=1).values
    order_BL = torch.where(maskable_BL, order_BL.gather(1, unit_BL), torch.inf)
    positions_BK = order_BL.argsort(dim=1, stable=True)[:, : request.max_masks]
    valid_BK = torch.arange(request.max_masks, device=maskable_BL.device) < request.counts_B[:, None]
    return Masks(positions_BK, valid_BK)


@dataclass(frozen=True)
class Strategy:
    draw: Callable[[MaskRequest], Masks]
    prepare: Callable[[CorpusFacts], MaskContext] = lambda corpus: NO_CONTEXT
    """Computes the strategy's context from the corpus, once, before the first step."""
    successive: bool = False  # whether the visits of a sentence share their noise and are numbered


_OWN = {
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
STRATEGIES = Registry("strategies", Strategy, ("draw",), _OWN)
"""Strategies in `config.PROPOSALS` draw from a proposal, passed as `MaskRequest.log_q_BL`."""


def draw_masks(
    method: Method, tokens_BL: Tensor, noise: MaskNoise, context: MaskContext, log_q_BL: Tensor | None = None,
    visit_B: Tensor | None = None,
) -> Masks:  # fmt: skip
    """Returns masks as the method draws them in steps without exploration. For use outside training, on the CPU."""
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
    """Returns the number of successive visits that mask every position of a sentence at this rate."""
    return math.ceil(1 / rate - 1e-9)
