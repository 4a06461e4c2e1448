"""bfloat16 autocast on a CPU: attention runs in float32, everything else as on a GPU."""

import pytest
import torch
import torch.nn.functional as F

from mapnet_cli.config import Transformer
from mapnet_cli.model.bert import Attention, Encoder, Packing, initialise

CONFIG = Transformer(layers=2, hidden=32, heads=4, ffn=64, max_length=16, dropout=0.0, attention_dropout=0.0)
TOKENS_BL = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 0]])


def vectors(packed: bool) -> torch.Tensor:
    model = Encoder(CONFIG, 50)
    initialise(model, CONFIG.model_copy(update={"init_std": 0.2}), torch.Generator().manual_seed(0))
    packing = Packing.of(TOKENS_BL != 0)
    if packed:
        return model.encode_cls(TOKENS_BL.flatten()[packing.place_T], packing)
    out: torch.Tensor = model(TOKENS_BL, TOKENS_BL != 0, torch.zeros(2, 1, dtype=torch.long))
    return out[:, 0]


@pytest.mark.parametrize("packed", [True, False])
def test_attention_is_in_float32(packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    attend = F.scaled_dot_product_attention

    def recording(query: torch.Tensor, *args: torch.Tensor, **kwargs: torch.Tensor) -> torch.Tensor:
        mixed = attend(query, *args, **kwargs)
        seen.append((query.dtype, mixed.dtype))
        return mixed

    monkeypatch.setattr(F, "scaled_dot_product_attention", recording)
    with torch.autocast("cpu", torch.bfloat16):
        found = vectors(packed)
    assert seen == [(torch.float32, torch.float32)] * 2
    assert torch.allclose(found.float(), vectors(packed), atol=0.1)  # bfloat16 has 8 bits


def test_matrix_products_are_in_bfloat16() -> None:
    attention = Attention(CONFIG)
    with torch.autocast("cpu", torch.bfloat16):
        assert attention(torch.randn(2, 4, 32), None).dtype is torch.bfloat16
