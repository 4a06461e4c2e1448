"""Fine-tuning: learns what can be learned, repeats exactly, and says when it diverged."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mapnet_cli.config import Finetune, Transformer
from mapnet_cli.errors import DamagedError
from mapnet_cli.finetune_glue.loop import Setting, fine_tune
from mapnet_cli.finetune_glue.tasks import TASKS
from mapnet_cli.finetune_glue.tokenised import Tokenised
from mapnet_cli.model.pretraining import PretrainingModel
from mapnet_cli.records import EpochScores
from mapnet_cli.training.checkpoint import save_checkpoint
from mapnet_cli.vocabulary import CLS, SEP

ENCODER = Transformer(layers=1, hidden=16, heads=2, ffn=32, max_length=12)
CONFIG = Finetune(epochs=6, weight_decay=0.0)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    model = PretrainingModel(ENCODER, 40, None)
    model.reset(1)
    save_checkpoint(tmp_path / "step1", model.state_dict(), {"vocab_size": 40})
    return tmp_path / "step1"


def rows(count: int, seed: int, regression: bool = False) -> Tokenised:
    """Class: whether token 7 is there. Score: the share of token 7."""
    rng = np.random.default_rng(seed)
    sequences, labels = [], []
    for _ in range(count):
        words = rng.choice([7, 8, 9], rng.integers(3, 9), p=[0.15, 0.4, 0.45]).tolist()
        sequences.append([CLS, *words, SEP])
        labels.append(words.count(7) / len(words) if regression else float(7 in words))
    offsets = np.cumsum([0, *map(len, sequences)])
    return Tokenised(np.concatenate(sequences).astype(np.uint32), offsets, np.array(labels, dtype=np.float32))


def run(checkpoint: Path, task: str, lr: float = 5e-3, seed: int = 1) -> tuple[list[EpochScores], str]:
    regression = TASKS[task].regression
    dev = {"": rows(80, 1, regression)}
    setting = Setting(8, lr, seed)
    return fine_tune(
        TASKS[task], rows(300, 0, regression), dev, checkpoint, ENCODER, CONFIG, setting, torch.device("cpu")
    )


def test_learns_a_class_and_a_score(checkpoint: Path) -> None:
    epochs, failure = run(checkpoint, "CoLA")
    assert failure == ""
    assert [row.epoch for row in epochs] == [1, 2, 3, 4, 5, 6]
    assert epochs[-1].metrics["accuracy"] > 0.95
    assert epochs[-1].train_loss < epochs[0].train_loss
    epochs, _ = run(checkpoint, "STS-B")
    assert epochs[-1].metrics["pearson"] > 0.9


def test_repeats_to_the_last_bit_and_seeds_differ(checkpoint: Path) -> None:
    assert run(checkpoint, "CoLA") == run(checkpoint, "CoLA")
    assert run(checkpoint, "CoLA")[0][0].train_loss != run(checkpoint, "CoLA", seed=2)[0][0].train_loss


def test_divergence_is_a_recorded_failure(checkpoint: Path) -> None:
    epochs, failure = run(checkpoint, "STS-B", lr=1e30)
    assert "not finite in epoch" in failure
    assert len(epochs) < 6


def test_a_damaged_checkpoint_is_named_with_what_to_do(checkpoint: Path) -> None:
    file = checkpoint / "tensors.safetensors"
    data = bytearray(file.read_bytes())
    data[-10] ^= 1
    file.write_bytes(data)
    with pytest.raises(DamagedError, match=r"step1 is damaged .*mapnet pretrain --force"):
        run(checkpoint, "CoLA")
