"""Gradients of one sentence's loss, one per mask, as flat vectors, and sketches of those that are too large to keep.

Shapes: M masks of one sentence, C of them at a time, L positions, K masked positions (at most),
P parameters of encoder and head, D dimensions that are kept of a mean gradient.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from mapnet_cli.config import Method, Optimiser
from mapnet_cli.core import derive_seed
from mapnet_cli.model import PretrainingModel
from mapnet_cli.training import load_checkpoint, rolling_name
from mapnet_cli.variance.candidates import Candidate, SentenceMasks, sentence_masks

ELEMENTS = {"cpu": 2**22, "cuda": 2**28}
"""Gradient entries that stand in memory at a time, by device: more of them gain no speed."""


class SentenceGradients:
    """Without dropout, in float32; MAP-Net's parameters stay out.

    torch.func takes the gradients of several masks in one pass, on a CPU 2.4 times faster than a
    loop of backward passes (2 layers, hidden 128, 64 tokens, vocabulary 1,024).
    """

    def __init__(self, model: PretrainingModel) -> None:
        self._loss = _WeightedLoss(model.eval())
        self._parameters = {
            name: parameter.detach()
            for name, parameter in self._loss.named_parameters()
            if not name.startswith("model.proposal.")
        }
        self._gradients = vmap(grad(self._of_one), in_dims=(None, 0, 0, 0, 0))
        self.device = next(iter(self._parameters.values())).device
        self.size = sum(parameter.numel() for parameter in self._parameters.values())
        """P."""

    def of(self, masks: SentenceMasks) -> Iterator[Tensor]:
        """Yields the gradients of sum_k weight_k loss_k for the masks in their order, [C, P] at a time."""
        parts = (masks.corrupted_ML, masks.positions_MK, masks.targets_MK, masks.weight_MK)
        rows = max(1, ELEMENTS[self.device.type] // self.size)
        for part in zip(*(torch.split(tensor, rows) for tensor in parts), strict=True):
            # the fused attention kernels can't be batched over masks
            with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="There is a performance drop")
                by_name = self._gradients(self._parameters, *(tensor.to(self.device) for tensor in part))
            yield torch.cat([gradient.flatten(1) for gradient in by_name.values()], dim=1)

    def flatten(self, tensors: dict[str, Tensor]) -> Tensor:
        """Returns tensors by the model's parameter names as one vector [P] in the gradients' order."""
        return torch.cat([tensors[name.removeprefix("model.")].flatten() for name in self._parameters]).to(self.device)

    def _of_one(self, parameters: dict[str, Tensor], *mask: Tensor) -> Tensor:
        loss: Tensor = functional_call(self._loss, parameters, mask)
        return loss


class _WeightedLoss(nn.Module):
    """A module, because torch.func calls modules with other parameters than their own."""

    def __init__(self, model: PretrainingModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, corrupted_L: Tensor, positions_K: Tensor, targets_K: Tensor, weight_K: Tensor) -> Tensor:
        """Returns sum_k weight_k loss_k, a scalar."""
        loss_1K, _ = self.model.token_losses(corrupted_L[None], None, positions_K[None], targets_K[None], None)
        return (loss_1K[0] * weight_K).sum()


BYTES = 2**30
"""Of mean gradients in memory."""


class Projection:
    """The identity where the vectors fit, else a CountSketch to the largest power of two that does."""

    def __init__(self, size: int, vectors: int, seed: int, device: torch.device, budget: int = BYTES) -> None:
        room = max(1, budget // (4 * vectors))
        self.exact = size <= room
        self.dimensions = size if self.exact else 2 ** int(math.log2(room))
        if not self.exact:
            generator = torch.Generator().manual_seed(derive_seed(seed, "count sketch"))
            self._places_P = torch.randint(self.dimensions, (size,), generator=generator, dtype=torch.int64).to(device)
            signs_P = torch.randint(2, (size,), generator=generator, dtype=torch.int8) * 2 - 1
            self._signs_P = signs_P.to(device)

    @property
    def relative_error(self) -> float:
        """Of an inner product, as a share of the two norms' product: an upper bound of its standard deviation."""
        return 0.0 if self.exact else math.sqrt(2 / self.dimensions)

    def __call__(self, vector_P: Tensor) -> Tensor:
        """Returns the vector, or its sketch, [D]."""
        if self.exact:
            return vector_P
        sketch_D = torch.zeros(self.dimensions, dtype=vector_P.dtype, device=vector_P.device)
        return sketch_D.index_add_(0, self._places_P, vector_P * self._signs_P)


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
    uniform = Candidate("uniform", method.model_copy(update={"strategy": "uniform", "proposal": None}))
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
