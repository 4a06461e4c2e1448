"""Which sequences a step trains on: a function of (seed, step), found without going through the steps before it.

Shapes: B sequences of a step; S sources of the corpus.
"""

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from math import floor, gcd

import torch
from torch import Tensor

from mapnet_cli.core import derive_seed

BLOCK = 1 << 10
"""Sequences that lie side by side on disk and are shuffled as one, in a corpus of more than GROUP."""
GROUP = 1 << 20
"""Sequences that are shuffled with each other: those of blocks from all over the corpus. A multiple of BLOCK."""
GOLDEN = 0.6180339887498949
CANDIDATES = 100


class ResumableSampler:
    """Goes through the corpus in a fresh random order each epoch; steps run on from one epoch into the next.

    `counts` are the sequences of each source, in corpus order. After e epochs a source of n sequences and weight w was
    visited floor(e n w) times, each of its sequences as often as the others, give or take one; what an epoch takes of
    a source is spread evenly over it.

    Up to GROUP visits an epoch are shuffled as a whole. Of more, blocks are shuffled, and then what lies in each group
    of them: memory stays the same, and a step's sequences still come from hundreds of places.
    """

    def __init__(self, counts: Sequence[int], batch_size: int, seed: int, weights: Sequence[float] = ()) -> None:
        filled = [(n, w, first) for n, w, first in _sources(counts, weights or [1.0] * len(counts)) if n]
        self.batch_size = batch_size
        self.seed = seed
        self._counts_S = torch.tensor([n for n, _, _ in filled])
        self._firsts_S = torch.tensor([first for _, _, first in filled])
        # of what the user wrote: 0.1 is a tenth, not the nearest binary fraction
        self._rates = [n * Fraction(str(w)) for n, w, _ in filled]
        self._strides_S = torch.tensor([1 if Fraction(str(w)).denominator == 1 else _stride(n) for n, w, _ in filled])
        # a step lies in one group of one epoch, or in two where it goes over an end
        self._order = lru_cache(maxsize=2)(self._make_order)
        self._block_order = lru_cache(maxsize=2)(self._make_block_order)

    def count(self, epoch: int) -> int:
        """Returns the visits of an epoch."""
        return sum(self._before(epoch + 1)) - sum(self._before(epoch))

    def indices(self, step: int) -> Tensor:
        """Returns the sequence numbers [B] of a step."""
        source_B, visits_B = self._visited(step)
        count_B = self._counts_S[source_B]
        return self._firsts_S[source_B] + visits_B % count_B * self._strides_S[source_B] % count_B

    def epochs(self, step: int) -> Tensor:
        """Returns how often each sequence of a step was seen before, [B]."""
        source_B, visits_B = self._visited(step)
        return visits_B // self._counts_S[source_B]

    def _before(self, epoch: int) -> list[int]:
        """Returns how often each source was visited before an epoch."""
        return [floor(epoch * rate) for rate in self._rates]

    def _epoch(self, place: int) -> int:
        """Returns the epoch of the visit that stands at a place of all visits."""
        epoch = floor(place / sum(self._rates))  # or one of the next: of each source less than a visit is cut off
        while sum(self._before(epoch + 1)) <= place:
            epoch += 1
        return epoch

    def _visited(self, step: int) -> tuple[Tensor, Tensor]:
        """Returns the source of each sequence of a step, and which of the visits to that source this is, [B] each."""
        place, end = step * self.batch_size, (step + 1) * self.batch_size
        epoch = self._epoch(place)
        sources, visits = [], []
        while place < end:
            before_S, after_S = torch.tensor(self._before(epoch)), torch.tensor(self._before(epoch + 1))
            last = min(end, int(after_S.sum()))
            shuffled = self._shuffled(epoch, torch.arange(place, last) - int(before_S.sum()))
            ends_S = (after_S - before_S).cumsum(0)
            source = torch.searchsorted(ends_S, shuffled, right=True)
            sources.append(source)
            visits.append(after_S[source] - ends_S[source] + shuffled)
            place, epoch = last, epoch + 1
        return torch.cat(sources), torch.cat(visits)

    def _shuffled(self, epoch: int, places: Tensor) -> Tensor:
        """Returns which of the epoch's visits stand at these places of it."""
        count = self.count(epoch)
        if count <= GROUP:
            return self._order(epoch, 0)[places]
        short = count % BLOCK
        if short:  # the last block is shorter than the others, and stands anywhere
            end = (int((self._block_order(epoch) == count // BLOCK).nonzero()) * BLOCK // GROUP + 1) * GROUP
            places = torch.where(places >= end - (BLOCK - short), places + BLOCK - short, places)
        groups = places // GROUP
        found = torch.empty_like(places)
        for group in sorted(set(groups.tolist())):
            chosen = groups == group
            found[chosen] = self._order(epoch, group)[places[chosen] % GROUP]
        return found

    def _make_order(self, epoch: int, group: int) -> Tensor:
        """Returns the visits of a group in their order."""
        count = self.count(epoch)
        if count <= GROUP:
            return self._permutation(count, "data order", epoch)
        blocks = self._block_order(epoch)[group * (GROUP // BLOCK) : (group + 1) * (GROUP // BLOCK)]
        members = (blocks[:, None] * BLOCK + torch.arange(BLOCK)).flatten()
        members = members[members < count]
        return members[self._permutation(len(members), "data order in a group", epoch, group)]

    def _make_block_order(self, epoch: int) -> Tensor:
        return self._permutation(-(-self.count(epoch) // BLOCK), "data order", epoch)

    def _permutation(self, count: int, stream: str, *position: int) -> Tensor:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, stream, *position))
        return torch.randperm(count, generator=generator)


def _sources(counts: Sequence[int], weights: Sequence[float]) -> list[tuple[int, float, int]]:
    """Returns each source's count, weight and first sequence."""
    firsts = [sum(counts[:number]) for number in range(len(counts))]
    return list(zip(counts, weights, firsts, strict=True))


def _stride(count: int) -> int:
    """Returns a step that goes through all of 0 ... count - 1 (modulo count) and is even over them at any time.

    Near the golden section, and with small quotients in Euclid's algorithm: then no two early multiples lie close.
    """
    near = range(max(1, round(count * GOLDEN)), max(1, round(count * GOLDEN)) + CANDIDATES)
    return min((step for step in near if gcd(step, count) == 1), key=lambda step: _largest_quotient(step, count))


def _largest_quotient(a: int, b: int) -> int:
    largest = 0
    while b:
        largest, a, b = max(largest, a // b), b, a % b
    return largest
