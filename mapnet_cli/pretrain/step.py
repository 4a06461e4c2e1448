"""Algorithm 1 of the paper: one step of joint training.

Shapes: B sequences, L positions, K masked positions of a sequence, N all masked positions of the
batch, V vocabulary.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mapnet_cli.config import Method
from mapnet_cli.masking import importance, objectives, sampling
from mapnet_cli.masking.importance import ESTIMATORS, Drawn, Weights
from mapnet_cli.masking.objectives import OBJECTIVES
from mapnet_cli.masking.sampling import MaskNoise
from mapnet_cli.masking.strategies import STRATEGIES, MaskRequest
from mapnet_cli.model.pretraining import PretrainingModel
from mapnet_cli.model.transformer import attention_mask
from mapnet_cli.seeds import derive_seed
from mapnet_cli.training.device import autocast
from mapnet_cli.vocabulary import PAD


@dataclass(frozen=True)
class StepPlan:
    """What one step needs beside the model and its data."""

    method: Method
    explore: bool
    """Masks are uniform in this step."""
    seed: int
    step: int
    micro_batch: int
    device: torch.device
    precision: str


def algorithm_1(model: PretrainingModel, tokens_BL: Tensor, noise: MaskNoise, plan: StepPlan) -> dict[str, Tensor]:
    """Adds the gradients of one step's losses to the parameters, and returns what to log, as sums over the batch.

    `tokens_BL` is the minibatch of line 3, on the CPU; lines 4 to 6 follow, on micro-batches whose
    gradients add up. The optimiser's step is the caller's.
    """
    method = plan.method
    maskable_BL = sampling.maskable_positions(tokens_BL)
    counts_B = sampling.mask_counts(maskable_BL, method.mask_rate, noise.rounding_B)
    total_masked = max(int(counts_B.sum()), 1)
    sums: dict[str, Tensor] = {}
    for start in range(0, len(tokens_BL), plan.micro_batch):
        rows = slice(start, start + plan.micro_batch)
        attend_BL = attention_mask(tokens_BL[rows], PAD)
        part = _Part(
            tokens_BL[rows].to(plan.device, non_blocking=True),
            None if attend_BL is None else attend_BL.to(plan.device, non_blocking=True),
            maskable_BL[rows].to(plan.device, non_blocking=True),
            counts_B[rows].to(plan.device, non_blocking=True),
            noise.part(rows, plan.device),
        )
        with autocast(plan.device, plan.precision):
            loss, logged = _losses(model, part, plan, total_masked, len(tokens_BL), start)
        torch.autograd.backward(loss)
        for name, value in logged.items():
            sums[name] = sums[name] + value if name in sums and name != "largest_q" else value
    return sums


@dataclass(frozen=True)
class _Part:
    """A micro-batch on its device."""

    tokens_BL: Tensor
    attend_BL: Tensor | None
    maskable_BL: Tensor
    counts_B: Tensor
    noise: MaskNoise


def _losses(
    model: PretrainingModel, part: _Part, plan: StepPlan, total_masked: int, batch: int, start: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns the loss to differentiate and the sums to log: lines 4 to 6 of Algorithm 1."""
    method = plan.method
    learns = method.objective != "none" and (method.learn_on_uniform_steps or not plan.explore)

    # Line 4: MAP-Net reads the whole sentence and proposes; the masks are drawn.
    log_q_BL = None
    if learns or (STRATEGIES[method.strategy].needs_proposal and not plan.explore):
        torch.manual_seed(derive_seed(plan.seed, "proposal dropout", plan.step, start))
        log_q_BL = model.propose(part.tokens_BL, part.attend_BL, part.maskable_BL)
    strategy = STRATEGIES["uniform" if plan.explore else method.strategy]
    largest = sampling.largest_count(part.tokens_BL.shape[1], method.mask_rate)
    proposed_BL = None if log_q_BL is None else log_q_BL.detach()
    masks = strategy.draw(
        MaskRequest(part.tokens_BL, part.maskable_BL, part.counts_B, largest, part.noise.order_BL, proposed_BL)
    )
    corrupted_BL = sampling.corrupt(
        part.tokens_BL, masks, part.noise, model.encoder.vocab_size, method.replace_mask, method.replace_random
    )

    # Line 5: the encoder restores the masked tokens; each sequence's loss carries its importance weight (Eq. 5).
    torch.manual_seed(derive_seed(plan.seed, "encoder dropout", plan.step, start))
    logits_NV = model.token_logits(corrupted_BL, part.attend_BL, masks.positions_BK, masks.valid_BK)
    targets_BK = part.tokens_BL.gather(1, masks.positions_BK)
    loss_BK = torch.zeros_like(targets_BK, dtype=torch.float32)
    token_loss_N = F.cross_entropy(logits_NV.float(), targets_BK[masks.valid_BK], reduction="none")
    loss_BK = loss_BK.masked_scatter(masks.valid_BK, token_loss_N)
    drawn_log_q_BK = None if log_q_BL is None else log_q_BL.gather(1, masks.positions_BK)
    weights = _importance(method, plan.explore, proposed_BL, masks, part.maskable_BL)
    encoder_loss = objectives.encoder_loss(loss_BK, masks.valid_BK, weights.weight_B, total_masked)

    # Line 6: MAP-Net learns which positions were hard (Eq. 10); lambda joins the two losses.
    loss = encoder_loss
    logged = {"loss": token_loss_N.detach().sum(), "masked": masks.valid_BK.sum(), "objective": encoder_loss.detach()}
    if learns:
        assert drawn_log_q_BK is not None
        mapnet_loss = OBJECTIVES[method.objective](drawn_log_q_BK, loss_BK, masks.valid_BK).sum() / batch
        if method.loss_weight_on == "encoder":
            loss = mapnet_loss + method.loss_weight * encoder_loss
        else:
            loss = encoder_loss + method.loss_weight * mapnet_loss
        logged["mapnet_loss"] = mapnet_loss.detach()
    if proposed_BL is not None:
        logged |= _proposal_health(proposed_BL, part.maskable_BL)
    if not plan.explore and method.estimator != "none":
        logged |= _weight_health(weights)
    return loss, logged


def _importance(
    method: Method, explore: bool, log_q_BL: Tensor | None, masks: sampling.Masks, maskable_BL: Tensor
) -> Weights:
    """Returns the importance weights; on a uniform step every weight is exactly 1."""
    estimator = ESTIMATORS["none" if explore else method.estimator]
    log_q_BL = sampling.uniform_log_q(maskable_BL) if log_q_BL is None else log_q_BL
    drawn = Drawn(log_q_BL.gather(1, masks.positions_BK), masks.valid_BK, maskable_BL.sum(dim=1))
    return estimator(drawn, method.ratio_clip)


def _proposal_health(log_q_BL: Tensor, maskable_BL: Tensor) -> dict[str, Tensor]:
    """Returns entropy, KL to uniform (nats, summed over sequences) and the largest probability."""
    q_BL = log_q_BL.exp()
    entropy_B = -(q_BL * log_q_BL.masked_fill(~maskable_BL, 0.0)).sum(dim=1)
    log_n_B = torch.log(maskable_BL.sum(dim=1).clamp(min=1).float())
    return {
        "proposals": maskable_BL.any(dim=1).sum(),
        "entropy": entropy_B.sum(),
        "kl_to_uniform": (log_n_B - entropy_B).sum(),
        "largest_q": q_BL.max(),
    }


def _weight_health(weights: importance.Weights) -> dict[str, Tensor]:
    return {
        "weighted": torch.ones_like(weights.weight_B).sum(),
        "clipped": weights.clipped_B.sum(),
        "weight": weights.weight_B.sum(),
        "weight_squared": (weights.weight_B**2).sum(),
    }
