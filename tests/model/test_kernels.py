"""Each kernel equals the plain formula: in float32 up to rounding, in bfloat16 within its rounding."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mapnet_cli.config import MapNetSizes, Transformer
from mapnet_cli.model import kernels
from mapnet_cli.model.attention import Places, attention
from mapnet_cli.model.masked_lm import PretrainingModel
from mapnet_cli.model.token_loss import tied_embedding, token_loss

DTYPES = [torch.float32, torch.bfloat16]
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def gradients(function: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    """Returns the value and the gradients of a random projection of it, all in float32."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    value = function(*leaves)
    torch.manual_seed(5)
    torch.autograd.backward((value.float() * torch.randn(value.shape)).sum())
    return [value.detach().float(), *(x.grad.float() for x in leaves if x.grad is not None)]


def assert_close(ours: list[Tensor], plain: list[Tensor], dtype: torch.dtype) -> None:
    """Compares in units of each tensor's root mean square."""
    assert len(ours) == len(plain)
    for a, b in zip(ours, plain, strict=True):
        assert float((a - b).norm()) <= TOLERANCE[dtype] * float(b.norm()) + 1e-6


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("own_query", [False, True])
@pytest.mark.parametrize("padding", ["none", "masked", "left out"])
@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_attention(dtype: torch.dtype, own_query: bool, padding: str, dropout: float) -> None:
    """The reference is the formula in float32, with the same dropped probabilities."""
    batch, length, heads, size = 3, 8, 2, 12
    torch.manual_seed(0)
    real_BL = torch.arange(length) < torch.tensor([8, 5, 1])[:, None]
    device = torch.device("cpu")
    places = Places(batch, length, device, None if padding == "none" else real_BL[:, None, None, :])
    if padding == "left out":
        token_S = (real_BL.flatten().cumsum(0) - 1).masked_fill_(~real_BL.flatten(), int(real_BL.sum()))
        places = replace(places, place_T=real_BL.flatten().nonzero().squeeze(1), token_S=token_S)
    at = torch.arange(batch * length) if places.place_T is None else places.place_T
    packed = torch.randn(len(at), 2 if own_query else 3, heads * size).to(dtype)
    queries = [torch.randn(batch, 4, heads * size).to(dtype)] if own_query else []

    def plain(packed_TNH: Tensor, *query: Tensor) -> Tensor:
        spread = packed_TNH.new_zeros(batch * length, *packed_TNH.shape[1:]).index_copy(0, at, packed_TNH)
        parts = (*query, *spread.view(batch, length, -1, heads * size).unbind(2))
        first, key, value = (part.reshape(batch, -1, heads, size).transpose(1, 2) for part in parts)
        scores = first @ key.transpose(2, 3) / size**0.5
        if places.attention_mask_B11L is not None:
            scores = scores.masked_fill(~places.attention_mask_B11L, -torch.inf)
        p = scores.softmax(dim=3)
        if dropout:
            torch.manual_seed(1)
            shape = torch.Size((heads * batch, *p.shape[2:]))
            bits, scale = kernels.keep_bits(shape, dropout, torch.float32)
            p = p * -bits.view(heads, batch, *p.shape[2:]).transpose(0, 1) * scale
        rows = (p @ value).transpose(1, 2).reshape(-1, heads * size)
        return rows if query else rows[at]

    def ours(own: bool) -> Callable[..., Tensor]:
        def attend(packed_TNH: Tensor, *query: Tensor) -> Tensor:
            torch.manual_seed(1)
            one, bias = query[0] if query else None, places.bias(packed_TNH.dtype, 0, None)
            if own:
                return attention(packed_TNH, one, heads, places, bias, dropout, own)
            as_packed = attention(packed_TNH, one, heads, places, bias, dropout, own)
            as_parts = attention(packed_TNH.unbind(1), one, heads, places, bias, dropout, own)
            torch.testing.assert_close(as_parts, as_packed)
            return as_parts

        return attend

    exactly = [packed.float(), *(query.float() for query in queries)]
    expected = gradients(plain, *exactly)
    assert_close(gradients(ours(own=True), packed, *queries), expected, dtype)
    if not dropout:
        assert_close(gradients(ours(own=False), *exactly), expected, torch.float32)


@pytest.mark.parametrize("own_query", [False, True])
def test_local_attention(own_query: bool) -> None:
    """A token attends to those at most as far away as the window."""
    places = Places(2, 6, torch.device("cpu"), torch.arange(6) < torch.tensor([6, 4])[:, None, None, None])
    position_BQ = torch.tensor([[0, 5], [3, 2]]) if own_query else None
    bias = places.bias(torch.float32, 2, position_BQ)
    assert bias is not None
    queries = position_BQ.tolist() if position_BQ is not None else [list(range(6))] * 2
    expected = torch.tensor(
        [[[abs(q - k) <= 2 and k < end for k in range(6)] for q in queries[n]] for n, end in enumerate((6, 4))]
    )
    assert torch.equal(bias == 0, expected)
    assert (bias[~expected].exp() == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("training", [True, False])
def test_rotary_positions(dtype: torch.dtype, training: bool) -> None:
    """The reference multiplies complex numbers; the last part stays as it is."""
    tokens, heads, size = 5, 2, 8
    x_TNH, position_T = torch.randn(tokens, 3, heads * size).to(dtype), torch.tensor([0, 1, 2, 0, 9])
    angles = kernels.rotary_angles(position_T, size, 100.0)

    def plain(x: Tensor) -> Tensor:
        a, b = x[:, :2].reshape(tokens, 2, heads, size).chunk(2, dim=3)
        angle_TD = position_T[:, None] * 100.0 ** (-torch.arange(0, size, 2) / size)
        turned = torch.complex(a, b) * torch.polar(torch.ones_like(angle_TD), angle_TD)[:, None, None]
        turned = torch.cat([turned.real, turned.imag], dim=3).reshape(tokens, 2, -1)
        return torch.cat([turned, x[:, 2:]], dim=1)

    expected = gradients(plain, x_TNH.float())
    assert_close(gradients(lambda x: kernels.rotated(x, heads, angles, 2, training), x_TNH), expected, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("training", [True, False])
def test_geglu(dtype: torch.dtype, training: bool) -> None:
    x = torch.randn(5, 12).to(dtype)
    expected = gradients(lambda x: F.gelu(x[:, :6]) * x[:, 6:], x.float())
    assert_close(gradients(lambda x: kernels.geglu(x, training), x), expected, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("parts", [2, 3])
def test_project(dtype: torch.dtype, parts: int) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(7, 6).to(dtype), torch.randn(parts * 6, 6), torch.randn(parts * 6)

    def plain(x_TH: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.linear(x_TH, weight, bias)

    ours = gradients(lambda x, w, b: torch.cat(kernels.project(x, w, b, parts), dim=1), *inputs)
    assert_close(ours, gradients(plain, *(x.float() for x in inputs)), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_token_loss(dtype: torch.dtype) -> None:
    """Includes weights that differ by position, as importance weights do, and positions without one."""
    torch.manual_seed(0)
    inputs = torch.randn(37, 16).to(dtype), torch.randn(200, 16).to(dtype), torch.randn(200)
    targets_N, weight_N = torch.randint(200, (37,)), torch.rand(37) * 9
    weight_N[::5] = 0

    def plain(hidden_NH: Tensor, decoder_VH: Tensor, bias_V: Tensor) -> Tensor:
        return weight_N * F.cross_entropy(hidden_NH @ decoder_VH.t() + bias_V, targets_N, reduction="none")

    def ours(signal: str, *x: Tensor) -> Tensor:
        return weight_N * token_loss(*x, targets_N, signal)[0]

    expected = gradients(plain, *(x.float() for x in inputs))
    for signal in ("loss", "logit-gradient"):  # which makes one product of the backward pass in advance
        assert_close(gradients(partial(ours, signal), *inputs), expected, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("signal", ["loss", "error", "one-minus-p", "logit-gradient"])
def test_signals_of_token_loss(dtype: torch.dtype, signal: str) -> None:
    """Half of the targets are the most probable tokens. Errors are exactly those of the logits."""
    torch.manual_seed(0)
    hidden_NH, decoder_VH, bias_V = torch.randn(137, 16).to(dtype), torch.randn(200, 16).to(dtype), torch.randn(200)
    logits_NV = F.linear(hidden_NH, decoder_VH, bias_V.to(dtype))
    targets_N = torch.where(torch.arange(137) % 2 == 0, logits_NV.argmax(dim=1), torch.randint(200, (137,)))
    _, signal_N = token_loss(hidden_NH.requires_grad_(), decoder_VH, bias_V, targets_N, signal)
    p_NV = logits_NV.detach().float().softmax(dim=1)
    d_input_NH = (p_NV - F.one_hot(targets_N, 200)) @ decoder_VH.float()
    expected_N = {
        "loss": -p_NV[torch.arange(137), targets_N].log(),
        "error": (logits_NV > logits_NV.gather(1, targets_N[:, None])).any(dim=1).float(),
        "one-minus-p": 1 - p_NV[torch.arange(137), targets_N],
        "logit-gradient": d_input_NH.norm(dim=1),
    }[signal]
    assert signal_N.dtype == torch.float32 and not signal_N.requires_grad
    if signal == "error":
        assert torch.equal(signal_N, expected_N) and 0.3 < signal_N.mean() < 0.6
        tied_N = (logits_NV == logits_NV.amax(dim=1, keepdim=True)).sum(dim=1) > 1  # another one is equally probable
        assert torch.equal(signal_N[~tied_N], (logits_NV.argmax(dim=1) != targets_N).float()[~tied_N])
    assert_close([signal_N], [expected_N], dtype)


def test_losses_in_bfloat16_are_unbiased() -> None:
    """Their error relative to the exact loss of the rounded logits averages out, for confident predictions too."""
    torch.manual_seed(0)
    for scale in (0.05, 0.4):
        hidden_NH, decoder_VH = torch.randn(2_000, 64).bfloat16(), (scale * torch.randn(500, 64)).bfloat16()
        logits_NV = (hidden_NH @ decoder_VH.t()).float()
        targets_N = logits_NV.argmax(dim=1)
        exact_N = F.cross_entropy(logits_NV, targets_N, reduction="none")
        error_N = token_loss(hidden_NH, decoder_VH, torch.zeros(500), targets_N)[0] - exact_N
        assert error_N.abs().max() < 2**-8
        assert abs(float(error_N.mean())) < 2e-4


def test_token_loss_is_finite_where_the_probability_underflows() -> None:
    hidden_NH, decoder_VH = torch.tensor([[100.0]]), torch.tensor([[1.0], [-1.0]])
    loss_N, d_hidden_NH = gradients(
        lambda h: token_loss(h, decoder_VH, torch.zeros(2), torch.tensor([1]))[0], hidden_NH
    )
    assert 87 < loss_N < 88
    assert torch.isfinite(d_hidden_NH).all() and d_hidden_NH.abs() > 0
    diverged, _ = token_loss(hidden_NH * torch.inf, decoder_VH, torch.zeros(2), torch.tensor([1]))
    assert not torch.isfinite(diverged)


@pytest.mark.parametrize("autocast", [False, True])
def test_tied_embedding(autocast: bool) -> None:
    """Gradients of both uses add up, also for a token that occurs twice, and for one that doesn't."""
    weight_VH = torch.randn(9, 4)
    tokens_BL = torch.tensor([[1, 2, 2], [8, 1, 1]])

    def ours(weight: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            vectors_BLH, decoder_VH = tied_embedding(weight, tokens_BL)
            assert decoder_VH.dtype is (torch.bfloat16 if autocast else torch.float32)
        return torch.cat([vectors_BLH.flatten(0, 1), decoder_VH.float()])

    def plain(weight: Tensor) -> Tensor:
        return torch.cat([F.embedding(tokens_BL, weight).flatten(0, 1), weight])

    dtype = torch.bfloat16 if autocast else torch.float32
    assert_close(gradients(ours, weight_VH), gradients(plain, weight_VH), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dropout_add(dtype: torch.dtype) -> None:
    """A kept element is scaled, a dropped one leaves the residual, and gradients pass only through kept ones."""
    x, residual = torch.randn(64, 65).to(dtype), torch.randn(64, 65).to(dtype)
    torch.manual_seed(1)
    bits, scale = kernels.keep_bits(x.shape, 0.1, torch.float32)

    def ours(x: Tensor, residual: Tensor) -> Tensor:
        torch.manual_seed(1)
        return kernels.dropout_add(x, residual, 0.1, training=True)

    plain = gradients(lambda x, residual: residual + x * -bits * scale, x.float(), residual.float())
    assert_close(gradients(ours, x, residual), plain, dtype)
    torch.manual_seed(1)
    assert torch.equal(kernels.dropout_add(x, None, 0.1, training=True), ours(x, torch.zeros_like(x)))
    assert torch.equal(kernels.dropout_add(x, residual, 0.1, training=False), residual + x)
    assert torch.equal(kernels.dropout_add(x, None, 0.1, training=False), x)


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_keep_bits(probability: float) -> None:
    """Elements are kept with the probability whose inverse is the scale, independently of their neighbours."""
    torch.manual_seed(0)
    bits, scale = kernels.keep_bits(torch.Size((1000, 1003)), probability, torch.float32)
    assert set(bits.unique().tolist()) == {-1, 0}
    assert scale == pytest.approx(1 / (1 - probability), rel=2e-4)
    deviation = (probability * (1 - probability) / bits.numel()) ** 0.5
    assert abs(float(-bits.float().mean()) - 1 / scale) < 4 * deviation
    flat = -bits.flatten() - 1 / scale
    for distance in (1, 2, 3, 4, 1003):
        assert abs(float((flat[:-distance] * flat[distance:]).mean())) < 5 * probability * (1 - probability) / 1000
    torch.manual_seed(0)
    assert torch.equal(bits, kernels.keep_bits(torch.Size((1000, 1003)), probability, torch.float32)[0])
    x = torch.randn(1000, 1003)
    assert torch.equal(kernels.keep(x, bits), torch.where(bits == 0, 0.0, x))


CASES = ((False, False, False), (True, False, False), (True, False, True), (True, True, False), (True, True, True))
"""Whether the model trains, in bfloat16, as on a GPU."""


@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
def test_steps_match_plain_float32(architecture: str) -> None:
    """Losses and gradients of the whole model, encoder and MAP-Net, without dropout."""
    off = {"dropout": 0.0, "attention_dropout": 0.0, "architecture": architecture}
    encoder = Transformer(layers=2, hidden=32, heads=4, ffn=64, max_length=16, **off)
    model = PretrainingModel(encoder, 100, MapNetSizes(layers=1, hidden=16, heads=2, ffn=32, max_length=16, **off))
    model.init_weights(1)
    tokens_BL, positions_BK = torch.randint(5, 100, (4, 16)), torch.randint(16, (4, 3))
    tokens_BL[1, 12:] = 0
    attention_mask_BL, found = tokens_BL != 0, []
    for training, autocast, gpu in CASES:
        model.train(training).zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast), kernels.as_on_gpu() if gpu else nullcontext():
            loss_BK, _ = model.token_losses(
                tokens_BL, attention_mask_BL, positions_BK, tokens_BL.gather(1, positions_BK), None
            )
            log_q_BL = model.propose(tokens_BL, attention_mask_BL, attention_mask_BL)
        total = loss_BK.mean() - log_q_BL[attention_mask_BL].mean()
        total.backward()
        found.append([total.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    plain, trained, trained_as_on_gpu, *rounded = found
    assert_close(trained, plain, torch.float32)
    assert_close(trained_as_on_gpu, plain, torch.float32)
    assert len(plain) == 1 + len(list(model.parameters()))
    for values in rounded:
        for name, a, b in zip(("loss", *dict(model.named_parameters())), values, plain, strict=True):
            assert float((a - b).norm()) < 0.1 * float(b.norm()) + 1e-3, name


@pytest.mark.filterwarnings("ignore:.*should not be instantiated")  # from torch.compile itself
@pytest.mark.parametrize(
    ("architecture", "padded", "signal"),
    [("bert", False, "loss"), ("bert", True, "error"), ("modernbert", True, "logit-gradient")],
)
def test_compiles_into_one_graph(architecture: str, padded: bool, signal: str) -> None:
    """In bfloat16 with dropout, for training: a graph break raises. The gradients are those without compilation."""
    both: dict[str, Any] = {"architecture": architecture, "max_length": 16}
    encoder = Transformer(layers=2, hidden=32, heads=4, ffn=64, **both)
    model = PretrainingModel(encoder, 100, MapNetSizes(layers=1, hidden=16, heads=2, ffn=32, **both)).train()
    model.init_weights(1)
    tokens_BL, positions_BK = torch.randint(5, 100, (4, 16)), torch.randint(16, (4, 3))
    tokens_BL[1, 12:] = 0
    mask_BL = tokens_BL != 0 if padded else None
    torch._dynamo.reset()

    def run(prepare: Callable[[Callable[..., Any]], Callable[..., Any]]) -> list[Tensor]:
        model.zero_grad()
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16):
            targets_BK = tokens_BL.gather(1, positions_BK)
            loss_BK, signal_BK = prepare(model.token_losses)(tokens_BL, mask_BL, positions_BK, targets_BK, None, signal)
            assert signal_BK.count_nonzero() and not signal_BK.requires_grad
            log_q_BL = prepare(model.propose)(tokens_BL, mask_BL, tokens_BL != 0)
        torch.autograd.backward(loss_BK.mean() - log_q_BL[tokens_BL != 0].mean())
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    compiled = run(lambda network: torch.compile(network, backend="aot_eager", fullgraph=True, dynamic=False))
    with kernels.as_on_gpu():
        eager = run(lambda network: network)
    for ours, plain in zip(compiled, eager, strict=True):
        assert float((ours - plain).norm()) < 0.05 * float(plain.norm()) + 1e-3
