"""FLOP counts, compared with torch's FlopCounterMode and at the paper's model sizes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mapnet_cli.config import MapNetSizes, Transformer
from mapnet_cli.model.electra import Electra
from mapnet_cli.model.masked_lm import PretrainingModel
from mapnet_cli.training.flops import Work, electra_flops, head_flops, stack_flops, step_flops


@contextmanager
def counting() -> Iterator[FlopCounterMode]:
    """Counts FLOPs, with attention as plain matrix products, which the counter supports."""
    plain = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), plain:
        yield counter


@pytest.mark.parametrize("architecture", [{}, {"architecture": "modernbert", "local_attention": 4}])
def test_forward_flops_match_torch(architecture: dict[str, Any]) -> None:
    sizes = {"layers": 3, "hidden": 32, "heads": 4, "ffn": 64, "max_length": 16}
    config = Transformer(dropout=0.0, attention_dropout=0.0, **sizes, **architecture)
    model = PretrainingModel(config, 128, None).eval()
    tokens_BL = torch.randint(5, 128, (2, 16))
    positions_BK = torch.arange(3).expand(2, 3)
    with counting() as counter:
        model.token_logits(tokens_BL, None, positions_BK)
    assert counter.get_total_flops() == 2 * (stack_flops(config, 16, 3) + head_flops(config, 128, 3))


@pytest.mark.parametrize("signal", ["loss", "error", "one-minus-p", "logit-gradient"])
def test_flops_of_a_training_step_match_torch_for_every_signal(signal: str) -> None:
    """Up to the gradient of the first layer's input, which isn't needed, and that of the bias."""
    sizes = {"layers": 3, "hidden": 32, "heads": 4, "ffn": 64, "max_length": 16}
    config = Transformer(dropout=0.0, attention_dropout=0.0, **sizes)
    model, positions_BK = PretrainingModel(config, 128, None).train(), torch.arange(16).expand(2, 16)
    tokens_BL = torch.randint(5, 128, (2, 16))
    with FlopCounterMode(display=False) as counter:
        loss_BK, _ = model.token_losses(tokens_BL, None, positions_BK, tokens_BL, None, signal)
        loss_BK.sum().backward()
    expected = step_flops(config, None, 128, 2, 16, Work(1.0))
    assert counter.get_total_flops() == pytest.approx(expected + 2 * 32 * 128)


def test_step_flops_of_bert_base_at_paper_size() -> None:
    """About 73 TFLOPs per step; MAP-Net adds about 20.5."""
    bert = step_flops(Transformer(), None, 32_678, 256, 512, Work(0.15))
    joint = step_flops(Transformer(), MapNetSizes(), 32_678, 256, 512, Work(0.15))
    assert bert == pytest.approx(73e12, rel=0.03)
    assert (joint - bert) == pytest.approx(20.5e12, rel=0.03)


def test_electra_forward_flops_match_torch() -> None:
    encoder = Transformer(layers=3, hidden=32, heads=4, ffn=64, max_length=16, dropout=0.0, attention_dropout=0.0)
    generator = encoder.narrowed(0.25)
    model = Electra(encoder, 128, generator).eval()
    tokens_BL = torch.randint(5, 128, (2, 16))
    positions_BK = torch.arange(4).expand(2, 4)
    with counting() as counter:
        model.generate(tokens_BL, None, positions_BK, tokens_BL[:, :4], torch.rand(2, 4), None)
        model.detect(tokens_BL, None)
    assert 3 * counter.get_total_flops() == electra_flops(encoder, generator, 128, 2, 16, 0.25)


def test_electra_flops_of_bert_base_at_paper_size() -> None:
    """The vocabulary head has narrow inputs, but the encoder's last layer runs at every position."""
    bert = step_flops(Transformer(), None, 32_678, 256, 512, Work(0.15))
    electra = electra_flops(Transformer(), Transformer().narrowed(0.25), 32_678, 256, 512, 0.15)
    assert electra / bert == pytest.approx(1.146, abs=0.001)
