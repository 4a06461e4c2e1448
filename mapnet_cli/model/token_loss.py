"""Decoder and cross-entropy of the masked positions in one operation, and token embeddings that are the decoder, too.

Each equals a plain formula (`tests/model/test_kernels.py`), like the operations of `kernels.py`.

Shapes: N positions with a loss, H hidden size, V vocabulary.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mapnet_cli.model.kernels import compute_dtype

ROWS = 32
"""The number of positions of `token_loss` is padded to a multiple of this, which matrix units prefer."""


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
        # on a GPU in no fixed order, unless torch.use_deterministic_algorithms is on
        d_weight_VH.index_add_(0, tokens.flatten(), d_vectors.flatten(0, -2).to(ctx.like))
        return d_weight_VH, None, None


class _TokenLoss(torch.autograd.Function):
    """Decoder and cross-entropy, with probabilities in place of the logits: one [N, V] tensor in all.

    The gradient of position n is its weight times (p - y), so both products of the backward pass take p - y as it is
    and the weights multiply the [N, H] operands. One of them is made in advance if the signal is its norm.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden_NH: Tensor, decoder_VH: Tensor, bias_V: Tensor, targets_N: Tensor, signal: str
    ) -> tuple[Tensor, Tensor]:
        p_NV = torch.addmm(bias_V.to(hidden_NH.dtype), hidden_NH, decoder_VH.t())
        rows_N = torch.arange(len(targets_N), device=targets_N.device)
        # before the softmax, whose rounding makes ties; argmax takes 15 times as long in bfloat16
        wrong_N = p_NV.amax(dim=1) > p_NV[rows_N, targets_N] if signal == "error" else None
        torch.softmax(p_NV, dim=1, out=p_NV)
        p_N = p_NV[rows_N, targets_N].float()
        loss_N = -p_N.clamp(min=torch.finfo(torch.float32).tiny).log()  # at most 87 nats
        p_NV[rows_N, targets_N] -= 1
        d_input_NH = torch.mm(p_NV, decoder_VH) if signal == "logit-gradient" else None
        ctx.save_for_backward(hidden_NH, decoder_VH, p_NV, d_input_NH)
        ctx.bias_dtype = bias_V.dtype
        if d_input_NH is not None:
            signal_N = torch.linalg.vector_norm(d_input_NH, dim=1, dtype=torch.float32)
        elif wrong_N is not None:
            signal_N = wrong_N.float()
        else:
            signal_N = 1 - p_N if signal == "one-minus-p" else loss_N.clone()
        ctx.mark_non_differentiable(signal_N)
        return loss_N, signal_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_loss_N: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        hidden_NH, decoder_VH, error_NV, d_input_NH = ctx.saved_tensors
        d_N1 = d_loss_N[:, None]
        d_input_NH = torch.mm(error_NV, decoder_VH) if d_input_NH is None else d_input_NH.clone()
        d_hidden_NH = d_input_NH.mul_(d_N1)
        d_decoder_VH = torch.mm(error_NV.t(), (hidden_NH * d_N1).to(hidden_NH.dtype))
        # equal weights are then exact in bfloat16
        largest = d_N1.abs().amax().clamp(min=torch.finfo(d_N1.dtype).tiny)
        d_bias_V = torch.mm((d_N1 / largest).to(error_NV.dtype).t(), error_NV).squeeze(0)
        return d_hidden_NH, d_decoder_VH, d_bias_V.to(ctx.bias_dtype) * largest, None, None


def tied_embedding(weight_VH: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the embeddings of the tokens, [*tokens, H], and the matrix as a decoder in autocast's precision."""
    return cast(tuple[Tensor, Tensor], _TiedEmbedding.apply(weight_VH, tokens, compute_dtype(weight_VH)))


def token_loss(
    hidden_NH: Tensor, decoder_VH: Tensor, bias_V: Tensor, targets_N: Tensor, signal: str = "loss"
) -> tuple[Tensor, Tensor]:
    """Returns -log softmax(hidden x decoder + bias) [N] of each target, and a proposal's signal, both in float32.

    The loss can be differentiated once. The signal ([method.NAME.proposal]) has no gradient, and costs no product.
    """
    dtype, count = compute_dtype(hidden_NH), len(targets_N)
    with torch.autocast(hidden_NH.device.type, enabled=False):
        hidden_NH = F.pad(hidden_NH.to(dtype), (0, 0, 0, -count % ROWS))
        targets_N = F.pad(targets_N, (0, -count % ROWS))
        loss_N, signal_N = _TokenLoss.apply(hidden_NH, decoder_VH.to(dtype), bias_V, targets_N, signal)
    return loss_N[:count], signal_N[:count]
