"""ELECTRA's networks: the detector matches transformers; the generator is smaller and shares the embeddings."""

import warnings

import pytest
import torch

from mapnet_cli.config import Transformer
from mapnet_cli.config.loading import resolve
from mapnet_cli.core.errors import UsageError
from mapnet_cli.huggingface.weights import to_hugging_face
from mapnet_cli.model.electra import Electra, draw_tokens
from mapnet_cli.model.masked_lm import PretrainingModel

VOCAB = 301  # not a multiple of 64: the internal padding must not be visible
CONFIG = Transformer(layers=3, hidden=48, heads=4, ffn=96, max_length=40)


def model(seed: int = 3) -> Electra:
    net = Electra(CONFIG, VOCAB, CONFIG.narrowed(0.5))
    net.init_weights(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():  # move biases and LayerNorms away from their trivial initial values
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return net.eval()


@torch.no_grad()
def test_logits_match_transformers() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import ElectraConfig, ElectraForPreTraining

        theirs = ElectraForPreTraining(
            ElectraConfig(
                vocab_size=VOCAB, embedding_size=48, hidden_size=48, num_hidden_layers=3, num_attention_heads=4,
                intermediate_size=96, max_position_embeddings=40,
            )
        ).eval()  # fmt: skip
    ours = model()
    missing, unexpected = theirs.load_state_dict(to_hugging_face(ours), strict=False)
    assert not unexpected
    assert all("position_ids" in name for name in missing)
    attention_mask_BL = torch.arange(40) < torch.tensor([[40], [25], [3]])
    tokens_BL = torch.randint(5, VOCAB, (3, 40), generator=torch.Generator().manual_seed(1)) * attention_mask_BL
    expected_BL = theirs(input_ids=tokens_BL, attention_mask=attention_mask_BL.long()).logits
    assert expected_BL[attention_mask_BL].std() > 0.01
    assert torch.allclose(
        ours.detect(tokens_BL, attention_mask_BL)[attention_mask_BL], expected_BL[attention_mask_BL], atol=1e-4
    )


def test_initial_encoder_weights_match_other_methods() -> None:
    ours, bert = Electra(CONFIG, VOCAB, CONFIG.narrowed(0.5)), PretrainingModel(CONFIG, VOCAB, None)
    ours.init_weights(1)
    bert.init_weights(1)
    for name, tensor in bert.encoder.state_dict().items():
        assert torch.equal(ours.encoder.state_dict()[name], tensor), name


def test_the_generator_is_smaller_and_shares_the_embeddings() -> None:
    net = model()
    sizes = net.generator.config
    assert (sizes.layers, sizes.hidden, sizes.heads, sizes.ffn) == (3, 24, 2, 48)
    assert not [name for name, p in net.generator.named_parameters() if p.ndim > 1 and p.shape[0] >= VOCAB]
    tokens_BL = torch.randint(5, VOCAB, (2, 10), generator=torch.Generator().manual_seed(1))
    positions_BK = torch.arange(4).expand(2, 4)
    loss_BK, _ = net.generate(tokens_BL, None, positions_BK, tokens_BL[:, :4], torch.rand(2, 4), None)
    torch.autograd.backward(loss_BK.sum())
    gradient_VE = net.encoder.tokens.weight.grad
    assert gradient_VE is not None
    assert (gradient_VE[5:VOCAB].abs().sum(dim=1) > 0).all(), "every row gets a gradient through the tied decoder"
    assert net.encoder.stack.positions.weight.grad is None


@pytest.mark.parametrize(
    ("hidden", "heads", "fraction", "expected"),
    [(768, 12, 1 / 3, (256, 4)), (256, 4, 0.25, (64, 1)), (64, 2, 0.25, (16, 1)), (100, 5, 0.4, (40, 2))],
)
def test_sizes_of_the_generator(hidden: int, heads: int, fraction: float, expected: tuple[int, int]) -> None:
    found = Transformer(hidden=hidden, heads=heads).narrowed(fraction)
    assert (found.hidden, found.heads) == expected


def test_heads_of_a_modernbert_generator_have_an_even_width() -> None:
    found = Transformer(architecture="modernbert", hidden=36, heads=3).narrowed(0.25)
    assert (found.hidden, found.heads) == (8, 1)


def test_an_empty_generator_is_rejected_with_the_key() -> None:
    with pytest.raises(UsageError, match=r"electra\.generator_fraction .--set.: 0\.001 of .* 64 is too small"):
        resolve("demo", None, ['methods=["electra"]', "method.electra.electra.generator_fraction=0.001"], {})


def test_drawn_tokens_follow_the_softmax() -> None:
    """With noise on a fine grid, frequencies equal probabilities up to the grid's resolution."""
    logits_V = 2 * torch.randn(64, generator=torch.Generator().manual_seed(2))
    logits_V[60:] = -1e4  # vocabulary padding
    grid = 20_000
    noise_N = (torch.arange(grid) + 0.5) / grid
    tokens_N = draw_tokens(logits_V.expand(grid, 64), noise_N, 60)
    share_V = torch.bincount(tokens_N, minlength=64) / grid
    assert (share_V - logits_V.softmax(dim=0)).abs().max() < 1.5 / grid
    assert share_V[60:].sum() == 0


def test_noise_at_its_bounds_gives_tokens_in_the_vocabulary() -> None:
    logits_NV = torch.full((2, 64), -1e4)
    logits_NV[:, :60] = 0.0
    assert draw_tokens(logits_NV, torch.tensor([0.0, 1.0]), 60).tolist() == [0, 59]
