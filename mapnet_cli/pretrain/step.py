"""Algorithm 1 of the paper: one step of joint training.

Shapes: B sequences, L positions, K masked positions of a sequence, N masked positions of a
micro-batch, V vocabulary.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mapnet_cli.config import Method
from mapnet_cli.core.seeds import derive_seed
from mapnet_cli.jobs.distributed import DistContext
from mapnet_cli.masking import objectives, sampling
from mapnet_cli.masking.importance import ESTIMATORS, Drawn, Weights
from mapnet_cli.masking.objectives import OBJECTIVES
from mapnet_cli.masking.schedule import is_exploration_step
from mapnet_cli.masking.strategies import STRATEGIES, MaskRequest
from mapnet_cli.model.masked_lm import PretrainingModel
from mapnet_cli.model.networks import AnyPretrainingModel
from mapnet_cli.model.token_table import TokenTable
from mapnet_cli.pretrain.batches import Batch, MicroBatch
from mapnet_cli.training.device import autocast
from mapnet_cli.training.flops import Work

GREATEST = ("largest_q", "gradient_norm_max", "bad")
"""Of these the log has the largest; everything else is summed."""

Prepare = Callable[[Callable[..., Any]], Callable[..., Any]]
"""What is done to a network before its use: nothing, or torch.compile."""

Proposals = dict[int, Tensor]
"""log q [B, L] of each micro-batch, by its first sequence: what `propose_every` keeps between steps."""


@dataclass(frozen=True)
class StepPlan:
    """What one step does: a function of (method, seed, step), the same in every process."""

    seed: int
    step: int
    explore: bool
    """Masks are uniform in this step."""
    learns: bool
    """MAP-Net, or a table in its place, reads the sentences and learns."""
    proposes: bool
    """It reads the sentences and only proposes, for this step or those that reuse it."""
    reuses: bool
    """The proposal of an earlier step still holds: the sentences are the same."""
    mask_rate: float

    @property
    def work(self) -> Work:
        """What it costs depends on."""
        return Work(self.mask_rate, self.proposal_passes, self.learns)

    @property
    def proposal_passes(self) -> int:
        """MAP-Net's work in this step, in forward passes: a backward pass costs two."""
        return 3 if self.learns else 1 if self.proposes else 0


def plan_step(method: Method, seed: int, step: int, steps: int) -> StepPlan:
    """Returns what step number `step` of `steps` does."""
    proposal = STRATEGIES[method.strategy].proposal
    coin = proposal != "" and is_exploration_step(method, seed, step, steps)
    explore = coin or method.strategy == "uniform"
    fresh = step % method.propose_every == 0
    learns = fresh and proposal in ("network", "table") and step % method.learn_every == 0
    learns = learns and (method.learn_on_uniform_steps or not explore)
    wanted = proposal != "" and not all(
        is_exploration_step(method, seed, later, steps) for later in range(step, step + method.propose_every)
    )
    rate = method.rate_at(step, steps)
    return StepPlan(seed, step, explore, learns, fresh and wanted and not learns, not fresh, rate)


def algorithm_1(
    losses: nn.Module, batch: Batch, plan: StepPlan, device: torch.device, kept: Proposals
) -> dict[str, Tensor]:
    """Adds the gradients of one step's losses to the parameters, and returns what to log, as sums over the batch.

    `batch` is the minibatch of line 3; lines 4 to 6 follow, on micro-batches whose gradients add up,
    and which several processes share. The optimiser's step is the caller's. `kept` holds proposals
    from one step to the next where MAP-Net doesn't read every batch. `losses` are `Losses`, in DDP or not.
    """
    sums: dict[str, Tensor] = {}
    if not plan.reuses:
        kept.clear()
    for number, part in enumerate(batch.parts):
        with _meeting_others(losses, number + 1 == len(batch.parts)):
            loss, logged, log_q_BL = losses(part.to(device), plan, kept.get(part.first))
            torch.autograd.backward(loss)
        if log_q_BL is not None:
            kept[part.first] = log_q_BL
        add_up(sums, logged)
    return sums


def update_table(model: AnyPretrainingModel, method: Method, world: DistContext) -> None:
    """Takes up what all processes have seen of the tokens in this step, where a table proposes in MAP-Net's place."""
    if isinstance(model.proposal, TokenTable):
        model.proposal.learn(world.all_reduce_sum_(model.proposal.fresh_2V), method.table_memory)


def add_up(sums: dict[str, Tensor], more: dict[str, Tensor]) -> None:
    """Adds values to sums by name, in place; of GREATEST it keeps the larger."""
    for name, value in more.items():
        if name not in sums:
            sums[name] = value
        else:
            sums[name] = torch.maximum(sums[name], value) if name in GREATEST else sums[name] + value


def _meeting_others(losses: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Gradients meet the other processes' once a step, after the last micro-batch."""
    if isinstance(losses, DistributedDataParallel) and not last:
        return losses.no_sync()
    return nullcontext()


class Losses(nn.Module, ABC):
    """What a step differentiates, for one micro-batch. A module, so that DDP can wrap it."""

    model: AnyPretrainingModel

    def __init__(
        self, model: AnyPretrainingModel, method: Method, device: torch.device, precision: str, processes: int = 1
    ) -> None:
        super().__init__()
        self.model = model
        self.method = method
        self.device = device
        self.precision = precision
        self.processes = processes
        self.use_networks(lambda network: network)

    @abstractmethod
    def use_networks(self, prepare: Prepare) -> None:
        """Takes the model's two networks, each prepared, into use."""

    def compile_networks(self) -> None:
        """Compiles the two networks; what happens between them stays as it is."""
        self.use_networks(partial(torch.compile, dynamic=False, fullgraph=True))


class JointLosses(Losses):
    """Lines 4 to 6 of Algorithm 1."""

    model: PretrainingModel
    propose: Callable[..., Tensor]
    token_losses: Callable[..., tuple[Tensor, Tensor]]

    def use_networks(self, prepare: Prepare) -> None:
        self.propose = prepare(self.model.propose)
        self.token_losses = prepare(self.model.token_losses)

    def forward(
        self, part: MicroBatch, plan: StepPlan, kept_BL: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor], Tensor | None]:
        """Returns the loss to differentiate, the sums to log, and log q [B, L] without gradient (None: no proposal)."""
        method = self.method

        # Line 4: MAP-Net reads the whole sentence and proposes; the masks are drawn.
        log_q_BL = self._propose(part, plan) if plan.learns or plan.proposes else kept_BL
        proposed_BL = None if log_q_BL is None else log_q_BL.detach()
        strategy = STRATEGIES["uniform" if plan.explore else method.strategy]
        masks = strategy.draw(mask_request(part, method, proposed_BL))
        corrupted_BL = sampling.corrupt(
            part.tokens_BL, masks, part.noise, self.model.encoder.vocab_size, method.replace_mask, method.replace_random
        )

        # Line 5: the encoder restores the masked tokens; their losses carry importance weights (Eq. 5).
        targets_BK = part.tokens_BL.gather(1, masks.positions_BK)
        signal = method.signal if plan.learns else "loss"
        torch.manual_seed(derive_seed(plan.seed, "encoder dropout", plan.step, part.first))
        with autocast(self.device, self.precision):
            loss_BK, signal_BK = self.token_losses(
                corrupted_BL, part.attention_mask_BL, masks.positions_BK, targets_BK, part.slots_N, signal
            )
        loss_BK = torch.where(masks.valid_BK, loss_BK, 0.0)
        estimator = ESTIMATORS["none" if plan.explore else method.estimator]
        weights = estimator(Drawn.of(masks, part.maskable_BL.sum(dim=1)), method.ratio_clip)
        encoder_loss = objectives.encoder_loss(loss_BK, masks.valid_BK, weights.weight_BK, part.all_masked)
        logged = {"loss": loss_BK.detach().sum(), "masked": part.counts_B.sum(), "objective": encoder_loss.detach()}

        # Line 6: MAP-Net learns which positions were hard (Eq. 10); lambda joins the two losses.
        loss = encoder_loss
        if plan.learns and method.has_network:
            assert log_q_BL is not None
            drawn_log_q_BK = log_q_BL.gather(1, masks.positions_BK)
            mapnet_loss_B = OBJECTIVES[method.objective](drawn_log_q_BK, signal_BK, masks.valid_BK)
            mapnet_loss = mapnet_loss_B.sum() / part.all_sequences
            if method.loss_weight_on == "encoder":
                loss = mapnet_loss + method.loss_weight * encoder_loss
            else:
                loss = encoder_loss + method.loss_weight * mapnet_loss
            logged["mapnet_loss"] = mapnet_loss.detach()
        if plan.learns and isinstance(self.model.proposal, TokenTable):
            self.model.proposal.observe(targets_BK, signal_BK, masks.valid_BK)
        if proposed_BL is not None:
            drawn_from_BL = sampling.mixed_with_uniform(proposed_BL, part.maskable_BL, method.uniform_mix)
            logged |= _proposal_health(drawn_from_BL, part.maskable_BL)
        if not plan.explore and method.estimator != "none":
            logged |= _weight_health(weights, masks.valid_BK)
        # DDP averages the processes' gradients; each has its share of one sum
        return loss * self.processes, logged, proposed_BL

    def _propose(self, part: MicroBatch, plan: StepPlan) -> Tensor:
        torch.manual_seed(derive_seed(plan.seed, "proposal dropout", plan.step, part.first))
        if plan.learns:
            with autocast(self.device, self.precision):
                return self.propose(part.tokens_BL, part.attention_mask_BL, part.maskable_BL)
        assert self.model.proposal is not None
        self.model.proposal.eval()
        precision = self.precision if self.method.proposal_precision == "auto" else self.method.proposal_precision
        with torch.no_grad(), autocast(self.device, precision):
            log_q_BL = self.propose(part.tokens_BL, part.attention_mask_BL, part.maskable_BL)
        self.model.proposal.train()
        return log_q_BL


def mask_request(part: MicroBatch, method: Method, log_q_BL: Tensor | None = None) -> MaskRequest:
    """Returns what a strategy may look at in a micro-batch."""
    return MaskRequest(
        part.tokens_BL, part.maskable_BL, part.counts_B, part.max_masks, part.noise.order_BL, log_q_BL,
        method.sampler, method.uniform_mix, part.visit_B, part.word_starts_BL,
    )  # fmt: skip


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


def _weight_health(weights: Weights, valid_BK: Tensor) -> dict[str, Tensor]:
    weight_BK = torch.where(valid_BK, weights.weight_BK, 0.0)
    return {
        "weighted": valid_BK.sum(),
        "clipped": weights.clipped_BK.sum(),
        "weight": weight_BK.sum(),
        "weight_squared": (weight_BK**2).sum(),
    }
