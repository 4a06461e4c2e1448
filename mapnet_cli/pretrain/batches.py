"""Training batches: a function of (seed, step), the same for every method and number of processes.

Shapes: B sequences, L positions, N masked positions of a micro-batch.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from mapnet_cli import masking
from mapnet_cli.config import Method, Pretrain
from mapnet_cli.core import derive_seed
from mapnet_cli.jobs import ALONE, DistContext
from mapnet_cli.model import attention_mask
from mapnet_cli.pretrain.sampler import ResumableSampler
from mapnet_cli.text import CLS, FIRST_ORDINARY, PAD, Sequences, padded


@dataclass(frozen=True)
class MicroBatch:
    """Sequences of one forward pass, with all counts made on the host, to avoid synchronising with the device."""

    first: int  # index of its first sequence in the whole batch
    tokens_BL: Tensor
    attention_mask_BL: Tensor | None
    maskable_BL: Tensor
    counts_B: Tensor
    slots_N: Tensor | None
    """Flat indices of the masked positions among the B x K; None if all are computed, for a fixed shape."""
    max_masks: int  # K, the maximum number of masked positions per sequence
    noise: masking.MaskNoise
    visit_B: Tensor | None
    """Index of this visit among those that share their noise; None unless the strategy is successive."""
    unit_starts_BL: Tensor | None
    """True where a unit that is masked as a whole begins; None unless the strategy has units."""
    all_sequences: int
    """Total of the batch over all processes, as are the next two: the denominators of mean losses."""
    all_masked: int
    all_tokens: int  # excluding padding
    explore_B: Tensor | None = None  # whether each sentence explores; None if the step decides for all

    def map(self, function: Callable[[Tensor], Tensor]) -> "MicroBatch":
        """Returns a copy with `function` applied to each tensor."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        tensors: dict[str, Any] = {n: function(value) for n, value in found.items() if isinstance(value, Tensor)}
        return replace(self, noise=self.noise.map(function), **tensors)

    def to(self, device: torch.device) -> "MicroBatch":
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))


@dataclass(frozen=True)
class Batch:
    """One step's data: totals of the whole batch, and this process's share of it."""

    size: int
    tokens: int  # over all processes, excluding padding
    parts: list[MicroBatch]
    explored: float = 0.0  # share of the sentences that explore by their own coin, over all processes


@dataclass(frozen=True)
class BatchMaker:
    """Builds the batch of a step. Every process draws the noise of the whole batch and keeps its own rows."""

    sequences: Sequences
    order: ResumableSampler
    method: Method
    pretrain: Pretrain
    seed: int
    dist: DistContext
    pin: bool  # whether batches are in pinned memory, for asynchronous copies to a GPU
    block_length: int
    fixed: bool = False
    """Pad every batch to the block length and compute every slot: one shape for torch.compile."""
    context: masking.MaskContext = masking.NO_CONTEXT

    @property
    def micro(self) -> int:
        """Number of sequences per forward pass."""
        return self.pretrain.micro_batch_size or self.pretrain.batch_size // self.dist.size

    def __call__(self, step: int) -> Batch:
        data_step = step // self.pretrain.visits
        indices_B = self.order.indices(data_step)
        tokens_BL = load_batch(self.sequences, indices_B, self.block_length * self.fixed)
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "masks", step))
        # drawn for a whole block, then truncated, so that masks don't depend on padding
        noise, visit_B = masking.MaskNoise.draw(generator, len(tokens_BL), self.block_length), None
        if masking.STRATEGIES[self.method.strategy].successive:
            visit_B = self.order.epochs(data_step) * self.pretrain.visits + step % self.pretrain.visits
            noise, visit_B = self._shared_noise(noise, indices_B, visit_B)
        explore_B = None
        if self.method.explore_unit == "sentence" and any(self.method.exploration):
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "exploration", step))
            p = self.method.explore_at(step, self.pretrain.steps)
            explore_B = torch.rand(len(tokens_BL), generator=generator) < p
        noise = noise.map(lambda tensor: tensor if tensor.ndim == 1 else tensor[:, : tokens_BL.shape[1]])
        batch = split_batch(
            tokens_BL, noise, self.method.rate_at(step, self.pretrain.steps), self.micro, self.dist, self.fixed,
            highest_rate=self.method.highest_rate if self.fixed else 0.0, visit_B=visit_B,
            unit_starts_BL=None if self.context.unit_starts is None else self.context.unit_starts(tokens_BL),
            explore_B=explore_B,
        )  # fmt: skip
        return replace(batch, parts=[part.map(Tensor.pin_memory) for part in batch.parts]) if self.pin else batch

    def _shared_noise(
        self, noise: masking.MaskNoise, indices_B: Tensor, visits_B: Tensor
    ) -> tuple[masking.MaskNoise, Tensor]:
        """Returns noise shared within a cycle of visits (which masks a sequence once), and the index in the cycle."""
        cycle = masking.visits_in_turn(self.method.highest_rate)
        order_BL, rounding_B = torch.empty_like(noise.order_BL), torch.empty_like(noise.rounding_B)
        for row, (sequence, visit) in enumerate(zip(indices_B.tolist(), visits_B.tolist(), strict=True)):
            seed = derive_seed(self.seed, "visits", sequence, visit // cycle)
            shared = masking.MaskNoise.draw(torch.Generator().manual_seed(seed), 1, self.block_length)
            order_BL[row], rounding_B[row] = shared.order_BL[0], shared.rounding_B[0]
        return replace(noise, order_BL=order_BL, rounding_B=rounding_B), visits_B % cycle


def split_batch(
    tokens_BL: Tensor, noise: masking.MaskNoise, mask_rate: float, micro: int, dist: DistContext = ALONE,
    every_slot: bool = False, highest_rate: float = 0.0, visit_B: Tensor | None = None,
    unit_starts_BL: Tensor | None = None, explore_B: Tensor | None = None,
) -> Batch:  # fmt: skip
    """Returns this process's share of a batch in micro-batches of `micro`; `every_slot`: all slots are computed."""
    size, length = tokens_BL.shape
    maskable_BL = masking.maskable_positions(tokens_BL)
    counts_B = masking.mask_counts(maskable_BL, mask_rate, noise.rounding_B)
    max_masks, all_tokens = masking.max_mask_count(length, max(mask_rate, highest_rate)), int((tokens_BL != PAD).sum())
    whole = MicroBatch(
        0, tokens_BL, None, maskable_BL, counts_B, None, max_masks, noise, visit_B, unit_starts_BL, size,
        max(int(counts_B.sum()), 1), all_tokens, explore_B,
    )  # fmt: skip
    share, parts = size // dist.size, []
    begin = dist.rank * share
    for first in range(begin, begin + share, micro):
        part = whole.map(itemgetter(slice(first, min(first + micro, begin + share))))
        slots_N = None if every_slot else masking.valid_slots(part.counts_B, max_masks)
        parts.append(replace(part, first=first, attention_mask_BL=attention_mask(part.tokens_BL, PAD), slots_N=slots_N))
    explored = 0.0 if explore_B is None else explore_B.double().mean().item()
    return Batch(size, all_tokens, parts, explored)


def sample_batch(
    size: int, length: int, mask_rate: float, every_slot: bool = False, with_padding: bool = False
) -> Batch:
    """Returns one micro-batch of a repeated token, for compiling and benchmarking with any strategy."""
    tokens_BL = torch.full((size, length), FIRST_ORDINARY)
    tokens_BL[:, 0] = CLS
    if with_padding:
        tokens_BL[:, -1] = PAD
    noise = masking.MaskNoise.draw(torch.Generator().manual_seed(0), size, length)
    return split_batch(tokens_BL, noise, mask_rate, size, every_slot=every_slot)


def load_batch(sequences: Sequences, indices: Tensor, length: int = 0) -> Tensor:
    """Returns the sequences' tokens [B, L], padded to `length`, or to the longest sequence if it is 0."""
    chosen = [sequences[index] for index in indices.tolist()]
    return torch.from_numpy(padded(chosen, length or max(map(len, chosen))))
