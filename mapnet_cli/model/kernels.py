"""Operations of the training step where torch's own take more time or memory, mainly on CPUs.

Each one equals a plain formula (`tests/model/test_kernels.py`) and derives its randomness from torch's default
generator, so resuming stays exact. They compute in the precision of their input: float32, or bfloat16 under autocast.

Shapes: B sequences, L positions, Q query positions, A heads, D size of a head, H = A x D; N positions with a loss,
V vocabulary.
"""

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
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        (mask,) = ctx.saved_tensors
        return (grad * mask).mul_(ctx.scale), grad, None


def dropout_add(x: Tensor, residual: Tensor, probability: float, training: bool) -> Tensor:
    """Returns residual + dropout(x)."""
    if training and probability and x.device.type == "cpu":
        return cast(Tensor, _DropoutAdd.apply(x, residual, probability))  # type: ignore[no-untyped-call]
    return residual + F.dropout(x, probability, training)


def layer_norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """Returns the LayerNorm of x in the precision of x, with statistics in float32. Autocast would return float32."""
    with torch.autocast(x.device.type, enabled=False):
        # the CPU kernel takes parameters in float32 with a bfloat16 input, CUDA's doesn't
        dtype = norm.weight.dtype if x.device.type == "cpu" else x.dtype
        return F.layer_norm(x, norm.normalized_shape, norm.weight.to(dtype), norm.bias.to(dtype), norm.eps)


class _Attention(torch.autograd.Function):
    """Attention by batched products. torch's CPU kernel has no dropout, and its fallback computes in float32."""

    @staticmethod
    def forward(
        ctx: Any, packed_BLNH: Tensor, query_BQH: Tensor | None, heads: int, mask_B11L: Tensor | None, dropout: float
    ) -> Tensor:
        batch, length, parts, hidden = packed_BLNH.shape
        size = hidden // heads
        # [N, B x A, L, D]
        packed = packed_BLNH.view(batch, length, parts, heads, size).permute(2, 0, 3, 1, 4)
        packed = packed.reshape(parts, batch * heads, length, size)
        key, value = packed[-2], packed[-1]
        query = packed[0] if query_BQH is None else _split(query_BQH, heads)
        ctx.factor = size**-0.5
        scores = torch.baddbmm(query.new_empty(()), query, key.transpose(1, 2), beta=0, alpha=ctx.factor)
        if mask_B11L is not None:
            scores.view(batch, heads, -1, length).masked_fill_(~mask_B11L, -torch.inf)
        p = torch.softmax(scores, dim=2, out=scores) if scores.dtype is torch.float32 else scores.softmax(dim=2)
        mask, ctx.scale = keep_mask(p.shape, dropout, p.dtype) if dropout else (None, 1.0)
        out = torch.bmm(p if mask is None else p * mask, value)
        if mask is not None:
            out.mul_(ctx.scale)
        ctx.save_for_backward(query, packed, p, mask)
        ctx.heads, ctx.own_query = heads, query_BQH is not None
        return _join(out, heads)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BQH: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        query, packed, p, mask = ctx.saved_tensors
        heads, key, value = ctx.heads, packed[-2], packed[-1]
        grad = _split(grad_BQH, heads)
        if mask is not None:
            grad = grad.mul_(ctx.scale) if grad.data_ptr() != grad_BQH.data_ptr() else grad * ctx.scale
        d_packed = grad_BQH.new_empty(grad_BQH.shape[0], packed.shape[2], packed.shape[0], grad_BQH.shape[2])
        d_packed[:, :, -1] = _join(torch.bmm((p if mask is None else p * mask).transpose(1, 2), grad), heads)
        d_p = torch.bmm(grad, value.transpose(1, 2))
        if mask is not None:
            d_p.mul_(mask)
        d_scores = torch._softmax_backward_data(d_p, p, 2, p.dtype)
        d_packed[:, :, -2] = _join(torch.bmm(d_scores.transpose(1, 2), query).mul_(ctx.factor), heads)
        d_query = _join(torch.bmm(d_scores, key).mul_(ctx.factor), heads)
        if ctx.own_query:
            return d_packed, d_query, None, None, None
        d_packed[:, :, 0] = d_query
        return d_packed, None, None, None, None


def _split(x_BQH: Tensor, heads: int) -> Tensor:
    """Returns [B x A, Q, D]."""
    batch, length, hidden = x_BQH.shape
    return x_BQH.view(batch, length, heads, -1).transpose(1, 2).reshape(batch * heads, length, hidden // heads)


def _join(x: Tensor, heads: int) -> Tensor:
    """Returns [B, Q, H] for [B x A, Q, D]."""
    rows, length, size = x.shape
    return x.view(-1, heads, length, size).transpose(1, 2).reshape(rows // heads, length, heads * size)


def cpu_attention(
    packed_BLNH: Tensor, query_BQH: Tensor | None, heads: int, mask_B11L: Tensor | None, dropout: float
) -> Tensor:
    """Returns what `sdpa` returns. It can be differentiated once, and not batched by vmap."""
    with torch.autocast("cpu", enabled=False):
        out = _Attention.apply(packed_BLNH, query_BQH, heads, mask_B11L, dropout)  # type: ignore[no-untyped-call]
        return cast(Tensor, out)


def sdpa(packed_BLNH: Tensor, query_BQH: Tensor | None, heads: int, mask_B11L: Tensor | None, dropout: float) -> Tensor:
    """Returns torch's scaled dot-product attention [B, Q, H]. `mask_B11L` is False at padding.

    `packed_BLNH` has query, key and value (N = 3), or key and value (N = 2) if there is a query of its own.
    """
    batch, _, _, hidden = packed_BLNH.shape
    parts = packed_BLNH.unbind(2) if query_BQH is None else (query_BQH, *packed_BLNH.unbind(2))
    query, key, value = (part.view(batch, -1, heads, hidden // heads).transpose(1, 2) for part in parts)
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask_B11L, dropout_p=dropout)
    return mixed.transpose(1, 2).reshape(batch, -1, hidden)


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
