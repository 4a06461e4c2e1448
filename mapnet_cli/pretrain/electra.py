"""ELECTRA's two losses (Clark et al. 2020, section 2), for the same loop as the other methods, and its validation.

Its encoder has no MLM head, so there is no `validation_loss` to compare with other methods.

Shapes: B sequences, L positions, K masked positions per sequence.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mapnet_cli.config import Method
from mapnet_cli.core import derive_seed
from mapnet_cli.jobs import DistContext
from mapnet_cli.masking import Masks, StepPlan, corrupt
from mapnet_cli.model import AnyPretrainingModel, Electra, attention_mask
from mapnet_cli.pretrain.batches import MicroBatch
from mapnet_cli.pretrain.step import JointLosses, Losses, add_up, masks_of
from mapnet_cli.pretrain.validation import fixed_masks, shares
from mapnet_cli.text import PAD, Sequences
from mapnet_cli.training import autocast

PASS = 16
"""Sequences per forward pass, to limit the memory for the generator's distributions over the vocabulary."""


class ElectraLosses(Losses):
    """The losses of the generator and the detector."""

    model: Electra
    networks = ("generate", "detect")
    generate: Callable[..., tuple[Tensor, Tensor]]
    detect: Callable[..., Tensor]

    def forward(
        self, part: MicroBatch, plan: StepPlan, kept_BL: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor], None]:
        """Returns the loss to differentiate, the sums to log, and None (there is no proposal to keep)."""
        method, electra = self.method, self.method.electra
        assert electra is not None
        masks = masks_of(part, plan, method)
        corrupted_BL = corrupt(
            part.tokens_BL, masks, part.noise, self.model.encoder.vocab_size, method.replace_mask, method.replace_random
        )
        targets_BK = part.tokens_BL.gather(1, masks.positions_BK)
        noise_BK = part.noise.token_BL.gather(1, masks.positions_BK)

        torch.manual_seed(derive_seed(plan.seed, "generator dropout", plan.step, part.first))
        with autocast(self.device, self.precision):
            loss_BK, drawn_BK = self.generate(
                corrupted_BL, part.attention_mask_BL, masks.positions_BK, targets_BK, noise_BK, part.slots_N
            )
        loss = torch.where(masks.valid_BK, loss_BK, 0.0).sum()

        # A sampled token that happens to be the correct one counts as original.
        replaced_BL = replace_tokens(part.tokens_BL, masks, drawn_BK)
        torch.manual_seed(derive_seed(plan.seed, "encoder dropout", plan.step, part.first))
        with autocast(self.device, self.precision):
            logits_BL = self.detect(replaced_BL, part.attention_mask_BL)
        detection = detection_sums(logits_BL, part.tokens_BL, replaced_BL)

        both = loss / part.all_masked + electra.detection_weight * detection["detection"] / part.all_tokens
        logged = {"loss": loss, "masked": part.counts_B.sum(), "objective": both, **detection}
        # DDP averages gradients over processes, but each loss is only its process's share of a sum
        return both * self.processes, {name: value.detach() for name, value in logged.items()}, None


def replace_tokens(tokens_BL: Tensor, masks: Masks, drawn_BK: Tensor) -> Tensor:
    """Returns the tokens [B, L], with those at the masked positions replaced by the sampled ones."""
    change_BK = drawn_BK - tokens_BL.gather(1, masks.positions_BK)
    # Invalid slots also contain positions, which must not change: add 0 there instead of assigning.
    return tokens_BL.scatter_add(1, masks.positions_BK, torch.where(masks.valid_BK, change_BK, 0))


def detection_sums(logits_BL: Tensor, tokens_BL: Tensor, replaced_BL: Tensor) -> dict[str, Tensor]:
    """Returns sums over all tokens except padding: the binary cross-entropy, with gradient, and counts.

    `replaced` counts the tokens that differ from the original text, `original` the others; `found` and `kept`
    count those of each that the detector classifies correctly.
    """
    token_BL, differs_BL = tokens_BL != PAD, tokens_BL != replaced_BL
    loss_BL = F.binary_cross_entropy_with_logits(logits_BL, differs_BL.to(logits_BL.dtype), reduction="none")
    predicted_BL = logits_BL > 0
    return {
        "detection": torch.where(token_BL, loss_BL, 0.0).sum(),
        "replaced": differs_BL.sum(),
        "original": (token_BL & ~differs_BL).sum(),
        "found": (differs_BL & predicted_BL).sum(),
        "kept": (token_BL & ~differs_BL & ~predicted_BL).sum(),
    }


def detection_metrics(sums: dict[str, float]) -> dict[str, float]:
    """Returns the metrics of `detection_sums` for the log and milestones; the loss is in nats per token."""
    replaced, original = sums["replaced"], sums["original"]
    return {
        "detection_loss": sums["detection"] / max(replaced + original, 1),
        "detection_accuracy": (sums["found"] + sums["kept"]) / max(replaced + original, 1),
        "detection_accuracy_replaced": sums["found"] / max(replaced, 1),
        "detection_accuracy_original": sums["kept"] / max(original, 1),
        "replaced_share": replaced / max(replaced + original, 1),
    }


def build_losses(
    model: AnyPretrainingModel, method: Method, device: torch.device, precision: str, processes: int = 1
) -> Losses:
    """Returns the losses that train a method's networks."""
    kind = ElectraLosses if isinstance(model, Electra) else JointLosses
    return kind(model, method, device, precision, processes)


@torch.no_grad()
def validate_detection(
    model: Electra, sequences: Sequences, count: int, device: torch.device, precision: str, dist: DistContext
) -> dict[str, float]:
    """Returns accuracies, detection_loss (nats per token), generator_loss (per masked token), over all processes."""
    model.eval()
    names = ("generator", "masked", "detection", "replaced", "original", "found", "kept")
    sums = {name: torch.zeros((), dtype=torch.float64, device=device) for name in names}
    for start, share in shares(sequences, count, dist):
        for numbers in torch.split(share, PASS):
            fixed = fixed_masks(model.encoder, "uniform", start, numbers, sequences, 1.0, 0.0)
            positions_BK, mask_BL = fixed.masks.positions_BK, attention_mask(fixed.tokens_BL, PAD, device)
            targets_BK, noise_BK = (of_BL.gather(1, positions_BK) for of_BL in (fixed.tokens_BL, fixed.noise.token_BL))
            with autocast(device, precision):
                loss_BK, drawn_BK = model.generate(
                    fixed.corrupted_BL.to(device), mask_BL, positions_BK.to(device), targets_BK.to(device),
                    noise_BK.to(device), fixed.slots_N.to(device),
                )  # fmt: skip
                replaced_BL = replace_tokens(fixed.tokens_BL, fixed.masks, drawn_BK.cpu()).to(device)
                logits_BL = model.detect(replaced_BL, mask_BL)
            masked = torch.tensor(len(fixed.slots_N), device=device)
            detected = detection_sums(logits_BL, fixed.tokens_BL.to(device), replaced_BL)
            add_up(sums, {"generator": loss_BK.sum(), "masked": masked, **detected})
    totals = dist.all_reduce_sum_(torch.stack([sums[name] for name in names])).tolist()
    found = dict(zip(names, totals, strict=True))
    model.train()
    return {**detection_metrics(found), "generator_loss": found["generator"] / max(found["masked"], 1)}
