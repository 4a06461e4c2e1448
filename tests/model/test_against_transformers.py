"""The encoder and MLM head give the same outputs as `transformers`' BertForMaskedLM with the same weights."""

import warnings

import pytest
import torch

from mapnet_cli.config import Transformer
from mapnet_cli.huggingface.weights import from_hugging_face, to_hugging_face
from mapnet_cli.model.masked_lm import PretrainingModel

VOCAB = 301  # not a multiple of 64: the internal padding must not be visible
CONFIG = Transformer(layers=3, hidden=48, heads=4, ffn=96, max_length=40)


@pytest.fixture(scope="module")
def theirs() -> torch.nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import BertConfig, BertForMaskedLM

        config = BertConfig(
            vocab_size=VOCAB, hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=96,
            max_position_embeddings=40, hidden_act="gelu", layer_norm_eps=1e-12, attn_implementation="eager",
        )  # fmt: skip
        torch.manual_seed(0)
        model = BertForMaskedLM(config).eval()
        for parameter in model.parameters():  # move biases and LayerNorms away from their trivial initial values
            parameter.data += 0.05 * torch.randn_like(parameter)
        model.cls.predictions.decoder.bias = model.cls.predictions.bias
    return model


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    tokens_BL = torch.randint(5, VOCAB, (3, 40), generator=torch.Generator().manual_seed(1))
    attention_mask_BL = torch.arange(40) < torch.tensor([[40], [25], [3]])
    return tokens_BL * attention_mask_BL, attention_mask_BL


def our_logits(model: PretrainingModel, tokens_BL: torch.Tensor, attention_mask_BL: torch.Tensor) -> torch.Tensor:
    positions_BK = torch.arange(40).expand(3, 40)
    logits = model.eval().token_logits(
        tokens_BL, attention_mask_BL, positions_BK, attention_mask_BL.flatten().nonzero().squeeze(1)
    )
    assert logits.shape[1] % 64 == 0
    assert (logits[:, VOCAB:].exp() == 0).all()
    return logits[:, :VOCAB]


@torch.no_grad()
def test_logits_match_with_transformers_weights(theirs: torch.nn.Module) -> None:
    ours = PretrainingModel(CONFIG, VOCAB, None)
    from_hugging_face(theirs.state_dict(), ours)
    tokens_BL, attention_mask_BL = batch()
    expected = theirs(input_ids=tokens_BL, attention_mask=attention_mask_BL.long()).logits[attention_mask_BL]
    assert torch.allclose(our_logits(ours, tokens_BL, attention_mask_BL), expected, atol=1e-4)


@torch.no_grad()
def test_logits_match_with_our_weights(theirs: torch.nn.Module) -> None:
    ours = PretrainingModel(CONFIG, VOCAB, None)
    ours.init_weights(3)
    missing, unexpected = theirs.load_state_dict(to_hugging_face(ours), strict=False)
    assert not unexpected
    assert all("position_ids" in name for name in missing)
    tokens_BL, attention_mask_BL = batch()
    expected = theirs(input_ids=tokens_BL, attention_mask=attention_mask_BL.long()).logits[attention_mask_BL]
    assert torch.allclose(our_logits(ours, tokens_BL, attention_mask_BL), expected, atol=1e-4)


def test_round_trip_is_exact() -> None:
    ours, again = PretrainingModel(CONFIG, VOCAB, None), PretrainingModel(CONFIG, VOCAB, None)
    ours.init_weights(3)
    from_hugging_face(to_hugging_face(ours), again)
    for name, tensor in ours.state_dict().items():
        kept = tensor[:VOCAB] if name == "encoder.tokens.weight" else tensor
        assert torch.equal(again.state_dict()[name][: len(kept)], kept), name


@torch.no_grad()
def test_requested_positions_match_the_full_output() -> None:
    model = PretrainingModel(CONFIG, VOCAB, None).eval()
    model.init_weights(2)
    tokens_BL, attention_mask_BL = batch()
    positions_BQ = torch.tensor([[0, 39, 7], [24, 0, 0], [2, 1, 0]])
    everything = model.encoder(tokens_BL, attention_mask_BL)
    some = model.encoder(tokens_BL, attention_mask_BL, positions_BQ)
    assert torch.allclose(some, everything[torch.arange(3)[:, None], positions_BQ], atol=1e-6)
