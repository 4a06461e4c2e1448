"""Kinds of tokens whose held-out accuracy is told apart: by frequency, and function against content words.

Shapes: B sequences, L positions, V vocabulary.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from mapnet_cli.model.factory import token_counts, word_starts
from mapnet_cli.text import bpe
from mapnet_cli.text.shards import Sequences
from mapnet_cli.text.special_tokens import FIRST_ORDINARY

DECILES = 10
FUNCTION, CONTENT, OTHER = range(3)
CLOSED_CLASSES = """
a an the this that these those some any no every each either neither both all such another other
i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself she her hers
herself it its itself they them their theirs themselves one oneself who whom whose which what whoever whatever
about above across after against along among around as at before behind below beneath beside besides between
beyond by despite down during except for from in inside into like near of off on onto out outside over past
since through throughout till to toward towards under until up upon via with within without
and but or nor so yet if because although though while whereas unless than whether when where why how
am is are was were be been being have has had having do does did done doing will would shall should can could
may might must ought not n't there here then also only just very too even
"""
"""English articles, pronouns, prepositions, conjunctions, auxiliaries and particles: the function words."""


@dataclass(frozen=True)
class TokenBuckets:
    """What kind each token of the vocabulary is of, [V]."""

    decile_V: Tensor
    """0 for the most frequent tokens that together are a tenth of the text, ..., 9 for the rarest tenth."""
    begins_V: Tensor
    """True for tokens that begin a word."""
    kind_V: Tensor
    """FUNCTION or CONTENT, if the token is a whole word; OTHER if it has other characters than letters."""


def token_buckets(tokenizer: Path, train: Sequences, vocab_size: int) -> TokenBuckets:
    """Returns the kinds of the vocabulary's tokens, frequencies being those of the training text."""
    counts_V = token_counts(train, vocab_size)
    counts_V[:FIRST_ORDINARY] = 0
    order_V = counts_V.argsort(descending=True, stable=True)
    sorted_V = counts_V[order_V]
    # a token belongs where its middle lies: a very frequent one may be more than a tenth itself
    middle_V = (sorted_V.cumsum(0) - sorted_V / 2) / sorted_V.sum().clamp(min=1)
    decile_V = torch.empty(vocab_size, dtype=torch.long)
    decile_V[order_V] = (DECILES * middle_V).long().clamp(max=DECILES - 1)
    pieces, closed = bpe.load(tokenizer), frozenset(CLOSED_CLASSES.split())
    texts = [bpe.word_part(pieces, token)[0].lower() for token in range(vocab_size)]
    kinds = [FUNCTION if text in closed else CONTENT if text.isalpha() else OTHER for text in texts]
    return TokenBuckets(decile_V, word_starts(tokenizer, vocab_size), torch.tensor(kinds))


def word_kinds(groups: TokenBuckets, tokens_BL: Tensor) -> Tensor:
    """Returns the kind of each position [B, L]: parts of longer words, punctuation and specials are OTHER."""
    ordinary_BL = tokens_BL >= FIRST_ORDINARY
    begins_BL = groups.begins_V[tokens_BL]
    goes_on_BL = F.pad((ordinary_BL & ~begins_BL)[:, 1:], (0, 1))
    return torch.where(ordinary_BL & begins_BL & ~goes_on_BL, groups.kind_V[tokens_BL], OTHER)
