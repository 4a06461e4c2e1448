"""Operations of the training step where torch's own take more time or memory, mainly on CPUs.

Each one equals a plain formula (`tests/model/test_kernels.py`) and derives its randomness from torch's default
generator, so resuming stays exact. They compute in the precision of their input: float32, or bfloat16 under autocast.

Shapes: B sequences, L positions, Q query positions, A heads, D size of a head, H = A x D; N positions with a loss,
V vocabulary.
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

NOISE = 1 << 16
"""Number of values of the noise that decides what is dropped, so probabilities are multiples of its inverse."""

ROWS = 32
"""The number of positions of `token_loss` is padded to a multiple of this, which matrix units prefer."""


def keep_mask(shape: torch.Size, probability: float, dtype: torch.dtype) -> tuple[Tensor, float]:
    """Returns (mask, scale): 1 where an element is kept, 0 where it is dropped, and 1 / the probability to be kept.

    Four elements share one 64-bit random number, which takes a fifth of the time of one draw each.
    """
    dropped = round(probability * NOISE)
    size = shape.numel()
    noise = torch.empty(-(-size // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)[:size].view(shape)
    last = dropped - NOISE // 2 - 1  # the largest value that means dropped
    # in place on 16 bits: 2.5 times as fast as a comparison
    return noise.clamp_(last, last + 1).sub_(last).to(dtype), NOISE / (NOISE - dropped)


class _DropoutAdd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, residual: Tensor, probability: float) -> Tensor:
        mask, ctx.scale = keep_mask(x.shape, probability, x.dtype)
        ctx.save_for_backward(mask)
        return torch.addcmul(residual, x, mask, value=ctx.scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        (mask,) = ctx.saved_tensors
        return (grad * mask).mul_(ctx.scale), grad if ctx.needs_input_grad[1] else None, None


def dropout_add(x: Tensor, residual: Tensor | None, probability: float, training: bool) -> Tensor:
    """Returns residual + dropout(x); without a residual dropout(x)."""
    if training and probability and x.device.type == "cpu":
        added = x.new_zeros(()) if residual is None else residual
        return cast(Tensor, _DropoutAdd.apply(x, added, probability))  # type: ignore[no-untyped-call]
    dropped = F.dropout(x, probability, training)
    return dropped if residual is None else residual + dropped


def layer_norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """Returns the LayerNorm of x in the precision of x, with statistics in float32. Autocast would return float32."""
    with torch.autocast(x.device.type, enabled=False):
        # the CPU kernel takes parameters in float32 with a bfloat16 input, CUDA's doesn't
        dtype = norm.weight.dtype if x.device.type == "cpu" else x.dtype
        return F.layer_norm(x, norm.normalized_shape, norm.weight.to(dtype), norm.bias.to(dtype), norm.eps)


@dataclass(frozen=True)
class Places:
    """Where the tokens of a batch are, so that everything except attention can skip the padding."""

    batch: int
    length: int
    attention_mask_B11L: Tensor | None
    """False at padding; None without padding, which allows the fastest kernels."""
    place_T: Tensor | None = None
    """Flat indices of the tokens in [B, L]; None if they are all B x L, padding included."""
    token_S: Tensor | None = None
    """Index among the T of the token at each of the S = B x L places; 0 at padding."""

    def spread(self, rows: Tensor, dim: int = 1) -> Tensor:
        """Returns B x L rows for T along `dim`; those at padding are copies of others."""
        return rows if self.token_S is None else rows.index_select(dim, self.token_S)

    def spread_gradient(self, rows: Tensor) -> Tensor:
        """Returns [N, B x L, D] for [N, T, D], 0 at padding."""
        if self.place_T is None:
            return rows
        zeros = rows.new_zeros(rows.shape[0], self.batch * self.length, rows.shape[2])
        return zeros.index_copy_(1, self.place_T, rows)

    def gather(self, rows: Tensor, dim: int = 1) -> Tensor:
        """Returns T rows for B x L along `dim`."""
        return rows if self.place_T is None else rows.index_select(dim, self.place_T)


class _Attention(torch.autograd.Function):
    """Batched products of [A x B, L, D]. torch's CPU kernel has no dropout, and its fallback computes in float32."""

    @staticmethod
    def forward(ctx: Any, packed_TNH: Tensor, query_BQH: Tensor | None, heads: int, places: Places, p: float) -> Tensor:
        parts = _parts(packed_TNH, heads, places)
        query, key, value = (_queries(query_BQH, heads), *parts) if query_BQH is not None else parts
        ctx.factor = query.shape[2] ** -0.5
        probs = torch.baddbmm(query.new_empty(()), query, key.transpose(1, 2), beta=0, alpha=ctx.factor)
        if places.attention_mask_B11L is not None:  # adding is faster than masked_fill_
            mask_B1L = places.attention_mask_B11L[:, 0]
            bias_B1L = probs.new_zeros(mask_B1L.shape).masked_fill_(~mask_B1L, -torch.inf)
            probs.view(heads, places.batch, -1, places.length).add_(bias_B1L)
        torch.softmax(probs, dim=2, out=probs)
        kept, ctx.scale = keep_mask(probs.shape, p, probs.dtype) if p else (None, 1.0)
        mixed = torch.bmm(probs, value) if kept is None else torch.bmm(probs * kept, value).mul_(ctx.scale)
        ctx.save_for_backward(query, parts, probs, kept)
        ctx.places, ctx.heads, ctx.packed_shape = places, heads, packed_TNH.shape
        ctx.query_shape = None if query_BQH is None else query_BQH.shape
        rows = mixed.view(heads, -1, mixed.shape[2])
        return _heads_last(places.gather(rows) if query_BQH is None else rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        query, parts, probs, kept = ctx.saved_tensors
        places, heads, key, value = ctx.places, ctx.heads, parts[-2], parts[-1]
        rows = _heads_first(grad, heads)
        if ctx.query_shape is None:
            rows = places.spread_gradient(rows)
        rows = rows.view_as(query) if kept is None else rows.view_as(query) * ctx.scale
        d_parts = torch.empty_like(parts)
        torch.bmm((probs if kept is None else probs * kept).transpose(1, 2), rows, out=d_parts[-1])
        d_probs = torch.bmm(rows, value.transpose(1, 2))
        if kept is not None:
            d_probs.mul_(kept)
        d_scores = torch._softmax_backward_data(d_probs, probs, 2, probs.dtype).mul_(ctx.factor)
        torch.bmm(d_scores.transpose(1, 2), query, out=d_parts[-2])
        d_query = None
        if ctx.query_shape is None:
            torch.bmm(d_scores, key, out=d_parts[0])
        else:
            d_query = _heads_last(torch.bmm(d_scores, key).view(heads, -1, query.shape[2])).view(ctx.query_shape)
        d_packed = _heads_last(places.gather(d_parts.view(-1, places.batch * places.length, query.shape[2])))
        return d_packed.view(ctx.packed_shape), d_query, None, None, None


def _parts(packed_TNH: Tensor, heads: int, places: Places) -> Tensor:
    """Returns [N, A x B, L, D]."""
    rows = places.spread(_heads_first(packed_TNH.flatten(1), packed_TNH.shape[1] * heads))
    return rows.view(-1, heads * places.batch, places.length, rows.shape[2])


def _queries(query_BQH: Tensor, heads: int) -> Tensor:
    """Returns [A x B, Q, D]."""
    batch, count, hidden = query_BQH.shape
    return _heads_first(query_BQH.flatten(0, 1), heads).view(heads * batch, count, hidden // heads)


def _heads_first(x: Tensor, heads: int) -> Tensor:
    """Returns [A, T, D] for [T, A x D]."""
    return x.reshape(x.shape[0], heads, -1).transpose(0, 1).contiguous()


def _heads_last(x: Tensor) -> Tensor:
    """Returns [T, A x D] for [A, T, D]."""
    return x.transpose(0, 1).reshape(x.shape[1], -1)


def attention(
    packed_TNH: Tensor, query_BQH: Tensor | None, heads: int, places: Places, dropout: float, own: bool
) -> Tensor:
    """Returns the attention output: [T, H], or [B x Q, H] if there is a query of its own.

    `packed_TNH` has query, key and value (N = 3), or key and value (N = 2) if there is a query of its own.
    With `own`, the CPU kernel of this module, which can be differentiated once and not batched by vmap.
    """
    if own:
        with torch.autocast("cpu", enabled=False):
            out = _Attention.apply(packed_TNH, query_BQH, heads, places, dropout)  # type: ignore[no-untyped-call]
            return cast(Tensor, out)
    hidden = packed_TNH.shape[2]
    spread = places.spread(packed_TNH, dim=0).view(places.batch, places.length, *packed_TNH.shape[1:])
    parts = spread.unbind(2) if query_BQH is None else (query_BQH, *spread.unbind(2))
    query, key, value = (part.reshape(places.batch, -1, heads, hidden // heads).transpose(1, 2) for part in parts)
    mixed = F.scaled_dot_product_attention(query, key, value, places.attention_mask_B11L, dropout)
    rows = mixed.transpose(1, 2).flatten(2).flatten(0, 1)
    return rows if query_BQH is not None else places.gather(rows, dim=0)


class _TiedEmbedding(torch.autograd.Function):
    """Two uses of one matrix, whose gradients add up without a dense gradient for the looked-up rows."""

    @staticmethod
    def forward(ctx: Any, weight_VH: Tensor, tokens: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(tokens)
        ctx.like = weight_VH.dtype
        decoder_VH = weight_VH.to(dtype) if dtype != weight_VH.dtype else weight_VH.view_as(weight_VH)
        return F.embedding(tokens, weight_VH), decoder_VH

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_vectors: Tensor, d_decoder_VH: Tensor) -> tuple[Tensor, None, None]:
        (tokens,) = ctx.saved_tensors
        d_weight_VH = d_decoder_VH.to(ctx.like)
        d_weight_VH.index_add_(0, tokens.flatten(), d_vectors.flatten(0, -2).to(ctx.like))
        return d_weight_VH, None, None


class _TokenLoss(torch.autograd.Function):
    """Decoder and cross-entropy, with probabilities in place of the logits: one [N, V] tensor in all.

    The gradient of position n is its weight times (p - y), so both products of the backward pass take p - y as it is
    and the weights multiply the [N, H] operands.
    """

    @staticmethod
    def forward(ctx: Any, hidden_NH: Tensor, decoder_VH: Tensor, bias_V: Tensor, targets_N: Tensor) -> Tensor:
        p_NV = torch.addmm(bias_V.to(hidden_NH.dtype), hidden_NH, decoder_VH.t())
        rows_N = torch.arange(len(targets_N), device=targets_N.device)
        torch.softmax(p_NV, dim=1, out=p_NV)
        p_N = p_NV[rows_N, targets_N].float()
        loss_N = -p_N.clamp(min=torch.finfo(torch.float32).tiny).log()  # at most 87 nats
        p_NV[rows_N, targets_N] -= 1
        ctx.save_for_backward(hidden_NH, decoder_VH, p_NV)
        ctx.bias_dtype = bias_V.dtype
        return loss_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_loss_N: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        hidden_NH, decoder_VH, error_NV = ctx.saved_tensors
        d_N1 = d_loss_N[:, None]
        d_hidden_NH = torch.mm(error_NV, decoder_VH).mul_(d_N1)
        d_decoder_VH = torch.mm(error_NV.t(), (hidden_NH * d_N1).to(hidden_NH.dtype))
        # equal weights are then exact in bfloat16
        largest = d_N1.abs().amax().clamp(min=torch.finfo(d_N1.dtype).tiny)
        d_bias_V = torch.mm((d_N1 / largest).to(error_NV.dtype).t(), error_NV).squeeze(0)
        return d_hidden_NH, d_decoder_VH, d_bias_V.to(ctx.bias_dtype) * largest, None


def tied_embedding(weight_VH: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the embeddings of the tokens, [*tokens, H], and the matrix as a decoder in autocast's precision."""
    both = _TiedEmbedding.apply(weight_VH, tokens, compute_dtype(weight_VH))  # type: ignore[no-untyped-call]
    return cast(tuple[Tensor, Tensor], both)


def token_loss(hidden_NH: Tensor, decoder_VH: Tensor, bias_V: Tensor, targets_N: Tensor) -> Tensor:
    """Returns -log softmax(hidden x decoder + bias) [N] of each target in float32. Can be differentiated once."""
    dtype, count = compute_dtype(hidden_NH), len(targets_N)
    with torch.autocast(hidden_NH.device.type, enabled=False):
        hidden_NH = F.pad(hidden_NH.to(dtype), (0, 0, 0, -count % ROWS))
        targets_N = F.pad(targets_N, (0, -count % ROWS))
        loss_N = _TokenLoss.apply(hidden_NH, decoder_VH.to(dtype), bias_V, targets_N)  # type: ignore[no-untyped-call]
    return cast(Tensor, loss_N)[:count]


def compute_dtype(x: Tensor) -> torch.dtype:
    """Returns the dtype of matrix products with x: autocast's, or that of x without autocast."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
