"""Packed batches give the same outputs and gradients as padded ones."""

import pytest
import torch

from mapnet_cli.config import Transformer
from mapnet_cli.model.attention import Places
from mapnet_cli.model.bert import Encoder, Packing, initialise

CONFIG = Transformer(layers=3, hidden=32, heads=4, ffn=64, max_length=16, dropout=0.0, attention_dropout=0.0)
MODERN = CONFIG.model_copy(update={"architecture": "modernbert", "local_attention": 8, "global_every": 2})


def encoder(config: Transformer = CONFIG) -> Encoder:
    model = Encoder(config, 50)
    initialise(model, config.model_copy(update={"init_std": 0.2}), torch.Generator().manual_seed(0))
    return model


def padded(lengths: list[int]) -> torch.Tensor:
    tokens_BL = torch.randint(5, 50, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(1))
    for row, length in zip(tokens_BL, lengths, strict=True):
        row[length:] = 0
    return tokens_BL


@pytest.mark.parametrize("config", [CONFIG, MODERN], ids=["bert", "modernbert"])
@pytest.mark.parametrize("lengths", [[5, 12, 1, 16], [7], [4, 4, 4], [1, 2], [16] * 4 + [1] * 31, [16] * 4 + [3]])
def test_first_vectors_and_gradients_match_the_padded_batch(lengths: list[int], config: Transformer) -> None:
    tokens_BL, model = padded(lengths), encoder(config)
    attention_mask_BL = tokens_BL != 0
    packing = Packing.of(attention_mask_BL)
    weights_BH = torch.randn(len(lengths), 32, generator=torch.Generator().manual_seed(2))
    found = []
    for vectors_BH in (
        model(tokens_BL, attention_mask_BL, torch.zeros(len(lengths), 1, dtype=torch.long))[:, 0],
        model.encode_cls(tokens_BL.flatten()[packing.place_T], packing),
    ):
        model.zero_grad()
        (vectors_BH * weights_BH).sum().backward()
        found.append((vectors_BH, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}))
    (expected_BH, expected), (ours_BH, ours) = found
    assert torch.allclose(ours_BH, expected_BH, atol=1e-5)
    assert ours.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.allclose(ours[name], gradient, atol=1e-4), name


def test_linear_layers_skip_padding() -> None:
    """For one long and 31 short sentences, the linear layers process 64 tokens, not 32 x 16."""
    tokens_BL, model = padded([16] + [1] * 31), encoder()
    packing = Packing.of(tokens_BL != 0)
    seen = []
    model.stack.layers[0].ffn_in.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape))
    model.encode_cls(tokens_BL.flatten()[packing.place_T], packing)
    assert seen == [(64, 32)]


def test_no_attention_mask_without_padding() -> None:
    assert Packing.of(torch.ones(2, 3, dtype=torch.bool)).places == Places(2, 3, torch.device("cpu"), None)
