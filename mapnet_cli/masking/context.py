"""Corpus statistics for masking strategies, and the contexts that strategies compute from them.

Shapes: B sequences, L positions, V vocabulary.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mapnet_cli.core import Artifacts, CorpusManifest
from mapnet_cli.text import FIRST_ORDINARY, Sequences, load_tokenizer, open_shards, word_part

COUNTED_SEQUENCES = 1 << 16
"""Maximum number of sequences that statistics are computed from, spread evenly over the training split."""
PART = 1_024


@dataclass(frozen=True)
class MaskContext:
    """What a strategy computes from the corpus before the first step. Used on the CPU."""

    unit_starts: Callable[[Tensor], Tensor] | None = None
    """Maps tokens [B, L] to booleans [B, L]: True at the first token of each unit that is masked as a whole."""
    log_weight_V: Tensor | None = None
    """Fixed log-weights of the tokens [V], for a proposal that is not learned."""


NO_CONTEXT = MaskContext()


@dataclass(frozen=True)
class CorpusFacts:
    """A finished corpus, passed to `Strategy.prepare`. Statistics are computed on first access."""

    artifacts: Artifacts
    manifest: CorpusManifest

    @property
    def vocab_size(self) -> int:
        return self.manifest.vocab_size

    @cached_property
    def train(self) -> Sequences:
        """The training split."""
        return open_shards(self.artifacts, self.manifest.train)

    @cached_property
    def word_starts(self) -> Tensor:
        """True for tokens that start a word, [V]."""
        pieces = load_tokenizer(self.artifacts.path(self.manifest.tokenizer))
        ordinary = range(FIRST_ORDINARY, self.vocab_size)
        return torch.tensor([False] * FIRST_ORDINARY + [word_part(pieces, token)[1] for token in ordinary])

    @cached_property
    def token_counts(self) -> Tensor:
        """Count of each token in the training split or an even sample of it, [V] in float64."""
        counts_V = np.zeros(self.vocab_size, dtype=np.int64)
        for tokens in self.sampled_tokens():
            counts_V += np.bincount(tokens, minlength=self.vocab_size)
        return torch.from_numpy(counts_V).double()

    def sampled_tokens(self, most: int | None = None) -> Iterator[npt.NDArray[np.int64]]:
        """Yields the tokens of an even sample of the training split, PART sequences at a time, about `most` in all."""
        count = min(len(self.train), COUNTED_SEQUENCES)
        if most is not None:
            count = min(count, max(1, int(most / self.train.lengths.mean())))
        chosen = np.linspace(0, len(self.train) - 1, count).astype(np.int64)
        for part in np.array_split(chosen, -(-count // PART)):
            yield np.concatenate([self.train[int(index)] for index in part]).astype(np.int64)


def words(corpus: CorpusFacts) -> MaskContext:
    """Returns a context whose units are words."""
    starts_V = corpus.word_starts
    return MaskContext(unit_starts=lambda tokens_BL: starts_V[tokens_BL])


def rarity(corpus: CorpusFacts) -> MaskContext:
    """Returns a context that weights tokens by 1 / sqrt(count), so that rare tokens are more likely."""
    return MaskContext(log_weight_V=-0.5 * torch.log(corpus.token_counts.clamp(min=1)))
