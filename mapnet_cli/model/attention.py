"""Attention for tokens without their padding, with a kernel of our own for training on a CPU.

Shapes: B sequences, L positions, S = B x L places, T tokens, Q query positions, A heads, D size of a head, H = A x D.
"""

from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mapnet_cli.model.kernels import keep, keep_bits

EXCLUDED = -1e4
"""Added to a score, makes its probability 0. Not -inf, since padding may be too far from every token."""
TOKENS_MULTIPLE = 64
"""Packed batches have a multiple of this number of tokens: each new shape costs milliseconds, as kernels are made."""


@dataclass(frozen=True)
class Places:
    """Where the tokens of a batch are, so that everything except attention can skip the padding."""

    batch: int
    length: int
    device: torch.device
    attention_mask_B11L: Tensor | None
    """False at padding; None without padding, which allows the fastest kernels."""
    place_T: Tensor | None = None
    """Flat indices of the tokens in [B, L]; None if they are all S = B x L, padding included."""
    token_S: Tensor | None = None  # index among the T of the token at each of the S places; T at padding
    _known: dict[Any, Tensor] = field(default_factory=dict, compare=False, repr=False)
    """What the layers share: index tensors and the bias."""

    def spread(self, x: Tensor, parts: int) -> Tensor:
        """Returns [N, S, D] for [T, N x D], 0 at padding; N is `parts`."""
        if self.token_S is None:
            return x.reshape(len(x), parts, -1).transpose(0, 1).contiguous()
        rows = x.reshape(len(x) * parts, -1)
        # padding has the index of token T, whose rows are these zeros
        rows = torch.cat([rows, rows.new_zeros(parts, rows.shape[1])])
        return rows.index_select(0, self._indices("spread", parts)).view(parts, -1, rows.shape[1])

    def gather(self, x: Tensor) -> Tensor:
        """Returns [T, N x D] for [N, S, D]."""
        parts = len(x)
        if self.place_T is None:
            return x.transpose(0, 1).reshape(x.shape[1], -1)
        rows = x.view(parts * x.shape[1], -1).index_select(0, self._indices("gather", parts))
        return rows.view(len(self.place_T), -1)

    def bias(self, dtype: torch.dtype, window: int, query_BQ: Tensor | None) -> Tensor | None:
        """Returns what is added to scores, 0 or EXCLUDED; None if nothing is. [B, 1, L], with a window [B or 1, Q, L].

        Positions further than `window` apart don't attend to each other; 0: all do. `query_BQ` has the positions of
        queries of their own.
        """
        if self.attention_mask_B11L is None and not window:
            return None
        key = (dtype, window, window > 0 and query_BQ is not None)
        if key not in self._known:
            allowed = None if self.attention_mask_B11L is None else self.attention_mask_B11L[:, 0]
            if window:
                position_L = torch.arange(self.length, device=self.device)
                query = position_L[None] if query_BQ is None else query_BQ
                near = (query[:, :, None] - position_L).abs() <= window
                allowed = near if allowed is None else allowed & near
            assert allowed is not None
            # out of place: torch.func may batch the positions of queries
            self._known[key] = torch.zeros_like(allowed, dtype=dtype).masked_fill(~allowed, EXCLUDED)
        return self._known[key]

    def _indices(self, kind: str, parts: int) -> Tensor:
        assert self.token_S is not None and self.place_T is not None
        if (kind, parts) not in self._known:
            part_N = torch.arange(parts, device=self.token_S.device)
            if kind == "spread":
                indices = self.token_S * parts + part_N[:, None]
            else:
                indices = self.place_T[:, None] + self.batch * self.length * part_N
            self._known[kind, parts] = indices.flatten()
        return self._known[kind, parts]


@dataclass(frozen=True)
class Packing:
    """A padded batch [B, L] reduced to its T tokens."""

    places: Places
    place_T: Tensor  # flat indices of the tokens in [B, L]
    first_B: Tensor  # index of each sequence's first token among the T
    position_T: Tensor

    @staticmethod
    def of(attention_mask_BL: Tensor) -> "Packing":
        """Returns the packing for a mask that is False at padding, a little of which is kept (`TOKENS_MULTIPLE`)."""
        batch, length = attention_mask_BL.shape
        kept_S = attention_mask_BL.flatten()
        padding = (~kept_S).nonzero().squeeze(1)
        kept_S = kept_S.index_fill(0, padding[: -int(kept_S.sum()) % TOKENS_MULTIPLE], True)
        place_T = kept_S.nonzero().squeeze(1)
        token_S = (kept_S.cumsum(0) - 1).masked_fill_(~kept_S, len(place_T))
        mask_B11L = None if not len(padding) else attention_mask_BL[:, None, None, :]
        # without padding, all places are tokens
        indices = (place_T, token_S) if len(place_T) < batch * length else ()
        return Packing(
            Places(batch, length, kept_S.device, mask_B11L, *indices), place_T, token_S[::length], place_T % length
        )


class _Attention(torch.autograd.Function):
    """Batched products of [A x B, L, D]. torch's CPU kernel has no dropout, and its fallback computes in float32."""

    @staticmethod
    def forward(
        ctx: Any, packed_TNH: Tensor, query_BQH: Tensor | None, heads: int, places: Places, bias: Tensor | None,
        dropout: float,
    ) -> Tensor:  # fmt: skip
        batch, size = places.batch, packed_TNH.shape[2] // heads
        parts = places.spread(packed_TNH, packed_TNH.shape[1] * heads).view(-1, heads * batch, places.length, size)
        key, value = parts[-2], parts[-1]
        if query_BQH is None:
            query, own = parts[0], places
        else:
            own = Places(batch, query_BQH.shape[1], query_BQH.device, None)
            query = own.spread(query_BQH.flatten(0, 1), heads).view(heads * batch, -1, size)
        ctx.factor = size**-0.5
        probs = torch.baddbmm(query.new_empty(()), query, key.transpose(1, 2), beta=0, alpha=ctx.factor)
        if bias is not None:
            probs.view(heads, batch, -1, places.length).add_(bias)
        torch.softmax(probs, dim=2, out=probs)
        bits, ctx.scale = keep_bits(probs.shape, dropout, probs.dtype) if dropout else (None, 1.0)
        mixed = torch.baddbmm(probs.new_empty(()), keep(probs, bits), value, beta=0, alpha=ctx.scale)
        ctx.save_for_backward(query, parts, probs, bits)
        ctx.places, ctx.own = places, own
        return own.gather(mixed.view(heads, -1, size))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, parts, probs, bits = ctx.saved_tensors
        places, own, none = ctx.places, ctx.own, probs.new_empty(())
        heads, size = query.shape[0] // places.batch, query.shape[2]
        rows = own.spread(grad, heads).view_as(query)
        d_parts = torch.empty_like(parts)
        torch.baddbmm(none, keep(probs, bits).transpose(1, 2), rows, beta=0, alpha=ctx.scale, out=d_parts[-1])
        d_probs = keep(torch.bmm(rows, parts[-1].transpose(1, 2)), bits)
        d_scores = torch._softmax_backward_data(d_probs, probs, 2, probs.dtype)
        factor = ctx.factor * ctx.scale
        torch.baddbmm(none, d_scores.transpose(1, 2), query, beta=0, alpha=factor, out=d_parts[-2])
        d_query = torch.empty_like(query) if own is not places else d_parts[0]
        torch.baddbmm(none, d_scores, parts[-2], beta=0, alpha=factor, out=d_query)
        d_packed_TNH = places.gather(d_parts.view(-1, places.batch * places.length, size))
        d_packed_TNH = d_packed_TNH.view(len(d_packed_TNH), -1, heads * size)
        if own is places:
            return d_packed_TNH, None, None, None, None, None
        d_query_BQH = own.gather(d_query.view(heads, -1, size)).view(places.batch, -1, heads * size)
        return d_packed_TNH, d_query_BQH, None, None, None, None


def attention(
    packed: Tensor | tuple[Tensor, ...], query_BQH: Tensor | None, heads: int, places: Places, bias: Tensor | None,
    dropout: float, own: bool,
) -> Tensor:  # fmt: skip
    """Returns the attention output: [T, H], or [B x Q, H] if there is a query of its own.

    `packed` has query, key and value (N = 3), or key and value (N = 2) if there is a query of its own: as one tensor
    [T, N, H], or as N tensors [T, H]. The bias is `Places.bias`. With `own`, the CPU kernel of this module, for one
    tensor, which can be differentiated once and not batched by vmap.
    """
    if own:
        with torch.autocast("cpu", enabled=False):
            return cast(Tensor, _Attention.apply(packed, query_BQH, heads, places, bias, dropout))
    batch, tensors = places.batch, packed if isinstance(packed, tuple) else (packed,)
    hidden = tensors[0].shape[-1]
    if places.token_S is not None:
        # a row of zeros for the padding
        below = (*[0, 0] * (tensors[0].ndim - 1), 0, 1)
        tensors = tuple(F.pad(x, below).index_select(0, places.token_S) for x in tensors)
    if isinstance(packed, Tensor):
        tensors = tensors[0].view(batch, places.length, -1, hidden).unbind(2)
    tensors = tensors if query_BQH is None else (query_BQH, *tensors)
    query, key, value = (x.reshape(batch, -1, heads, hidden // heads).transpose(1, 2) for x in tensors)
    mixed = F.scaled_dot_product_attention(query, key, value, None if bias is None else bias[:, None], dropout)
    rows = mixed.transpose(1, 2).reshape(-1, hidden)
    return rows if query_BQH is not None or places.place_T is None else rows.index_select(0, places.place_T)
