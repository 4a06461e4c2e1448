"""Operations of the training step where torch's own take more time or memory, mainly on CPUs.

Each one equals a plain formula (`tests/model/test_kernels.py`) and derives its randomness from torch's default
generator, so resuming stays exact. They compute in the precision of their input: float32, or bfloat16 under autocast.

Attention is in `attention.py`. Shapes: B sequences, L positions, T tokens, A heads, D size of a head, H = A x D;
N positions with a loss, V vocabulary.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

NOISE = 1 << 16
"""Number of values of the noise that decides what is dropped, so probabilities are multiples of its inverse."""
_rehearsing = False


def on_cpu(device: torch.device) -> bool:
    """Returns whether tensors on a device take the operations for CPUs, which torch.compile can't trace."""
    return device.type == "cpu" and not (_rehearsing or torch.compiler.is_compiling())


@contextmanager
def as_on_gpu() -> Iterator[None]:
    """Tensors on a CPU take the operations that they would on a GPU, to compile, count and test them without one."""
    global _rehearsing
    before, _rehearsing = _rehearsing, True
    try:
        yield
    finally:
        _rehearsing = before


def keep_bits(shape: torch.Size, probability: float, dtype: torch.dtype) -> tuple[Tensor, float]:
    """Returns (bits, scale) for dropout: all bits set where an element is kept, none where it is dropped.

    `scale` is 1 / the probability to be kept. Four elements share one 64-bit random number, which takes a fifth of the
    time of one draw each.
    """
    dropped, size = round(probability * NOISE), shape.numel()
    noise = torch.empty(-(-size // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)[:size].view(shape)
    bits = noise.gt_(dropped - NOISE // 2 - 1).neg_()  # in place on 16 bits
    return bits if dtype is torch.bfloat16 else bits.to(torch.int32), NOISE / (NOISE - dropped)


def keep(x: Tensor, bits: Tensor | None) -> Tensor:
    """Returns x with 0 where it is dropped; x itself without `bits`."""
    return x if bits is None else (x.view(bits.dtype) & bits).view(x.dtype)


class _DropoutAdd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, residual: Tensor, probability: float) -> Tensor:
        bits, ctx.scale = keep_bits(x.shape, probability, x.dtype)
        ctx.save_for_backward(bits)
        return torch.add(residual, keep(x, bits), alpha=ctx.scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        (bits,) = ctx.saved_tensors
        return keep(grad, bits).mul_(ctx.scale), grad if ctx.needs_input_grad[1] else None, None


def dropout_add(x: Tensor, residual: Tensor | None, probability: float, training: bool) -> Tensor:
    """Returns residual + dropout(x) in the precision of the residual; without a residual dropout(x)."""
    x = x if residual is None else x.to(residual.dtype)
    if training and probability and on_cpu(x.device):
        added = x.new_zeros(()) if residual is None else residual
        return cast(Tensor, _DropoutAdd.apply(x, added, probability))
    # what F.dropout calls on a GPU; on a CPU that keeps a larger mask
    dropped = torch.native_dropout(x, probability, True)[0] if training and probability else x
    return dropped if residual is None else residual + dropped


def layer_norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """Returns the LayerNorm of x in the precision of x, with statistics in float32. Autocast would return float32."""
    with torch.autocast(x.device.type, enabled=False):
        # the CPU kernel takes parameters in float32 with a bfloat16 input, CUDA's doesn't
        dtype = norm.weight.dtype if on_cpu(x.device) else x.dtype
        bias = None if norm.bias is None else norm.bias.to(dtype)
        return F.layer_norm(x, norm.normalized_shape, norm.weight.to(dtype), bias, norm.eps)


class _Rounded(torch.autograd.Function):
    """Copies to bfloat16, and of the gradients to float32, in one operation each."""

    @staticmethod
    def forward(ctx: Any, *weights: Tensor) -> tuple[Tensor, ...]:
        return _copies(weights, torch.bfloat16)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        return _copies(grads, torch.float32)


def _copies(tensors: tuple[Tensor, ...], dtype: torch.dtype) -> tuple[Tensor, ...]:
    copies = tuple(torch.empty_like(x, dtype=dtype) for x in tensors)
    torch._foreach_copy_(copies, tensors)
    return copies


def rounded(weights: Iterable[Tensor]) -> tuple[Tensor, ...]:
    """Returns copies in bfloat16, whose gradients reach the weights in float32."""
    return cast(tuple[Tensor, ...], _Rounded.apply(*weights))


class _Project(torch.autograd.Function):
    """Products with the parts of one matrix. The parts' gradients are never stacked into one tensor."""

    @staticmethod
    def forward(ctx: Any, x_TH: Tensor, weight: Tensor, bias: Tensor, parts: int) -> tuple[Tensor, ...]:
        weights = weight.to(x_TH.dtype).chunk(parts)
        ctx.save_for_backward(x_TH, *weights)
        ctx.dtype = weight.dtype
        pairs = zip(weights, bias.to(x_TH.dtype).chunk(parts), strict=True)
        return tuple(torch.addmm(bias_H, x_TH, weight_HH.t()) for weight_HH, bias_H in pairs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x_TH, *weights = ctx.saved_tensors
        d_x_TH = torch.mm(grads[0], weights[0])
        for grad, weight_HH in zip(grads[1:], weights[1:], strict=True):
            d_x_TH = d_x_TH.addmm_(grad, weight_HH)
        d_weight = torch.cat([torch.mm(grad.t(), x_TH) for grad in grads])
        d_bias = torch.cat([grad.sum(dim=0) for grad in grads])
        return d_x_TH, d_weight.to(ctx.dtype), d_bias.to(ctx.dtype), None


def project(x_TH: Tensor, weight: Tensor, bias: Tensor, parts: int) -> tuple[Tensor, ...]:
    """Returns the projections of x with each of the parts of a weight, [T, H] each, for training on a GPU."""
    with torch.autocast(x_TH.device.type, enabled=False):
        return cast(tuple[Tensor, ...], _Project.apply(x_TH, weight, bias, parts))


class _Rotated(torch.autograd.Function):
    """Rotary positions of the first parts; the others are copied."""

    @staticmethod
    def forward(ctx: Any, x_TNAD: Tensor, cos_T11D: Tensor, sin_T11D: Tensor, parts: int) -> Tensor:
        ctx.save_for_backward(cos_T11D, sin_T11D)
        ctx.parts = parts
        return _Rotated.turn(x_TNAD, cos_T11D, sin_T11D, parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        cos_T11D, sin_T11D = ctx.saved_tensors
        return _Rotated.turn(grad, cos_T11D, -sin_T11D, ctx.parts), None, None, None

    @staticmethod
    def turn(x: Tensor, cos: Tensor, sin: Tensor, parts: int) -> Tensor:
        out = torch.empty_like(x)
        out[:, parts:] = x[:, parts:]
        (a, b), (out_a, out_b) = x[:, :parts].chunk(2, dim=3), out[:, :parts].chunk(2, dim=3)
        torch.mul(a, cos, out=out_a).addcmul_(b, sin, value=-1)
        torch.mul(b, cos, out=out_b).addcmul_(a, sin)
        return out


def rotated(x_TNH: Tensor, heads: int, angles: tuple[Tensor, Tensor], parts: int, training: bool) -> Tensor:
    """Returns x with the vectors of the first `parts` of the N turned by their tokens' angles.

    Element i of a head forms a pair with element i + D/2. The angles are (cosines, sines) [T, 1, 1, D/2], as of
    `rotary_angles`. (Su et al. 2021)
    """
    x_TNAD = x_TNH.view(len(x_TNH), -1, heads, x_TNH.shape[2] // heads)
    cos, sin = (angle.to(x_TNH.dtype) for angle in angles)
    if training and on_cpu(x_TNH.device):
        out = cast(Tensor, _Rotated.apply(x_TNAD, cos, sin, parts))
        return out.view_as(x_TNH)
    a, b = x_TNAD[:, :parts].chunk(2, dim=3)
    turned = torch.cat([a * cos - b * sin, b * cos + a * sin], dim=3)
    return torch.cat([turned, x_TNAD[:, parts:]], dim=1).view_as(x_TNH)


def rotary_angles(position_T: Tensor, size: int, theta: float) -> tuple[Tensor, Tensor]:
    """Returns the cosines and sines of the tokens' angles, [T, 1, 1, D/2] in float32, for heads of size D."""
    frequency = theta ** (-torch.arange(0, size, 2, device=position_T.device) / size)
    angle = position_T[:, None, None, None] * frequency
    return angle.cos(), angle.sin()


class _Geglu(torch.autograd.Function):
    """Both gradients in one tensor; torch would concatenate them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        inner, gate = x.chunk(2, dim=-1)
        active = F.gelu(inner)
        ctx.save_for_backward(x, active)
        return active * gate

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        x, active = ctx.saved_tensors
        (inner, gate), d_x = x.chunk(2, dim=-1), torch.empty_like(x)
        d_inner, d_gate = d_x.chunk(2, dim=-1)
        torch.mul(grad, active, out=d_gate)
        d_inner.copy_(torch.ops.aten.gelu_backward(grad * gate, inner))
        return d_x


def geglu(x: Tensor, training: bool) -> Tensor:
    """Returns GELU of the first half of the last dimension times the second half (Shazeer 2020)."""
    if training and on_cpu(x.device):
        return cast(Tensor, _Geglu.apply(x))
    inner, gate = x.chunk(2, dim=-1)
    return F.gelu(inner) * gate


def compute_dtype(x: Tensor) -> torch.dtype:
    """Returns the dtype of matrix products with x: autocast's, or that of x without autocast."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
