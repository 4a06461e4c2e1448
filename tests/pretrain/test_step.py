"""Algorithm 1: which loss reaches which parameters, and that the parts add up."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from mapnet_cli.config import Method
from mapnet_cli.jobs.distributed import ALONE
from mapnet_cli.masking.sampling import MaskNoise
from mapnet_cli.model.factory import build_model
from mapnet_cli.model.masked_lm import PretrainingModel
from mapnet_cli.model.proposal import MapNet
from mapnet_cli.pretrain.batches import split_batch
from mapnet_cli.pretrain.step import JointLosses, StepPlan, add_up, algorithm_1, plan_step, update_table
from mapnet_cli.text.special_tokens import CLS, MASK, PAD, SEP
from mapnet_cli.training.optim import build_adamw, gradient_norm
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
    method: Method, explore: bool, micro_batch: int = 6, seed: int = 1, even: bool = False
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    config = CONFIG.model_copy(update={"method": {"it": method}})
    model = build_model(config, "it", VOCAB)
    assert isinstance(model, PretrainingModel)
    model.reset(seed)
    if even:
        assert isinstance(model.proposal, MapNet)
        torch.nn.init.zeros_(model.proposal.score.weight)
    noise = MaskNoise.draw(torch.Generator().manual_seed(5), 6, 16)
    learns = method.objective != "none" and (method.learn_on_uniform_steps or not explore)
    plan = StepPlan(seed, 3, explore, learns, proposes=False, reuses=False, mask_rate=method.mask_rate)
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


def test_map_net_reads_the_unmasked_sentence_and_the_encoder_the_masked_one() -> None:
    model = PretrainingModel(CONFIG.encoder, VOCAB, CONFIG.proposal)
    losses = JointLosses(model, MAPNET, CPU, "auto")
    read: dict[str, torch.Tensor] = {}

    def noting(name: str, network: Callable[..., Any]) -> Callable[..., Any]:
        def run(tokens_BL: torch.Tensor, *more: Any) -> Any:
            read[name] = tokens_BL
            return network(tokens_BL, *more)

        return run

    losses.propose = noting("map-net", losses.propose)
    losses.token_losses = noting("encoder", losses.token_losses)
    batch = split_batch(3, tokens(), MaskNoise.draw(torch.Generator().manual_seed(5), 6, 16), 0.15, 6)
    algorithm_1(losses, batch, StepPlan(1, 3, False, True, False, False, 0.15), CPU, {})
    assert torch.equal(read["map-net"], tokens())
    assert (read["encoder"] == MASK).any()
    assert not (tokens() == MASK).any()


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
    assert proposed["weighted"].item() == proposed["masked"].item()


@pytest.mark.parametrize("estimator", ["sequence-ratio", "ordered-ratio", "position-ratio", "self-normalised"])
def test_a_uniform_proposal_weighs_one_and_masks_as_uniform(estimator: str) -> None:
    """MAP-Net whose scores are all 0: the same masks from the same noise, weights of 1, `bert`'s gradients."""
    method = MAPNET.model_copy(update={"estimator": estimator, "proposal_embeddings": "detached"})
    bert, bert_sums = gradients(CONFIG.method["bert"], explore=True)
    found, sums = gradients(method, explore=False, even=True)
    assert sums["weight"].item() == pytest.approx(sums["weighted"].item(), rel=1e-6)
    assert sums["clipped"] == 0
    assert sums["loss"] == bert_sums["loss"]
    for name, gradient in bert.items():
        assert torch.allclose(found[name], gradient, rtol=1e-5, atol=1e-8), name


@pytest.mark.parametrize("embeddings", ["detached", "own"])
def test_embeddings_that_are_not_shared_keep_map_nets_gradient_out(embeddings: str) -> None:
    joint, _ = gradients(MAPNET.model_copy(update={"proposal_embeddings": embeddings}), explore=True)
    without, _ = gradients(CONFIG.method["bert"], explore=True)
    for name, gradient in without.items():
        assert torch.equal(joint[name], gradient), name
    assert ("proposal.tokens.weight" in joint) is (embeddings == "own")


@pytest.mark.parametrize("signal", ["one-minus-p", "logit-gradient"])
def test_signals_are_what_their_names_say(signal: str) -> None:
    model = PretrainingModel(CONFIG.encoder, VOCAB, None).eval()
    model.reset(1)
    tokens_BL, positions_BK = tokens(), torch.tensor([[1, 4, 7]]).expand(6, -1)
    targets_BK = tokens_BL.gather(1, positions_BK)
    loss_BK, signal_BK = model.token_losses(tokens_BL, None, positions_BK, targets_BK, None, signal)
    if signal == "one-minus-p":
        expected_BK = 1 - torch.exp(-loss_BK)
    else:  # the gradient at what the decoder reads, by autograd
        hidden_NH = model.hidden_at(tokens_BL, None, positions_BK, None)
        read_NH = model.head.norm(torch.nn.functional.gelu(model.head.dense(hidden_NH))).detach().requires_grad_()
        bias_V = torch.nn.functional.pad(model.head.bias, (0, model.head.padding), value=-1e4)
        logits_NV = torch.nn.functional.linear(read_NH, model.encoder.tokens.weight, bias_V)
        torch.nn.functional.cross_entropy(logits_NV, targets_BK.flatten(), reduction="sum").backward()
        assert read_NH.grad is not None
        expected_BK = read_NH.grad.norm(dim=1).view_as(targets_BK)
    assert torch.allclose(signal_BK, expected_BK, rtol=1e-4, atol=1e-6)
    assert not signal_BK.requires_grad


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


def fake_step(explore: bool, learns: bool, every_slot: bool, method: Method = MAPNET) -> torch.Tensor:
    """Runs a whole step on tensors without data and returns the gradient's norm. Every read of a value raises."""
    part = split_batch(
        3, tokens(), MaskNoise.draw(torch.Generator().manual_seed(5), 6, 16), 0.15, 3, every_slot=every_slot,
        visit_B=torch.arange(6), word_starts_BL=tokens() % 2 == 0,
    )  # fmt: skip
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = build_model(CONFIG.model_copy(update={"method": {"it": method}}), "it", VOCAB)
        assert isinstance(model, PretrainingModel)
        optimizer = build_adamw(model, CONFIG.pretrain, model.proposal)
        losses = JointLosses(model, method, CPU, "bfloat16")
        proposes = method.draws_from_proposal and not learns
        plan = StepPlan(1, 3, explore, learns, proposes, reuses=False, mask_rate=0.15)
        sums = algorithm_1(losses, part, plan, CPU, {})
        norm = gradient_norm(model, 1.0, model.proposal, method.proposal_clip_norm)
        optimizer.step()
        update_table(model, method, ALONE)
        add_up(sums, {"gradient_norm_max": norm, **sums})
    return norm


@pytest.mark.parametrize("explore", [True, False])
@pytest.mark.parametrize("learns", [True, False])
@pytest.mark.parametrize("every_slot", [True, False])
def test_a_step_never_waits_for_the_device(explore: bool, learns: bool, every_slot: bool) -> None:
    """No value is read and no shape depends on one: what would make the host wait for a GPU raises here."""
    norm = fake_step(explore, learns, every_slot)
    with pytest.raises(DataDependentOutputException):
        float(norm)


@pytest.mark.parametrize(
    "name", ["adaptive", "adaptive-mapnet", "frequency", "spaced", "disjoint", "span", "whole-word"]
)
def test_no_strategy_waits_for_the_device(name: str) -> None:
    method = CONFIG.method[name]
    if method.has_network:
        method = method.model_copy(update={"proposal_clip_norm": 0.5})
    learns = method.has_network or method.strategy == "table"
    with pytest.raises(DataDependentOutputException):
        float(fake_step(False, learns, False, method))


@pytest.mark.parametrize("explore", [True, False])
def test_every_slot_or_the_masked_ones_alone(explore: bool) -> None:
    """The shapes that torch.compile wants give the same gradients."""
    found = []
    for every_slot in (False, True):
        model = PretrainingModel(CONFIG.encoder, VOCAB, CONFIG.proposal)
        model.reset(1)
        noise = MaskNoise.draw(torch.Generator().manual_seed(5), 6, 16)
        batch = split_batch(3, tokens(), noise, 0.15, 6, every_slot=every_slot)
        algorithm_1(
            JointLosses(model, MAPNET, CPU, "auto"), batch, StepPlan(1, 3, explore, True, False, False, 0.15), CPU, {}
        )
        found.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        assert torch.allclose(found[1][name], gradient, atol=1e-7), name


def plans(steps: int, **keys: Any) -> list[StepPlan]:
    method = MAPNET.model_copy(update={"explore_start": 0.5, "explore_end": 0.5, **keys})
    return [plan_step(method, 1, step, steps) for step in range(steps)]


def test_exploration_is_map_nets_affair() -> None:
    """Without a proposal there is no coin: uniform masks are uniform, spaced ones spaced, in every step."""
    keys = {"objective": "none", "estimator": "none"}
    assert all(plan.explore and not plan.proposal_passes for plan in plans(50, strategy="uniform", **keys))
    assert not any(plan.explore or plan.proposal_passes for plan in plans(50, strategy="spaced", **keys))


def test_what_map_net_does_in_a_step() -> None:
    always = plans(200)
    assert all(plan.learns and not plan.proposes and not plan.reuses for plan in always)
    assert 70 < sum(plan.explore for plan in always) < 130
    for plan in plans(200, learn_on_uniform_steps=False):
        assert plan.learns is not plan.explore  # a uniform step needs no proposal at all
        assert not plan.proposes
    for step, plan in enumerate(plans(200, learn_every=4)):
        assert plan.learns is (step % 4 == 0)
        assert plan.proposes is (step % 4 != 0 and not plan.explore)
        assert plan.proposal_passes == (3 if plan.learns else 1 if plan.proposes else 0)
    for step, plan in enumerate(plans(200, propose_every=4)):
        assert plan.reuses is (step % 4 != 0)
        assert plan.learns is (step % 4 == 0)
        assert not plan.proposes
    group_of_uniform = [plan.proposes for plan in plans(400, propose_every=2, learn_every=1000)[2::2] if plan.explore]
    assert 0 < sum(group_of_uniform) < len(group_of_uniform)  # a uniform step proposes if the next one will need it


def test_a_reused_proposal_is_the_one_that_masks_were_drawn_from() -> None:
    """Two steps on the same sentences: MAP-Net reads in the first only; its log q weighs both."""
    model = PretrainingModel(CONFIG.encoder, VOCAB, CONFIG.proposal)
    model.reset(1)
    losses = JointLosses(model, MAPNET, CPU, "auto")
    kept: dict[int, torch.Tensor] = {}
    found = []
    for step, reuses in ((0, False), (1, True)):
        batch = split_batch(step, tokens(), MaskNoise.draw(torch.Generator().manual_seed(step), 6, 16), 0.15, 3)
        found.append(algorithm_1(losses, batch, StepPlan(1, step, False, not reuses, False, reuses, 0.15), CPU, kept))
    assert sorted(kept) == [0, 3]
    assert "mapnet_loss" in found[0]
    assert "mapnet_loss" not in found[1]
    assert found[1]["entropy"] == found[0]["entropy"]
    assert found[1]["weighted"] == found[1]["masked"]
    algorithm_1(losses, batch, StepPlan(1, 2, True, False, False, reuses=False, mask_rate=0.15), CPU, kept)
    assert kept == {}
