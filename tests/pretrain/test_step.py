"""Algorithm 1: which loss reaches which parameters, and that the parts add up."""

import pytest
import torch

from mapnet_cli.config import Method
from mapnet_cli.masking.sampling import MaskNoise
from mapnet_cli.model.pretraining import PretrainingModel
from mapnet_cli.pretrain.batches import split_batch
from mapnet_cli.pretrain.step import JointLosses, StepPlan, algorithm_1
from mapnet_cli.vocabulary import CLS, PAD, SEP
from tests.conftest import small_config

CONFIG = small_config("encoder.dropout=0.0", "encoder.attention_dropout=0.0", "proposal.dropout=0.0",
                      "proposal.attention_dropout=0.0")  # fmt: skip
MAPNET = CONFIG.method["mapnet"]
VOCAB = 100
CPU = torch.device("cpu")


def tokens() -> torch.Tensor:
    tokens_BL = torch.randint(5, VOCAB, (6, 16), generator=torch.Generator().manual_seed(0))
    tokens_BL[:, 0], tokens_BL[:, -1] = CLS, SEP
    tokens_BL[2, 9:] = torch.tensor([SEP] + [PAD] * 6)
    return tokens_BL


def gradients(
    method: Method, explore: bool, micro_batch: int = 6, seed: int = 1
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    model = PretrainingModel(CONFIG.encoder, VOCAB, CONFIG.proposal if method.objective != "none" else None)
    model.reset(seed)
    noise = MaskNoise.draw(torch.Generator().manual_seed(5), 6, 16)
    learns = method.objective != "none" and (method.learn_on_uniform_steps or not explore)
    plan = StepPlan(seed, 3, explore, learns, proposes=False, reuses=False)
    losses = JointLosses(model, method, CPU, "auto")
    sums = algorithm_1(losses, split_batch(3, tokens(), noise, method.mask_rate, micro_batch), plan, CPU, {})
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}, sums


def test_bert_trains_the_encoder_and_its_head() -> None:
    found, _ = gradients(CONFIG.method["bert"], explore=True)
    assert {name.split(".")[0] for name in found} == {"encoder", "head"}
    assert all(gradient.abs().sum() > 0 for name, gradient in found.items() if "qkv.bias" not in name)


def test_map_nets_loss_reaches_map_net_and_the_shared_embeddings_only() -> None:
    """The encoder's own gradient is the same whether MAP-Net learns or not; the embeddings get both."""
    joint, _ = gradients(MAPNET, explore=True)
    without, _ = gradients(CONFIG.method["bert"], explore=True)
    assert any(name.startswith("proposal.stack") for name in joint)
    for name, gradient in without.items():
        if name == "encoder.tokens.weight":
            assert not torch.allclose(joint[name], gradient, atol=1e-9)
        else:
            assert torch.equal(joint[name], gradient), name


def test_encoder_loss_sends_nothing_to_map_net() -> None:
    """With lambda near 0 on MAP-Net's loss, its gradient vanishes: the weights carry none."""
    tiny, _ = gradients(MAPNET.model_copy(update={"loss_weight": 1e-12}), explore=False)
    full, _ = gradients(MAPNET.model_copy(update={"loss_weight": 1.0}), explore=False)
    names = [name for name in full if name.startswith("proposal.")]
    assert max(full[name].abs().max() for name in names) > 1e-4
    assert max(tiny[name].abs().max() for name in names) < 1e-10


def test_lambda_in_both_places() -> None:
    """lambda on one loss is the same direction as 1/lambda on the other, scaled."""
    on_mapnet, _ = gradients(MAPNET.model_copy(update={"loss_weight": 0.25, "loss_weight_on": "mapnet"}), explore=False)
    on_encoder, _ = gradients(
        MAPNET.model_copy(update={"loss_weight": 4.0, "loss_weight_on": "encoder"}), explore=False
    )
    for name, gradient in on_mapnet.items():
        assert torch.allclose(on_encoder[name], 4 * gradient, rtol=1e-4, atol=1e-7), name


def test_weights_are_exactly_one_on_uniform_steps_and_clipped_elsewhere() -> None:
    _, uniform = gradients(MAPNET, explore=True)
    assert "weighted" not in uniform
    assert uniform["objective"].item() == pytest.approx(uniform["loss"].item() / uniform["masked"].item(), rel=1e-5)
    _, proposed = gradients(MAPNET, explore=False)
    ratio = proposed["objective"].item() * proposed["masked"].item() / proposed["loss"].item()
    assert 0.8 - 1e-6 <= ratio <= 1.2 + 1e-6
    assert proposed["weighted"].item() == 6


def test_map_net_can_rest_on_uniform_steps() -> None:
    found, sums = gradients(MAPNET.model_copy(update={"learn_on_uniform_steps": False}), explore=True)
    assert not any(name.startswith("proposal.") for name in found)
    assert "mapnet_loss" not in sums


@pytest.mark.parametrize("explore", [True, False])
def test_micro_batches_add_up_to_the_batch(explore: bool) -> None:
    whole, whole_sums = gradients(MAPNET, explore)
    parts, part_sums = gradients(MAPNET, explore, micro_batch=4)
    for name, gradient in whole.items():
        assert torch.allclose(parts[name], gradient, atol=2e-6), name
    for name, value in whole_sums.items():
        if name != "largest_q":
            assert part_sums[name].item() == pytest.approx(value.item(), rel=1e-5), name


def test_proposal_health_of_a_fresh_map_net() -> None:
    _, sums = gradients(MAPNET, explore=False)
    entropy = sums["entropy"] / sums["proposals"]
    assert 0 <= (sums["kl_to_uniform"] / sums["proposals"]).item() < 0.5
    assert entropy.item() == pytest.approx(torch.tensor([14.0] * 5 + [8.0]).log().mean().item(), abs=0.5)
