"""One fine-tuning run: section 4.1.2 and Table 2 of the paper.

On a CPU batches have no padding, since every token costs time; on a GPU they do, since every kernel launch does, and
the host waits for the GPU only at the end of an epoch.

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
from mapnet_cli.core import DivergedError, EpochScores, derive_seed
from mapnet_cli.finetune_glue.tokenised import Tokenised
from mapnet_cli.glue import SPLITS, Floats, GlueTask, Halves, score, score_halves
from mapnet_cli.model import ClassificationHead, Encoder, Packing, attention_mask, initialise, on_cpu, rounded_weights
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

EVALUATION_BATCH, EVALUATION_TOKENS = 64, 16_384
"""Examples per batch of an evaluation; on a GPU more, if they have at most this number of tokens with padding."""
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
        config: Finetune,
        segment_H: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.precision = config.precision
        self.mean = config.pooling == "mean"
        self.encoder = Encoder(encoder, vocab_size)
        self.head = ClassificationHead(encoder.hidden, outputs, config.dropout)
        self.segment = None if segment_H is None else nn.Parameter(segment_H.clone())
        """Vector that an imported BERT adds to the embeddings of the second text."""

    def forward(self, tokens: Tensor, packing: Packing | Tensor | None, second: Tensor | None) -> Tensor:
        """Returns outputs [B, C]; for `packing` see `Encoder.pooled`.

        `second` is True for tokens of the second text, None without `segment`.
        """
        added = None if self.segment is None or second is None else second[..., None] * self.segment
        out_BC: Tensor = self.head(self.encoder.pooled(tokens, packing, added, self.mean))
        return out_BC


Forward = Callable[[Tensor, Packing | Tensor | None, Tensor | None], Tensor]
"""`Classifier.forward`, maybe compiled."""


@dataclass(frozen=True)
class Inputs:
    """A batch on the device that computes it. See `Encoder.pooled` for `packing`."""

    tokens: Tensor
    packing: Packing | Tensor | None
    second: Tensor | None
    labels_B: Tensor


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

    def outputs(self, data: Tokenised) -> Tensor:
        """Returns the outputs [N, C] for the examples. Raises DivergedError if one is not finite."""
        out_NC = outputs(self.model, data, next(self.model.parameters()).device)
        if not torch.isfinite(out_NC).all():
            raise DivergedError("the outputs of the tuned model are not finite")
        return out_NC


@lru_cache(maxsize=2)
def encoder_weights(folder: Path) -> EncoderWeights:
    """Returns the encoder weights of a checkpoint, cached for the next run in this process."""
    tensors, facts = load_checkpoint(folder)
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
    compiled = None
    if config.compile:
        compiled = torch.compile(tuned.model, mode="reduce-overhead", dynamic=False, fullgraph=True)
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
            # the last batch is smaller: a shape that isn't worth compiling
            forward = compiled if len(indices) == setting.batch_size else None
            inputs = make_inputs(tuned.model, train, indices, device, fixed=forward is not None)
            losses.append(training_step(tuned.model, optimizer, task, inputs, config.clip_norm, forward))
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
    inputs: Inputs,
    clip_norm: float,
    forward: Forward | None = None,
) -> Tensor:
    """Takes one step and returns the mean loss as a tensor on the device. `forward` replaces the model's own."""
    optimizer.zero_grad(set_to_none=True)
    if forward is None:
        forward = _forward(model, inputs.labels_B.device)
    else:
        torch.compiler.cudagraph_mark_step_begin()
    loss = _loss(task, _outputs(model, inputs, forward), inputs.labels_B)
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
    model = Classifier(encoder, start.vocab_size, outputs, config, start.segment_H)
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


def make_inputs(
    model: Classifier, data: Tokenised, indices: npt.NDArray[np.int64], device: torch.device, fixed: bool = False
) -> Inputs:
    """Returns the batch of some examples; its copies to a GPU are asynchronous. `fixed`: one of few shapes."""

    def moved(tensor: Tensor) -> Tensor:
        return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor

    tokens_BL = torch.from_numpy(data.batch(indices))
    length = tokens_BL.shape[1]
    wanted = max(LENGTH_MULTIPLE, 1 << (length - 1).bit_length()) if fixed else length + -length % LENGTH_MULTIPLE
    longest = max(length, model.encoder.config.max_length)
    tokens_BL = F.pad(tokens_BL, (0, min(wanted, longest) - length), value=PAD)
    labels_B, second_BL = moved(torch.from_numpy(data.labels[indices])), None
    if model.segment is not None:
        second_BL = torch.arange(tokens_BL.shape[1]) >= torch.from_numpy(data.second[indices])[:, None]
    if fixed or not on_cpu(device):
        mask_BL = tokens_BL != PAD if fixed else attention_mask(tokens_BL, PAD)
        second_BL = None if second_BL is None else moved(second_BL)
        return Inputs(moved(tokens_BL), None if mask_BL is None else moved(mask_BL), second_BL, labels_B)
    packing = Packing.of(tokens_BL != PAD)
    second_T = None if second_BL is None else second_BL.flatten()[packing.place_T]
    return Inputs(tokens_BL.flatten()[packing.place_T], packing, second_T, labels_B)


def _forward(model: Classifier, device: torch.device) -> Forward:
    """Returns the model's forward pass with its present weights."""
    if on_cpu(device) or model.precision != "bfloat16":
        return model
    weights = rounded_weights(model)
    return lambda *inputs: torch.func.functional_call(model, weights, inputs)


def _outputs(model: Classifier, inputs: Inputs, forward: Forward) -> Tensor:
    with autocast(inputs.labels_B.device, model.precision):
        return forward(inputs.tokens, inputs.packing, inputs.second).float()


def _loss(task: GlueTask, out_BC: Tensor, labels_B: Tensor) -> Tensor:
    """Returns the cross-entropy, or the mean squared error on score / 5 for regression."""
    return F.mse_loss(out_BC[:, 0], labels_B) if task.regression else F.cross_entropy(out_BC, labels_B.long())


def evaluation_batches(data: Tokenised, tokens: int = 0) -> list[npt.NDArray[np.int64]]:
    """Returns batches of similar lengths, of more than `EVALUATION_BATCH` if they have at most `tokens` tokens."""
    order = np.argsort(data.lengths, kind="stable")
    if not tokens:
        return [order[start : start + EVALUATION_BATCH] for start in range(0, len(order), EVALUATION_BATCH)]
    batches = []
    while len(order):
        size = max(EVALUATION_BATCH, tokens // int(data.lengths[order[-1]]))
        batches.append(order[-size:])
        order = order[:-size]
    return batches


@torch.no_grad()
def outputs(model: Classifier, data: Tokenised, device: torch.device) -> Tensor:
    """Returns the outputs [N, C] for all examples, in the order of the data, on the CPU."""
    model.eval()
    batches = evaluation_batches(data, 0 if on_cpu(device) else EVALUATION_TOKENS)
    forward = _forward(model, device)
    found = [_outputs(model, make_inputs(model, data, indices, device), forward) for indices in batches]
    out_NC = torch.cat(found).cpu()  # the only wait for a GPU
    return out_NC[torch.from_numpy(np.argsort(np.concatenate(batches)))]


def predict(model: Classifier, task: GlueTask, data: Tokenised, device: torch.device) -> Floats | None:
    """Returns class ids, or scores scaled to the range from 0 to 1, or None if an output is not finite."""
    out_NC = outputs(model, data, device)
    if not torch.isfinite(out_NC).all():
        return None
    return decide(task, out_NC)


def decide(task: GlueTask, out_NC: Tensor) -> Floats:
    """Returns the class ids or scores that outputs stand for."""
    predicted: Floats = (out_NC[:, 0] if task.regression else out_NC.argmax(dim=1).float()).numpy()
    return predicted
