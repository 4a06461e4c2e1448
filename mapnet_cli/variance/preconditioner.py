"""Adam's preconditioner at a checkpoint: by what its step divides each entry of the gradient.

Shapes: P parameters of encoder and head, L positions.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from mapnet_cli.config import Method, Optimiser
from mapnet_cli.training.checkpoint import load_checkpoint, rolling_name
from mapnet_cli.variance.gradients import SentenceGradients
from mapnet_cli.variance.masks import Candidate, sentence_masks

BATCHES = 16
"""Training batches that the second moments are estimated from where they weren't saved."""


def saved_at(run: Path, step: int) -> bool:
    """Returns whether a training's optimiser as it was at this step is still there."""
    return (run / "resume" / rolling_name(step)).exists()


def adam_scale(
    gradients: SentenceGradients, run: Path, step: int, optimiser: Optimiser, sample: Callable[[], Tensor]
) -> tuple[Tensor, str]:
    """Returns (1 / (sqrt(v) + eps) [P], where v is from).

    v are the bias-corrected second moments of the training `run` if it saved them at this step; else
    `sample` gives mean squares [P] of batches' gradients. Raises DamagedError.
    """
    if saved_at(run, step):
        state = load_checkpoint(run / "resume" / rolling_name(step))[0]
        v_P, source = _saved(gradients, state, optimiser), f"the optimiser's, step {step:,}"
    else:
        v_P, source = sample(), f"estimated from {BATCHES} training batches at the checkpoint"
    return 1 / (v_P.sqrt() + optimiser.adam_eps), source


def _saved(gradients: SentenceGradients, state: dict[str, Tensor], optimiser: Optimiser) -> Tensor:
    beta = optimiser.adam_betas[1]
    moments = {
        name.removeprefix("exp_avg_sq."): moment / (1 - beta ** float(state[name.replace("exp_avg_sq.", "step.", 1)]))
        for name, moment in state.items()
        if name.startswith("exp_avg_sq.")
    }
    return gradients.flatten(moments)


def batch_mean_squares(
    gradients: SentenceGradients, method: Method, sentence: Callable[[int], Tensor], batch_size: int, vocab_size: int
) -> Tensor:
    """Returns the mean square [P] of BATCHES batches' gradients under uniform masks; `sentence` returns tokens [L]."""
    uniform = Candidate("uniform", method.model_copy(update={"strategy": "uniform", "estimator": "none"}))
    squares_P = torch.zeros(gradients.size, device=gradients.device)
    for batch in range(BATCHES):
        sum_P, masked = torch.zeros_like(squares_P), 0
        for number in range(batch * batch_size, (batch + 1) * batch_size):
            masks = sentence_masks(uniform, number, sentence(number), 1, 1, vocab_size, stream="second moments")
            masked += int((masks.weight_MK > 0).sum())
            for part_CP in gradients.of(masks):
                sum_P += part_CP.sum(dim=0)
        squares_P += (sum_P / masked).square()
    return squares_P / BATCHES
