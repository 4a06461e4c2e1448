"""The sequences of each step: a function of (seed, step), computed without iterating over earlier steps.

Shapes: B sequences per step, S sources of the corpus.
"""

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from math import floor, gcd

import torch
from torch import Tensor

from mapnet_cli.core import derive_seed

BLOCK = 1 << 10
"""Number of consecutive sequences that are shuffled as one unit, in epochs of more than GROUP visits."""
GROUP = 1 << 20
"""Number of sequences that are shuffled together, in blocks from all over the corpus. A multiple of BLOCK."""
GOLDEN = 0.6180339887498949
CANDIDATES = 100


class ResumableSampler:
    """Visits the corpus in a new random order each epoch; a step may span two epochs.

    `counts` are the numbers of sequences per source, in corpus order. After e epochs, a source of n sequences and
    weight w has been visited floor(e n w) times, and its sequences equally often, up to a difference of one. The
    sequences that an epoch takes from a source are spread evenly over it.

    Epochs of up to GROUP visits are shuffled as a whole. In longer ones, blocks are shuffled first, then the sequences
    in each group of blocks: memory is bounded, and a step's sequences still come from hundreds of blocks.
    """

    def __init__(self, counts: Sequence[int], batch_size: int, seed: int, weights: Sequence[float] = ()) -> None:
        sources = zip(counts, weights or [1.0] * len(counts), strict=True)
        filled = [(n, w, sum(counts[:number])) for number, (n, w) in enumerate(sources) if n]
        self.batch_size = batch_size
        self.seed = seed
        self._counts_S = torch.tensor([n for n, _, _ in filled])
        self._firsts_S = torch.tensor([first for _, _, first in filled])
        # exact decimals, as in the config: 0.1 is a tenth, not the nearest binary fraction
        self._rates = [n * Fraction(str(w)) for n, w, _ in filled]
        self._strides_S = torch.tensor([1 if Fraction(str(w)).denominator == 1 else _stride(n) for n, w, _ in filled])
        # a step lies within one group of one epoch, or in two at a boundary
        self._order = lru_cache(maxsize=2)(self._make_order)
        self._block_order = lru_cache(maxsize=2)(
            lambda epoch: self._permutation(-(-self.count(epoch) // BLOCK), "data order", epoch)
        )

    def count(self, epoch: int) -> int:
        """Returns the number of visits in an epoch."""
        return sum(self._before(epoch + 1)) - sum(self._before(epoch))

    def indices(self, step: int) -> Tensor:
        """Returns the sequence indices of a step, [B]."""
        source_B, visits_B = self._visited(step)
        count_B = self._counts_S[source_B]
        return self._firsts_S[source_B] + visits_B % count_B * self._strides_S[source_B] % count_B

    def epochs(self, step: int) -> Tensor:
        """Returns the number of earlier passes over the source of each sequence of a step, [B]."""
        source_B, visits_B = self._visited(step)
        return visits_B // self._counts_S[source_B]

    def _before(self, epoch: int) -> list[int]:
        """Returns the number of visits to each source before an epoch."""
        return [floor(epoch * rate) for rate in self._rates]

    def _epoch(self, position: int) -> int:
        """Returns the epoch that contains the visit at a position in the sequence of all visits."""
        epoch = floor(position / sum(self._rates))  # a lower bound, as the visits to each source are rounded down
        while sum(self._before(epoch + 1)) <= position:
            epoch += 1
        return epoch

    def _visited(self, step: int) -> tuple[Tensor, Tensor]:
        """Returns the source of each visit of a step, and its index among all visits to that source, [B] each."""
        position, end = step * self.batch_size, (step + 1) * self.batch_size
        epoch = self._epoch(position)
        sources, visits = [], []
        while position < end:
            before_S, after_S = torch.tensor(self._before(epoch)), torch.tensor(self._before(epoch + 1))
            last = min(end, int(after_S.sum()))
            shuffled = self._shuffled(epoch, torch.arange(position, last) - int(before_S.sum()))
            ends_S = (after_S - before_S).cumsum(0)
            source = torch.searchsorted(ends_S, shuffled, right=True)
            sources.append(source)
            visits.append(after_S[source] - ends_S[source] + shuffled)
            position, epoch = last, epoch + 1
        return torch.cat(sources), torch.cat(visits)

    def _shuffled(self, epoch: int, positions: Tensor) -> Tensor:
        """Returns the epoch's visits at these positions of its shuffled order."""
        count = self.count(epoch)
        if count <= GROUP:
            return self._order(epoch, 0)[positions]
        short = count % BLOCK
        if short:  # the last block is shorter, and may be anywhere in the order
            end = (int((self._block_order(epoch) == count // BLOCK).nonzero()) * BLOCK // GROUP + 1) * GROUP
            positions = torch.where(positions >= end - (BLOCK - short), positions + BLOCK - short, positions)
        groups = positions // GROUP
        visits = torch.empty_like(positions)
        for group in sorted(set(groups.tolist())):
            chosen = groups == group
            visits[chosen] = self._order(epoch, group)[positions[chosen] % GROUP]
        return visits

    def _make_order(self, epoch: int, group: int) -> Tensor:
        """Returns the visits of a group in shuffled order."""
        count = self.count(epoch)
        if count <= GROUP:
            return self._permutation(count, "data order", epoch)
        blocks = self._block_order(epoch)[group * (GROUP // BLOCK) : (group + 1) * (GROUP // BLOCK)]
        members = (blocks[:, None] * BLOCK + torch.arange(BLOCK)).flatten()
        members = members[members < count]
        return members[self._permutation(len(members), "data order in a group", epoch, group)]

    def _permutation(self, count: int, stream: str, *position: int) -> Tensor:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, stream, *position))
        return torch.randperm(count, generator=generator)


def _stride(count: int) -> int:
    """Returns a stride that visits all of 0 ... count - 1 (modulo count) and covers them evenly at any time.

    stride / count is near the golden ratio, with small quotients in Euclid's algorithm: early multiples are far apart.
    """
    near = range(max(1, round(count * GOLDEN)), max(1, round(count * GOLDEN)) + CANDIDATES)
    return min((stride for stride in near if gcd(stride, count) == 1), key=lambda s: _largest_quotient(s, count))


def _largest_quotient(a: int, b: int) -> int:
    largest = 0
    while b:
        largest, a, b = max(largest, a // b), b, a % b
    return largest
