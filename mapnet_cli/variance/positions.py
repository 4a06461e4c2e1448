"""Every position by itself: its loss, cheap signals of it, and the norm of its loss's gradient.

The positions of a sentence are masked in turn, in uniform masks that leave none out. The norms make
correlations with what MAP-Net learns from, and the oracles' proposals.

Shapes: N positions of one sentence, once a round, L positions, M masks, K masked positions, P parameters.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from mapnet_cli.config import Method
from mapnet_cli.masking import visits_in_turn
from mapnet_cli.model import PretrainingModel, logit_gradient_norm, masked_log_softmax
from mapnet_cli.variance.candidates import Candidate, SentenceMasks, sentence_masks
from mapnet_cli.variance.gradients import SentenceGradients
from mapnet_cli.variance.results import NORMS, Correlation, Estimate, LossBin
from mapnet_cli.variance.statistics import jackknife

SIGNALS = ("loss", "one-minus-p", "logit-gradient")
"""What a proposal may learn from, and what is correlated with the gradient norms."""
ROUNDS = 2
"""Each position is masked so often where an oracle is asked for."""


@dataclass(frozen=True)
class PositionFacts:
    """Masked positions of one sentence; float64 on the CPU, nats and norms."""

    position_N: Tensor
    signals: dict[str, Tensor]
    """SIGNALS by name, [N]."""
    norms: dict[str, Tensor]
    """Of the gradient of the position's loss, by NORMS, [N]."""


def measure_positions(
    gradients: SentenceGradients,
    model: PretrainingModel,
    method: Method,
    scales: Mapping[str, Tensor | None],
    number: int,
    tokens_L: Tensor,
    whole: bool,
) -> PositionFacts:
    """Returns the positions of ROUNDS x all positions of the sentence; of one mask alone unless `whole`."""
    disjoint = Candidate("positions", method.model_copy(update={"strategy": "disjoint", "proposal": None}))
    turns = visits_in_turn(method.mask_rate)
    count = ROUNDS * turns if whole else 1
    vocab_size = model.encoder.vocab_size
    masks = sentence_masks(disjoint, number, tokens_L, count, turns, vocab_size, stream="positions")
    row_N, slot_N = (masks.weight_MK > 0).nonzero(as_tuple=True)
    parts = [
        torch.stack([(part_CP if scale_P is None else part_CP * scale_P).norm(dim=1) for scale_P in scales.values()])
        for part_CP in gradients.of(_one_by_one(masks, row_N, slot_N))
    ]
    norms = dict(zip(scales, torch.cat(parts, dim=1).double().cpu(), strict=True))
    loss_MK, logit_gradient_MK = _signals(model, masks, gradients.device)
    loss_N = loss_MK[row_N, slot_N]
    signals = {"loss": loss_N, "one-minus-p": -torch.expm1(-loss_N), "logit-gradient": logit_gradient_MK[row_N, slot_N]}
    return PositionFacts(masks.positions_MK[row_N, slot_N], signals, norms)


def _one_by_one(masks: SentenceMasks, row_N: Tensor, slot_N: Tensor) -> SentenceMasks:
    """Returns the masks of these rows again, each with the loss of one position alone."""
    one_N1 = slot_N[:, None]
    positions_N1, targets_N1 = (t[row_N].gather(1, one_N1) for t in (masks.positions_MK, masks.targets_MK))
    return SentenceMasks(
        masks.corrupted_ML[row_N], positions_N1, targets_N1, torch.ones(len(row_N), 1), masks.log_ratio_M[row_N]
    )


@torch.no_grad()
def _signals(model: PretrainingModel, masks: SentenceMasks, device: torch.device) -> tuple[Tensor, Tensor]:
    """Returns the losses and ||W^T (p - y)||, [M, K], float64 on the CPU."""
    corrupted_ML, positions_MK = masks.corrupted_ML.to(device), masks.positions_MK.to(device)
    targets_N = masks.targets_MK.flatten().to(device)
    logits_NV = model.token_logits(corrupted_ML, None, positions_MK).float()
    loss_N = F.cross_entropy(logits_NV, targets_N, reduction="none")
    norm_N = logit_gradient_norm(logits_NV, targets_N, model.encoder.tokens.weight)
    shape = masks.positions_MK.shape
    return loss_N.double().cpu().view(shape), norm_N.double().cpu().view(shape)


def oracle_log_q(facts: PositionFacts, signal: str, maskable_L: Tensor) -> Tensor:
    """Returns the log of a proposal [L] proportional to the positions' mean loss, or root mean square gradient norm.

    The mean square is what the variance under Horvitz and Thompson's weights is made of. A position
    that rounding K has left unmeasured counts as the mean of the others.
    """
    values_N = facts.signals["loss"] if signal == "loss" else facts.norms["raw"].square()
    sums_2L = torch.zeros(2, len(maskable_L), dtype=torch.float64)
    sums_2L[0].index_add_(0, facts.position_N, values_N)
    sums_2L[1].index_add_(0, facts.position_N, torch.ones_like(values_N))
    mean_L = torch.where(sums_2L[1] > 0, sums_2L[0] / sums_2L[1], values_N.mean())
    weight_L = mean_L if signal == "loss" else mean_L.sqrt()
    log_weight_L = weight_L.clamp(min=torch.finfo(torch.float32).tiny).log().float()
    return masked_log_softmax(log_weight_L[None], maskable_L[None])[0]


BINS = 8
Column = npt.NDArray[np.float64]


def correlations(facts: list[PositionFacts]) -> list[Correlation]:
    """Returns Pearson's and Spearman's correlation over all positions, errors by the jackknife over sentences."""
    from scipy.stats import rankdata

    found = []
    for signal in SIGNALS:
        values = [f.signals[signal].numpy() for f in facts]
        for name in NORMS:
            norm = [f.norms[name].numpy() for f in facts]
            pearson = _jackknifed(values, norm, _pearson)
            spearman = _jackknifed(values, norm, lambda a, b: _pearson(rankdata(a), rankdata(b)))
            found.append(Correlation(signal=signal, norm=name, pearson=pearson, spearman=spearman))
    return found


def norms_by_loss(facts: list[PositionFacts]) -> list[LossBin]:
    """Returns BINS bins of as many positions each, from the lowest loss to the highest."""
    losses, norms = [f.signals["loss"].numpy() for f in facts], [f.norms["raw"].numpy() for f in facts]
    edges = np.unique(np.quantile(np.concatenate(losses), np.linspace(0, 1, BINS + 1)))
    bins = []
    for low, high in pairwise(edges.tolist()):
        inside = [(low <= loss) & ((loss < high) | (high == edges[-1])) for loss in losses]
        counts = torch.tensor([int(i.sum()) for i in inside], dtype=torch.float64)
        sums = torch.tensor([float(n[i].sum()) for n, i in zip(norms, inside, strict=True)], dtype=torch.float64)
        without = (sums.sum() - sums) / (counts.sum() - counts)
        replicates = torch.cat([(sums.sum() / counts.sum())[None], without])
        bins.append(LossBin(low=low, high=high, positions=int(counts.sum()), norm=jackknife(replicates)))
    return bins


def _pearson(a_N: Column, b_N: Column) -> float:
    with np.errstate(invalid="ignore"):  # NaN where one of them doesn't vary
        return float(np.corrcoef(a_N, b_N)[0, 1])


def _jackknifed(a: list[Column], b: list[Column], statistic: Callable[[Column, Column], float]) -> Estimate:
    """`a` and `b` hold an array a sentence."""
    values = [statistic(np.concatenate(a), np.concatenate(b))]
    for left_out in range(len(a)):
        kept = [n for n in range(len(a)) if n != left_out]
        values.append(statistic(np.concatenate([a[n] for n in kept]), np.concatenate([b[n] for n in kept])))
    return jackknife(torch.tensor(values, dtype=torch.float64))
