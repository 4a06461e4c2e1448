"""Held-out losses under fixed masks, the same for every method, seed, step and number of processes.

Each loss is computed as is and after refitting only the output bias: training on hard masks shifts the prior
over tokens, which the raw loss can't tell from learning less. Uniform masks also give accuracies by kind of token.

Shapes: B sequences, L positions, K masked positions per sequence, N masked positions per fold, H hidden size,
V vocabulary (padded).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from mapnet_cli.config import Method
from mapnet_cli.core import derive_seed
from mapnet_cli.jobs import DistContext
from mapnet_cli.masking import NO_CONTEXT, MaskNoise, Masks, corrupt, draw_masks, valid_slots
from mapnet_cli.model import Encoder, PretrainingModel, attention_mask
from mapnet_cli.pretrain.batches import load_batch
from mapnet_cli.pretrain.held_out_words import DECILES, TokenBuckets, word_kinds
from mapnet_cli.text import PAD, Sequences
from mapnet_cli.training import autocast

MASK_RATE, REPLACE_MASK, REPLACE_RANDOM = 0.15, 0.8, 0.1
"""Rates of the fixed masks: the paper's, for every method, so that losses are comparable."""
NAMES = {"validation_loss": "uniform", "validation_loss_spaced": "spaced"}
SINGLE, DRAWS = "validation_loss_single", 8
"""Loss with a single [MASK] per sentence, the mask rate of no method, in this number of passes with different masks."""
SEED = 0
BATCH = 64
ROWS = 2048  # number of positions whose logits are in memory at a time
ROUNDS = 3
"""Rounds of iterative scaling. One round almost converges, since the bias is already trained."""


@torch.no_grad()
def validate(
    model: PretrainingModel, sequences: Sequences, count: int, device: torch.device, precision: str, dist: DistContext,
    buckets: TokenBuckets, single: bool = False,
) -> dict[str, float]:  # fmt: skip
    """Returns held-out losses in nats per masked token, and top-1 accuracies on masked tokens.

    Losses: validation_loss (uniform masks), validation_loss_spaced and, if `single`, validation_loss_single (one mask
    per sentence), each also as `_refit`. Accuracies: accuracy, accuracy_function and accuracy_content (single-token
    words), accuracy_decile_1 (the most frequent tokens) to _10, without empty kinds. Each process evaluates its share.
    """
    model.eval()
    found: dict[str, float] = {}
    for name, strategy in (NAMES | ({SINGLE: "uniform"} if single else {})).items():
        folds: list[list[Targets]] = [[], []]
        draws = range(1, 1 + DRAWS) if name == SINGLE else range(1)
        for (start, numbers), draw in product(shares(sequences, count, dist), draws):
            replace = (1.0, 0.0) if draw else (REPLACE_MASK, REPLACE_RANDOM)
            fixed = fixed_masks(model.encoder, strategy, start, numbers, sequences, *replace, draw)
            found_N, number_N = _targets(model, fixed, numbers, buckets, device, precision)
            for fold in (0, 1):
                folds[fold].append(found_N.at((number_N % 2 == fold).nonzero().squeeze(1).to(device)))
        with autocast(device, precision):
            measure = _Measure(model, dist, device)
            raw, refitted, masked = 0.0, 0.0, 0.0
            for here, other in (folds, folds[::-1]):
                loss, n = measure.loss(here, measure.zeros())
                raw, masked = raw + loss, masked + n
                refitted += measure.loss(here, measure.refit(other))[0]
            if name == "validation_loss":
                found |= measure.accuracies(folds[0] + folds[1], buckets)
        found[name], found[f"{name}_refit"] = raw / max(masked, 1), refitted / max(masked, 1)
    model.train()
    return found


def shares(sequences: Sequences, count: int, dist: DistContext) -> Iterator[tuple[int, Tensor]]:
    """Yields the beginning of each batch of held-out sequences, and the numbers of this process's share of it."""
    count = min(count, len(sequences))
    for start in range(0, count, BATCH):
        numbers = torch.arange(start, min(start + BATCH, count))[dist.rank :: dist.size]
        if len(numbers):
            yield start, numbers


@dataclass(frozen=True)
class FixedMasks:
    """Held-out sequences and their masks; `slots_N` are the flat indices of the masked positions among B x K."""

    tokens_BL: Tensor
    corrupted_BL: Tensor
    masks: Masks
    slots_N: Tensor
    noise: MaskNoise


def fixed_masks(
    encoder: Encoder, strategy: str, start: int, numbers: Tensor, sequences: Sequences, replace_mask: float,
    replace_random: float, single: int = 0,
) -> FixedMasks:  # fmt: skip
    """Returns the masks of some sequences of the batch that begins at `start`; of one mask each in draw `single`."""
    tokens_BL = load_batch(sequences, numbers)
    position = (start, single) if single else (start,)
    generator = torch.Generator().manual_seed(derive_seed(SEED, "validation masks", *position))
    noise = MaskNoise.draw(generator, BATCH, encoder.config.max_length)
    # truncated to these sequences and their length: a draw doesn't depend on the other sequences
    noise = noise.map(lambda t: t[numbers - start] if t.ndim == 1 else t[numbers - start, : tokens_BL.shape[1]])
    rate = 1e-9 if single else MASK_RATE  # every sequence has at least one mask
    masks = draw_masks(Method(strategy=strategy, mask_rate=rate), tokens_BL, noise, NO_CONTEXT)
    slots_N = valid_slots(masks.valid_BK.sum(dim=1), masks.valid_BK.shape[1])
    corrupted_BL = corrupt(tokens_BL, masks, noise, encoder.vocab_size, replace_mask, replace_random)
    return FixedMasks(tokens_BL, corrupted_BL, masks, slots_N, noise)


@dataclass(frozen=True)
class Targets:
    """Masked positions of held-out sequences: encoder outputs, target tokens and word kinds."""

    hidden_NH: Tensor
    token_N: Tensor
    kind_N: Tensor

    def at(self, indices: Tensor) -> "Targets":
        return Targets(self.hidden_NH[indices], self.token_N[indices], self.kind_N[indices])


def _targets(
    model: PretrainingModel, fixed: FixedMasks, numbers: Tensor, buckets: TokenBuckets, device: torch.device,
    precision: str,
) -> tuple[Targets, Tensor]:  # fmt: skip
    """Returns the targets at the fixed masks, and the number of the sequence that each belongs to, [N]."""
    mask_BL = attention_mask(fixed.tokens_BL, PAD, device)
    positions_BK, slots_N = fixed.masks.positions_BK, fixed.slots_N
    with autocast(device, precision):
        hidden_NH = model.hidden_at(fixed.corrupted_BL.to(device), mask_BL, positions_BK.to(device), slots_N.to(device))
    token_N, kind_N = (
        of_BL.gather(1, positions_BK).flatten()[slots_N].to(device)
        for of_BL in (fixed.tokens_BL, word_kinds(buckets, fixed.tokens_BL))
    )
    return Targets(hidden_NH, token_N, kind_N), numbers[slots_N // positions_BK.shape[1]]


@dataclass(frozen=True)
class _Measure:
    """Metrics on held-out positions, with an offset to the output bias; sums are over all processes."""

    model: PretrainingModel
    dist: DistContext
    device: torch.device

    def zeros(self) -> Tensor:
        """Returns an offset of 0, [V]."""
        return torch.zeros(self.model.encoder.tokens.num_embeddings, device=self.device)

    def loss(self, fold: list[Targets], bias_V: Tensor) -> tuple[float, float]:
        """Returns (sum of the losses, number of positions)."""
        sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        for logits_NV, targets in self._logits(fold, bias_V):
            sums[0] += F.cross_entropy(logits_NV, targets.token_N, reduction="sum")
            sums[1] += len(targets.token_N)
        loss, count = self.dist.all_reduce_sum_(sums).tolist()
        return loss, count

    def accuracies(self, fold: list[Targets], buckets: TokenBuckets) -> dict[str, float]:
        """Returns the accuracy on all targets and on those of each kind."""
        decile_V = buckets.decile_V.to(self.device)
        kinds = DECILES + 3  # the deciles, then FUNCTION, CONTENT and OTHER
        sums_2G = torch.zeros(2, kinds, dtype=torch.float64, device=self.device)
        for logits_NV, targets in self._logits(fold, self.zeros()):
            right_N = (logits_NV.argmax(dim=1) == targets.token_N).double()
            for kind_N in (decile_V[targets.token_N], DECILES + targets.kind_N):
                sums_2G[0].index_add_(0, kind_N, right_N)
                sums_2G[1].index_add_(0, kind_N, torch.ones_like(right_N))
        right, count = self.dist.all_reduce_sum_(sums_2G).tolist()
        names = [*(f"accuracy_decile_{i + 1}" for i in range(DECILES)), "accuracy_function", "accuracy_content"]
        found = {"accuracy": sum(right[:DECILES]) / max(sum(count[:DECILES]), 1)}
        return found | {name: r / c for name, r, c in zip(names, right, count, strict=False) if c}

    def refit(self, fold: list[Targets]) -> Tensor:
        """Returns the offset to the output bias [V] that fits a fold best, by iterative scaling.

        At the optimum, every token's mean probability equals its share of the targets. Both counts are incremented
        by one, so that the bias of tokens that are missing from the fold hardly changes.
        """
        bias_V, count_V = self.zeros(), self.zeros()
        for targets in fold:
            count_V += torch.bincount(targets.token_N, minlength=len(bias_V))
        self.dist.all_reduce_sum_(count_V)
        for _ in range(ROUNDS):
            predicted_V = torch.zeros_like(bias_V)
            for logits_NV, _ in self._logits(fold, bias_V):
                predicted_V += logits_NV.softmax(dim=1).sum(dim=0)
            bias_V = bias_V + torch.log((count_V + 1) / (self.dist.all_reduce_sum_(predicted_V) + 1))
        return bias_V

    def _logits(self, fold: list[Targets], bias_V: Tensor) -> Iterator[tuple[Tensor, Targets]]:
        for targets in fold:
            for indices in torch.split(torch.arange(len(targets.token_N), device=self.device), ROWS):
                rows = targets.at(indices)
                yield self.model.head(rows.hidden_NH, self.model.encoder.tokens.weight).float() + bias_V, rows
