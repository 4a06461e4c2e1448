"""Unbiased estimators of Theorem 1's two variances and of a bias, with jackknife standard errors.

Squared means are estimated by inner products of independent samples, never of a sample with itself.
A statistic is represented by its replicates [1 + S]: its value over all sentences, followed by its
values with each sentence left out in turn. Arithmetic on replicates (such as ratios) keeps sentences paired.

Shapes: S sentences, G groups of J masks per sentence, C masks at a time, D dimensions of a gradient.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mapnet_cli.variance.results import Estimate


class GradientSums:
    """Accumulates one sentence's gradients, added group by group, J masks each."""

    def __init__(self, visits: int) -> None:
        self.visits = visits
        self.count = 0
        self.squares = 0.0
        self.group_squares = 0.0
        self._group: Tensor | None = None
        self._total: Tensor | None = None

    def add(self, gradients_CD: Tensor) -> None:
        self.squares += _square(gradients_CD)
        while len(gradients_CD):
            room = self.visits - self.count % self.visits
            here_CD, gradients_CD = gradients_CD[:room], gradients_CD[room:]
            self.count += len(here_CD)
            sum_D = here_CD.sum(dim=0)
            self._group = sum_D if self._group is None else self._group + sum_D
            if self.count % self.visits == 0:
                self.group_squares += _square(self._group)
                self._total = self._group if self._total is None else self._total + self._group
                self._group = None

    def mean(self) -> Tensor:
        """Returns the mean gradient [D] over all groups."""
        assert self._total is not None and self._group is None
        return self._total / self.count

    def moments(self) -> tuple[float, float, float]:
        """Returns unbiased estimates of E |g|^2, E |mean of the J gradients of a group|^2 and |E g|^2, over masks.

        The last is from inner products across groups, since draws within a group may be dependent. Requires at least
        two complete groups.
        """
        assert self._total is not None and self._group is None
        j, m = self.visits, self.count
        across = (_square(self._total) - self.group_squares) / (m * m - m * j)
        return self.squares / m, self.group_squares / (m * j), across


def _square(tensor: Tensor) -> float:
    """Returns the sum of squares, accumulated in float64."""
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64)) ** 2


@dataclass(frozen=True)
class Moments:
    """Moments of all sentences, [S] each, and the Gram matrix [S, S] of their mean gradients, in float64."""

    visits: int
    square_S: Tensor
    visits_square_S: Tensor
    mean_square_S: Tensor
    gram_SS: Tensor

    def mask_variance(self) -> Tensor:
        """Returns E_s tr Cov_m(g | s), the first term of Theorem 1, as replicates."""
        return leave_one_out(self.square_S - self.mean_square_S)

    def visits_variance(self) -> Tensor:
        """Returns J E_s tr Cov(mean of J successive gradients | s) as replicates.

        Equals the mask variance for independent draws, and is smaller for draws that complement each other.
        """
        return self.visits * leave_one_out(self.visits_square_S - self.mean_square_S)

    def sentence_variance(self) -> Tensor:
        """Returns tr Cov_s(E_m g), the second term of Theorem 1, as replicates."""
        return leave_one_out(self.mean_square_S) - leave_one_out_pairs(self.gram_SS)

    def mean_square(self) -> Tensor:
        """Returns |E g|^2 over sentences and masks, as replicates."""
        return leave_one_out_pairs(self.gram_SS)

    def variance(self) -> Tensor:
        """Returns the sum of both terms of Theorem 1, E |g|^2 - |E g|^2, as replicates."""
        return leave_one_out(self.square_S) - self.mean_square()


@dataclass(frozen=True)
class Samples:
    """Statistics of one strategy's gradients."""

    moments: dict[str, Moments]  # keyed by NORMS
    means_SD: dict[str, Tensor]  # mean gradient of each sentence, or its sketch, keyed by NORMS
    log_ratio_SM: Tensor


def collect(sentences: list[tuple[float, float, float]], visits: int, means_SD: Tensor) -> Moments:
    """Returns the moments of all sentences and the Gram matrix of their mean gradients."""
    square_S, visits_square_S, mean_square_S = torch.tensor(sentences, dtype=torch.float64).unbind(1)
    return Moments(visits, square_S, visits_square_S, mean_square_S, gram(means_SD))


def gram(vectors_SD: Tensor) -> Tensor:
    """Returns the inner products [S, S] in float64, on the CPU."""
    return (vectors_SD @ vectors_SD.T).double().cpu()


def leave_one_out(values_S: Tensor) -> Tensor:
    """Returns the replicates [1 + S] of a mean over sentences."""
    total, count = values_S.sum(), len(values_S)
    return torch.cat([(total / count)[None], (total - values_S) / (count - 1)])


def leave_one_out_pairs(gram_SS: Tensor) -> Tensor:
    """Returns the replicates [1 + S] of a mean over pairs of different sentences: an unbiased |E v|^2."""
    count = len(gram_SS)
    across_SS = gram_SS - torch.diag(gram_SS.diagonal())
    total, rows_S = across_SS.sum(), across_SS.sum(dim=1)
    whole = (total / (count * (count - 1)))[None]
    return torch.cat([whole, (total - 2 * rows_S) / ((count - 1) * (count - 2))])


def jackknife(replicates: Tensor) -> Estimate:
    """Returns the value from all sentences and its standard error."""
    value, without_S = float(replicates[0]), replicates[1:]
    count = len(without_S)
    error = math.sqrt((count - 1) / count * float((without_S - without_S.mean()).square().sum()))
    return Estimate(value=value if math.isfinite(value) else None, error=error if math.isfinite(error) else None)


def ratio(above: Tensor, below: Tensor) -> Estimate:
    """Returns the ratio of two statistics of the same sentences; undefined unless `below` is positive throughout."""
    if bool((below <= 0).any()):
        return Estimate(value=None, error=None)
    return jackknife(above / below)
