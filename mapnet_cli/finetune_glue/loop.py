"""One fine-tuning run: section 4.1.2 and Table 2 of the paper.

The host waits for a GPU only at the end of an epoch.

Shapes: B examples, N examples of a data set, C outputs (classes, or 1 for regression).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from mapnet_cli.config import Finetune
from mapnet_cli.core import DivergedError, EpochScores, derive_seed
from mapnet_cli.finetune_glue.classifier import Classifier, Forward, Inputs, Start, build, make_inputs
from mapnet_cli.finetune_glue.tokenised import Tokenised
from mapnet_cli.glue import SPLITS, Floats, GlueTask, GridRun, Halves, score, score_halves
from mapnet_cli.model import on_cpu, rounded_weights
from mapnet_cli.training import autocast, build_adamw, gradient_norm, learning_rate, set_learning_rate

EVALUATION_BATCH, EVALUATION_TOKENS = 64, 16_384
"""Examples per batch of an evaluation; on a GPU more, if they have at most this number of tokens with padding."""


@dataclass(frozen=True)
class Tuned:
    """A fine-tuned model, its dev metrics after each epoch, and the reason of a failure ("" if there was none)."""

    model: Classifier
    epochs: list[EpochScores]
    failure: str


def fine_tune(
    task: GlueTask, train: Tokenised, dev: dict[str, Tokenised], start: Start, config: Finetune, run: GridRun,
    device: torch.device, on_epoch: Callable[[Tuned], None] = lambda tuned: None, until: int | None = None,
) -> Tuned:  # fmt: skip
    """Returns the model after the last epoch, or after epoch `until`; `on_epoch` is called after each epoch."""
    tuned = Tuned(build(task, start, config, run.seed).to(device), [], "")
    optimizer = build_adamw(tuned.model, config)
    compiled = None
    if config.compile:
        compiled = torch.compile(tuned.model, mode="reduce-overhead", dynamic=False, fullgraph=True)
    total = -(-len(train) // run.batch_size) * config.epochs
    warmup = round(config.warmup_ratio * total)
    torch.manual_seed(derive_seed(run.seed, "fine-tuning dropout", task.name))
    step = 0
    for epoch in range(1, (until or config.epochs) + 1):
        tuned.model.train()
        generator = torch.Generator().manual_seed(derive_seed(run.seed, "fine-tuning order", task.name, epoch))
        losses = []
        for indices in epoch_batches(train, run.batch_size, config.batching, generator):
            set_learning_rate(optimizer, learning_rate(step, run.lr, warmup, total))
            # the last batch is smaller: a shape that isn't worth compiling
            forward = compiled if len(indices) == run.batch_size else None
            inputs = make_inputs(tuned.model, train, indices, device, fixed=forward is not None)
            losses.append(training_step(tuned.model, optimizer, task, inputs, config.clip_norm, forward))
            step += 1
        train_loss = float(torch.stack(losses).mean())
        if not np.isfinite(train_loss):
            return replace(tuned, failure=f"the loss is not finite in epoch {epoch}")
        try:
            metrics, halves = _evaluate(tuned.model, task, dev)
        except DivergedError as error:
            return replace(tuned, failure=f"{error} in epoch {epoch}")
        tuned.epochs.append(EpochScores(epoch=epoch, train_loss=train_loss, metrics=metrics, halves=halves))
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
    model: Classifier, optimizer: torch.optim.Optimizer, task: GlueTask, inputs: Inputs, clip_norm: float,
    forward: Forward | None = None,
) -> Tensor:  # fmt: skip
    """Takes one step and returns the mean loss as a tensor on the device. `forward` replaces the model's own."""
    optimizer.zero_grad(set_to_none=True)
    if forward is None:
        forward = _forward(model, inputs.labels_B.device)
    else:
        torch.compiler.cudagraph_mark_step_begin()
    out_BC, labels_B = _outputs(model, inputs, forward), inputs.labels_B  # for regression, labels are score / 5
    loss = F.mse_loss(out_BC[:, 0], labels_B) if task.regression else F.cross_entropy(out_BC, labels_B.long())
    torch.autograd.backward(loss)
    if clip_norm > 0:
        gradient_norm(model, clip_norm)
    optimizer.step()
    return loss.detach()


def _evaluate(model: Classifier, task: GlueTask, dev: dict[str, Tokenised]) -> tuple[dict[str, float], Halves]:
    """Returns the metrics of all dev sets, in full and by halves. Raises DivergedError if an output is not finite."""
    metrics: dict[str, float] = {}
    halves: Halves = [({}, {}) for _ in range(SPLITS)]
    for suffix, data in dev.items():
        predicted = decide(task, outputs(model, data))
        metrics |= {f"{name}{suffix}": value for name, value in score(task, predicted, data.labels).items()}
        for both, of_set in zip(halves, score_halves(task, predicted, data.labels), strict=True):
            for half, values in zip(both, of_set, strict=True):
                half |= {f"{name}{suffix}": value for name, value in values.items()}
    return metrics, halves


def _forward(model: Classifier, device: torch.device) -> Forward:
    """Returns the model's forward pass with its present weights."""
    if on_cpu(device) or model.precision != "bfloat16":
        return model
    weights = rounded_weights(model)
    return lambda *inputs: torch.func.functional_call(model, weights, inputs)


def _outputs(model: Classifier, inputs: Inputs, forward: Forward) -> Tensor:
    with autocast(inputs.labels_B.device, model.precision):
        return forward(inputs.tokens, inputs.packing, inputs.second).float()


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
def outputs(model: Classifier, data: Tokenised) -> Tensor:
    """Returns the outputs [N, C] in the order of the data, on the CPU. Raises DivergedError if one is not finite."""
    model.eval()
    device = model.head.out.weight.device
    batches = evaluation_batches(data, 0 if on_cpu(device) else EVALUATION_TOKENS)
    forward = _forward(model, device)
    found = [_outputs(model, make_inputs(model, data, indices, device), forward) for indices in batches]
    out_NC = torch.cat(found).cpu()  # the only wait for a GPU
    if not torch.isfinite(out_NC).all():
        raise DivergedError("the outputs are not finite")
    return out_NC[torch.from_numpy(np.argsort(np.concatenate(batches)))]


def decide(task: GlueTask, out_NC: Tensor) -> Floats:
    """Returns the class ids, or the scores scaled to the range from 0 to 1, that outputs stand for."""
    predicted: Floats = (out_NC[:, 0] if task.regression else out_NC.argmax(dim=1).float()).numpy()
    return predicted
