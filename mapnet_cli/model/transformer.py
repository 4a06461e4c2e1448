"""The transformer that the encoder and MAP-Net are both built of: BERT's, post-LN.

Shapes: B sequences, L positions, H hidden size, A heads, V vocabulary (padded inside).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mapnet_cli.config import Transformer

LAYER_NORM_EPS = 1e-12
EMBEDDING_STD = 0.02
SINUSOID_AMPLITUDE, SINUSOID_BASE = 0.05, 1000.0
VOCABULARY_MULTIPLE = 64
"""Embedding rows are padded to a multiple of this: matrix units like it, nobody outside sees it."""


class Attention(nn.Module):
    """Multi-head self-attention with one matrix for query, key and value."""

    def __init__(self, config: Transformer) -> None:
        super().__init__()
        self.heads = config.heads
        self.dropout = config.attention_dropout
        self.qkv = nn.Linear(config.hidden, 3 * config.hidden)
        self.out = nn.Linear(config.hidden, config.hidden)

    def forward(self, x_BLH: Tensor, attend_B11L: Tensor | None) -> Tensor:
        batch, length, hidden = x_BLH.shape
        qkv = self.qkv(x_BLH).view(batch, length, 3, self.heads, hidden // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(
            query, key, value, attn_mask=attend_B11L, dropout_p=self.dropout if self.training else 0.0
        )
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, length, hidden))
        return out


class Layer(nn.Module):
    """Attention and feed-forward, each followed by dropout, the residual and LayerNorm (post-LN)."""

    def __init__(self, config: Transformer) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.attention_norm = nn.LayerNorm(config.hidden, eps=LAYER_NORM_EPS)
        self.ffn_in = nn.Linear(config.hidden, config.ffn)
        self.ffn_out = nn.Linear(config.ffn, config.hidden)
        self.ffn_norm = nn.LayerNorm(config.hidden, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BLH: Tensor, attend_B11L: Tensor | None) -> Tensor:
        x_BLH = self.attention_norm(x_BLH + self.dropout(self.attention(x_BLH, attend_B11L)))
        out_BLH: Tensor = self.ffn_norm(x_BLH + self.dropout(self.ffn_out(F.gelu(self.ffn_in(x_BLH)))))
        return out_BLH


class Stack(nn.Module):
    """Learned positions, LayerNorm, dropout and the layers, on token vectors of the hidden size."""

    def __init__(self, config: Transformer) -> None:
        super().__init__()
        self.positions = nn.Embedding(config.max_length, config.hidden)
        self.norm = nn.LayerNorm(config.hidden, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))

    def forward(self, vectors_BLH: Tensor, attend_BL: Tensor | None) -> Tensor:
        """Returns [B, L, H]. `attend_BL` is False at padding; None if there is none."""
        length = vectors_BLH.shape[1]
        x_BLH: Tensor = self.dropout(self.norm(vectors_BLH + self.positions.weight[:length]))
        attend_B11L = None if attend_BL is None else attend_BL[:, None, None, :]
        for layer in self.layers:
            x_BLH = layer(x_BLH, attend_B11L)
        return x_BLH


class Encoder(nn.Module):
    """BERT's encoder without segment embeddings.

    `tokens` is the embedding matrix that the MLM head and MAP-Net share.
    """

    def __init__(self, config: Transformer, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        self.tokens = nn.Embedding(padded_vocabulary(vocab_size), config.hidden)
        self.stack = Stack(config)

    def forward(self, tokens_BL: Tensor, attend_BL: Tensor | None = None) -> Tensor:
        """Returns the hidden states [B, L, H]."""
        hidden_BLH: Tensor = self.stack(self.tokens(tokens_BL), attend_BL)
        return hidden_BLH


def padded_vocabulary(vocab_size: int) -> int:
    return -(-vocab_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE


def initialise(module: nn.Module, config: Transformer, generator: torch.Generator) -> None:
    """Sets weights as BERT does: embeddings N(0, 0.02), matrices N(0, init_std), biases 0, LayerNorm 1 and 0."""
    for part in module.modules():
        if isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, std=EMBEDDING_STD, generator=generator)
        elif isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=config.init_std, generator=generator)
            nn.init.zeros_(part.bias)
    for part in module.modules():
        if isinstance(part, Stack) and config.initial_positions == "sinusoidal":
            part.positions.weight.data.copy_(sinusoids(*part.positions.weight.shape))


def sinusoids(length: int, hidden: int) -> Tensor:
    """Returns [L, H]: sines in the even columns, cosines in the odd ones, of geometrically falling frequencies."""
    frequency_H = SINUSOID_BASE ** (-torch.arange(0, hidden, 2) / hidden)
    angle_LH = torch.arange(length)[:, None] * frequency_H
    both_LH = torch.stack([angle_LH.sin(), angle_LH.cos()], dim=2).reshape(length, -1)[:, :hidden]
    return SINUSOID_AMPLITUDE * both_LH


def attention_mask(tokens_BL: Tensor, pad: int) -> Tensor | None:
    """Returns False at padding, or None where there is none, so that the fastest kernels apply.

    Reads the tokens on the host: call it before they move to a GPU.
    """
    attend_BL = tokens_BL != pad
    return None if bool(attend_BL.all()) else attend_BL
