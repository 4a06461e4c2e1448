"""The transformer underlying the encoder and MAP-Net: BERT's, post-LN.

Shapes: B sequences, L positions, Q requested positions, H hidden size, A heads, V vocabulary (padded internally);
T tokens of a batch without its padding.
"""

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mapnet_cli.config import Transformer
from mapnet_cli.model.kernels import compute_dtype, cpu_attention, dropout_add, layer_norm, sdpa

LAYER_NORM_EPS = 1e-12
EMBEDDING_STD = 0.02
SINUSOID_AMPLITUDE, SINUSOID_BASE = 0.05, 1000.0
VOCABULARY_MULTIPLE = 64
"""Embedding rows are padded to a multiple of this for fast matrix products. Callers never see the padding."""

TOKENS_MULTIPLE = 64
"""Packed batches have a multiple of this number of tokens: each new shape costs milliseconds, as kernels are made."""


@dataclass(frozen=True)
class Packing:
    """Locations of the tokens in a padded batch, so that everything except attention skips the padding."""

    batch: int
    length: int
    place_T: Tensor
    """Flat indices of the tokens in [B, L]."""
    first_B: Tensor
    """Index of each sequence's first token among the T."""
    position_T: Tensor
    attention_mask_B11L: Tensor | None
    """False at padding; None without padding, which allows the fastest kernels."""

    @staticmethod
    def of(attention_mask_BL: Tensor) -> "Packing":
        """Returns the packing for a mask that is False at padding. Call it before moving the mask to a GPU.

        A few padding tokens are kept, so that the number of tokens is a multiple of `TOKENS_MULTIPLE`.
        """
        batch, length = attention_mask_BL.shape
        kept = attention_mask_BL.flatten()
        padding = (~kept).nonzero().squeeze(1)
        kept = kept.index_fill(0, padding[: -int(kept.sum()) % TOKENS_MULTIPLE], True)
        place_T = kept.nonzero().squeeze(1)
        ends_B = kept.view(batch, length).sum(dim=1).cumsum(0)
        return Packing(
            batch, length, place_T, torch.cat([ends_B.new_zeros(1), ends_B[:-1]]), place_T % length,
            None if bool(attention_mask_BL.all()) else attention_mask_BL[:, None, None, :],
        )  # fmt: skip

    def to(self, device: torch.device) -> "Packing":
        place_T, first_B, position_T = (t.to(device) for t in (self.place_T, self.first_B, self.position_T))
        attention_mask_B11L = None if self.attention_mask_B11L is None else self.attention_mask_B11L.to(device)
        return Packing(self.batch, self.length, place_T, first_B, position_T, attention_mask_B11L)

    def pad(self, x_TH: Tensor) -> Tensor:
        """Returns the vectors as [B, L, H], 0 at padding."""
        padded = x_TH.new_zeros(self.batch * self.length, x_TH.shape[1]).index_copy(0, self.place_T, x_TH)
        return padded.view(self.batch, self.length, -1)


class Attention(nn.Module):
    """Multi-head self-attention with a single projection for query, key and value."""

    def __init__(self, config: Transformer) -> None:
        super().__init__()
        self.heads = config.heads
        self.dropout = config.attention_dropout
        self.qkv = nn.Linear(config.hidden, 3 * config.hidden)
        self.out = nn.Linear(config.hidden, config.hidden)
        self.own_kernel = True
        """Whether training on a CPU uses our attention; otherwise torch's."""

    def forward(self, x_BLH: Tensor, attention_mask_B11L: Tensor | None, query_BQH: Tensor | None = None) -> Tensor:
        """Returns [B, Q, H] for the query vectors, or [B, L, H] for all of x if there are none."""
        batch, length, hidden = x_BLH.shape
        if query_BQH is None:
            packed_BLNH, query = self.qkv(x_BLH).view(batch, length, 3, hidden), None
        else:
            query, packed = self._apart(query_BQH, x_BLH)
            packed_BLNH = packed.view(batch, length, 2, hidden)
        out: Tensor = self.out(self._mix(packed_BLNH, query, attention_mask_B11L))
        return out

    def packed(self, x_TH: Tensor, packing: Packing, first_only: bool) -> Tensor:
        """Returns [T, H] for the tokens without padding, or [B, H] for each sequence's first token if `first_only`."""
        batch, length, hidden = packing.batch, packing.length, x_TH.shape[1]
        if first_only:
            query, packed = self._apart(x_TH[packing.first_B][:, None], x_TH)
        else:
            query, packed = None, self.qkv(x_TH)
        mixed = self._mix(packing.pad(packed).view(batch, length, -1, hidden), query, packing.attention_mask_B11L)
        mixed = mixed.view(-1, hidden)
        out: Tensor = self.out(mixed if first_only else mixed.index_select(0, packing.place_T))
        return out

    def _apart(self, query: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the projected queries, and key and value of x in one tensor."""
        hidden, weight, bias = x.shape[-1], self.qkv.weight, self.qkv.bias
        return F.linear(query, weight[:hidden], bias[:hidden]), F.linear(x, weight[hidden:], bias[hidden:])

    def _mix(self, packed_BLNH: Tensor, query_BQH: Tensor | None, attention_mask_B11L: Tensor | None) -> Tensor:
        if self.training and self.own_kernel and packed_BLNH.device.type == "cpu":
            return cpu_attention(packed_BLNH, query_BQH, self.heads, attention_mask_B11L, self.dropout)
        dropout = self.dropout if self.training else 0.0
        return sdpa(packed_BLNH, query_BQH, self.heads, attention_mask_B11L, dropout)


class Layer(nn.Module):
    """Attention and feed-forward, each followed by dropout, the residual and LayerNorm (post-LN)."""

    def __init__(self, config: Transformer) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.attention_norm = nn.LayerNorm(config.hidden, eps=LAYER_NORM_EPS)
        self.ffn_in = nn.Linear(config.hidden, config.ffn)
        self.ffn_out = nn.Linear(config.ffn, config.hidden)
        self.ffn_norm = nn.LayerNorm(config.hidden, eps=LAYER_NORM_EPS)
        self.dropout = config.dropout

    def forward(self, x_BLH: Tensor, attention_mask_B11L: Tensor | None, positions_BQ: Tensor | None = None) -> Tensor:
        """Returns [B, L, H], or [B, Q, H] for the positions in `positions_BQ`."""
        query = None if positions_BQ is None else _at(x_BLH, positions_BQ)
        return self._after(x_BLH if query is None else query, self.attention(x_BLH, attention_mask_B11L, query))

    def packed(self, x_TH: Tensor, packing: Packing, first_only: bool) -> Tensor:
        """Returns [T, H], or [B, H] for each sequence's first token if `first_only`."""
        query = x_TH[packing.first_B] if first_only else x_TH
        return self._after(query, self.attention.packed(x_TH, packing, first_only))

    def _after(self, x: Tensor, attended: Tensor) -> Tensor:
        x = layer_norm(dropout_add(attended, x, self.dropout, self.training), self.attention_norm)
        inner = self.ffn_out(F.gelu(self.ffn_in(x)))
        return layer_norm(dropout_add(inner, x, self.dropout, self.training), self.ffn_norm)


class Stack(nn.Module):
    """Learned position embeddings, LayerNorm, dropout and the layers, applied to token vectors of the hidden size."""

    def __init__(self, config: Transformer) -> None:
        super().__init__()
        self.positions = nn.Embedding(config.max_length, config.hidden)
        self.norm = nn.LayerNorm(config.hidden, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))

    def forward(
        self, vectors_BLH: Tensor, attention_mask_BL: Tensor | None, positions_BQ: Tensor | None = None
    ) -> Tensor:
        """Returns [B, L, H]. `attention_mask_BL` is False at padding; None if there is none.

        With `positions_BQ`, returns only the vectors at those positions, [B, Q, H], and the last layer
        computes no others. The result is the same.
        """
        length = vectors_BLH.shape[1]
        x_BLH = self._embed(vectors_BLH, self.positions.weight[:length])
        attention_mask_B11L = None if attention_mask_BL is None else attention_mask_BL[:, None, None, :]
        *layers, last = self.layers
        for layer in layers:
            x_BLH = layer(x_BLH, attention_mask_B11L)
        out: Tensor = last(x_BLH, attention_mask_B11L, positions_BQ)
        return out

    def _embed(self, vectors: Tensor, positions: Tensor) -> Tensor:
        """Returns the input of the first layer, in autocast's precision, as are all residuals after it."""
        x: Tensor = self.dropout(layer_norm(vectors + positions, self.norm))
        return x.to(compute_dtype(x))

    def encode_cls(self, vectors_TH: Tensor, packing: Packing) -> Tensor:
        """Returns each sequence's first vector, [B, H]. Only attention computes on padding."""
        x_TH = self._embed(vectors_TH, self.positions(packing.position_T))
        *layers, last = cast(list[Layer], list(self.layers))  # a ModuleList is typed as holding Modules
        for layer in layers:
            x_TH = layer.packed(x_TH, packing, first_only=False)
        out: Tensor = last.packed(x_TH, packing, first_only=True)
        return out


class Encoder(nn.Module):
    """BERT's encoder without segment embeddings.

    `tokens` is the token embedding, shared with the MLM head and MAP-Net.
    """

    def __init__(self, config: Transformer, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        self.tokens = nn.Embedding(padded_vocabulary(vocab_size), config.hidden)
        self.stack = Stack(config)

    def forward(
        self, tokens_BL: Tensor, attention_mask_BL: Tensor | None = None, positions_BQ: Tensor | None = None
    ) -> Tensor:
        """Returns the hidden states [B, L, H], or [B, Q, H] at the positions in `positions_BQ`."""
        hidden: Tensor = self.stack(self.tokens(tokens_BL), attention_mask_BL, positions_BQ)
        return hidden

    def encode_cls(self, tokens_T: Tensor, packing: Packing, added_TH: Tensor | None = None) -> Tensor:
        """Returns the hidden state at each sequence's first token, [B, H], for a batch without its padding.

        `added_TH` is added to the token embeddings.
        """
        vectors_TH = self.tokens(tokens_T)
        hidden_BH: Tensor = self.stack.encode_cls(vectors_TH if added_TH is None else vectors_TH + added_TH, packing)
        return hidden_BH


def _at(x_BLH: Tensor, positions_BQ: Tensor) -> Tensor:
    """Returns the vectors at the given positions of each row, [B, Q, H]."""
    return x_BLH.gather(1, positions_BQ[:, :, None].expand(-1, -1, x_BLH.shape[2]))


def padded_vocabulary(vocab_size: int) -> int:
    return -(-vocab_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE


def initialise(module: nn.Module, config: Transformer, generator: torch.Generator) -> None:
    """Initialises weights as BERT does: embeddings N(0, 0.02), matrices N(0, init_std), biases 0, LayerNorm 1 and 0."""
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
    """Returns [L, H]: sines in even columns and cosines in odd ones, with geometrically decreasing frequencies."""
    frequency_H = SINUSOID_BASE ** (-torch.arange(0, hidden, 2) / hidden)
    angle_LH = torch.arange(length)[:, None] * frequency_H
    both_LH = torch.stack([angle_LH.sin(), angle_LH.cos()], dim=2).reshape(length, -1)[:, :hidden]
    return SINUSOID_AMPLITUDE * both_LH


def attention_mask(tokens_BL: Tensor, pad: int) -> Tensor | None:
    """Returns a mask [B, L] that is False at padding, or None without padding, which allows the fastest kernels.

    Reads the tokens on the CPU: call it before moving them to a GPU.
    """
    attention_mask_BL = tokens_BL != pad
    return None if bool(attention_mask_BL.all()) else attention_mask_BL
