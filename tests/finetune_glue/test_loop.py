"""Fine-tuning: it learns, is reproducible, and records divergence."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from mapnet_cli.config import Finetune, Transformer
from mapnet_cli.core.errors import DamagedError
from mapnet_cli.core.records import EpochScores
from mapnet_cli.finetune_glue import loop
from mapnet_cli.finetune_glue.classifier import Start, build, encoder_weights, make_inputs
from mapnet_cli.finetune_glue.loop import Tuned, epoch_batches, fine_tune
from mapnet_cli.finetune_glue.tokenised import Tokenised
from mapnet_cli.glue.grid import GridRun
from mapnet_cli.glue.scoring import SPLITS
from mapnet_cli.glue.tasks import TASKS
from mapnet_cli.model.kernels import as_on_gpu
from mapnet_cli.model.masked_lm import PretrainingModel
from mapnet_cli.text.words import CLS, SEP
from mapnet_cli.training import build_adamw
from mapnet_cli.training.checkpoint import save_checkpoint

ENCODER = Transformer(layers=1, hidden=16, heads=2, ffn=32, max_length=12)
CONFIG = Finetune(epochs=6, weight_decay=0.0)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    model = PretrainingModel(ENCODER, 40, None)
    model.init_weights(1)
    save_checkpoint(tmp_path / "step1", model.state_dict(), {"vocab_size": 40})
    return tmp_path / "step1"


def rows(count: int, seed: int, regression: bool = False) -> Tokenised:
    """Class: whether token 7 occurs. Score: the share of token 7."""
    rng = np.random.default_rng(seed)
    sequences, labels = [], []
    for _ in range(count):
        words = rng.choice([7, 8, 9], rng.integers(3, 9), p=[0.15, 0.4, 0.45]).tolist()
        sequences.append([CLS, *words, SEP])
        labels.append(words.count(7) / len(words) if regression else float(7 in words))
    offsets = np.cumsum([0, *map(len, sequences)])
    labels_N = np.array(labels, dtype=np.float32)
    return Tokenised(np.concatenate(sequences).astype(np.uint32), offsets, labels_N, np.diff(offsets))


def run(checkpoint: Path | None, task: str, lr: float = 5e-3, seed: int = 1, config: Finetune = CONFIG) -> Tuned:
    regression = TASKS[task].regression
    dev = {"": rows(80, 1, regression)}
    grid_run = GridRun("bert", 1, 1, task, 8, lr, seed)
    start = Start(ENCODER, 40) if checkpoint is None else Start(ENCODER, *encoder_weights(checkpoint))
    return fine_tune(TASKS[task], rows(300, 0, regression), dev, start, config, grid_run, torch.device("cpu"))


def test_learns_a_class_and_a_score(checkpoint: Path) -> None:
    tuned = run(checkpoint, "CoLA")
    epochs = tuned.epochs
    assert tuned.failure == ""
    assert [row.epoch for row in epochs] == [1, 2, 3, 4, 5, 6]
    assert epochs[-1].metrics["accuracy"] > 0.95
    assert epochs[-1].train_loss < epochs[0].train_loss
    epochs = run(checkpoint, "STS-B").epochs
    assert epochs[-1].metrics["pearson"] > 0.9


def test_runs_are_bitwise_reproducible_and_seeds_differ(checkpoint: Path) -> None:
    once = run(checkpoint, "CoLA").epochs
    assert once == run(checkpoint, "CoLA").epochs
    assert once[0].train_loss != run(checkpoint, "CoLA", seed=2).epochs[0].train_loss


@pytest.mark.parametrize("change", [{"precision": "bfloat16"}, {"pooling": "mean"}])
def test_learns_in_bfloat16_and_from_the_mean(checkpoint: Path, change: dict[str, str]) -> None:
    tuned = run(checkpoint, "CoLA", config=CONFIG.model_copy(update=change))
    assert tuned.epochs[-1].metrics["accuracy"] > 0.95
    assert tuned.epochs[0].train_loss != run(checkpoint, "CoLA").epochs[0].train_loss


def test_untrained_encoder_learns_and_depends_on_the_seed(checkpoint: Path) -> None:
    tuned = run(None, "CoLA")
    assert tuned.epochs[-1].metrics["accuracy"] > 0.9
    assert tuned.epochs[0].train_loss != run(checkpoint, "CoLA").epochs[0].train_loss
    assert tuned.epochs[0].train_loss != run(None, "CoLA", seed=2).epochs[0].train_loss


def test_halves_of_the_dev_set_are_scored(checkpoint: Path) -> None:
    epochs: list[EpochScores] = run(checkpoint, "CoLA").epochs
    assert len(epochs[0].halves) == SPLITS
    for first, second in epochs[0].halves:
        assert (first["accuracy"] + second["accuracy"]) / 2 == pytest.approx(epochs[0].metrics["accuracy"], abs=1e-6)
    assert len({first["accuracy"] for first, _ in epochs[0].halves}) > 1


@pytest.mark.parametrize("batching", ["random", "by-length"])
def test_an_epoch_has_every_example_once(batching: str) -> None:
    data = rows(101, 0)
    batches = epoch_batches(data, 8, batching, torch.Generator().manual_seed(1))
    assert sorted(np.concatenate(batches).tolist()) == list(range(101))
    assert sorted(map(len, batches)) == [5] + [8] * 12
    spreads = [np.ptp(data.lengths[batch]) for batch in batches]
    assert (max(spreads) <= 1) == (batching == "by-length")
    firsts = [data.lengths[batch[0]] for batch in batches]
    assert firsts != sorted(firsts), "batches are not sorted by length"


@pytest.mark.parametrize("tokens", [0, 1_000])
def test_evaluation_batches_have_every_example_once(tokens: int) -> None:
    data = rows(301, 0)
    batches = loop.evaluation_batches(data, tokens)
    assert sorted(np.concatenate(batches).tolist()) == list(range(301))
    assert max(map(len, batches)) == 64 if not tokens else 100 <= len(batches[0]) <= 1_000 // data.lengths.max()
    for batch in batches:
        assert len(batch) <= 64 or len(batch) * data.lengths[batch].max() <= tokens


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_batches_with_padding_match_those_without(precision: str, fixed: bool, pooling: str) -> None:
    """A GPU's batches, and those for torch.compile: the same loss, gradients and predictions, with segments."""
    encoder = ENCODER.model_copy(update={"dropout": 0.0, "attention_dropout": 0.0})
    start, data = Start(encoder, 40, None, torch.linspace(-1, 1, 16)), rows(8, 0)
    second = data.second // 2
    data = Tokenised(data.tokens, data.offsets, data.labels, second)
    config = CONFIG.model_copy(update={"precision": precision, "dropout": 0.0, "pooling": pooling})
    model = build(TASKS["CoLA"], start, config, 1).train()
    optimizer = build_adamw(model, config)
    found, cpu = [], torch.device("cpu")
    for gpu in (False, True):
        with as_on_gpu() if gpu else nullcontext():
            inputs = make_inputs(model, data, np.arange(8), cpu, fixed=gpu and fixed)
            assert inputs.tokens.shape == ((8, 12) if gpu else (64,))
            loss = loop.training_step(model, optimizer, TASKS["CoLA"], inputs, 0.0)
            gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
            predicted = loop.outputs(model, data)[:, 0]
        found.append((loss, gradients, predicted))
        model.train()
    (loss, gradients, predicted), (padded_loss, padded, padded_predicted) = found
    tolerance = 1e-4 if precision == "float32" else 0.05
    torch.testing.assert_close(padded_loss, loss, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(padded_predicted, predicted, rtol=tolerance, atol=tolerance)
    assert padded.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert padded[name].dtype == torch.float32
        assert float((padded[name] - gradient).norm()) < tolerance * float(gradient.norm()) + 1e-5, name


@pytest.mark.filterwarnings("ignore:`torch.jit")  # when torch imports its compiler
@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
def test_rounding_all_weights_together_equals_autocast(architecture: str, pooling: str) -> None:
    """Bit for bit, also the embeddings' norm and the segment, which autocast doesn't round."""
    start = Start(ENCODER.model_copy(update={"architecture": architecture}), 40, None, torch.rand(16))
    config = CONFIG.model_copy(update={"pooling": pooling})
    model = build(TASKS["CoLA"], start, config, 1).train()
    for weight in model.parameters():
        weight.data += 0.01 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    model.precision, found = "bfloat16", []
    optimizer = build_adamw(model, CONFIG)
    with as_on_gpu():
        inputs = make_inputs(model, rows(8, 0), np.arange(8), torch.device("cpu"))
        for forward in (None, model):
            torch.manual_seed(0)
            loss = loop.training_step(model, optimizer, TASKS["CoLA"], inputs, 0.0, forward)
            found.append([loss, *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # from inductor, on a CPU
def test_learns_compiled(checkpoint: Path, compiler: None) -> None:
    """With CUDA graphs on a GPU; on a CPU these are left out. The last batch of an epoch isn't compiled."""
    torch._dynamo.reset()
    with torch._dynamo.config.patch(error_on_recompile=True):  # all batches have one shape
        tuned = run(checkpoint, "CoLA", config=CONFIG.model_copy(update={"compile": True}))
    assert tuned.epochs[-1].metrics["accuracy"] > 0.95


def test_divergence_is_a_recorded_failure(checkpoint: Path) -> None:
    tuned = run(checkpoint, "STS-B", lr=1e30)
    assert "not finite in epoch" in tuned.failure
    assert len(tuned.epochs) < 6


def test_damaged_checkpoint_is_named(checkpoint: Path) -> None:
    file = checkpoint / "tensors.safetensors"
    data = bytearray(file.read_bytes())
    data[-10] ^= 1
    file.write_bytes(data)
    with pytest.raises(DamagedError, match="step1 is damaged"):
        run(checkpoint, "CoLA")
