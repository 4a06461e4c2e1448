"""The pretraining loop for every method and any number of processes. Algorithm 1 is in `step.py`."""

import time
from dataclasses import replace
from functools import partial

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mapnet_cli.config import FrequencyProposal
from mapnet_cli.jobs import Progress, ProgressCallback
from mapnet_cli.masking import ProposalWork, StepPlan, plan_step
from mapnet_cli.model import TokenTable
from mapnet_cli.pretrain.batches import BatchMaker, sample_batch
from mapnet_cli.pretrain.electra import build_losses
from mapnet_cli.pretrain.monitor import monitored
from mapnet_cli.pretrain.sampler import ResumableSampler
from mapnet_cli.pretrain.segments import segments
from mapnet_cli.pretrain.state import TrainState
from mapnet_cli.pretrain.step import Algorithm1, Losses, update_table
from mapnet_cli.training import gradient_norm, learning_rate, set_learning_rate


def train(state: TrainState, progress: ProgressCallback) -> None:
    """Trains to the last step; writes milestones, a log, resume checkpoints. Raises DivergedError and Interrupted."""
    pretrain, method = state.config.pretrain, state.method
    parts = segments(pretrain)
    manifest, sources = state.corpus.manifest, state.config.corpus.sources
    counts, weights = [source.train_sequences for source in manifest.sources], [source.weight for source in sources]
    make = BatchMaker(
        state.corpus.train, ResumableSampler(counts, pretrain.batch_size, state.seed, weights), method, pretrain,
        state.seed, state.dist, pin=state.device.type == "cuda", block_length=manifest.block_length,
        fixed=pretrain.compile, context=state.context,
    )  # fmt: skip
    losses = build_losses(state.model.train(), method, state.device, pretrain.precision, state.dist.size)
    if pretrain.compile:
        progress(Progress(state.place, parts[-1].end, "compiling"))
        losses.compile_networks()
        compile_ahead(losses, make.micro, manifest.block_length)
    algorithm1 = Algorithm1(*distributed(losses, state))
    own_clip_norm = method.mapnet.clip_norm if method.mapnet else 0.0

    with monitored(state, progress, parts) as monitor:
        for part in parts:
            if state.place >= part.end:
                continue
            stable, total = part.decay
            with monitor.segment(part):
                while state.step < part.last:
                    start = time.monotonic()
                    batch = make(state.step)
                    waited = time.monotonic() - start
                    plan = plan_step(method, state.seed, state.step, pretrain.steps)

                    state.optimizer.zero_grad(set_to_none=True)
                    sums = algorithm1(batch, plan)
                    norm = gradient_norm(state.model, pretrain.clip_norm, state.model.proposal, own_clip_norm)
                    lr = learning_rate(state.step, pretrain.peak_lr, pretrain.warmup_steps, total, stable)
                    set_learning_rate(state.optimizer, lr)
                    state.optimizer.step()
                    if plan.learns:
                        update_table(state.model, method, plan, state.dist)

                    state.step += 1
                    monitor.after_step(batch, plan, sums, norm, lr, waited)


def distributed(losses: nn.Module, state: TrainState) -> tuple[nn.Module, torch.device, nn.Module | None]:
    """Returns the arguments of Algorithm1; the losses are wrapped in DDP if there are several processes.

    If MAP-Net doesn't learn in every step, there are two wrappings, one for steps without it: DDP could look for unused
    parameters itself, but in each step the host would wait for the GPU to find out what the other processes used.
    """
    device, mapnet, proposal = state.device, state.method.mapnet, state.model.proposal
    if state.dist.size == 1:
        return losses, device, None
    wrap = partial(
        DistributedDataParallel, losses, device_ids=[device.index] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
    )  # fmt: skip
    whole = wrap()
    if not mapnet or (mapnet.learn_on_uniform_steps and mapnet.learn_every == mapnet.propose_every == 1):
        return whole, device, None
    assert proposal is not None
    # a wrapping manages the parameters that require a gradient when it is made
    proposal.requires_grad_(False)
    resting = wrap()
    proposal.requires_grad_(True)
    return whole, device, resting


def compile_ahead(losses: Losses, size: int, length: int) -> None:
    """Compiles every variant that training can need: full and padded batches; MAP-Net learning, proposing, resting.

    Call it before DDP wraps the losses, since DDP's hooks would count these gradients. The random state doesn't
    matter, since every step seeds its own dropout.
    """
    method = losses.method
    mapnet, learned = method.mapnet, method.learned
    rests = StepPlan(0, 0, True, ProposalWork.REST, method.highest_rate)
    plans = [rests]
    if learned:
        plans.append(replace(rests, proposal=ProposalWork.LEARN))
    sometimes = learned and not learned.learn_on_uniform_steps
    sometimes = sometimes or (mapnet and (mapnet.learn_every > 1 or mapnet.propose_every > 1))
    if isinstance(method.proposal, FrequencyProposal) or sometimes:
        plans.append(replace(rests, proposal=ProposalWork.PROPOSE))
    for padded in (False, True):
        batch = sample_batch(size, length, method.highest_rate, every_slot=True, with_padding=padded)
        for plan in plans:
            Algorithm1(losses, losses.device)(batch, plan)
    losses.zero_grad(set_to_none=True)
    if isinstance(losses.model.proposal, TokenTable):
        losses.model.proposal.fresh_2V.zero_()
