"""Compiling ahead: every variant of the networks that training can meet runs once before the first step."""

from dataclasses import replace

import torch
from torch.nn.parallel import DistributedDataParallel

from mapnet_cli.config import Method
from mapnet_cli.masking.sampling import MaskNoise
from mapnet_cli.masking.strategies import STRATEGIES
from mapnet_cli.pretrain.batches import BatchMaker, split_batch
from mapnet_cli.pretrain.step import JointLosses, StepPlan, algorithm_1
from mapnet_cli.vocabulary import CLS, FIRST_ORDINARY, PAD


def warm_up(
    losses: JointLosses | DistributedDataParallel, make: BatchMaker, method: Method, device: torch.device
) -> None:
    """Runs full and padded micro-batches, MAP-Net learning, proposing and resting, and drops the gradients.

    Nothing random is left behind: every step seeds its own dropout.
    """
    inner = losses.module if isinstance(losses, DistributedDataParallel) else losses
    size = make.pretrain.micro_batch_size or make.pretrain.batch_size // make.world.size
    proposes = STRATEGIES[method.strategy].needs_proposal
    plans = [StepPlan(0, 0, explore=True, learns=False, proposes=False, reuses=False)]
    if method.objective != "none":
        plans.append(replace(plans[0], learns=True))
    if proposes and (method.learn_every > 1 or method.propose_every > 1 or not method.learn_on_uniform_steps):
        plans.append(replace(plans[0], proposes=True))
    for padded in (False, True):
        tokens_BL = torch.full((size, make.block_length), FIRST_ORDINARY)
        tokens_BL[:, 0] = CLS
        if padded:
            tokens_BL[:, -1] = PAD
        noise = MaskNoise.draw(torch.Generator().manual_seed(0), *tokens_BL.shape)
        batch = split_batch(0, tokens_BL, noise, method.mask_rate, size, every_slot=True)
        for plan in plans:
            algorithm_1(inner, batch, plan, device, {})
    inner.model.zero_grad(set_to_none=True)
