"""One fine-tuning run: section 4.1.2 and Table 2 of the paper.

Shapes: B examples, L positions, T tokens of a batch without its padding, C outputs (classes, or 1 for regression).
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mapnet_cli.config import Finetune, Transformer
from mapnet_cli.errors import DamagedError
from mapnet_cli.finetune_glue.metrics import Floats, score
from mapnet_cli.finetune_glue.tasks import GlueTask
from mapnet_cli.finetune_glue.tokenised import Tokenised
from mapnet_cli.model.heads import ClassificationHead
from mapnet_cli.model.transformer import Encoder, Packing, initialise
from mapnet_cli.records import EpochScores
from mapnet_cli.seeds import derive_seed
from mapnet_cli.training.checkpoint import load_checkpoint
from mapnet_cli.training.device import autocast
from mapnet_cli.training.optim import build_adamw, gradient_norm, learning_rate, set_learning_rate
from mapnet_cli.vocabulary import PAD

EVALUATION_BATCH = 64


@dataclass(frozen=True)
class Setting:
    """One point of Table 2's grid, and the run's seed."""

    batch_size: int
    lr: float
    seed: int


class Classifier(nn.Module):
    """The pretrained encoder with a fresh classification head."""

    def __init__(self, encoder: Transformer, vocab_size: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.encoder = Encoder(encoder, vocab_size)
        self.head = ClassificationHead(encoder.hidden, outputs, dropout)

    def forward(self, tokens_T: Tensor, packing: Packing) -> Tensor:
        """Returns [B, C]."""
        out_BC: Tensor = self.head(self.encoder.first_vectors(tokens_T, packing))
        return out_BC


@lru_cache(maxsize=2)
def encoder_weights(folder: Path) -> tuple[dict[str, Tensor], int]:
    """Returns (the encoder's weights, the vocabulary size) of a checkpoint, kept for this process's next run."""
    try:
        tensors, facts = load_checkpoint(folder)
    except DamagedError as error:
        again = "run `mapnet pretrain --force` with the same options, or `mapnet import-hf` for an import"
        raise DamagedError(f"{error}: {again}") from None
    weights = {n.removeprefix("encoder."): t for n, t in tensors.items() if n.startswith("encoder.")}
    return weights, int(facts["vocab_size"])


def fine_tune(
    task: GlueTask,
    train: Tokenised,
    dev: dict[str, Tokenised],
    checkpoint: Path,
    encoder: Transformer,
    config: Finetune,
    setting: Setting,
    device: torch.device,
) -> tuple[list[EpochScores], str]:
    """Returns the dev metrics after each epoch, and why the run failed ("" if it didn't)."""
    weights, vocab_size = encoder_weights(checkpoint)
    model = Classifier(encoder, vocab_size, max(len(task.labels), 1), config.dropout)
    model.encoder.load_state_dict(weights)
    initialise(model.head, encoder, torch.Generator().manual_seed(derive_seed(setting.seed, "head", task.name)))
    model.to(device)
    optimizer = build_adamw(model, config)
    steps_an_epoch = -(-len(train) // setting.batch_size)
    total = steps_an_epoch * config.epochs
    torch.manual_seed(derive_seed(setting.seed, "fine-tuning dropout", task.name))
    epochs: list[EpochScores] = []
    step = 0
    for epoch in range(1, config.epochs + 1):
        model.train()
        generator = torch.Generator().manual_seed(derive_seed(setting.seed, "fine-tuning order", task.name, epoch))
        losses = []
        for indices in torch.split(torch.randperm(len(train), generator=generator), setting.batch_size):
            optimizer.zero_grad(set_to_none=True)
            out_BC = _forward(model, train, indices.numpy(), device)
            loss = _loss(task, out_BC, torch.from_numpy(train.labels[indices.numpy()]).to(device))
            torch.autograd.backward(loss)
            if config.clip_norm > 0:
                gradient_norm(model, config.clip_norm)
            set_learning_rate(optimizer, learning_rate(step, setting.lr, round(config.warmup_ratio * total), total))
            optimizer.step()
            losses.append(loss.detach())
            step += 1
        train_loss = float(torch.stack(losses).mean())
        if not np.isfinite(train_loss):
            return epochs, f"the loss is not finite in epoch {epoch}"
        metrics: dict[str, float] = {}
        for suffix, data in dev.items():
            predicted = _predict(model, task, data, device)
            if predicted is None:
                return epochs, f"the outputs are not finite in epoch {epoch}"
            metrics |= {f"{name}{suffix}": value for name, value in score(task, predicted, data.labels).items()}
        epochs.append(EpochScores(epoch=epoch, train_loss=train_loss, metrics=metrics))
    return epochs, ""


def _forward(model: Classifier, data: Tokenised, indices: npt.NDArray[np.int64], device: torch.device) -> Tensor:
    tokens_BL = torch.from_numpy(data.batch(indices))
    packing = Packing.of(tokens_BL != PAD)
    tokens_T = tokens_BL.flatten()[packing.place_T]
    with autocast(device, "auto"):
        out_BC: Tensor = model(tokens_T.to(device), packing.to(device))
    return out_BC.float()


def _loss(task: GlueTask, out_BC: Tensor, labels_B: Tensor) -> Tensor:
    """Cross-entropy, or squared error on score / 5."""
    return F.mse_loss(out_BC[:, 0], labels_B) if task.regression else F.cross_entropy(out_BC, labels_B.long())


@torch.no_grad()
def _predict(model: Classifier, task: GlueTask, data: Tokenised, device: torch.device) -> Floats | None:
    """Returns class ids or scores / 5, in the data's order, None if any is not finite.

    Batches hold examples of like length.
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
