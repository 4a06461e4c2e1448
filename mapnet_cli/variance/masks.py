"""The masks that a strategy draws for one sentence, again and again, and the weights of their losses.

Shapes: M masks of one sentence (groups of J successive visits), L positions, K masked positions (at
most), V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mapnet_cli.config import Method
from mapnet_cli.core.seeds import derive_seed
from mapnet_cli.masking import sampling
from mapnet_cli.masking.importance import ESTIMATORS, Drawn, log_sequence_ratio
from mapnet_cli.masking.sampling import MaskNoise
from mapnet_cli.masking.strategies import STRATEGIES, visits_in_turn
from mapnet_cli.model.factory import draw_masks

SEED = 0


@dataclass(frozen=True)
class Candidate:
    """What is measured: a way to draw masks and weigh losses, all of it in a method's keys."""

    name: str
    method: Method
    proposal: str = ""
    """Where the proposal is from, in words; empty where there is none."""
    log_q: tuple[Tensor, ...] = ()
    """Log of the proposal [L] of each sentence, on the CPU; empty where there is none."""


@dataclass(frozen=True)
class SentenceMasks:
    """Masked copies of one sentence. `weight_MK` is 0 beyond a mask's own K."""

    corrupted_ML: Tensor
    positions_MK: Tensor
    targets_MK: Tensor
    weight_MK: Tensor
    log_ratio_M: Tensor
    """Log of the paper's sequence ratio, before clipping; 0 without a proposal."""


def mean_count(sentences: Sequence[Tensor], rate: float) -> float:
    """Returns the masked positions of a sentence on average: over it, a sentence's losses weigh as in a batch."""
    counts = [max(1.0, rate * float(sampling.maskable_positions(tokens_L).sum())) for tokens_L in sentences]
    return sum(counts) / len(counts)


def sentence_masks(
    subject: Candidate,
    number: int,
    tokens_L: Tensor,
    masks: int,
    visits: int,
    vocab_size: int,
    mean_count: float = 1.0,
    word_starts_V: Tensor | None = None,
    stream: str = "variance",
) -> SentenceMasks:
    """Returns `masks` masks of sentence `number`, the same for the same arguments.

    Weights are importance weights over `mean_count`. All subjects draw from the same noise. `masks`
    are groups of `visits`; strategies that go on from visit to visit start anew with each group.
    """
    method, log_q_ML, visit_M = subject.method, None, None
    tokens_ML = tokens_L.expand(masks, -1)
    noise = MaskNoise.draw(torch.Generator().manual_seed(derive_seed(SEED, stream, number)), masks, len(tokens_L))
    if STRATEGIES[method.strategy].successive:
        visit_M = torch.arange(masks) % visits % visits_in_turn(method.mask_rate)
        first_M = torch.arange(masks) - visit_M
        noise = replace(noise, rounding_B=noise.rounding_B[first_M], order_BL=noise.order_BL[first_M])
    if subject.log_q:
        log_q_ML = subject.log_q[number].expand(masks, -1)
    drawn_masks = draw_masks(method, tokens_ML, noise, log_q_ML, visit_M, word_starts_V)
    positions_MK, valid_MK = drawn_masks.positions_BK, drawn_masks.valid_BK
    drawn = Drawn.of(drawn_masks, sampling.maskable_positions(tokens_ML).sum(dim=1))
    weight_MK = ESTIMATORS[method.estimator](drawn, method.ratio_clip).weight_BK
    return SentenceMasks(
        sampling.corrupt(tokens_ML, drawn_masks, noise, vocab_size, method.replace_mask, method.replace_random),
        positions_MK,
        tokens_ML.gather(1, positions_MK),
        torch.where(valid_MK, weight_MK / mean_count, 0.0),
        log_sequence_ratio(drawn),
    )
