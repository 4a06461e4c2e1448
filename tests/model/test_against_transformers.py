"""Encoder and MLM head equal `transformers`' BertForMaskedLM and ModernBertForMaskedLM with the same weights."""

import warnings

import pytest
import torch

from mapnet_cli.config import Transformer
from mapnet_cli.huggingface.weights import from_hugging_face, to_hugging_face
from mapnet_cli.model.masked_lm import PretrainingModel

VOCAB = 301  # not a multiple of 64: the internal padding must not be visible
SIZES = {"layers": 4, "hidden": 48, "heads": 4, "ffn": 96, "max_length": 40}
CONFIGS = {
    "bert": Transformer(**SIZES),
    "modernbert": Transformer(architecture="modernbert", **SIZES),
    "modernbert, local": Transformer(architecture="modernbert", local_attention=8, global_every=3, **SIZES),
}
COMMON = {
    "vocab_size": VOCAB, "hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 96,
    "max_position_embeddings": 40, "pad_token_id": 0, "attn_implementation": "eager",
}  # fmt: skip


@pytest.fixture(scope="module", params=CONFIGS)
def pair(request: pytest.FixtureRequest) -> tuple[Transformer, torch.nn.Module]:
    """One of our configs and transformers' model for it."""
    ours = CONFIGS[request.param]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import BertConfig, BertForMaskedLM, ModernBertConfig, ModernBertForMaskedLM

        torch.manual_seed(0)
        if ours.architecture == "bert":
            model = BertForMaskedLM(BertConfig(hidden_act="gelu", layer_norm_eps=1e-12, **COMMON))
        else:
            special = {f"{name}_token_id": None for name in ("bos", "eos", "cls", "sep")}
            local = ours.local_attention or 128
            types = None if ours.local_attention else ["full_attention"] * 4
            model = ModernBertForMaskedLM(
                ModernBertConfig(local_attention=local, layer_types=types, **special, **COMMON)
            )
        for parameter in model.parameters():  # move biases and LayerNorms away from their trivial initial values
            parameter.data += 0.05 * torch.randn_like(parameter)
        if ours.architecture == "bert":
            model.cls.predictions.decoder.bias = model.cls.predictions.bias
    return ours, model.eval()


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    tokens_BL = torch.randint(5, VOCAB, (3, 40), generator=torch.Generator().manual_seed(1))
    attention_mask_BL = torch.arange(40) < torch.tensor([[40], [25], [3]])
    return tokens_BL * attention_mask_BL, attention_mask_BL


def our_logits(model: PretrainingModel, tokens_BL: torch.Tensor, attention_mask_BL: torch.Tensor) -> torch.Tensor:
    positions_BK = torch.arange(40).expand(3, 40)
    logits = model.eval().token_logits(tokens_BL, attention_mask_BL, positions_BK)[attention_mask_BL.flatten()]
    assert logits.shape[1] % 64 == 0
    assert (logits[:, VOCAB:].exp() == 0).all()
    return logits[:, :VOCAB]


@torch.no_grad()
def test_logits_match_with_transformers_weights(pair: tuple[Transformer, torch.nn.Module]) -> None:
    config, theirs = pair
    ours = PretrainingModel(config, VOCAB, None)
    from_hugging_face(theirs.state_dict(), ours)
    tokens_BL, attention_mask_BL = batch()
    expected = theirs(input_ids=tokens_BL, attention_mask=attention_mask_BL.long()).logits[attention_mask_BL]
    assert torch.allclose(our_logits(ours, tokens_BL, attention_mask_BL), expected, atol=1e-4)


@torch.no_grad()
def test_logits_match_with_our_weights(pair: tuple[Transformer, torch.nn.Module]) -> None:
    config, theirs = pair
    ours = PretrainingModel(config, VOCAB, None)
    ours.init_weights(3)
    missing, unexpected = theirs.load_state_dict(to_hugging_face(ours), strict=False)
    assert not unexpected
    assert all("position_ids" in name for name in missing)
    tokens_BL, attention_mask_BL = batch()
    expected = theirs(input_ids=tokens_BL, attention_mask=attention_mask_BL.long()).logits[attention_mask_BL]
    assert torch.allclose(our_logits(ours, tokens_BL, attention_mask_BL), expected, atol=1e-4)


def test_gradients_match_in_training(pair: tuple[Transformer, torch.nn.Module]) -> None:
    """Without dropout, with the kernels for training on a CPU."""
    config, theirs = pair
    off = {"dropout": 0.0, "attention_dropout": 0.0}
    ours = PretrainingModel(config.model_copy(update=off), VOCAB, None)
    from_hugging_face(theirs.state_dict(), ours)
    tokens_BL, attention_mask_BL = batch()
    positions_BK = torch.tensor([[1, 39, 7], [24, 3, 9], [2, 1, 0]])
    targets_BK = torch.randint(5, VOCAB, positions_BK.shape)
    loss_BK, _ = ours.train().token_losses(tokens_BL, attention_mask_BL, positions_BK, targets_BK, None)
    loss_BK.sum().backward()
    logits_BLV = theirs(input_ids=tokens_BL, attention_mask=attention_mask_BL.long()).logits
    rows = torch.arange(3)[:, None]
    torch.nn.functional.cross_entropy(
        logits_BLV[rows, positions_BK].flatten(0, 1), targets_BK.flatten(), reduction="sum"
    ).backward()
    found, expected = PretrainingModel(config, VOCAB, None), PretrainingModel(config, VOCAB, None)
    names = dict(theirs.named_parameters())
    grads = {n: names[n].grad if n in names else t for n, t in theirs.state_dict().items()}
    from_hugging_face(grads, expected)
    for name, parameter in ours.named_parameters():
        found.get_parameter(name).data = parameter.grad
        if name.startswith("encoder.stack.positions"):
            continue  # transformers' segment embeddings have a gradient of their own
        a, b = found.get_parameter(name).data, expected.get_parameter(name).data
        assert torch.allclose(a, b, atol=1e-4 * float(b.abs().max()) + 1e-6), name
    theirs.zero_grad()


@pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))
def test_round_trip_is_exact(config: Transformer) -> None:
    ours, again = PretrainingModel(config, VOCAB, None), PretrainingModel(config, VOCAB, None)
    ours.init_weights(3)
    from_hugging_face(to_hugging_face(ours), again)
    for name, tensor in ours.state_dict().items():
        kept = tensor[:VOCAB] if name == "encoder.tokens.weight" else tensor
        assert torch.equal(again.state_dict()[name][: len(kept)], kept), name


@torch.no_grad()
@pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))
def test_requested_positions_match_the_full_output(config: Transformer) -> None:
    model = PretrainingModel(config, VOCAB, None).eval()
    model.init_weights(2)
    tokens_BL, attention_mask_BL = batch()
    positions_BQ = torch.tensor([[0, 39, 7], [24, 0, 0], [2, 1, 0]])
    everything = model.encoder(tokens_BL, attention_mask_BL)
    some = model.encoder(tokens_BL, attention_mask_BL, positions_BQ)
    assert torch.allclose(some, everything[torch.arange(3)[:, None], positions_BQ], atol=1e-6)
