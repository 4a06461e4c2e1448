"""MAP-Net: a distribution over maskable positions that depends on the whole sentence and shares the embeddings."""

import torch

from mapnet_cli.config import MapNetSizes, Transformer
from mapnet_cli.masking.sampling import maskable_positions
from mapnet_cli.model.masked_lm import PretrainingModel
from mapnet_cli.model.proposal import masked_log_softmax
from mapnet_cli.text.words import CLS, PAD, SEP

ENCODER = Transformer(layers=1, hidden=16, heads=2, ffn=32, max_length=12)
PROPOSAL = MapNetSizes(layers=2, hidden=8, heads=2, ffn=16, max_length=12)
TOKENS = torch.tensor([[CLS, 9, 10, 11, SEP, PAD], [CLS, 9, 30, 11, 12, SEP]])


def model() -> PretrainingModel:
    net = PretrainingModel(ENCODER, 64, PROPOSAL)
    net.init_weights(1)
    return net.eval()


def test_only_maskable_positions_have_probability() -> None:
    maskable_BL = maskable_positions(TOKENS)
    log_q_BL = model().propose(TOKENS, TOKENS != PAD, maskable_BL)
    assert torch.allclose(log_q_BL.exp().sum(dim=1), torch.ones(2), atol=1e-6)
    assert (log_q_BL[~maskable_BL] == -torch.inf).all()
    assert torch.isfinite(log_q_BL[maskable_BL]).all()


def test_every_position_depends_on_the_whole_sentence() -> None:
    net, changed = model(), TOKENS.clone()
    changed[0, 3] = 40
    before = net.propose(TOKENS, TOKENS != PAD, maskable_positions(TOKENS))
    after = net.propose(changed, changed != PAD, maskable_positions(changed))
    assert not torch.isclose(before[0, 1], after[0, 1], atol=1e-7)
    assert torch.equal(before[1], after[1])


def test_padding_does_not_change_a_proposal() -> None:
    net = model()
    alone = net.propose(TOKENS[:1, :5], None, maskable_positions(TOKENS[:1, :5]))
    padded = net.propose(TOKENS, TOKENS != PAD, maskable_positions(TOKENS))
    assert torch.allclose(alone[0, 1:4], padded[0, 1:4], atol=1e-6)


def test_initial_encoder_weights_are_the_same_with_and_without_mapnet() -> None:
    without = PretrainingModel(ENCODER, 64, None)
    without.init_weights(1)
    for name, tensor in without.state_dict().items():
        assert torch.equal(tensor, model().state_dict()[name]), name


def test_a_row_without_maskable_positions_gives_no_nan() -> None:
    scores_BL = torch.randn(2, 3, requires_grad=True)
    maskable_BL = torch.tensor([[False, False, False], [True, False, True]])
    log_q_BL = masked_log_softmax(scores_BL, maskable_BL)
    assert (log_q_BL[0] == -torch.inf).all()
    log_q_BL[1, 0].backward()
    assert scores_BL.grad is not None
    assert torch.isfinite(scores_BL.grad).all()


def test_sinusoidal_positions_encode_distance() -> None:
    """Their inner products depend only on the distance and fall with it. They are initial values and stay trainable."""
    from mapnet_cli.model.masked_lm import sinusoids

    gram_LL = sinusoids(12, 16) @ sinusoids(12, 16).T
    for distance in range(11):
        diagonal = torch.diagonal(gram_LL, distance)
        assert torch.allclose(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-6)
    assert gram_LL[0, 0] > gram_LL[0, 1] > gram_LL[0, 2]
    net = PretrainingModel(ENCODER.model_copy(update={"initial_positions": "sinusoidal"}), 64, None)
    net.init_weights(1)
    assert torch.equal(net.encoder.stack.positions.weight.data, sinusoids(12, 16))
    assert net.encoder.stack.positions.weight.requires_grad
