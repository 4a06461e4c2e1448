"""How well cheap signals of a masked position tell the norm of its gradient.

Shapes: N positions of one sentence or of several together, S sentences.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch

from mapnet_cli.variance.positions import SIGNALS, PositionFacts
from mapnet_cli.variance.results import NORMS, Correlation, Estimate, LossBin
from mapnet_cli.variance.statistics import jackknife

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
