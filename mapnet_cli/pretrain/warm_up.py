"""Compiling ahead: every variant of the networks that training can meet runs once before the first step."""

from dataclasses import replace

from mapnet_cli.masking.strategies import STRATEGIES
from mapnet_cli.model.token_table import TokenTable
from mapnet_cli.pretrain.batches import sample_batch
from mapnet_cli.pretrain.step import Losses, StepPlan, algorithm_1


def warm_up(losses: Losses, size: int, length: int) -> None:
    """Runs full and padded micro-batches, MAP-Net learning, proposing and resting, and drops the gradients.

    Call it before DDP wraps the losses: its hooks would count these gradients. Nothing random is left
    behind, since every step seeds its own dropout.
    """
    method = losses.method
    rests = StepPlan(0, 0, True, learns=False, proposes=False, reuses=False, mask_rate=method.highest_rate)
    plans = [rests]
    if STRATEGIES[method.strategy].proposal in ("network", "table"):
        plans.append(replace(rests, learns=True))
    sometimes = method.learn_every > 1 or method.propose_every > 1 or not method.learn_on_uniform_steps
    kind = STRATEGIES[method.strategy].proposal
    if kind == "frequency" or (kind and sometimes):
        plans.append(replace(rests, proposes=True))
    for padded in (False, True):
        batch = sample_batch(size, length, method.highest_rate, every_slot=True, padded=padded)
        for plan in plans:
            algorithm_1(losses, batch, plan, losses.device, {})
    losses.zero_grad(set_to_none=True)
    if isinstance(losses.model.proposal, TokenTable):
        losses.model.proposal.fresh_2V.zero_()
