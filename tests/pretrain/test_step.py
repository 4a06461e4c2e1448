"""Algorithm 1: which loss affects which parameters, and micro-batches that add up."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from mapnet_cli.config import Method
from mapnet_cli.jobs.distributed import ALONE
from mapnet_cli.masking.sampling import MaskNoise
from mapnet_cli.masking.schedule import ProposalWork, StepPlan, plan_step
from mapnet_cli.model import as_on_gpu, build_model
from mapnet_cli.model.masked_lm import PretrainingModel
from mapnet_cli.model.proposal import MapNet, TokenTable
from mapnet_cli.pretrain.batches import split_batch
from mapnet_cli.pretrain.step import Algorithm1, JointLosses, add_up, update_table, work_of
from mapnet_cli.text.words import CLS, MASK, PAD, SEP
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


def changed(method: Method, **keys: object) -> Method:
    """Returns the method with changed keys in its proposal."""
    assert method.proposal is not None
    proposal = type(method.proposal)(**method.proposal.model_dump() | keys)
    return method.model_copy(update={"proposal": proposal})


def gradients(
    method: Method,
    explore: bool,
    micro_batch: int = 6,
    seed: int = 1,
    uniform: bool = False,
    explore_B: torch.Tensor | None = None,
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    config = CONFIG.model_copy(update={"method": {"it": method}})
    model = build_model(config, "it", VOCAB)
    assert isinstance(model, PretrainingModel)
    model.init_weights(seed)
    if uniform:
        assert isinstance(model.proposal, MapNet)
        torch.nn.init.zeros_(model.proposal.score.weight)
    noise = MaskNoise.draw(torch.Generator().manual_seed(5), 6, 16)
    learns = method.learned is not None and (method.learned.learn_on_uniform_steps or not explore)
    plan = StepPlan(seed, 3, explore, ProposalWork.LEARN if learns else ProposalWork.REST, method.mask_rate)
    algorithm1 = Algorithm1(JointLosses(model, method, CPU, "float32"), CPU)
    sums = algorithm1(split_batch(tokens(), noise, method.mask_rate, micro_batch, explore_B=explore_B), plan)
    found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return found | ({"fresh": model.proposal.fresh_2V} if isinstance(model.proposal, TokenTable) else {}), sums


def test_bert_trains_encoder_and_head() -> None:
    found, _ = gradients(CONFIG.method["bert"], explore=True)
    assert {name.split(".")[0] for name in found} == {"encoder", "head"}
    assert all(gradient.abs().sum() > 0 for name, gradient in found.items() if "qkv.bias" not in name)


def test_mapnet_loss_affects_only_mapnet_and_shared_embeddings() -> None:
    """The encoder's other gradients are the same whether MAP-Net learns or not; the embeddings get both."""
    joint, _ = gradients(MAPNET, explore=True)
    without, _ = gradients(CONFIG.method["bert"], explore=True)
    assert any(name.startswith("proposal.stack") for name in joint)
    for name, gradient in without.items():
        if name == "encoder.tokens.weight":
            assert not torch.allclose(joint[name], gradient, atol=1e-9)
        else:
            assert torch.equal(joint[name], gradient), name


def test_mapnet_reads_unmasked_and_encoder_reads_masked_sentences() -> None:
    model = PretrainingModel(CONFIG.encoder, VOCAB, CONFIG.proposal)
    losses = JointLosses(model, MAPNET, CPU, "float32")
    read: dict[str, torch.Tensor] = {}

    def recording(name: str, network: Callable[..., Any]) -> Callable[..., Any]:
        def run(tokens_BL: torch.Tensor, *more: Any) -> Any:
            read[name] = tokens_BL
            return network(tokens_BL, *more)

        return run

    losses.propose = recording("map-net", losses.propose)
    losses.token_losses = recording("encoder", losses.token_losses)
    batch = split_batch(tokens(), MaskNoise.draw(torch.Generator().manual_seed(5), 6, 16), 0.15, 6)
    Algorithm1(losses, CPU)(batch, StepPlan(1, 3, False, ProposalWork.LEARN, 0.15))
    assert torch.equal(read["map-net"], tokens())
    assert (read["encoder"] == MASK).any()
    assert not (tokens() == MASK).any()


def test_encoder_loss_has_no_gradient_in_mapnet() -> None:
    """With lambda near 0 on MAP-Net's loss, its gradient vanishes: none flows through the importance weights."""
    tiny, _ = gradients(changed(MAPNET, loss_weight=1e-12), explore=False)
    full, _ = gradients(changed(MAPNET, loss_weight=1.0), explore=False)
    names = [name for name in full if name.startswith("proposal.")]
    assert max(full[name].abs().max() for name in names) > 1e-4
    assert max(tiny[name].abs().max() for name in names) < 1e-10


def test_lambda_on_either_loss() -> None:
    """lambda on one loss gives the same gradient, up to scale, as 1/lambda on the other."""
    on_mapnet, _ = gradients(changed(MAPNET, loss_weight=0.25, loss_weight_on="mapnet"), explore=False)
    on_encoder, _ = gradients(changed(MAPNET, loss_weight=4.0, loss_weight_on="encoder"), explore=False)
    for name, gradient in on_mapnet.items():
        assert torch.allclose(on_encoder[name], 4 * gradient, rtol=1e-4, atol=1e-7), name


def test_weights_are_one_on_uniform_steps_and_clipped_otherwise() -> None:
    _, uniform = gradients(MAPNET, explore=True)
    assert "weighted" not in uniform
    assert uniform["objective"].item() == pytest.approx(uniform["loss"].item() / uniform["masked"].item(), rel=1e-5)
    _, proposed = gradients(MAPNET, explore=False)
    ratio = proposed["objective"].item() * proposed["masked"].item() / proposed["loss"].item()
    assert 0.8 - 1e-6 <= ratio <= 1.2 + 1e-6
    assert proposed["weighted"].item() == proposed["masked"].item()


@pytest.mark.parametrize("estimator", ["sequence-ratio", "ordered-ratio", "position-ratio", "self-normalised"])
def test_uniform_proposal_has_weight_one_and_uniform_masks(estimator: str) -> None:
    """If all scores are 0, the same noise gives the masks and gradients of `bert`, with weights of 1."""
    method = changed(MAPNET, estimator=estimator, embeddings="detached")
    bert, bert_sums = gradients(CONFIG.method["bert"], explore=True)
    found, sums = gradients(method, explore=False, uniform=True)
    assert sums["weight"].item() == pytest.approx(sums["weighted"].item(), rel=1e-6)
    assert sums["clipped"] == 0
    assert sums["loss"] == bert_sums["loss"]
    for name, gradient in bert.items():
        assert torch.allclose(found[name], gradient, rtol=1e-5, atol=1e-8), name


@pytest.mark.parametrize("embeddings", ["detached", "own"])
def test_unshared_embeddings_get_no_gradient_from_mapnet(embeddings: str) -> None:
    joint, _ = gradients(changed(MAPNET, embeddings=embeddings), explore=True)
    without, _ = gradients(CONFIG.method["bert"], explore=True)
    for name, gradient in without.items():
        assert torch.equal(joint[name], gradient), name
    assert ("proposal.tokens.weight" in joint) is (embeddings == "own")


@pytest.mark.parametrize("explore", [True, False])
def test_sentences_that_all_explore_or_all_do_not_equal_a_step_that_does(explore: bool) -> None:
    """Gradients and sums; with coins that differ, the weights of exploring sentences are 1 and not counted."""
    whole, whole_sums = gradients(MAPNET, explore)
    found, sums = gradients(MAPNET, False, explore_B=torch.full((6,), explore))
    for name, gradient in whole.items():
        assert torch.allclose(found[name], gradient, rtol=1e-5, atol=1e-8), name
    for name, value in whole_sums.items():
        assert sums[name].item() == pytest.approx(value.item(), rel=1e-5), name
    _, some = gradients(MAPNET, False, explore_B=torch.arange(6) < 2)
    assert 0 < some["weighted"] < some["masked"]


@pytest.mark.parametrize("strategy", ["mapnet", "table"])
def test_learning_from_mask_tokens_or_proposed_sentences_only(strategy: str) -> None:
    """Without any [MASK] there is nothing to learn; nor from sentences that explore, if so configured."""
    method = MAPNET if strategy == "mapnet" else CONFIG.method["adaptive"]
    method = changed(method, signal_at="mask").model_copy(update={"replace_mask": 0.5, "mask_rate": 0.4})
    none, _ = gradients(method.model_copy(update={"replace_mask": 0.0}), False)
    some, sums = gradients(method, False)
    everywhere, all_sums = gradients(changed(method, signal_at="all"), False)
    rests = changed(method, learn_on_uniform_steps=False)
    explored, _ = gradients(rests, False, explore_B=torch.ones(6, dtype=torch.bool))
    name = "proposal.score.weight" if strategy == "mapnet" else "fresh"
    assert not none[name].any() and not explored[name].any()
    assert some[name].any() and not torch.equal(some[name], everywhere[name])
    assert sums["loss"] == all_sums["loss"]
    if strategy == "table":
        assert 0 < some[name][1].sum() < everywhere[name][1].sum() == all_sums["masked"]


@pytest.mark.parametrize("signal", ["error", "logit-gradient"])
def test_signals_of_computed_slots(signal: str) -> None:
    """Without dropout: 1 where the prediction is wrong, and autograd's gradient at the decoder's input; else 0."""
    model = PretrainingModel(CONFIG.encoder, VOCAB, None)
    model.init_weights(1)
    tokens_BL, positions_BK, slots_N = tokens(), torch.arange(1, 8).expand(6, -1), torch.arange(0, 42, 3)
    hidden_NH = model.hidden_at(tokens_BL, None, positions_BK, slots_N)
    input_NH = model.head.features(hidden_NH).detach().requires_grad_()
    logits_NV = torch.nn.functional.linear(input_NH, model.encoder.tokens.weight, model.head.padded_bias())
    targets_BK = tokens_BL.gather(1, positions_BK)
    targets_BK.view(-1)[slots_N[::2]] = logits_NV[::2].argmax(dim=1)
    targets_N = targets_BK.flatten()[slots_N]
    torch.nn.functional.cross_entropy(logits_NV, targets_N, reduction="sum").backward()
    assert input_NH.grad is not None
    expected_N = {"error": (logits_NV.argmax(dim=1) != targets_N).float(), "logit-gradient": input_NH.grad.norm(dim=1)}
    _, signal_BK = model.token_losses(tokens_BL, None, positions_BK, targets_BK, slots_N, signal)
    assert torch.allclose(signal_BK.flatten()[slots_N], expected_N[signal], rtol=1e-4, atol=1e-6)
    assert signal_BK.count_nonzero() == expected_N[signal].count_nonzero() > 0


def test_entropy_bonus_and_batch_baseline_change_only_mapnets_gradient() -> None:
    plain = changed(MAPNET, embeddings="detached", learn_on_uniform_steps=False)
    before, sums = gradients(plain, explore=False)
    for more in ({"entropy_bonus": 0.5}, {"baseline": "batch"}):
        after, with_more = gradients(changed(plain, **more), explore=False)
        assert {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])} == {"proposal"}
        if "entropy_bonus" in more:
            bonus = 0.5 * sums["entropy"].item() / 6
            assert with_more["mapnet_loss"].item() == pytest.approx(sums["mapnet_loss"].item() - bonus, abs=1e-4)


def test_mapnet_can_rest_on_uniform_steps() -> None:
    found, sums = gradients(changed(MAPNET, learn_on_uniform_steps=False), explore=True)
    assert not any(name.startswith("proposal.") for name in found)
    assert "mapnet_loss" not in sums


@pytest.mark.parametrize("explore", [True, False])
def test_micro_batches_match_full_batch(explore: bool) -> None:
    whole, whole_sums = gradients(MAPNET, explore)
    parts, part_sums = gradients(MAPNET, explore, micro_batch=4)
    for name, gradient in whole.items():
        assert torch.allclose(parts[name], gradient, atol=2e-6), name
    for name, value in whole_sums.items():
        if name != "largest_q":
            assert part_sums[name].item() == pytest.approx(value.item(), rel=1e-5), name


def test_proposal_diagnostics_of_untrained_mapnet() -> None:
    _, sums = gradients(MAPNET, explore=False)
    entropy = sums["entropy"] / sums["proposals"]
    assert 0 <= (sums["kl_to_uniform"] / sums["proposals"]).item() < 0.5
    assert entropy.item() == pytest.approx(torch.tensor([14.0] * 5 + [8.0]).log().mean().item(), abs=0.5)


def fake_step(explore: bool, learns: bool, every_slot: bool, method: Method = MAPNET) -> torch.Tensor:
    """Runs a whole step on fake tensors and returns the gradient norm. Any read of a value raises."""
    part = split_batch(
        tokens(), MaskNoise.draw(torch.Generator().manual_seed(5), 6, 16), 0.15, 3, every_slot=every_slot,
        visit_B=torch.arange(6), unit_starts_BL=tokens() % 2 == 0,
    )  # fmt: skip
    with FakeTensorMode(allow_non_fake_inputs=True), as_on_gpu():
        model = build_model(CONFIG.model_copy(update={"method": {"it": method}}), "it", VOCAB)
        assert isinstance(model, PretrainingModel)
        optimizer = build_adamw(model, CONFIG.pretrain, model.proposal)
        otherwise = ProposalWork.PROPOSE if method.proposal else ProposalWork.REST
        plan = StepPlan(1, 3, explore, ProposalWork.LEARN if learns else otherwise, 0.15)
        sums = Algorithm1(JointLosses(model, method, CPU, "bfloat16"), CPU)(part, plan)
        norm = gradient_norm(model, 1.0, model.proposal, method.mapnet.clip_norm if method.mapnet else 0.0)
        optimizer.step()
        update_table(model, method, plan, ALONE)
        add_up(sums, {"gradient_norm_max": norm, **sums})
    return norm


@pytest.mark.parametrize("explore", [True, False])
@pytest.mark.parametrize("learns", [True, False])
@pytest.mark.parametrize("every_slot", [True, False])
def test_step_never_waits_for_the_device(explore: bool, learns: bool, every_slot: bool) -> None:
    """No value is read and no shape depends on one, as either would make the host wait for a GPU."""
    norm = fake_step(explore, learns, every_slot)
    with pytest.raises(DataDependentOutputException):
        float(norm)


@pytest.mark.parametrize(
    "name", ["adaptive", "adaptive-mapnet", "frequency", "spaced", "disjoint", "span", "whole-word"]
)
def test_no_strategy_waits_for_the_device(name: str) -> None:
    method = CONFIG.method[name]
    if method.mapnet:
        method = changed(method, clip_norm=0.5)
    learns = method.learned is not None
    with pytest.raises(DataDependentOutputException):
        float(fake_step(False, learns, False, method))


@pytest.mark.parametrize("explore", [True, False])
def test_every_slot_matches_masked_slots_only(explore: bool) -> None:
    """The fixed shapes for torch.compile give the same gradients."""
    found = []
    for every_slot in (False, True):
        model = PretrainingModel(CONFIG.encoder, VOCAB, CONFIG.proposal)
        model.init_weights(1)
        noise = MaskNoise.draw(torch.Generator().manual_seed(5), 6, 16)
        batch = split_batch(tokens(), noise, 0.15, 6, every_slot=every_slot)
        plan = StepPlan(1, 3, explore, ProposalWork.LEARN, 0.15)
        Algorithm1(JointLosses(model, MAPNET, CPU, "float32"), CPU)(batch, plan)
        found.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        assert torch.allclose(found[1][name], gradient, atol=1e-7), name


def plans(method: Method, steps: int) -> list[StepPlan]:
    method = method.model_copy(update={"explore_start": 0.5, "explore_end": 0.5})
    return [plan_step(method, 1, step, steps) for step in range(steps)]


def test_without_a_proposal_exploration_is_off_by_default() -> None:
    """Uniform masks are uniform and spaced ones spaced in every step, unless exploration is configured."""
    for strategy in ("uniform", "spaced"):
        found = [plan_step(Method(strategy=strategy), 1, step, 50) for step in range(50)]
        assert all(plan.explore is (strategy == "uniform") for plan in found)
        assert not any(work_of(plan).proposal_passes for plan in found)
    configured = plans(Method(strategy="spaced"), 200)
    assert [plan.explore for plan in configured] == [plan.explore for plan in plans(MAPNET, 200)], (
        "all methods explore in the same steps"
    )
    assert not any(work_of(plan).proposal_passes for plan in configured)


def test_mapnet_work_per_step() -> None:
    always = plans(MAPNET, 200)
    assert all(plan.learns and not plan.proposes and not plan.reuses for plan in always)
    assert 70 < sum(plan.explore for plan in always) < 130
    for plan in plans(changed(MAPNET, learn_on_uniform_steps=False), 200):
        assert plan.learns is not plan.explore  # a uniform step needs no proposal
        assert not plan.proposes
    for step, plan in enumerate(plans(changed(MAPNET, learn_every=4), 200)):
        assert plan.learns is (step % 4 == 0)
        assert plan.proposes is (step % 4 != 0 and not plan.explore)
        assert work_of(plan).proposal_passes == (3 if plan.learns else 1 if plan.proposes else 0)
    for step, plan in enumerate(plans(changed(MAPNET, propose_every=4), 200)):
        assert plan.reuses is (step % 4 != 0)
        assert plan.learns is (step % 4 == 0)
        assert not plan.proposes
    rarely = changed(MAPNET, propose_every=2, learn_every=1000)
    group_of_uniform = [plan.proposes for plan in plans(rarely, 400)[2::2] if plan.explore]
    assert 0 < sum(group_of_uniform) < len(group_of_uniform)  # a uniform step proposes if the next step needs it


def test_reused_proposal_is_used_for_masks_and_weights() -> None:
    """In two steps on the same sentences, MAP-Net runs only in the first; both steps use its log q."""
    model = PretrainingModel(CONFIG.encoder, VOCAB, CONFIG.proposal)
    model.init_weights(1)
    algorithm1 = Algorithm1(JointLosses(model, MAPNET, CPU, "float32"), CPU)
    found = []
    for step, work in ((0, ProposalWork.LEARN), (1, ProposalWork.REUSE)):
        batch = split_batch(tokens(), MaskNoise.draw(torch.Generator().manual_seed(step), 6, 16), 0.15, 3)
        found.append(algorithm1(batch, StepPlan(1, step, False, work, 0.15)))
    assert sorted(algorithm1._proposals) == [0, 3]
    assert "mapnet_loss" in found[0]
    assert "mapnet_loss" not in found[1]
    assert found[1]["entropy"] == found[0]["entropy"]
    assert found[1]["weighted"] == found[1]["masked"]
    algorithm1(batch, StepPlan(1, 2, True, ProposalWork.REST, 0.15))
    assert algorithm1._proposals == {}
