"""One fine-tuning run: section 4.1.2 and Table 2 of the paper.

Shapes: B examples, L positions, T tokens of a batch without padding, C outputs (classes, or 1 for regression).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mapnet_cli.config import Finetune, Transformer
from mapnet_cli.core import DamagedError, DivergedError, EpochScores, derive_seed
from mapnet_cli.finetune_glue.tokenised import Tokenised
from mapnet_cli.glue import SPLITS, Floats, GlueTask, Halves, score, score_halves
from mapnet_cli.model import ClassificationHead, Encoder, Packing, initialise
from mapnet_cli.text import PAD
from mapnet_cli.training import (
    SEGMENT,
    autocast,
    build_adamw,
    gradient_norm,
    learning_rate,
    load_checkpoint,
    set_learning_rate,
)

EVALUATION_BATCH = 64
LENGTH_MULTIPLE = 32
"""Attention pads batches to a multiple of this length, at which softmax is up to three times as fast on a CPU.

Besides, every new shape costs milliseconds.
"""


@dataclass(frozen=True)
class Setting:
    """One point of Table 2's grid and the run's seed."""

    batch_size: int
    lr: float
    seed: int


class Classifier(nn.Module):
    """The pretrained encoder with a newly initialised classification head."""

    def __init__(
        self,
        encoder: Transformer,
        vocab_size: int,
        outputs: int,
        dropout: float,
        precision: str,
        segment_H: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.precision = precision
        self.encoder = Encoder(encoder, vocab_size)
        self.head = ClassificationHead(encoder.hidden, outputs, dropout)
        self.segment = None if segment_H is None else nn.Parameter(segment_H.clone())
        """Vector that an imported BERT adds to the embeddings of the second text."""

    def forward(self, tokens_T: Tensor, packing: Packing, second_T: Tensor | None) -> Tensor:
        """Returns outputs [B, C]. `second_T` is True for tokens of the second text, None without `segment`."""
        added_TH = None if self.segment is None or second_T is None else second_T[:, None] * self.segment
        out_BC: Tensor = self.head(self.encoder.encode_cls(tokens_T, packing, added_TH))
        return out_BC


@dataclass(frozen=True)
class EncoderWeights:
    """Initial weights of a run's encoder. If `state` is None, they are random and depend on the run's seed."""

    state: dict[str, Tensor] | None
    vocab_size: int
    segment_H: Tensor | None = None
    """Second minus first segment embedding, for an import that has segment embeddings."""


@dataclass(frozen=True)
class Tuned:
    """A fine-tuned model, its dev metrics after each epoch, and the reason of a failure ("" if there was none)."""

    model: Classifier
    epochs: list[EpochScores]
    failure: str

    def predict(self, task: GlueTask, data: Tokenised) -> Floats:
        """Returns class ids or scores / 5 for a split. Raises DivergedError if an output is not finite."""
        predicted = predict(self.model, task, data, next(self.model.parameters()).device)
        if predicted is None:
            raise DivergedError(f"{task.name}: the outputs are not finite")
        return predicted


@lru_cache(maxsize=2)
def encoder_weights(folder: Path) -> EncoderWeights:
    """Returns the encoder weights of a checkpoint, cached for the next run in this process."""
    try:
        tensors, facts = load_checkpoint(folder)
    except DamagedError as error:
        again = "run `mapnet pretrain --force` with the same options, or `mapnet import-hf` for an import"
        raise DamagedError(f"{error}: {again}") from None
    weights = {n.removeprefix("encoder."): t for n, t in tensors.items() if n.startswith("encoder.")}
    return EncoderWeights(weights, int(facts["vocab_size"]), tensors.get(SEGMENT))


def fine_tune(
    task: GlueTask,
    train: Tokenised,
    dev: dict[str, Tokenised],
    start: EncoderWeights,
    encoder: Transformer,
    config: Finetune,
    setting: Setting,
    device: torch.device,
    on_epoch: Callable[[Tuned], None] = lambda tuned: None,
    until: int | None = None,
) -> Tuned:
    """Returns the model after the last epoch, or after epoch `until`; `on_epoch` is called after each epoch."""
    tuned = Tuned(build(task, start, encoder, config, setting).to(device), [], "")
    optimizer = build_adamw(tuned.model, config)
    total = -(-len(train) // setting.batch_size) * config.epochs
    warmup = round(config.warmup_ratio * total)
    torch.manual_seed(derive_seed(setting.seed, "fine-tuning dropout", task.name))
    step = 0
    for epoch in range(1, (until or config.epochs) + 1):
        tuned.model.train()
        generator = torch.Generator().manual_seed(derive_seed(setting.seed, "fine-tuning order", task.name, epoch))
        losses = []
        for indices in epoch_batches(train, setting.batch_size, config.batching, generator):
            set_learning_rate(optimizer, learning_rate(step, setting.lr, warmup, total))
            losses.append(training_step(tuned.model, optimizer, task, train, indices, config.clip_norm, device))
            step += 1
        train_loss = float(torch.stack(losses).mean())
        if not np.isfinite(train_loss):
            return replace(tuned, failure=f"the loss is not finite in epoch {epoch}")
        scores = _evaluate(tuned.model, task, dev, device)
        if scores is None:
            return replace(tuned, failure=f"the outputs are not finite in epoch {epoch}")
        tuned.epochs.append(EpochScores(epoch=epoch, train_loss=train_loss, metrics=scores[0], halves=scores[1]))
        on_epoch(tuned)
    return tuned


def epoch_batches(
    data: Tokenised, batch_size: int, batching: str, generator: torch.Generator
) -> list[npt.NDArray[np.int64]]:
    """Returns batches with every example once: shuffled, or for "by-length" sorted by length with shuffled batches."""
    order = torch.randperm(len(data), generator=generator).numpy()
    if batching == "by-length":
        order = order[np.argsort(data.lengths[order], kind="stable")]
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    if batching == "by-length":
        batches = [batches[i] for i in torch.randperm(len(batches), generator=generator)]
    return batches


def training_step(
    model: Classifier,
    optimizer: torch.optim.Optimizer,
    task: GlueTask,
    data: Tokenised,
    indices: npt.NDArray[np.int64],
    clip_norm: float,
    device: torch.device,
) -> Tensor:
    """Takes one step on the examples `indices` and returns their mean loss as a tensor on the device."""
    optimizer.zero_grad(set_to_none=True)
    out_BC = _forward(model, data, indices, device)
    loss = _loss(task, out_BC, torch.from_numpy(data.labels[indices]).to(device))
    torch.autograd.backward(loss)
    if clip_norm > 0:
        gradient_norm(model, clip_norm)
    optimizer.step()
    return loss.detach()


def build(
    task: GlueTask, start: EncoderWeights, encoder: Transformer, config: Finetune, setting: Setting
) -> Classifier:
    """Returns the model at the start of a run."""
    outputs = max(len(task.labels), 1)
    model = Classifier(encoder, start.vocab_size, outputs, config.dropout, config.precision, start.segment_H)
    if start.state is not None:
        model.encoder.load_state_dict(start.state)
    else:
        seed = derive_seed(setting.seed, "untrained encoder", task.name)
        initialise(model.encoder, encoder, torch.Generator().manual_seed(seed))
    initialise(model.head, encoder, torch.Generator().manual_seed(derive_seed(setting.seed, "head", task.name)))
    return model


def _evaluate(
    model: Classifier, task: GlueTask, dev: dict[str, Tokenised], device: torch.device
) -> tuple[dict[str, float], Halves] | None:
    """Returns the metrics of all dev sets, in full and by halves, or None if an output is not finite."""
    metrics: dict[str, float] = {}
    halves: Halves = [({}, {}) for _ in range(SPLITS)]
    for suffix, data in dev.items():
        predicted = predict(model, task, data, device)
        if predicted is None:
            return None
        metrics |= {f"{name}{suffix}": value for name, value in score(task, predicted, data.labels).items()}
        for both, of_set in zip(halves, score_halves(task, predicted, data.labels), strict=True):
            for half, values in zip(both, of_set, strict=True):
                half |= {f"{name}{suffix}": value for name, value in values.items()}
    return metrics, halves


def _forward(model: Classifier, data: Tokenised, indices: npt.NDArray[np.int64], device: torch.device) -> Tensor:
    tokens_BL = torch.from_numpy(data.batch(indices))
    length = tokens_BL.shape[1]
    longest = max(length, model.encoder.config.max_length)
    tokens_BL = F.pad(tokens_BL, (0, min(-length % LENGTH_MULTIPLE, longest - length)), value=PAD)
    packing = Packing.of(tokens_BL != PAD)
    tokens_T = tokens_BL.flatten()[packing.place_T]
    second_T = None
    if model.segment is not None:
        second_B = torch.from_numpy(data.second[indices])
        second_T = (packing.position_T >= second_B[packing.place_T // tokens_BL.shape[1]]).to(device)
    with autocast(device, model.precision):
        out_BC: Tensor = model(tokens_T.to(device), packing.to(device), second_T)
    return out_BC.float()


def _loss(task: GlueTask, out_BC: Tensor, labels_B: Tensor) -> Tensor:
    """Returns the cross-entropy, or the mean squared error on score / 5 for regression."""
    return F.mse_loss(out_BC[:, 0], labels_B) if task.regression else F.cross_entropy(out_BC, labels_B.long())


@torch.no_grad()
def predict(model: Classifier, task: GlueTask, data: Tokenised, device: torch.device) -> Floats | None:
    """Returns class ids or scores / 5 in the order of the data, or None if an output is not finite.

    Batches group examples of similar length.
    """
    model.eval()
    order = np.argsort(data.lengths, kind="stable")
    predicted = np.empty(len(data), dtype=np.float32)
    for start in range(0, len(data), EVALUATION_BATCH):
        indices = order[start : start + EVALUATION_BATCH]
        out_BC = _forward(model, data, indices, device)
        if not torch.isfinite(out_BC).all():
            return None
        predicted[indices] = (out_BC[:, 0] if task.regression else out_BC.argmax(dim=1).float()).cpu().numpy()
    return predicted
