"""What all tests share: small configs, a small corpus made without spaCy, and real data where it is at hand."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: many tests run side by side

from pathlib import Path

import numpy as np
import pytest

from mapnet_cli.artifacts import Artifacts
from mapnet_cli.config import Config
from mapnet_cli.layers import resolve

SMALL = (
    "corpus.vocab_size=300",
    "corpus.block_length=16",
    "encoder.layers=1",
    "encoder.hidden=16",
    "encoder.heads=2",
    "encoder.ffn=32",
    "encoder.max_length=16",
    "proposal.layers=1",
    "proposal.hidden=8",
    "proposal.heads=2",
    "proposal.ffn=16",
    "proposal.max_length=16",
    "pretrain.steps=10",
    "pretrain.batch_size=4",
    "pretrain.warmup_steps=2",
    "pretrain.log_every=2",
    "pretrain.validate_every=5",
    "pretrain.validation_sequences=8",
    "pretrain.checkpoint_every=3",
    "finetune.epochs=1",
    "finetune.learning_rates=[1e-3]",
    "finetune.seeds=[1]",
)


def small_config(*overrides: str) -> Config:
    """Returns the demo recipe shrunk until a test can run it in a second."""
    return resolve("demo", None, [*SMALL, *overrides], {}).config


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return Artifacts(tmp_path / "artifacts")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The unpacked-on-demand real data beside the checkout; tests that want it skip where it is absent."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.exists():
        pytest.skip(f"no real data at {folder}")
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
