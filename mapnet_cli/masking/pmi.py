"""PMI-masking (Levine et al. 2021, ICLR): n-grams of high pointwise mutual information are masked as a whole.

Shapes: B sequences, L positions, T tokens of the sample end to end, G n-grams of one length, V vocabulary.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mapnet_cli.masking.context import CorpusFacts, MaskContext
from mapnet_cli.text import FIRST_ORDINARY

LONGEST = 5
"""Tokens of an n-gram, as in the paper."""
MIN_COUNT = 10
"""Rarer n-grams are no candidates."""
SHARES = {2: 0.5, 3: 0.25, 4: 0.125, 5: 0.125}
"""Of the n-grams that are chosen, by length: PMI of different lengths does not compare."""
COVERED = 0.5
"""So many n-grams are chosen that this share of the tokens is in one of them (the paper's reason for its 800,000)."""
MOST_TOKENS = 1 << 23
"""Tokens that are counted; memory is about 60 bytes each."""

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
ABSENT = -1


@dataclass(frozen=True)
class Ngrams:
    """Candidates of one length. `keys_G` are sorted: the prefix's number times V, plus the last token."""

    keys_G: Ints
    chosen_G: npt.NDArray[np.bool_]

    def find(self, prefix: Ints, token: Ints, vocab_size: int) -> Ints:
        """Returns the numbers of the n-grams, ABSENT for those that are no candidates."""
        if not len(self.keys_G):
            return np.full_like(prefix, ABSENT)
        key = prefix * vocab_size + token
        place = np.searchsorted(self.keys_G, key).clip(max=len(self.keys_G) - 1)
        known = (prefix != ABSENT) & (token >= FIRST_ORDINARY) & (self.keys_G[place] == key)
        return np.where(known, place, ABSENT)


@dataclass(frozen=True)
class Collocations:
    """The chosen n-grams, ready to be found in a batch."""

    vocab_size: int
    by_length: dict[int, Ngrams]

    def unit_starts(self, tokens_BL: Tensor) -> Tensor:
        """Returns True where a unit begins: n-grams from left to right, the longest first, else single tokens."""
        tokens = tokens_BL.numpy()
        length = np.ones_like(tokens)
        number = np.where(tokens >= FIRST_ORDINARY, tokens, ABSENT)
        for n, ngrams in self.by_length.items():
            if tokens.shape[1] < n:
                break
            number = ngrams.find(number[:, :-1], tokens[:, n - 1 :], self.vocab_size)
            known = number != ABSENT
            here = length[:, : number.shape[1]]
            here[known] = np.where(ngrams.chosen_G[number[known]], n, here[known])
        starts = np.empty(tokens.shape, dtype=np.bool_)
        free_from = np.zeros(len(tokens), dtype=np.int64)
        for position in range(tokens.shape[1]):
            starts[:, position] = free_from <= position
            free_from = np.where(starts[:, position], position + length[:, position], free_from)
        return torch.from_numpy(starts)


def collocations(corpus: CorpusFacts) -> MaskContext:
    """Units are n-grams of 2 to 5 tokens with high PMI, counted on the training split; other tokens stand alone."""
    tokens_T = np.concatenate(list(corpus.sampled_tokens(MOST_TOKENS)))
    return MaskContext(unit_starts=find_collocations(tokens_T, corpus.vocab_size).unit_starts)


def find_collocations(tokens_T: Ints, vocab_size: int) -> Collocations:
    """Returns the n-grams that are masked as a whole; none goes over a special token."""
    ordinary = windows = tokens_T >= FIRST_ORDINARY
    numbers = {1: np.where(ordinary, tokens_T, ABSENT)}
    keys, needed = {}, {}
    log_p = {1: _log_share(np.bincount(tokens_T[ordinary], minlength=vocab_size), windows)}
    for n in SHARES:
        keys[n], numbers[n], counts_G, first_G = _candidates(numbers[n - 1], tokens_T, n, vocab_size)
        windows = windows[:-1] & ordinary[n - 1 :]
        log_p[n] = _log_share(counts_G, windows)
        pmi_G = _pmi(numbers, log_p, first_G, n)
        rank_G = np.empty(len(pmi_G))
        rank_G[np.argsort(-pmi_G, kind="stable")] = np.arange(1, len(pmi_G) + 1)
        needed[n] = rank_G / SHARES[n]  # the size of the list from which on it is in
    size = _size_that_covers(numbers, needed, COVERED)
    return Collocations(vocab_size, {n: Ngrams(keys[n], needed[n] <= size) for n in SHARES})


def _candidates(prefix_T: Ints, tokens_T: Ints, n: int, vocab_size: int) -> tuple[Ints, Ints, Ints, Ints]:
    """Returns of the frequent n-grams (sorted keys, which one begins at each place [T], counts, a place of each)."""
    prefix, last = prefix_T[: len(tokens_T) - n + 1], tokens_T[n - 1 :]
    possible = np.flatnonzero((prefix != ABSENT) & (last >= FIRST_ORDINARY))
    keys, first, inverse, counts = np.unique(
        prefix[possible] * vocab_size + last[possible], return_index=True, return_inverse=True, return_counts=True
    )
    kept = counts >= MIN_COUNT
    renumbered = np.where(kept, np.cumsum(kept) - 1, ABSENT)
    number_T = np.full(len(tokens_T), ABSENT)
    number_T[possible] = renumbered[inverse]
    return keys[kept], number_T, counts[kept], possible[first[kept]]


def _log_share(counts_G: Ints, windows: npt.NDArray[np.bool_]) -> Floats:
    """Returns log p [G]: counts over the number of all n-grams of this length, frequent or not."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(counts_G / max(int(windows.sum()), 1)))


def _pmi(numbers: dict[int, Ints], log_p: dict[int, Floats], first_G: Ints, n: int) -> Floats:
    """Returns PMI_n [G]: log p(w) minus the best of all ways to cut w into parts (the paper's Eq. 3).

    The best sum of the parts' log-probabilities goes from left to right, as in Viterbi's algorithm.
    """
    best = [np.zeros(len(first_G))]
    for end in range(1, n + 1):
        ways = [
            best[begin] + log_p[end - begin][numbers[end - begin][first_G + begin]]
            for begin in range(end)
            if end - begin < n  # the whole is no way to cut it
        ]
        best.append(np.max(ways, axis=0))
    return np.asarray(log_p[n] - best[n])


def _size_that_covers(numbers: dict[int, Ints], needed: dict[int, Floats], share: float) -> float:
    """Returns the size of the list at which this share of the tokens is in some n-gram; all of it if none does."""
    from_T = np.full(len(numbers[1]), np.inf)
    for n, needed_G in needed.items():
        begins = np.flatnonzero(numbers[n] != ABSENT)
        for offset in range(n):
            np.minimum.at(from_T, begins + offset, needed_G[numbers[n][begins]])
    ordinary = from_T[numbers[1] != ABSENT]
    return float(np.quantile(ordinary, share, method="inverted_cdf")) if len(ordinary) else 0.0
