"""The `--dry-run` cost forecast, compared with real training steps."""

import re
from pathlib import Path

import pytest
import torch

from mapnet_cli.config import Config
from mapnet_cli.config.loading import resolve
from mapnet_cli.masking.sampling import MaskNoise
from mapnet_cli.masking.schedule import ProposalWork, StepPlan
from mapnet_cli.model import build_model
from mapnet_cli.model.electra import Electra
from mapnet_cli.pretrain.batches import split_batch
from mapnet_cli.pretrain.electra import build_losses
from mapnet_cli.pretrain.forecast import activation_bytes, forecast, training_flops
from mapnet_cli.training import device
from mapnet_cli.training.flops import electra_flops
from tests.conftest import small_config

CPU = torch.device("cpu")


def actually_kept(config: Config, method: str, batch: int) -> int:
    """Returns the bytes that a real forward pass saves for the backward pass, on full blocks."""
    tokens_BL = torch.full((batch, 16), 7)
    noise = MaskNoise.draw(torch.Generator().manual_seed(0), batch, 16)
    model = build_model(config, method, 300).train()
    model.init_weights(1)
    kept: dict[int, int] = {}
    alive = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        alive.append(tensor)  # otherwise a later tensor could reuse the address
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    part = split_batch(tokens_BL, noise, 0.15, batch).parts[0]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        losses = build_losses(model, config.method[method], CPU, "float32")
        work = ProposalWork.LEARN if method == "mapnet" else ProposalWork.REST
        loss, _, _ = losses(part, StepPlan(0, 0, True, work, 0.15))
    assert loss.requires_grad
    return sum(size for pointer, size in kept.items() if pointer not in weights)


@pytest.mark.parametrize("method", ["mapnet", "electra"])
def test_activation_bytes_match_a_real_pass(method: str) -> None:
    config = small_config("encoder.dropout=0.1")
    once, each = activation_bytes(config, method, 300, "float32", gpu=False)
    logits_gradient = 3 * 320 * 4 if method == "electra" else 0
    assert once + 6 * (each - logits_gradient) == pytest.approx(
        actually_kept(config, method, 6), rel=0.05
    )  # K is rounded randomly


def test_bfloat16_keeps_less_per_sequence_and_a_gpu_no_probabilities() -> None:
    config = small_config(
        "encoder.layers=2",
        "encoder.hidden=64",
        "encoder.ffn=256",
        "corpus.block_length=64",
        "encoder.max_length=64",
        "proposal.max_length=64",
    )
    kept = {
        (precision, gpu): activation_bytes(config, "bert", 300, precision, gpu)[1]
        for precision in ("bfloat16", "float32") for gpu in (False, True)
    }  # fmt: skip
    assert kept["bfloat16", True] < 0.85 * kept["float32", True]
    assert kept["bfloat16", False] < 0.85 * kept["float32", False]
    probabilities = 2 * 64 * 64 * 2  # heads, length, length, bytes
    assert kept["bfloat16", True] < kept["bfloat16", False] - probabilities


def test_flops_depend_on_how_often_mapnet_runs() -> None:
    """If MAP-Net rests in half of the steps, it costs half."""
    half = ("pretrain.steps=500", "method.mapnet.explore_start=0.5", "method.mapnet.explore_end=0.5")
    always, rests = (
        training_flops(small_config(*half, f"method.mapnet.proposal.learn_on_uniform_steps={key}"), "mapnet", 300)
        for key in ("true", "false")
    )
    bert = training_flops(small_config(*half), "bert", 300)
    assert (rests - bert) / (always - bert) == pytest.approx(0.5, abs=0.08)


def test_electra_cost_includes_generator_and_both_heads() -> None:
    config = small_config('methods=["electra"]')
    generator = config.generator("electra")
    assert generator is not None
    expected = 10 * electra_flops(config.encoder, generator, 300, 4, 16, 0.15)
    assert training_flops(config, "electra", 300) == pytest.approx(expected)
    parameters = sum(p.numel() for p in Electra(config.encoder, 300, generator).parameters())
    assert f"for {parameters:,} weights" in "\n".join(forecast(config, 300, 1, 1, 1))


def test_lines_contain_all_estimates() -> None:
    config = small_config("pretrain.seeds=[1,2]", "method.mapnet.seeds=[3]")
    lines = "\n".join(forecast(config, 300, 1, 2, 1))
    total = "all 3 runs, including finished ones: about"
    equal = re.search(r"mapnet: to match bert's FLOPs, set method\.mapnet\.steps=(\d+)", lines)
    assert equal is not None
    assert 5 <= int(equal[1]) < 10
    again = forecast(small_config("pretrain.seeds=[1,2]", f"method.mapnet.steps={equal[1]}"), 300, 1, 2, 1)
    assert f"FLOPs in {equal[1]} steps" in "\n".join(again)
    for words in ("10 steps of 4 x 16", "bert:", "mapnet:", "FLOPs", " s with 1 process", "memory", "disk", total):
        assert words in lines


def test_slow_precision_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_measured", lambda *_: 1.0)
    assert "float32 is faster here" in "\n".join(forecast(small_config("pretrain.precision=bfloat16"), 300, 1, 1, 1))
    assert "faster here" not in "\n".join(forecast(small_config(), 300, 1, 1, 1))


def test_equal_flops_hint_when_training_stops_early() -> None:
    half = "pretrain.milestones=[0.5]"
    [line] = [line for line in forecast(small_config(half), 300, 1, 1, 1) if "bert's FLOPs" in line]
    steps = line.rpartition("=")[2]
    config = small_config(half, f"method.mapnet.steps={steps}")
    ours, theirs = (training_flops(config.for_method(m), m, 300) / config.last_step(m) for m in ("mapnet", "bert"))
    assert int(steps) == round(10 * theirs / ours)


RESULTS = Path(__file__).parents[2] / "docs" / "results"


def all_flops(config: Config) -> dict[str, float]:
    return {m: training_flops(config.for_method(m), m, config.corpus.vocab_size) for m in config.methods}


def test_published_methods_have_equal_flops() -> None:
    config = resolve(None, RESULTS / "small.toml", (), {}).config
    flops = all_flops(config)
    for method in config.methods:
        if config.method[method].steps:
            assert flops[method] == pytest.approx(flops["bert"], rel=1e-3)
            twin = method.removesuffix("-equal-flops")
            assert flops[twin] > 1.1 * flops["bert"]
            but_steps = {"steps": 0, "seeds": config.method[twin].seeds}
            assert config.method[method].model_copy(update=but_steps) == config.method[twin]


def test_the_gpu_study_has_the_flops_that_it_states() -> None:
    """Eight methods with one seed each."""
    config = resolve(None, RESULTS / "gpu.toml", (), {}).config
    assert len(config.pretraining_runs()) == len(config.methods) == 8
    assert f"{sum(all_flops(config).values()):.1e} FLOPs".replace("e+", "e") in (RESULTS / "gpu.toml").read_text()
