"""PMI-masking (Levine et al. 2021, ICLR): n-grams with high pointwise mutual information are masked as a whole.

Shapes: B sequences, L positions, T tokens of the concatenated sample, G n-grams of one length, V vocabulary.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mapnet_cli.masking.context import CorpusFacts, MaskContext
from mapnet_cli.text import FIRST_ORDINARY

MIN_COUNT = 10
SHARES = {2: 0.5, 3: 0.25, 4: 0.125, 5: 0.125}
"""Share of each length among the chosen n-grams. PMI is not comparable across lengths."""
COVERED = 0.5
"""Share of the tokens that the chosen n-grams cover, which sets their number (the paper's criterion for 800,000)."""
MOST_TOKENS = 1 << 23  # maximum number of tokens to count, at about 60 bytes of memory each
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
ABSENT = -1


@dataclass(frozen=True)
class Ngrams:
    """Candidates of one length. `keys_G` is sorted; a key is the prefix's index times V plus the last token."""

    keys_G: Ints
    chosen_G: npt.NDArray[np.bool_]

    def find(self, prefix: Ints, token: Ints, vocab_size: int) -> Ints:
        """Returns the indices of the n-grams, ABSENT for those that are not candidates."""
        if not len(self.keys_G):
            return np.full_like(prefix, ABSENT)
        key = prefix * vocab_size + token
        index = np.searchsorted(self.keys_G, key).clip(max=len(self.keys_G) - 1)
        known = (prefix != ABSENT) & (token >= FIRST_ORDINARY) & (self.keys_G[index] == key)
        return np.where(known, index, ABSENT)


@dataclass(frozen=True)
class Collocations:
    """The chosen n-grams, for lookup in a batch."""

    vocab_size: int
    by_length: dict[int, Ngrams]

    def unit_starts(self, tokens_BL: Tensor) -> Tensor:
        """Returns True where a unit begins. N-grams match from left to right, longest first; other tokens are units."""
        tokens = tokens_BL.numpy()
        length = np.ones_like(tokens)
        index = np.where(tokens >= FIRST_ORDINARY, tokens, ABSENT)
        for n, ngrams in self.by_length.items():
            if tokens.shape[1] < n:
                break
            index = ngrams.find(index[:, :-1], tokens[:, n - 1 :], self.vocab_size)
            known = index != ABSENT
            here = length[:, : index.shape[1]]
            here[known] = np.where(ngrams.chosen_G[index[known]], n, here[known])
        starts = np.empty(tokens.shape, dtype=np.bool_)
        free_from = np.zeros(len(tokens), dtype=np.int64)
        for position in range(tokens.shape[1]):
            starts[:, position] = free_from <= position
            free_from = np.where(starts[:, position], position + length[:, position], free_from)
        return torch.from_numpy(starts)


def collocations(corpus: CorpusFacts) -> MaskContext:
    """Returns a context whose units are n-grams of 2 to 5 tokens with high PMI, and single tokens elsewhere."""
    tokens_T = np.concatenate(list(corpus.sampled_tokens(MOST_TOKENS)))
    return MaskContext(unit_starts=find_collocations(tokens_T, corpus.vocab_size).unit_starts)


def find_collocations(tokens_T: Ints, vocab_size: int) -> Collocations:
    """Returns the n-grams to mask as a whole. None contains a special token."""
    ordinary = windows = tokens_T >= FIRST_ORDINARY
    indices = {1: np.where(ordinary, tokens_T, ABSENT)}
    keys, needed = {}, {}
    log_p = {1: _log_share(np.bincount(tokens_T[ordinary], minlength=vocab_size), windows)}
    for n in SHARES:
        keys[n], indices[n], counts_G, first_G = _candidates(indices[n - 1], tokens_T, n, vocab_size)
        windows = windows[:-1] & ordinary[n - 1 :]
        log_p[n] = _log_share(counts_G, windows)
        pmi_G = _pmi(indices, log_p, first_G, n)
        rank_G = np.empty(len(pmi_G))
        rank_G[np.argsort(-pmi_G, kind="stable")] = np.arange(1, len(pmi_G) + 1)
        needed[n] = rank_G / SHARES[n]  # the smallest list that contains it
    size = _size_that_covers(indices, needed, COVERED)
    return Collocations(vocab_size, {n: Ngrams(keys[n], needed[n] <= size) for n in SHARES})


def _candidates(prefix_T: Ints, tokens_T: Ints, n: int, vocab_size: int) -> tuple[Ints, Ints, Ints, Ints]:
    """Returns, for the frequent n-grams, (sorted keys, index at each start position [T], counts, first positions)."""
    prefix, last = prefix_T[: len(tokens_T) - n + 1], tokens_T[n - 1 :]
    possible = np.flatnonzero((prefix != ABSENT) & (last >= FIRST_ORDINARY))
    keys, first, inverse, counts = np.unique(
        prefix[possible] * vocab_size + last[possible], return_index=True, return_inverse=True, return_counts=True
    )
    kept = counts >= MIN_COUNT
    new_index = np.where(kept, np.cumsum(kept) - 1, ABSENT)
    index_T = np.full(len(tokens_T), ABSENT)
    index_T[possible] = new_index[inverse]
    return keys[kept], index_T, counts[kept], possible[first[kept]]


def _log_share(counts_G: Ints, windows: npt.NDArray[np.bool_]) -> Floats:
    """Returns log p [G]: counts divided by the number of all n-grams of this length, including rare ones."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(counts_G / max(int(windows.sum()), 1)))


def _pmi(indices: dict[int, Ints], log_p: dict[int, Floats], first_G: Ints, n: int) -> Floats:
    """Returns PMI_n [G]: log p(w) minus its maximum over all splits of w (the paper's Eq. 3), found as by Viterbi."""
    best = [np.zeros(len(first_G))]
    for end in range(1, n + 1):
        splits = [
            best[begin] + log_p[end - begin][indices[end - begin][first_G + begin]]
            for begin in range(end)
            if end - begin < n  # the n-gram itself is not a split
        ]
        best.append(np.max(splits, axis=0))
    return np.asarray(log_p[n] - best[n])


def _size_that_covers(indices: dict[int, Ints], needed: dict[int, Floats], share: float) -> float:
    """Returns the smallest list size that covers this share of the tokens; inf, so all n-grams, if none does."""
    from_T = np.full(len(indices[1]), np.inf)
    for n, needed_G in needed.items():
        begins = np.flatnonzero(indices[n] != ABSENT)
        for offset in range(n):
            np.minimum.at(from_T, begins + offset, needed_G[indices[n][begins]])
    ordinary = from_T[indices[1] != ABSENT]
    return float(np.quantile(ordinary, share, method="inverted_cdf")) if len(ordinary) else 0.0
