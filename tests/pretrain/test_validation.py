"""Held-out losses: the same masks for everyone, and a refitted bias that undoes a shifted prior."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from mapnet_cli.artifacts import Artifacts
from mapnet_cli.config import Config
from mapnet_cli.model.pretraining import PretrainingModel
from mapnet_cli.pretrain.validation import validate
from mapnet_cli.records import CorpusManifest
from mapnet_cli.text.shards import Sequences, writing_shard
from mapnet_cli.world import ALONE
from tests.conftest import small_config

CPU = torch.device("cpu")


@pytest.fixture
def held_out(make_corpus: Callable[[Config], CorpusManifest], artifacts: Artifacts) -> tuple[Sequences, int]:
    manifest = make_corpus(small_config())
    return Sequences([artifacts.path(name) for name in manifest.validation]), manifest.vocab_size


def model_of(vocab_size: int) -> PretrainingModel:
    model = PretrainingModel(small_config().encoder, vocab_size, None)
    model.reset(1)
    return model


def test_the_masks_are_fixed(held_out: tuple[Sequences, int]) -> None:
    sequences, vocab_size = held_out
    model = model_of(vocab_size)
    first = validate(model, sequences, 8, CPU, "float32", ALONE)
    torch.manual_seed(99)
    assert validate(model, sequences, 8, CPU, "float32", ALONE) == first
    assert set(first) == {
        "validation_loss", "validation_loss_refit", "validation_loss_spaced", "validation_loss_spaced_refit",
    }  # fmt: skip
    assert validate(model, sequences, 1000, CPU, "float32", ALONE) != first  # all there are
    assert model.training


def skewed(artifacts: Artifacts) -> Sequences:
    """Held-out text of 20 tokens, some of them common: thousands of masked positions to fit 20 biases on."""
    rng = np.random.default_rng(1)
    share = np.arange(1, 21) / np.arange(1, 21).sum()
    with writing_shard(artifacts.path("held/out"), 25) as shard:
        for _ in range(800):
            shard.add([2, *rng.choice(np.arange(5, 25), 14, p=share).tolist(), 3])
    return Sequences([artifacts.path("held/out")])


def test_refitting_the_bias_takes_a_shifted_prior_back(artifacts: Artifacts) -> None:
    """A bias that favours some tokens for no reason costs raw loss; refitting gives it back."""
    sequences, model = skewed(artifacts), model_of(25)
    before = validate(model, sequences, 800, CPU, "float32", ALONE)
    with torch.no_grad():
        model.head.bias[5::2] += 2.0
    after = validate(model, sequences, 800, CPU, "float32", ALONE)
    for name in ("validation_loss", "validation_loss_spaced"):
        assert after[name] > before[name] + 0.2
        assert after[f"{name}_refit"] == pytest.approx(before[f"{name}_refit"], abs=0.02)


def test_an_untrained_model_with_a_refitted_bias_knows_the_frequencies(artifacts: Artifacts) -> None:
    """Its loss is then the entropy of the tokens: an untrained encoder knows nothing else."""
    share = np.arange(1, 21) / np.arange(1, 21).sum()
    entropy = float(-(share * np.log(share)).sum())
    found = validate(model_of(25), skewed(artifacts), 800, CPU, "float32", ALONE)
    assert found["validation_loss_refit"] == pytest.approx(entropy, abs=0.05)
    assert found["validation_loss"] == pytest.approx(np.log(25), abs=0.15)
