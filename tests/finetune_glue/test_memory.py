"""Estimate of a fine-tuning run's GPU memory, compared with a real model."""

from typing import Any, Literal

import pytest
import torch

from mapnet_cli.config import Finetune, Transformer
from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.core.hardware import CUDA_BYTES
from mapnet_cli.finetune_glue.classifier import Classifier
from mapnet_cli.finetune_glue.run import run_bytes, run_requirements
from mapnet_cli.lineage.graph import Lineage
from mapnet_cli.model.attention import Packing
from mapnet_cli.model.kernels import as_on_gpu
from mapnet_cli.text.words import PAD
from tests.conftest import small_config


@pytest.mark.parametrize(
    "sizes",
    [{}, {"layers": 2, "hidden": 16, "heads": 2, "ffn": 40, "max_length": 9}, {"architecture": "modernbert"}],
)
def test_weights_are_counted_as_in_the_model(sizes: dict[str, Any]) -> None:
    encoder = Transformer(**sizes)
    weights = sum(parameter.numel() for parameter in Classifier(encoder, 1_001, 3, Finetune()).parameters())
    kept = run_bytes(encoder, 1_001, 9) - run_bytes(encoder, 1_001, 8)  # per additional example
    assert (run_bytes(encoder, 1_001, 8) - CUDA_BYTES - 8 * kept) / 16 == pytest.approx(weights, rel=0.02)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
def test_memory_for_the_backward_pass_is_not_underestimated(architecture: str, pooling: Literal["cls", "mean"]) -> None:
    """Measured in a float32 forward pass with fused attention, as on a GPU: without dropout there, and torch's."""
    sizes = {"layers": 12, "hidden": 64, "heads": 4, "ffn": 256, "max_length": 64}
    encoder = Transformer(architecture=architecture, attention_dropout=0.0, **sizes)
    model = Classifier(encoder, 1_000, 3, Finetune(pooling=pooling)).train()
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    tokens_BL = torch.randint(5, 1_000, (8, encoder.max_length))
    tokens_BL[0, -1] = PAD
    packing = Packing.of(tokens_BL != PAD)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), as_on_gpu():
        model(tokens_BL.flatten(), packing, None)
    found = sum(tensor.untyped_storage().nbytes() for at, tensor in kept.items() if at not in weights)
    estimated = run_bytes(encoder, 1_000, 9) - run_bytes(encoder, 1_000, 1)
    assert found < estimated < 1.5 * found


def test_estimate_grows_with_batch_size_and_vocabulary() -> None:
    base = run_bytes(Transformer(), 32_678, 16)
    assert base < run_bytes(Transformer(), 32_678, 32) < 2 * base
    assert base < run_bytes(Transformer(), 50_000, 16)
    assert 5e9 < run_bytes(Transformer(), 32_678, 32) < 20e9, "BERT-base, Table 2's larger batch"


def test_requirements_follow_the_config(artifacts: Artifacts) -> None:
    config = small_config("finetune.threads=3", "finetune.runs_per_gpu=4", "finetune.batch_sizes=[4,16]")
    found = run_requirements(config, Lineage(config, artifacts))
    assert found == {"threads": 3, "gpu_bytes": run_bytes(config.encoder, 300, 16), "jobs_per_gpu": 4}
    config = small_config('finetune.device="cpu"')
    assert run_requirements(config, Lineage(config, artifacts)) == {"threads": 1}
