"""Measurements of single positions: the loss, cheap signals, and the loss's gradient.

Disjoint uniform masks cover all positions of a sentence. The gradients' norms are correlated with the signals that
MAP-Net learns from, and define the oracles' proposals.

Shapes: N measurements at positions of one sentence, S sentences, L positions, M masks, K masked positions,
P parameters.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mapnet_cli.config import Method
from mapnet_cli.masking import visits_in_turn
from mapnet_cli.model import PretrainingModel, masked_log_softmax, token_loss
from mapnet_cli.variance.candidates import Candidate, SentenceMasks, sentence_masks
from mapnet_cli.variance.gradients import Instrument
from mapnet_cli.variance.results import NORMS, Correlation, Estimate, LossBin
from mapnet_cli.variance.statistics import jackknife, ratio

SIGNALS = ("loss", "one-minus-p", "logit-gradient")
"""Signals that a proposal may learn from; each is correlated with the gradient norms."""
ROUNDS = 2  # number of times each position is masked if an oracle is requested
BINS = 8
BEST = 0.3  # share of the positions that are chosen in `alignment`


@dataclass(frozen=True)
class PositionFacts:
    """Measurements at masked positions of one sentence, in float64 on the CPU. Losses are in nats."""

    position_N: Tensor
    signals: dict[str, Tensor]  # keyed by SIGNALS, [N] each
    norms: dict[str, Tensor]  # norms of the gradient of each position's loss, keyed by NORMS, [N] each
    products: dict[str, Tensor]
    """Inner products of that gradient with the mean gradient of every sentence under uniform masks, [N, S] each."""


def measure_positions(
    instrument: Instrument, model: PretrainingModel, method: Method, uniform: Mapping[str, Tensor], number: int,
    tokens_L: Tensor, whole: bool,
) -> PositionFacts:  # fmt: skip
    """Returns measurements of all positions of the sentence, ROUNDS times, if `whole`; else of those in one mask.

    `uniform` has the projected mean gradients of all sentences under uniform masks, keyed by NORMS.
    """
    disjoint = Candidate("positions", method.model_copy(update={"strategy": "disjoint", "proposal": None}))
    turns = visits_in_turn(method.mask_rate)
    count = ROUNDS * turns if whole else 1
    masks = sentence_masks(disjoint, number, tokens_L, count, turns, model.encoder.vocab_size, stream="positions")
    row_N, slot_N = (masks.weight_MK > 0).nonzero(as_tuple=True)
    norms, products = ({norm: list[Tensor]() for norm in NORMS} for _ in range(2))
    for norm, part_CP in instrument.scaled(_one_by_one(masks, row_N, slot_N)):
        norms[norm].append(part_CP.norm(dim=1))
        products[norm].append(instrument.project(part_CP) @ uniform[norm].T)
    loss_MK, logit_gradient_MK = _signals(model, masks, instrument.gradients.device)
    loss_N = loss_MK[row_N, slot_N]
    signals = {"loss": loss_N, "one-minus-p": -torch.expm1(-loss_N), "logit-gradient": logit_gradient_MK[row_N, slot_N]}
    joined = ({norm: torch.cat(parts).double().cpu() for norm, parts in found.items()} for found in (norms, products))
    return PositionFacts(masks.positions_MK[row_N, slot_N], signals, *joined)


def _one_by_one(masks: SentenceMasks, row_N: Tensor, slot_N: Tensor) -> SentenceMasks:
    """Returns copies of the masks in these rows, each with the loss of a single position."""
    one_N1 = slot_N[:, None]
    positions_N1, targets_N1 = (t[row_N].gather(1, one_N1) for t in (masks.positions_MK, masks.targets_MK))
    return SentenceMasks(
        masks.corrupted_ML[row_N], positions_N1, targets_N1, torch.ones(len(row_N), 1), masks.log_ratio_M[row_N]
    )


@torch.no_grad()
def _signals(model: PretrainingModel, masks: SentenceMasks, device: torch.device) -> tuple[Tensor, Tensor]:
    """Returns the losses and ||W^T (p - y)||, both [M, K] in float64 on the CPU."""
    corrupted_ML, positions_MK = masks.corrupted_ML.to(device), masks.positions_MK.to(device)
    targets_N = masks.targets_MK.flatten().to(device)
    features_NH = model.head.features(model.hidden_at(corrupted_ML, None, positions_MK, None))
    decoder_VH, bias_V = model.encoder.tokens.weight, model.head.padded_bias()
    loss_N, norm_N = token_loss(features_NH, decoder_VH, bias_V, targets_N, "logit-gradient")
    shape = masks.positions_MK.shape
    return loss_N.double().cpu().view(shape), norm_N.double().cpu().view(shape)


def oracle_log_q(facts: PositionFacts, signal: str, maskable_L: Tensor) -> Tensor:
    """Returns the log of a proposal [L] proportional to each position's mean loss or root mean square gradient norm.

    The variance under Horvitz-Thompson weights depends on mean squares. Positions left unmeasured by
    the rounding of K get the mean of the others.
    """
    values_N = facts.signals["loss"] if signal == "loss" else facts.norms["raw"].square()
    sums_2L = torch.zeros(2, len(maskable_L), dtype=torch.float64)
    sums_2L[0].index_add_(0, facts.position_N, values_N)
    sums_2L[1].index_add_(0, facts.position_N, torch.ones_like(values_N))
    mean_L = torch.where(sums_2L[1] > 0, sums_2L[0] / sums_2L[1], values_N.mean())
    weight_L = mean_L if signal == "loss" else mean_L.sqrt()
    log_weight_L = weight_L.clamp(min=torch.finfo(torch.float32).tiny).log().float()
    return masked_log_softmax(log_weight_L[None], maskable_L[None])[0]


def subsets(count: int) -> list[list[int]]:
    """Returns the numbers of all sentences, then those without each sentence in turn: the jackknife's replicates."""
    return [[number for number in range(count) if number != left_out] for left_out in (None, *range(count))]


def correlations(facts: list[PositionFacts]) -> list[Correlation]:
    """Returns Pearson and Spearman correlations over all positions, with jackknife errors over sentences."""
    from scipy.stats import rankdata

    found = []
    for signal, norm in product(SIGNALS, NORMS):
        pairs = [np.stack([fact.signals[signal].numpy(), fact.norms[norm].numpy()]) for fact in facts]
        replicates = [np.concatenate([pairs[n] for n in kept], axis=1) for kept in subsets(len(facts))]
        pearson, spearman = _jackknifed(replicates), _jackknifed([rankdata(pair_2N, axis=1) for pair_2N in replicates])
        found.append(Correlation(signal=signal, norm=norm, pearson=pearson, spearman=spearman))
    return found


def _jackknifed(replicates: list[npt.NDArray[np.float64]]) -> Estimate:
    """Returns Pearson's correlation of the two rows of each replicate [2, N] as an estimate."""
    with np.errstate(invalid="ignore"):  # NaN if one of them is constant
        values = [float(np.corrcoef(pair_2N[0], pair_2N[1])[0, 1]) for pair_2N in replicates]
    return jackknife(torch.tensor(values, dtype=torch.float64))


def norms_by_loss(facts: list[PositionFacts]) -> list[LossBin]:
    """Returns BINS bins with equal numbers of positions, from the lowest loss to the highest."""
    loss_N, norm_N = torch.cat([f.signals["loss"] for f in facts]), torch.cat([f.norms["raw"] for f in facts])
    sentence_N = torch.cat([torch.full((len(f.position_N),), number) for number, f in enumerate(facts)])
    bins = []
    for inside in torch.tensor_split(loss_N.argsort(stable=True), min(BINS, len(loss_N))):
        sums = torch.bincount(sentence_N[inside], norm_N[inside], len(facts))
        counts = torch.bincount(sentence_N[inside], minlength=len(facts))
        without = (sums.sum() - sums) / (counts.sum() - counts)
        replicates = torch.cat([(sums.sum() / counts.sum())[None], without])
        low, high = loss_N[inside[0]].item(), loss_N[inside[-1]].item()
        bins.append(LossBin(low=low, high=high, positions=len(inside), norm=jackknife(replicates)))
    return bins


def alignment(products: list[Tensor]) -> Estimate:
    """Returns the share of sum_k <g_k, E g> that the best 30% of all measured positions k hold; 0.3 if all are equal.

    `products` are those of `PositionFacts` in one norm, of every sentence: g_k is the gradient of position k's loss
    alone, under a uniform mask that covers k and others, and E g is the mean gradient under uniform masks. Half of the
    sentences, without the own one, estimate E g to choose by, and the other half the products that are added, and
    vice versa: noise in E g can't raise the share, but errors in the choice lower it. The error is the jackknife's, and
    needs six sentences.
    """
    found = [_held_by_best(products, kept) for kept in subsets(len(products))]
    held, total = torch.tensor(found, dtype=torch.float64).T
    return ratio(held, total)


def _held_by_best(products: list[Tensor], kept: list[int]) -> tuple[float, float]:
    """Returns the sums over the best positions of the sentences `kept`, and over all of them."""
    parts = []
    for sentence in kept:
        halves = ([s for s in kept if s != sentence and s % 2 == half] for half in (0, 1))
        parts.append(torch.stack([products[sentence][:, half].mean(dim=1) for half in halves]))
    halves_2N = torch.cat(parts, dim=1)
    whole, rest = divmod(BEST * halves_2N.shape[1], 1)
    held = 0.0
    for chooser_N, scored_N in (halves_2N, halves_2N.flip(0)):
        best_N = scored_N[chooser_N.argsort(descending=True)]
        held += float(best_N[: int(whole)].sum() + rest * best_N[int(whole)])
    return held, float(halves_2N.sum())
