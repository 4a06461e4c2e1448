"""The pretraining loop: one for every method and any number of processes. Algorithm 1 is in `step.py`."""

import time

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mapnet_cli.jobs.job import Progress, ProgressCallback
from mapnet_cli.masking.strategies import STRATEGIES
from mapnet_cli.model.factory import word_starts
from mapnet_cli.pretrain.batches import BatchMaker, prefetching
from mapnet_cli.pretrain.electra import build_losses
from mapnet_cli.pretrain.monitor import TrainingMonitor
from mapnet_cli.pretrain.sampler import ResumableSampler
from mapnet_cli.pretrain.state import TrainState
from mapnet_cli.pretrain.step import Proposals, algorithm_1, plan_step, update_table
from mapnet_cli.pretrain.warm_up import warm_up
from mapnet_cli.text.shards import Sequences
from mapnet_cli.training.optim import gradient_norm, learning_rate, set_learning_rate


def train(state: TrainState, progress: ProgressCallback) -> None:
    """Trains from where `state` stands to the last step, leaving milestones, a log and resume checkpoints.

    Raises DivergedError and Interrupted, see `TrainingMonitor.after_step`.
    """
    pretrain, method = state.config.pretrain, state.method
    last = max(pretrain.milestone_steps())
    make = batch_maker(state)
    losses = build_losses(state.model.train(), method, state.device, pretrain.precision, state.world.size)
    if pretrain.compile:
        progress(Progress(state.step, last, "compiling"))
        losses.compile_networks()
        warm_up(losses, make.micro, state.manifest.block_length)
    together = joined_with_others(losses, state)
    kept: Proposals = {}

    with prefetching(make, state.step, last) as next_batch, TrainingMonitor(state, progress, last) as books:
        while state.step < last:
            asked = time.monotonic()
            batch = next_batch()
            waited = time.monotonic() - asked
            plan = plan_step(method, state.seed, state.step, pretrain.steps)

            state.optimizer.zero_grad(set_to_none=True)
            sums = algorithm_1(together, batch, plan, state.device, kept)
            norm = gradient_norm(state.model, pretrain.clip_norm, state.model.proposal, method.proposal_clip_norm)
            lr = learning_rate(state.step, pretrain.peak_lr, pretrain.warmup_steps, pretrain.steps)
            set_learning_rate(state.optimizer, lr)
            state.optimizer.step()
            if plan.learns:
                update_table(state.model, method, state.world)

            state.step += 1
            books.after_step(batch, plan, sums, norm, lr, waited)


def batch_maker(state: TrainState) -> BatchMaker:
    """Returns what makes this process's batches, of one shape if they go to compiled networks."""
    sequences = Sequences([state.artifacts.path(name) for name in state.manifest.train])
    pretrain, manifest, starts_V = state.config.pretrain, state.manifest, None
    if STRATEGIES[state.method.strategy].reads_words:
        starts_V = word_starts(state.artifacts.path(manifest.tokenizer), manifest.vocab_size)
    weights = [source.weight for source in state.config.corpus.sources]
    counts = [source.train_sequences for source in manifest.sources]
    order = ResumableSampler(counts, pretrain.batch_size, state.seed, weights)
    return BatchMaker(
        sequences, order, state.method, pretrain, state.seed, state.world,
        pin=state.device.type == "cuda", block_length=manifest.block_length, fixed=pretrain.compile,
        word_starts_V=starts_V,
    )  # fmt: skip


def joined_with_others(losses: nn.Module, state: TrainState) -> nn.Module:
    """Returns the losses so wrapped that their gradients meet those of the other processes."""
    method = state.method
    if state.world.size == 1:
        return losses
    # Where MAP-Net rests in some steps, DDP has to ask in each which parameters took part: a wait on a GPU.
    always = method.learn_on_uniform_steps and method.learn_every == method.propose_every == 1
    return DistributedDataParallel(
        losses,
        device_ids=[state.device.index] if state.device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        find_unused_parameters=method.has_network and not always,
    )
