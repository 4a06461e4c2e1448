"""Algorithm 1 of the paper: one step of joint training.

Shapes: B sequences, L positions, K masked positions per sequence, N masked positions per
micro-batch, V vocabulary.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mapnet_cli import masking
from mapnet_cli.config import Method, TableProposal
from mapnet_cli.core import derive_seed
from mapnet_cli.jobs import DistContext
from mapnet_cli.masking import objectives, sampling
from mapnet_cli.model import AnyPretrainingModel, PretrainingModel, TokenTable
from mapnet_cli.pretrain.batches import Batch, MicroBatch
from mapnet_cli.text import MASK
from mapnet_cli.training import Work, autocast

MAXIMA = ("largest_q", "gradient_norm_max", "bad")
"""Values that are aggregated by their maximum; all others are summed."""


class Algorithm1:
    """Algorithm 1 of the paper, lines 3 to 6: one call accumulates the gradients of one step.

    `losses` is a `Losses` module, possibly wrapped in DDP; `resting`, if given, replaces it in steps in which MAP-Net
    doesn't learn. Proposals are kept between steps if MAP-Net doesn't read every batch (`propose_every`).
    """

    def __init__(self, losses: nn.Module, device: torch.device, resting: nn.Module | None = None) -> None:
        self._losses = losses
        self._resting = losses if resting is None else resting
        self._device = device
        self._proposals: dict[int, Tensor] = {}
        """log q [B, L] of each micro-batch, by the index of its first sequence."""

    def __call__(self, batch: Batch, plan: masking.StepPlan) -> dict[str, Tensor]:
        """Accumulates gradients in the parameters and returns the values to log, as sums over the batch.

        `batch` is the minibatch of line 3. Lines 4 to 6 run on its micro-batches, whose gradients add up and
        which may be shared among processes. The caller runs the optimiser step.
        """
        sums: dict[str, Tensor] = {}
        if not plan.reuses:
            self._proposals.clear()
        losses = self._losses if plan.learns else self._resting
        # autocast keeps its copies of the weights until the outermost context ends: all micro-batches share them
        with torch.autocast(self._device.type, enabled=False):
            for part in batch.parts:
                last = part is batch.parts[-1]
                # DDP all-reduces gradients with the last micro-batch only
                with losses.no_sync() if isinstance(losses, DistributedDataParallel) and not last else nullcontext():
                    loss, logged, log_q_BL = losses(part.to(self._device), plan, self._proposals.get(part.first))
                    torch.autograd.backward(loss)
                if log_q_BL is not None:
                    self._proposals[part.first] = log_q_BL
                add_up(sums, logged)
        return sums


def work_of(plan: masking.StepPlan) -> Work:
    """Returns the work that a step's plan implies. MAP-Net's backward pass costs two forward passes."""
    return Work(plan.mask_rate, 3 if plan.learns else 1 if plan.proposes else 0)


def update_table(model: AnyPretrainingModel, method: Method, plan: masking.StepPlan, dist: DistContext) -> None:
    """Updates a token table with all processes' observations of this step; does nothing for other methods."""
    table, settings = model.proposal, method.proposal
    if isinstance(table, TokenTable) and isinstance(settings, TableProposal):
        fresh_2V, every = dist.all_reduce_sum_(table.fresh_2V), settings.update_every
        if every:
            table.adapt(fresh_2V, (plan.step + 1) % every == 0, plan.mask_rate, settings.signal == "loss")
        else:
            table.learn(fresh_2V, settings.memory)


def add_up(sums: dict[str, Tensor], more: dict[str, Tensor]) -> None:
    """Adds values to `sums` by name, in place; takes the maximum for names in MAXIMA."""
    for name, value in more.items():
        if name not in sums:
            sums[name] = value
        else:
            sums[name] = torch.maximum(sums[name], value) if name in MAXIMA else sums[name] + value


class Losses(nn.Module):
    """The losses of one micro-batch. A module, so that DDP can wrap it."""

    model: AnyPretrainingModel
    networks: ClassVar[tuple[str, str]]  # the model's methods that `forward` calls, as attributes of its own

    def __init__(
        self, model: AnyPretrainingModel, method: Method, device: torch.device, precision: str, processes: int = 1
    ) -> None:
        super().__init__()
        self.model, self.method = model, method
        self.device, self.precision, self.processes = device, precision, processes
        for name in self.networks:
            setattr(self, name, getattr(model, name))

    def compile_networks(self) -> None:
        """Compiles the two networks, but not the operations between them."""
        for name in self.networks:
            setattr(self, name, torch.compile(getattr(self.model, name), dynamic=False, fullgraph=True))


class JointLosses(Losses):
    """The losses of lines 4 to 6 of Algorithm 1."""

    model: PretrainingModel
    networks = ("propose", "token_losses")
    propose: Callable[..., Tensor]
    token_losses: Callable[..., tuple[Tensor, Tensor]]

    def forward(
        self, part: MicroBatch, plan: masking.StepPlan, kept_BL: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor], Tensor | None]:
        """Returns the loss to differentiate, the sums to log, and log q [B, L] without gradient (None: no proposal)."""
        method, drawing, mapnet = self.method, self.method.drawing, self.method.mapnet

        # Line 4: MAP-Net reads the unmasked sentence and proposes masks, which are then sampled.
        log_q_BL = self._propose(part, plan) if plan.learns or plan.proposes else kept_BL
        proposed_BL = None if log_q_BL is None else log_q_BL.detach()
        masks = masks_of(part, plan, method, proposed_BL)
        corrupted_BL = sampling.corrupt(
            part.tokens_BL, masks, part.noise, self.model.encoder.vocab_size, method.replace_mask, method.replace_random
        )

        # Line 5: the encoder predicts the masked tokens, with importance-weighted losses (Eq. 5).
        targets_BK = part.tokens_BL.gather(1, masks.positions_BK)
        signal = method.learned.signal if plan.learns and method.learned else "loss"
        torch.manual_seed(derive_seed(plan.seed, "encoder dropout", plan.step, part.first))
        with autocast(self.device, self.precision):
            loss_BK, signal_BK = self.token_losses(
                corrupted_BL, part.attention_mask_BL, masks.positions_BK, targets_BK, part.slots_N, signal
            )
        loss_BK = torch.where(masks.valid_BK, loss_BK, 0.0)
        estimator = masking.ESTIMATORS["none" if plan.explore else drawing.estimator]
        weights = estimator(masking.Drawn.of(masks, part.maskable_BL.sum(dim=1)), drawing.ratio_clip)
        proposed_BK = masks.valid_BK
        if part.explore_B is not None:
            proposed_BK = masks.valid_BK & ~part.explore_B[:, None]
            weights = masking.Weights(
                torch.where(proposed_BK, weights.weight_BK, 1.0), weights.clipped_BK & proposed_BK
            )
        encoder_loss = objectives.encoder_loss(loss_BK, masks.valid_BK, weights.weight_BK, part.all_masked)
        logged = {"loss": loss_BK.detach().sum(), "masked": part.counts_B.sum(), "objective": encoder_loss.detach()}

        # Line 6: MAP-Net learns which positions are hard (Eq. 10); lambda weights the two losses.
        loss = encoder_loss
        learned_BK = proposed_BK if method.learned and not method.learned.learn_on_uniform_steps else masks.valid_BK
        if method.learned and method.learned.signal_at == "mask":
            learned_BK = learned_BK & (corrupted_BL.gather(1, masks.positions_BK) == MASK)
        if plan.learns and mapnet:
            assert log_q_BL is not None
            mapnet_loss_B = objectives.mapnet_loss(mapnet, log_q_BL, part.maskable_BL, masks, signal_BK, learned_BK)
            mapnet_loss = mapnet_loss_B.sum() / part.all_sequences
            if mapnet.loss_weight_on == "encoder":
                loss = mapnet_loss + mapnet.loss_weight * encoder_loss
            else:
                loss = encoder_loss + mapnet.loss_weight * mapnet_loss
            logged["mapnet_loss"] = mapnet_loss.detach()
        if plan.learns and isinstance(self.model.proposal, TokenTable):
            self.model.proposal.observe(targets_BK, signal_BK, learned_BK)
        if proposed_BL is not None:
            drawn_from_BL = sampling.mixed_with_uniform(proposed_BL, part.maskable_BL, drawing.uniform_mix)
            logged |= _proposal_health(drawn_from_BL, part.maskable_BL)
        if not plan.explore and drawing.estimator != "none":
            logged |= _weight_health(weights, proposed_BK)
        # DDP averages gradients over processes, but each loss is only its process's share of a sum
        return loss * self.processes, logged, proposed_BL

    def _propose(self, part: MicroBatch, plan: masking.StepPlan) -> Tensor:
        torch.manual_seed(derive_seed(plan.seed, "proposal dropout", plan.step, part.first))
        if plan.learns:
            with autocast(self.device, self.precision):
                return self.propose(part.tokens_BL, part.attention_mask_BL, part.maskable_BL)
        assert self.model.proposal is not None
        self.model.proposal.eval()
        own = self.method.mapnet.precision if self.method.mapnet else "auto"
        precision = self.precision if own == "auto" else own
        with torch.no_grad(), autocast(self.device, precision):
            log_q_BL = self.propose(part.tokens_BL, part.attention_mask_BL, part.maskable_BL)
        self.model.proposal.train()
        return log_q_BL


def masks_of(part: MicroBatch, plan: masking.StepPlan, method: Method, log_q_BL: Tensor | None = None) -> masking.Masks:
    """Returns the masks of a micro-batch: uniform in exploration steps and sentences, else the strategy's."""
    request = masking.MaskRequest(
        part.tokens_BL, part.maskable_BL, part.counts_B, part.max_masks, part.noise.order_BL, log_q_BL,
        method.drawing.sampler, method.drawing.uniform_mix, part.visit_B, part.unit_starts_BL,
    )  # fmt: skip
    masks = masking.STRATEGIES["uniform" if plan.explore else method.strategy].draw(request)
    return masks if part.explore_B is None else sampling.mixed(part.explore_B, masking.uniform(request), masks)


def _proposal_health(log_q_BL: Tensor, maskable_BL: Tensor) -> dict[str, Tensor]:
    """Returns entropy and KL to uniform (nats, summed over sequences), and the largest probability."""
    entropy_B = objectives.entropy(log_q_BL, maskable_BL)
    log_n_B = torch.log(maskable_BL.sum(dim=1).clamp(min=1).float())
    return {
        "proposals": maskable_BL.any(dim=1).sum(),
        "entropy": entropy_B.sum(),
        "kl_to_uniform": (log_n_B - entropy_B).sum(),
        "largest_q": log_q_BL.max().exp(),
    }


def _weight_health(weights: masking.Weights, valid_BK: Tensor) -> dict[str, Tensor]:
    weight_BK = torch.where(valid_BK, weights.weight_BK, 0.0)
    return {
        "weighted": valid_BK.sum(),
        "clipped": weights.clipped_BK.sum(),
        "weight": weight_BK.sum(),
        "weight_squared": (weight_BK**2).sum(),
    }
