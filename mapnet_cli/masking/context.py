"""What a masking strategy may know of the corpus, and masks outside of training.

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
"""Statistics are those of at most this many sequences, spread evenly over the training split."""
PART = 1_024
"""Sequences that are read together."""


@dataclass(frozen=True)
class MaskContext:
    """What a strategy has worked out from the corpus before the first step. It is read on the host."""

    unit_starts: Callable[[Tensor], Tensor] | None = None
    """Tokens [B, L] to [B, L]: True where a unit begins whose tokens are masked together."""
    log_weight_V: Tensor | None = None
    """Fixed log-weights of the tokens, for a proposal that learns nothing."""


NO_CONTEXT = MaskContext()


@dataclass(frozen=True)
class CorpusFacts:
    """A finished corpus as `Strategy.prepare` sees it. Each fact is computed when it is first asked for."""

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
        """True for tokens with which a word begins, [V]."""
        pieces = load_tokenizer(self.artifacts.path(self.manifest.tokenizer))
        ordinary = range(FIRST_ORDINARY, self.vocab_size)
        return torch.tensor([False] * FIRST_ORDINARY + [word_part(pieces, token)[1] for token in ordinary])

    @cached_property
    def token_counts(self) -> Tensor:
        """How often each token occurs in the training split or an even sample of it, [V] in float64."""
        counts_V = np.zeros(self.vocab_size, dtype=np.int64)
        for tokens in self.sampled_tokens():
            counts_V += np.bincount(tokens, minlength=self.vocab_size)
        return torch.from_numpy(counts_V).double()

    def sampled_tokens(self, most: int | None = None) -> Iterator[npt.NDArray[np.int64]]:
        """Yields the tokens of an even sample of the training split, some sequences at a time, end to end.

        The sample has about `most` tokens, if that is less.
        """
        count = min(len(self.train), COUNTED_SEQUENCES)
        if most is not None:
            count = min(count, max(1, int(most / self.train.lengths.mean())))
        chosen = np.linspace(0, len(self.train) - 1, count).astype(np.int64)
        for part in np.array_split(chosen, -(-count // PART)):
            yield np.concatenate([self.train[int(index)] for index in part]).astype(np.int64)


def no_context(corpus: CorpusFacts) -> MaskContext:
    """For strategies that look at nothing but the batch."""
    return NO_CONTEXT


def words(corpus: CorpusFacts) -> MaskContext:
    """Units are words."""
    starts_V = corpus.word_starts
    return MaskContext(unit_starts=lambda tokens_BL: starts_V[tokens_BL])


def rarity(corpus: CorpusFacts) -> MaskContext:
    """Tokens weigh 1 over the square root of their count: rarer is likelier."""
    return MaskContext(log_weight_V=-0.5 * torch.log(corpus.token_counts.clamp(min=1)))
