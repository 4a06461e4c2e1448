"""What stands on the encoder: the heads of masked language modelling, replaced-token detection and classification.

Shapes: N positions gathered from a batch, B sequences, L positions, H hidden size, E that of the token embeddings,
V vocabulary (padded inside).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mapnet_cli.model.bert import LAYER_NORM_EPS, padded_vocabulary

NO_TOKEN = -1e4
"""Logit of the padding rows of the vocabulary: their probability is exactly 0 in float32."""


class MaskedLMHead(nn.Module):
    """BERT's: dense, GELU, LayerNorm, then the token embeddings as decoder, and a bias.

    `embedding` is the embeddings' size where it isn't the hidden size: a small generator decodes with the encoder's.
    """

    def __init__(self, hidden: int, vocab_size: int, embedding: int | None = None) -> None:
        super().__init__()
        embedding = embedding or hidden
        self.dense = nn.Linear(hidden, embedding)
        self.norm = nn.LayerNorm(embedding, eps=LAYER_NORM_EPS)
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        self.padding = padded_vocabulary(vocab_size) - vocab_size

    def forward(self, hidden_NH: Tensor, embeddings_VE: Tensor) -> Tensor:
        """Returns logits [N, V], V padded."""
        bias_V = F.pad(self.bias, (0, self.padding), value=NO_TOKEN)
        return F.linear(self.norm(F.gelu(self.dense(hidden_NH))), embeddings_VE, bias_V)


class DetectionHead(nn.Module):
    """ELECTRA's: dense, GELU, and one logit at every position."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, 1)

    def forward(self, hidden_BLH: Tensor) -> Tensor:
        """Returns [B, L]: the logit that the token was replaced."""
        logits_BL1: Tensor = self.out(F.gelu(self.dense(hidden_BLH)))
        return logits_BL1.squeeze(-1)


class ClassificationHead(nn.Module):
    """fairseq's sentence head on [CLS]: dropout, dense, tanh, dropout, out."""

    def __init__(self, hidden: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.dense = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, outputs)

    def forward(self, hidden_BH: Tensor) -> Tensor:
        """Returns [B, outputs] of the vectors at [CLS]: logits, or for regression one value."""
        x_BH = torch.tanh(self.dense(self.dropout(hidden_BH)))
        logits: Tensor = self.out(self.dropout(x_BH))
        return logits


def at_slots(values_N: Tensor, slots_N: Tensor | None, like_BK: Tensor) -> Tensor:
    """Returns [B, K], K slots a sequence, with the values at their slots and 0 elsewhere; at all slots if None."""
    if slots_N is None:
        return values_N.view_as(like_BK)
    zeros = torch.zeros(like_BK.numel(), dtype=values_N.dtype, device=values_N.device)
    return zeros.index_copy(0, slots_N, values_N).view_as(like_BK)
