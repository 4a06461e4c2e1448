"""Per-mask gradients of one sentence's loss as flat vectors, and sketches of vectors that are too large to keep.

Shapes: M masks of one sentence, C masks at a time, L positions, K masked positions (at most),
P parameters of encoder and head, D dimensions kept of a mean gradient.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from mapnet_cli.config import Method, Optimiser
from mapnet_cli.core import derive_seed
from mapnet_cli.model import PretrainingModel
from mapnet_cli.training import load_checkpoint, rolling_name
from mapnet_cli.variance.candidates import Candidate, SentenceMasks, sentence_masks
from mapnet_cli.variance.results import NORMS
from mapnet_cli.variance.statistics import GradientSums, Samples, collect

ELEMENTS = {"cpu": 2**22, "cuda": 2**28}
"""Maximum number of gradient entries in memory at a time, by device; more give no speedup."""
BUDGET_BYTES = 2**30
BATCHES = 16  # training batches used to estimate the second moments if they were not saved


class SentenceGradients:
    """Computes gradients without dropout, in float32, excluding MAP-Net's parameters.

    torch.func computes the gradients of several masks in one pass, on a CPU 2.4 times faster than a
    loop of backward passes (2 layers, hidden 128, 64 tokens, vocabulary 1,024).
    """

    def __init__(self, model: PretrainingModel) -> None:
        self._model = model.eval()
        self._parameters = {
            name: parameter.detach() for name, parameter in model.named_parameters() if not name.startswith("proposal.")
        }
        self._gradients = vmap(grad(self._loss_of_one), in_dims=(None, 0, 0, 0, 0))
        self.device = next(iter(self._parameters.values())).device
        self.size = sum(parameter.numel() for parameter in self._parameters.values())

    def of(self, masks: SentenceMasks) -> Iterator[Tensor]:
        """Yields the gradients of sum_k weight_k loss_k for the masks in order, [C, P] at a time."""
        parts = (masks.corrupted_ML, masks.positions_MK, masks.targets_MK, masks.weight_MK)
        rows = max(1, ELEMENTS[self.device.type] // self.size)
        for part in zip(*(torch.split(tensor, rows) for tensor in parts), strict=True):
            # the fused attention kernels can't be batched over masks
            with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="There is a performance drop")
                by_name = self._gradients(self._parameters, *(tensor.to(self.device) for tensor in part))
            yield torch.cat([gradient.flatten(1) for gradient in by_name.values()], dim=1)

    def flatten(self, tensors: dict[str, Tensor]) -> Tensor:
        """Returns tensors keyed by the model's parameter names as one vector [P], in the gradients' order."""
        return torch.cat([tensors[name].flatten() for name in self._parameters]).to(self.device)

    def _loss_of_one(self, parameters: dict[str, Tensor], *mask: Tensor) -> Tensor:
        """Returns sum_k weight_k loss_k, a scalar."""
        corrupted_L, positions_K, targets_K, weight_K = mask
        inputs = corrupted_L[None], None, positions_K[None], targets_K[None], None
        loss_1K, _ = functional_call(self._model, parameters, inputs)
        loss: Tensor = (loss_1K[0] * weight_K).sum()
        return loss


class Projection:
    """The identity if the vectors fit in memory, else a CountSketch to the largest power of two that fits."""

    def __init__(self, size: int, vectors: int, seed: int, device: torch.device, budget: int = BUDGET_BYTES) -> None:
        capacity = max(1, budget // (4 * vectors))
        self.exact = size <= capacity
        self.dimensions = size if self.exact else 2 ** int(math.log2(capacity))
        if not self.exact:
            generator = torch.Generator().manual_seed(derive_seed(seed, "count sketch"))
            self._buckets_P = torch.randint(self.dimensions, (size,), generator=generator, dtype=torch.int64).to(device)
            signs_P = torch.randint(2, (size,), generator=generator, dtype=torch.int8) * 2 - 1
            self._signs_P = signs_P.to(device)

    @property
    def relative_error(self) -> float:
        """Upper bound on the standard deviation of an inner product, relative to the product of the norms."""
        return 0.0 if self.exact else math.sqrt(2 / self.dimensions)

    def __call__(self, vectors: Tensor) -> Tensor:
        """Returns the vectors [..., P] or their sketches [..., D]."""
        if self.exact:
            return vectors
        sketches = torch.zeros(*vectors.shape[:-1], self.dimensions, dtype=vectors.dtype, device=vectors.device)
        return sketches.index_add_(-1, self._buckets_P, vectors * self._signs_P)


@dataclass(frozen=True)
class Instrument:
    """Gradients in every geometry, and how their means are kept."""

    gradients: SentenceGradients
    scales: Mapping[str, Tensor | None]  # factors on gradients, [P] or None, keyed by NORMS
    project: Projection

    def scaled(self, masks: SentenceMasks) -> Iterator[tuple[str, Tensor]]:
        """Yields the gradients for the masks in order, [C, P] at a time, in each of NORMS."""
        for part_CP in self.gradients.of(masks):
            for norm, scale_P in self.scales.items():
                yield norm, part_CP if scale_P is None else part_CP * scale_P

    def sample(self, visits: int, masks: Iterable[SentenceMasks], after_each: Callable[[], None]) -> Samples:
        """Returns the statistics of all gradients of one strategy, given the masks of each sentence."""
        found = {norm: list[tuple[float, float, float]]() for norm in NORMS}
        means = {norm: list[Tensor]() for norm in NORMS}
        log_ratios = []
        for drawn in masks:
            sums = {norm: GradientSums(visits) for norm in NORMS}
            for norm, part_CP in self.scaled(drawn):
                sums[norm].add(part_CP)
            for norm, added in sums.items():
                means[norm].append(self.project(added.mean()))
                found[norm].append(added.moments())
            log_ratios.append(drawn.log_ratio_M)
            after_each()
        stacked = {norm: torch.stack(rows) for norm, rows in means.items()}
        moments = {norm: collect(found[norm], visits, stacked[norm]) for norm in NORMS}
        return Samples(moments, stacked, torch.stack(log_ratios))


def saved_at(run: Path, step: int) -> bool:
    """Returns whether the run's optimiser state at this step still exists."""
    return (run / "resume" / rolling_name(step)).exists()


def adam_scale(
    gradients: SentenceGradients, run: Path, step: int, optimiser: Optimiser, sample: Callable[[], Tensor]
) -> tuple[Tensor, str]:
    """Returns (1 / (sqrt(v) + eps) [P], description of the source of v).

    v contains the bias-corrected second moments that `run` saved at this step, if any; else `sample`
    returns the mean squares [P] of batch gradients. Raises DamagedError.
    """
    if not saved_at(run, step):
        v_P, source = sample(), f"estimated from {BATCHES} training batches at the checkpoint"
    else:
        state, beta = load_checkpoint(run / "resume" / rolling_name(step))[0], optimiser.adam_betas[1]
        corrected = {
            name.removeprefix("exp_avg_sq."): v / (1 - beta ** float(state[name.replace("exp_avg_sq.", "step.", 1)]))
            for name, v in state.items()
            if name.startswith("exp_avg_sq.")
        }
        v_P, source = gradients.flatten(corrected), f"optimiser state at step {step:,}"
    return 1 / (v_P.sqrt() + optimiser.adam_eps), source


def batch_mean_squares(
    gradients: SentenceGradients, method: Method, sentence: Callable[[int], Tensor], batch_size: int, vocab_size: int
) -> Tensor:
    """Returns the mean square [P] of BATCHES batch gradients under uniform masks; `sentence` returns tokens [L]."""
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
