"""The pretraining loop: one for every method and any number of processes. Algorithm 1 is in `step.py`."""

import time

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mapnet_cli.jobs.job import Progress, Report
from mapnet_cli.masking.strategies import STRATEGIES
from mapnet_cli.model.factory import word_starts
from mapnet_cli.pretrain.batches import BatchMaker, prefetching
from mapnet_cli.pretrain.electra import build_losses
from mapnet_cli.pretrain.monitor import Books
from mapnet_cli.pretrain.sampler import DataOrder
from mapnet_cli.pretrain.state import Run
from mapnet_cli.pretrain.step import Proposals, algorithm_1, plan_step, update_table
from mapnet_cli.pretrain.warm_up import warm_up
from mapnet_cli.text.shards import Sequences
from mapnet_cli.training.optim import gradient_norm, learning_rate, set_learning_rate


def train(run: Run, report: Report) -> None:
    """Trains from where `run` stands to the last step, leaving milestones, a log and resume checkpoints.

    Raises DivergedError and Interrupted, see `Books.after_step`.
    """
    pretrain, method = run.config.pretrain, run.method
    last = max(pretrain.milestone_steps())
    make = batch_maker(run)
    losses = build_losses(run.model.train(), method, run.device, pretrain.precision, run.world.size)
    if pretrain.compile:
        report(Progress(run.step, last, "compiling"))
        losses.compile_networks()
        warm_up(losses, make.micro, run.manifest.block_length)
    together = joined_with_others(losses, run)
    kept: Proposals = {}

    with prefetching(make, run.step, last) as next_batch, Books(run, report, last) as books:
        while run.step < last:
            asked = time.monotonic()
            batch = next_batch()
            waited = time.monotonic() - asked
            plan = plan_step(method, run.seed, run.step, pretrain.steps)

            run.optimizer.zero_grad(set_to_none=True)
            sums = algorithm_1(together, batch, plan, run.device, kept)
            norm = gradient_norm(run.model, pretrain.clip_norm, run.model.proposal, method.proposal_clip_norm)
            lr = learning_rate(run.step, pretrain.peak_lr, pretrain.warmup_steps, pretrain.steps)
            set_learning_rate(run.optimizer, lr)
            run.optimizer.step()
            if plan.learns:
                update_table(run.model, method, run.world)

            run.step += 1
            books.after_step(batch, plan, sums, norm, lr, waited)


def batch_maker(run: Run) -> BatchMaker:
    """Returns what makes this process's batches, of one shape if they go to compiled networks."""
    sequences = Sequences([run.artifacts.path(name) for name in run.manifest.train])
    pretrain, manifest, starts_V = run.config.pretrain, run.manifest, None
    if STRATEGIES[run.method.strategy].reads_words:
        starts_V = word_starts(run.artifacts.path(manifest.tokenizer), manifest.vocab_size)
    weights = [source.weight for source in run.config.corpus.sources]
    counts = [source.train_sequences for source in manifest.sources]
    order = DataOrder(counts, pretrain.batch_size, run.seed, weights)
    return BatchMaker(
        sequences, order, run.method, pretrain, run.seed, run.world,
        pin=run.device.type == "cuda", block_length=manifest.block_length, fixed=pretrain.compile,
        word_starts_V=starts_V,
    )  # fmt: skip


def joined_with_others(losses: nn.Module, run: Run) -> nn.Module:
    """Returns the losses so wrapped that their gradients meet those of the other processes."""
    method = run.method
    if run.world.size == 1:
        return losses
    # Where MAP-Net rests in some steps, DDP has to ask in each which parameters took part: a wait on a GPU.
    always = method.learn_on_uniform_steps and method.learn_every == method.propose_every == 1
    return DistributedDataParallel(
        losses,
        device_ids=[run.device.index] if run.device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        find_unused_parameters=method.has_network and not always,
    )
