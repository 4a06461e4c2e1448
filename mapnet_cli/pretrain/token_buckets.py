"""Kinds of tokens whose held-out accuracy is told apart: by frequency, and function against content words.

Shapes: B sequences, L positions, V vocabulary.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mapnet_cli.masking.context import CorpusFacts
from mapnet_cli.text.bpe import load_tokenizer, word_part
from mapnet_cli.text.words import FIRST_ORDINARY, FUNCTION_WORDS

DECILES = 10
FUNCTION, CONTENT, OTHER = range(3)


@dataclass(frozen=True)
class TokenBuckets:
    """What kind each token of the vocabulary is of, [V]."""

    decile_V: Tensor
    """0 for the most frequent tokens that together are a tenth of the text, ..., 9 for the rarest tenth."""
    begins_V: Tensor
    """True for tokens that begin a word."""
    kind_V: Tensor
    """FUNCTION or CONTENT, if the token is a whole word; OTHER if it has other characters than letters."""


def token_buckets(corpus: CorpusFacts) -> TokenBuckets:
    """Returns the kinds of the vocabulary's tokens, frequencies being those of the training text."""
    vocab_size, counts_V = corpus.vocab_size, corpus.token_counts.clone()
    counts_V[:FIRST_ORDINARY] = 0
    order_V = counts_V.argsort(descending=True, stable=True)
    sorted_V = counts_V[order_V]
    # a token belongs where its middle lies: a very frequent one may be more than a tenth itself
    middle_V = (sorted_V.cumsum(0) - sorted_V / 2) / sorted_V.sum().clamp(min=1)
    decile_V = torch.empty(vocab_size, dtype=torch.long)
    decile_V[order_V] = (DECILES * middle_V).long().clamp(max=DECILES - 1)
    pieces = load_tokenizer(corpus.artifacts.path(corpus.manifest.tokenizer))
    texts = [word_part(pieces, token)[0].lower() for token in range(vocab_size)]
    kinds = [FUNCTION if text in FUNCTION_WORDS else CONTENT if text.isalpha() else OTHER for text in texts]
    return TokenBuckets(decile_V, corpus.word_starts, torch.tensor(kinds))


def word_kinds(groups: TokenBuckets, tokens_BL: Tensor) -> Tensor:
    """Returns the kind of each position [B, L]: parts of longer words, punctuation and specials are OTHER."""
    ordinary_BL = tokens_BL >= FIRST_ORDINARY
    begins_BL = groups.begins_V[tokens_BL]
    goes_on_BL = F.pad((ordinary_BL & ~begins_BL)[:, 1:], (0, 1))
    return torch.where(ordinary_BL & begins_BL & ~goes_on_BL, groups.kind_V[tokens_BL], OTHER)
