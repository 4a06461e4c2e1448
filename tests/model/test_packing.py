"""Packed batches give the same outputs and gradients as padded ones."""

import pytest
import torch

from mapnet_cli.config import Transformer
from mapnet_cli.model.attention import Packing, Places
from mapnet_cli.model.bert import Encoder
from mapnet_cli.model.masked_lm import initialise

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


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("config", [CONFIG, MODERN], ids=["bert", "modernbert"])
@pytest.mark.parametrize("lengths", [[5, 12, 1, 16], [7], [4, 4, 4], [1, 2], [16] * 4 + [1] * 31, [16] * 4 + [3]])
def test_vectors_and_gradients_match_those_of_each_sequence_alone(
    lengths: list[int], config: Transformer, mean: bool
) -> None:
    """The first vector or the mean of all, in a packed and in a padded batch, whatever is added to the embeddings."""
    tokens_BL, model = padded(lengths), encoder(config)
    kept_BL = tokens_BL != 0
    packing, added_BLH = Packing.of(kept_BL), torch.randn(*tokens_BL.shape, 32)
    weights_BH = torch.randn(len(lengths), 32, generator=torch.Generator().manual_seed(2))

    def alone() -> torch.Tensor:
        vectors = model.tokens(tokens_BL) + added_BLH
        rows = [model.stack(v_LH[None, :length], None)[0] for v_LH, length in zip(vectors, lengths, strict=True)]
        return torch.stack([x_LH.mean(dim=0) if mean else x_LH[0] for x_LH in rows])

    at_T = packing.place_T
    found = []
    for pooled in (
        alone,
        lambda: model.pooled(tokens_BL.flatten()[at_T], packing, added_BLH.flatten(0, 1)[at_T], mean),
        lambda: model.pooled(tokens_BL, None if kept_BL.all() else kept_BL, added_BLH, mean),
    ):
        model.zero_grad()
        vectors_BH = pooled()
        (vectors_BH * weights_BH).sum().backward()
        found.append((vectors_BH, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}))
    (expected_BH, expected), *others = found
    for ours_BH, ours in others:
        assert torch.allclose(ours_BH, expected_BH, atol=1e-5)
        assert ours.keys() == expected.keys()
        for name, gradient in expected.items():
            assert torch.allclose(ours[name], gradient, atol=2e-4), name


@pytest.mark.parametrize(("mean", "last"), [(False, 32), (True, 64)])
def test_linear_layers_skip_padding(mean: bool, last: int) -> None:
    """For one long and 31 short sentences, the linear layers process 64 tokens, not 32 x 16; the last one 32 [CLS]."""
    tokens_BL, model = padded([16] + [1] * 31), encoder()
    packing = Packing.of(tokens_BL != 0)
    seen = []
    for layer in model.stack.layers:
        layer.ffn_in.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape))
    model.pooled(tokens_BL.flatten()[packing.place_T], packing, mean=mean)
    assert seen == [(64, 32), (64, 32), (last, 32)]


def test_no_attention_mask_without_padding() -> None:
    assert Packing.of(torch.ones(2, 3, dtype=torch.bool)).places == Places(2, 3, torch.device("cpu"), None)
