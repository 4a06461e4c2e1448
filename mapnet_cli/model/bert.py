"""The transformer underlying the encoder and MAP-Net: BERT's, post-LN.

Shapes: B sequences, L positions, Q requested positions, H hidden size, A heads, V vocabulary (padded internally);
T tokens of a batch without its padding.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mapnet_cli.config import Transformer
from mapnet_cli.model.kernels import (
    Places,
    attention,
    compute_dtype,
    dropout_add,
    layer_norm,
    on_cpu,
    project,
    trained_attention,
)

LAYER_NORM_EPS = 1e-12
EMBEDDING_STD = 0.02
SINUSOID_AMPLITUDE, SINUSOID_BASE = 0.05, 1000.0
VOCABULARY_MULTIPLE = 64
"""Embedding rows are padded to a multiple of this for fast matrix products. Callers never see the padding."""

TOKENS_MULTIPLE = 64
"""Packed batches have a multiple of this number of tokens: each new shape costs milliseconds, as kernels are made."""


@dataclass(frozen=True)
class Packing:
    """A padded batch [B, L] reduced to its T tokens."""

    places: Places
    place_T: Tensor
    """Flat indices of the tokens in [B, L]."""
    first_B: Tensor
    """Index of each sequence's first token among the T."""
    position_T: Tensor

    @staticmethod
    def of(attention_mask_BL: Tensor) -> "Packing":
        """Returns the packing for a mask that is False at padding. Call it before moving the mask to a GPU.

        A few padding tokens are kept, so that the number of tokens is a multiple of `TOKENS_MULTIPLE`.
        """
        batch, length = attention_mask_BL.shape
        kept_S = attention_mask_BL.flatten()
        padding = (~kept_S).nonzero().squeeze(1)
        kept_S = kept_S.index_fill(0, padding[: -int(kept_S.sum()) % TOKENS_MULTIPLE], True)
        place_T = kept_S.nonzero().squeeze(1)
        token_S = (kept_S.cumsum(0) - 1).masked_fill_(~kept_S, len(place_T))
        mask_B11L = None if not len(padding) else attention_mask_BL[:, None, None, :]
        # without padding, all places are tokens
        indices = (place_T, token_S) if len(place_T) < batch * length else ()
        return Packing(Places(batch, length, mask_B11L, *indices), place_T, token_S[::length], place_T % length)

    def to(self, device: torch.device) -> "Packing":
        def moved(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=True)

        places = self.places
        places = replace(
            places, attention_mask_B11L=moved(places.attention_mask_B11L), place_T=moved(places.place_T),
            token_S=moved(places.token_S),
        )  # fmt: skip
        place_T, first_B, position_T = (
            t.to(device, non_blocking=True) for t in (self.place_T, self.first_B, self.position_T)
        )
        return Packing(places, place_T, first_B, position_T)


class Attention(nn.Module):
    """Multi-head self-attention with a single projection for query, key and value."""

    def __init__(self, config: Transformer) -> None:
        super().__init__()
        self.heads = config.heads
        self.dropout = config.attention_dropout
        self.qkv = nn.Linear(config.hidden, 3 * config.hidden)
        self.out = nn.Linear(config.hidden, config.hidden)

    def forward(self, x_TH: Tensor, places: Places, query_BQH: Tensor | None = None) -> Tensor:
        """Returns [T, H], or [B x Q, H] for the query vectors."""
        hidden, weight, bias, query = x_TH.shape[1], self.qkv.weight, self.qkv.bias, None
        if query_BQH is not None:
            query = F.linear(query_BQH, weight[:hidden], bias[:hidden])
            weight, bias = weight[hidden:], bias[hidden:]
        if self.training and not on_cpu(x_TH):
            mixed = attention(project(x_TH, weight, bias, len(bias) // hidden), query, self.heads, places, self.dropout)
        else:
            packed_TNH = F.linear(x_TH, weight, bias).view(len(x_TH), -1, hidden)
            if self.training:
                mixed = trained_attention(packed_TNH, query, self.heads, places, self.dropout)
            else:
                mixed = attention(packed_TNH, query, self.heads, places, 0.0)
        out: Tensor = self.out(mixed)
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
        self.dropout = config.dropout

    def forward(self, x_TH: Tensor, places: Places, query_BQ: Tensor | None = None) -> Tensor:
        """Returns [T, H], or [B x Q, H] for the tokens at the indices in `query_BQ`."""
        query_BQH = None if query_BQ is None else x_TH[query_BQ]
        attended = self.attention(x_TH, places, query_BQH)
        x = x_TH if query_BQH is None else query_BQH.flatten(0, 1)
        x = layer_norm(dropout_add(attended, x, self.dropout, self.training), self.attention_norm)
        inner = self.ffn_out(F.gelu(self.ffn_in(x)))
        return layer_norm(dropout_add(inner, x, self.dropout, self.training), self.ffn_norm)


class Stack(nn.Module):
    """Learned position embeddings, LayerNorm, dropout and the layers, applied to token vectors of the hidden size."""

    def __init__(self, config: Transformer) -> None:
        super().__init__()
        self.positions = nn.Embedding(config.max_length, config.hidden)
        self.norm = nn.LayerNorm(config.hidden, eps=LAYER_NORM_EPS)
        self.dropout = config.dropout
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))

    def forward(
        self, vectors_BLH: Tensor, attention_mask_BL: Tensor | None, positions_BQ: Tensor | None = None
    ) -> Tensor:
        """Returns [B, L, H]. `attention_mask_BL` is False at padding; None if there is none.

        With `positions_BQ`, returns only the vectors at those positions, [B, Q, H], and the last layer
        computes no others. The result is the same.
        """
        batch, length, hidden = vectors_BLH.shape
        mask_B11L = None if attention_mask_BL is None else attention_mask_BL[:, None, None, :]
        query_BQ = None
        if positions_BQ is not None:
            query_BQ = positions_BQ + length * torch.arange(batch, device=positions_BQ.device)[:, None]
        vectors_TH = (vectors_BLH + self.positions.weight[:length]).flatten(0, 1)
        return self._layers(vectors_TH, Places(batch, length, mask_B11L), query_BQ).view(batch, -1, hidden)

    def encode_cls(self, vectors_TH: Tensor, packing: Packing) -> Tensor:
        """Returns each sequence's first vector, [B, H]. Only attention computes on padding."""
        vectors_TH = vectors_TH + self.positions(packing.position_T)
        return self._layers(vectors_TH, packing.places, packing.first_B[:, None])

    def _layers(self, vectors_TH: Tensor, places: Places, query_BQ: Tensor | None) -> Tensor:
        x_TH = dropout_add(layer_norm(vectors_TH, self.norm), None, self.dropout, self.training)
        x_TH = x_TH.to(compute_dtype(x_TH))  # under autocast, all residuals are in its precision
        *layers, last = self.layers
        for layer in layers:
            x_TH = layer(x_TH, places)
        out: Tensor = last(x_TH, places, query_BQ)
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
