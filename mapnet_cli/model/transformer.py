"""The transformer that the encoder and MAP-Net are both built of: BERT's, post-LN.

Shapes: B sequences, L positions, Q of them asked for, H hidden size, A heads, V vocabulary (padded inside).
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

    def forward(self, x_BLH: Tensor, attend_B11L: Tensor | None, asking_BQH: Tensor | None = None) -> Tensor:
        """Returns [B, Q, H] for the asking vectors, or for all of x, [B, L, H]."""
        batch, length, hidden = x_BLH.shape
        size = hidden // self.heads
        if asking_BQH is None:
            query, key, value = self.qkv(x_BLH).view(batch, length, 3, self.heads, size).permute(2, 0, 3, 1, 4)
        else:
            weight, bias = self.qkv.weight, self.qkv.bias
            query = F.linear(asking_BQH, weight[:hidden], bias[:hidden]).view(batch, -1, self.heads, size)
            query = query.transpose(1, 2)
            both = F.linear(x_BLH, weight[hidden:], bias[hidden:]).view(batch, length, 2, self.heads, size)
            key, value = both.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(
            query, key, value, attn_mask=attend_B11L, dropout_p=self.dropout if self.training else 0.0
        )
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, -1, hidden))
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

    def forward(self, x_BLH: Tensor, attend_B11L: Tensor | None, positions_BQ: Tensor | None = None) -> Tensor:
        """Returns [B, L, H], or [B, Q, H] where only some positions are asked for."""
        asking = None if positions_BQ is None else _at(x_BLH, positions_BQ)
        attended = self.dropout(self.attention(x_BLH, attend_B11L, asking))
        x = self.attention_norm((x_BLH if asking is None else asking) + attended)
        out: Tensor = self.ffn_norm(x + self.dropout(self.ffn_out(F.gelu(self.ffn_in(x)))))
        return out


class Stack(nn.Module):
    """Learned positions, LayerNorm, dropout and the layers, on token vectors of the hidden size."""

    def __init__(self, config: Transformer) -> None:
        super().__init__()
        self.positions = nn.Embedding(config.max_length, config.hidden)
        self.norm = nn.LayerNorm(config.hidden, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))

    def forward(self, vectors_BLH: Tensor, attend_BL: Tensor | None, positions_BQ: Tensor | None = None) -> Tensor:
        """Returns [B, L, H]. `attend_BL` is False at padding; None if there is none.

        With `positions_BQ` returns [B, Q, H]: those positions' vectors, and the last layer does the
        work of those only. Nobody reads the others, so the result is the same.
        """
        length = vectors_BLH.shape[1]
        x_BLH: Tensor = self.dropout(self.norm(vectors_BLH + self.positions.weight[:length]))
        attend_B11L = None if attend_BL is None else attend_BL[:, None, None, :]
        *layers, last = self.layers
        for layer in layers:
            x_BLH = layer(x_BLH, attend_B11L)
        out: Tensor = last(x_BLH, attend_B11L, positions_BQ)
        return out


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

    def forward(self, tokens_BL: Tensor, attend_BL: Tensor | None = None, positions_BQ: Tensor | None = None) -> Tensor:
        """Returns the hidden states [B, L, H], or [B, Q, H] of some positions alone."""
        hidden: Tensor = self.stack(self.tokens(tokens_BL), attend_BL, positions_BQ)
        return hidden


def _at(x_BLH: Tensor, positions_BQ: Tensor) -> Tensor:
    """Returns the vectors at some positions of each row, [B, Q, H]."""
    return x_BLH.gather(1, positions_BQ[:, :, None].expand(-1, -1, x_BLH.shape[2]))


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
