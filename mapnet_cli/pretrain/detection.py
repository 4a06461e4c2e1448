"""ELECTRA's held-out losses: fixed uniform masks, filled with tokens that fixed noise draws from the generator.

The masks are those of `validation.py`, all of them hidden from the generator. Its encoder has no MLM
head, so there is no `validation_loss` that would compare with other methods'.
"""

import torch

from mapnet_cli.jobs.distributed import DistContext
from mapnet_cli.model.bert import attention_mask
from mapnet_cli.model.electra import Electra
from mapnet_cli.pretrain.electra import detection_figures, detection_sums, replace_tokens
from mapnet_cli.pretrain.step import add_up
from mapnet_cli.pretrain.validation import BATCH, fixed_masks
from mapnet_cli.text.shards import Sequences
from mapnet_cli.text.special_tokens import PAD
from mapnet_cli.training.device import autocast

PASS = 16
"""Sequences of a forward pass: the generator's distributions over the vocabulary stand in memory at a time."""


@torch.no_grad()
def validate_detection(
    model: Electra, sequences: Sequences, count: int, device: torch.device, precision: str, world: DistContext
) -> dict[str, float]:
    """Returns detection_loss (nats a token), the accuracies, and generator_loss (nats a masked token).

    Every process takes its share of the sequences; all get the same figures.
    """
    model.eval()
    names = ("generator", "masked", "detection", "replaced", "original", "found", "kept")
    sums = {name: torch.zeros((), dtype=torch.float64, device=device) for name in names}
    for start in range(0, min(count, len(sequences)), BATCH):
        numbers = torch.arange(start, min(start + BATCH, count, len(sequences)))[world.rank :: world.size]
        for some in torch.split(numbers, PASS) if len(numbers) else ():
            add_up(sums, _sums(model, start, some, sequences, device, precision))
    totals = world.all_reduce_sum_(torch.stack([sums[name] for name in names])).tolist()
    found = dict(zip(names, totals, strict=True))
    model.train()
    return {**detection_figures(found), "generator_loss": found["generator"] / max(found["masked"], 1)}


def _sums(
    model: Electra, start: int, numbers: torch.Tensor, sequences: Sequences, device: torch.device, precision: str
) -> dict[str, torch.Tensor]:
    fixed = fixed_masks(model.encoder, "uniform", start, numbers, sequences, replace_mask=1.0, replace_random=0.0)
    attention_mask_BL = attention_mask(fixed.tokens_BL, PAD)
    attention_mask_BL = None if attention_mask_BL is None else attention_mask_BL.to(device)
    positions_BK = fixed.masks.positions_BK
    targets_BK, noise_BK = (of_BL.gather(1, positions_BK) for of_BL in (fixed.tokens_BL, fixed.noise.token_BL))
    with autocast(device, precision):
        loss_BK, drawn_BK = model.generate(
            fixed.corrupted_BL.to(device), attention_mask_BL, positions_BK.to(device), targets_BK.to(device),
            noise_BK.to(device), fixed.slots_N.to(device),
        )  # fmt: skip
        replaced_BL = replace_tokens(fixed.tokens_BL, fixed.masks, drawn_BK.cpu()).to(device)
        logits_BL = model.detect(replaced_BL, attention_mask_BL)
    counted = {"generator": loss_BK.sum(), "masked": torch.tensor(len(fixed.slots_N), device=device)}
    return counted | detection_sums(logits_BL, fixed.tokens_BL.to(device), replaced_BL)
