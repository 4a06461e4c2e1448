"""ELECTRA's training step: loss against a simple reference, gradient flow, and micro-batching."""

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from mapnet_cli.config import Method
from mapnet_cli.config.method import Electra as ElectraKeys
from mapnet_cli.masking import sampling
from mapnet_cli.masking.sampling import MaskNoise, Masks
from mapnet_cli.masking.schedule import ProposalWork, StepPlan, plan_step
from mapnet_cli.model.electra import Electra
from mapnet_cli.model.kernels import as_on_gpu
from mapnet_cli.pretrain.batches import split_batch
from mapnet_cli.pretrain.electra import ElectraLosses, detection_metrics, replace_tokens
from mapnet_cli.pretrain.step import Algorithm1
from mapnet_cli.text.words import MASK, PAD
from mapnet_cli.training.optim import build_adamw, gradient_norm, set_learning_rate
from tests.conftest import small_config
from tests.pretrain.test_step import CPU, VOCAB, tokens

CONFIG = small_config("encoder.dropout=0.0", "encoder.attention_dropout=0.0", "method.electra.mask_rate=0.3")
ELECTRA = CONFIG.method["electra"]
PLAN = StepPlan(1, 3, explore=True, proposal=ProposalWork.REST, mask_rate=0.15)


def noise() -> MaskNoise:
    return MaskNoise.draw(torch.Generator().manual_seed(5), 6, 16)


def electra() -> Electra:
    model = Electra(CONFIG.encoder, VOCAB, CONFIG.encoder.narrowed(0.5))
    model.init_weights(1)
    return model


def gradients(
    method: Method = ELECTRA, micro_batch: int = 6, every_slot: bool = False, compiled: bool = False
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    model = electra()
    losses = ElectraLosses(model, method, CPU, "float32")
    if compiled:
        losses.compile_networks()
    batch = split_batch(tokens(), noise(), method.mask_rate, micro_batch, every_slot=every_slot)
    sums = Algorithm1(losses, CPU)(batch, PLAN)
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}, sums


@torch.no_grad()
def test_loss_matches_reference() -> None:
    """The reference processes one unpadded sequence at a time, with plain sums over probabilities and no gathering."""
    model, drawn = electra(), noise()
    generator_loss, masked, detector_loss, number = 0.0, 0, 0.0, 0
    counts = dict.fromkeys(("replaced", "original", "found", "kept"), 0)
    counts_B = sampling.mask_counts(tokens() >= 5, ELECTRA.mask_rate, drawn.rounding_B)
    for row, whole_L in enumerate(tokens()):
        tokens_L = whole_L[whole_L != PAD]
        # with equal probabilities, the positions with the largest noise are masked
        order_L = torch.where(tokens_L >= 5, drawn.order_BL[row, : len(tokens_L)], -1.0)
        chosen = order_L.argsort(descending=True)[: int(counts_B[row])]
        corrupted_L = tokens_L.clone()
        corrupted_L[chosen] = MASK
        vectors_LE = model.generator.project(model.encoder.tokens(corrupted_L[None]))
        logits_LV = model.generator.head(model.generator.stack(vectors_LE, None)[0], model.encoder.tokens.weight)
        log_p_LV = logits_LV[:, :VOCAB].log_softmax(dim=1)
        generator_loss -= float(log_p_LV[chosen, tokens_L[chosen]].sum())
        masked += len(chosen)
        replaced_L = tokens_L.clone()
        for position in chosen.tolist():
            cumulative_V = log_p_LV[position].exp().cumsum(0)
            replaced_L[position] = int((cumulative_V <= drawn.token_BL[row, position]).sum())
        differs_L = replaced_L != tokens_L
        p_replaced_L = torch.sigmoid(model.detector(model.encoder(replaced_L[None]))[0])
        detector_loss -= float(torch.where(differs_L, p_replaced_L, 1 - p_replaced_L).log().sum())
        number += len(tokens_L)
        right_L = (p_replaced_L > 0.5) == differs_L
        for all_, right, of_L in (("replaced", "found", differs_L), ("original", "kept", ~differs_L)):
            counts[all_] += int(of_L.sum())
            counts[right] += int((of_L & right_L).sum())
    with torch.enable_grad():
        _, sums = gradients()
    assert sums["masked"] == masked
    assert sums["loss"].item() == pytest.approx(generator_loss, rel=1e-5)
    assert sums["detection"].item() == pytest.approx(detector_loss, rel=1e-5)
    assert sums["objective"].item() == pytest.approx(generator_loss / masked + 50 * detector_loss / number, rel=1e-5)
    assert {name: int(sums[name]) for name in counts} == counts
    assert counts["replaced"] > 10
    metrics = detection_metrics({name: float(value) for name, value in sums.items()})
    assert metrics["detection_loss"] == pytest.approx(detector_loss / number, rel=1e-5)
    assert metrics["detection_accuracy"] == pytest.approx((counts["found"] + counts["kept"]) / number)
    assert metrics["replaced_share"] == pytest.approx(counts["replaced"] / number)


def test_correctly_sampled_token_counts_as_original() -> None:
    """Tokens sampled at invalid slots are ignored."""
    tokens_BL, positions_BK = torch.tensor([[2, 9, 10, 11, 3]]), torch.tensor([[3, 1, 1]])
    masks = Masks(positions_BK, torch.tensor([[True, True, False]]))
    assert replace_tokens(tokens_BL, masks, torch.tensor([[11, 40, 50]])).tolist() == [[2, 40, 10, 11, 3]]


def test_no_gradient_flows_through_sampling() -> None:
    """The generator's own weights have gradients from its loss only; all parameters have gradients."""
    found, _ = gradients()
    without, _ = gradients(ELECTRA.model_copy(update={"electra": ElectraKeys(detection_weight=1e-9)}))
    assert found.keys() == dict(electra().named_parameters()).keys()
    for name, gradient in found.items():
        if name.startswith("generator."):
            assert torch.equal(without[name], gradient), name
        elif "qkv.bias" not in name:
            assert (without[name] - gradient).abs().max() > 1e-7, name


@pytest.mark.parametrize("every_slot", [False, True])
def test_micro_batches_and_every_slot_match_full_batch(every_slot: bool) -> None:
    whole, whole_sums = gradients()
    parts, part_sums = gradients(micro_batch=4, every_slot=every_slot)
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=1e-4, atol=1e-5, msg=name)
    for name, value in whole_sums.items():
        assert part_sums[name].item() == pytest.approx(value.item(), rel=1e-5), name


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # from inductor, on a CPU
def test_compiled_matches_eager(compiler: None) -> None:
    torch._dynamo.reset()
    plain, plain_sums = gradients()
    compiled, sums = gradients(every_slot=True, compiled=True)
    for name, value in plain_sums.items():
        assert sums[name].item() == pytest.approx(value.item(), rel=1e-4), name
    for name, gradient in plain.items():
        torch.testing.assert_close(compiled[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("every_slot", [True, False])
def test_step_never_waits_for_the_device(every_slot: bool) -> None:
    """Runs on fake tensors: reading a value, or a data-dependent shape, raises."""
    batch = split_batch(tokens(), noise(), ELECTRA.mask_rate, 3, every_slot=every_slot)
    with FakeTensorMode(allow_non_fake_inputs=True), as_on_gpu():
        model = Electra(CONFIG.encoder, VOCAB, CONFIG.encoder.narrowed(0.5))
        optimizer = build_adamw(model, CONFIG.pretrain)
        Algorithm1(ElectraLosses(model, ELECTRA, CPU, "bfloat16"), CPU)(batch, PLAN)
        norm = gradient_norm(model, 1.0)
        optimizer.step()
    with pytest.raises(DataDependentOutputException):
        float(norm)


def test_generator_and_detector_learn() -> None:
    """When training repeatedly on one batch, both losses improve."""
    model = electra()
    optimizer = build_adamw(model, CONFIG.pretrain)
    set_learning_rate(optimizer, 3e-3)
    algorithm1, history = Algorithm1(ElectraLosses(model, ELECTRA, CPU, "float32"), CPU), []
    for step in range(120):
        new_noise = MaskNoise.draw(torch.Generator().manual_seed(step), 6, 16)
        optimizer.zero_grad()
        batch = split_batch(tokens(), new_noise, ELECTRA.mask_rate, 6)
        sums = {n: float(v) for n, v in algorithm1(batch, plan_step(ELECTRA, 1, step, 120)).items()}
        optimizer.step()
        history.append({**detection_metrics(sums), "loss": sums["loss"] / sums["masked"]})
    first, last = history[0], history[-1]
    assert first["loss"] > 4.4
    assert last["loss"] < first["loss"] - 1.0
    assert last["detection_accuracy_replaced"] > 0.6, "better than predicting from the share of replaced tokens alone"
    assert last["detection_accuracy_original"] > 0.9


@torch.no_grad()
def test_replacement_frequency_matches_generator_loss() -> None:
    """Over a grid of noise, a token is sampled with frequency exp(-loss): loss and sampling use one distribution."""
    model = electra()
    model.generator.head.bias[7] = 4.0
    grid = 2000
    corrupted_BL = tokens()[:1].clone()
    corrupted_BL[:, 3] = MASK
    loss_BK, drawn_BK = model.generate(
        corrupted_BL.expand(grid, 16), None, torch.full((grid, 1), 3), torch.full((grid, 1), 7),
        ((torch.arange(grid) + 0.5) / grid)[:, None], None,
    )  # fmt: skip
    probability = float((-loss_BK[0, 0]).exp())
    assert 0.2 < probability < 0.6
    assert (drawn_BK == 7).float().mean().item() == pytest.approx(probability, abs=1.5 / grid)
