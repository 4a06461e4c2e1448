"""Setup for measuring one checkpoint: model, gradients, preconditioner and held-out sentences.

Shapes: L positions of one sentence, P parameters, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from mapnet_cli.config import Config, Method
from mapnet_cli.core import Checkpoint, CorpusManifest, UsageError, derive_seed
from mapnet_cli.lineage import Lineage
from mapnet_cli.masking import STRATEGIES, CorpusFacts, MaskContext, maskable_positions
from mapnet_cli.model import PretrainingModel
from mapnet_cli.text import Sequences, open_shards
from mapnet_cli.training import choose_device
from mapnet_cli.variance.candidates import SEED, Candidate, load_model, mean_count, proposals, sentence_masks
from mapnet_cli.variance.gradients import Instrument, Projection, SentenceGradients, adam_scale, batch_mean_squares
from mapnet_cli.variance.positions import PositionFacts, oracle_log_q
from mapnet_cli.variance.results import NORMS
from mapnet_cli.variance.statistics import Samples

PER_TOKEN = ("encoder.tokens.weight", "head.bias")  # parameters with a separate entry for each token


@dataclass(frozen=True)
class Setup:
    config: Config
    corpus: CorpusFacts
    model: PretrainingModel
    instrument: Instrument
    sentences: tuple[Tensor, ...]  # tokens [L] of each sentence, on the CPU
    second_moments: str
    context: Callable[[str], MaskContext]  # returns what a strategy prepares from the corpus, prepared once

    def loaded(self, candidate: Candidate, facts: list[PositionFacts]) -> Candidate:
        """Returns the candidate with its proposal; an oracle's proposal is computed from `facts`."""
        if candidate.oracle:
            log_q = tuple(
                oracle_log_q(fact, candidate.oracle, maskable_positions(tokens_L))
                for fact, tokens_L in zip(facts, self.sentences, strict=True)
            )
        else:
            context, device = self.context(candidate.method.strategy), self.instrument.gradients.device
            log_q = proposals(candidate, self.config, self.corpus, context, self.sentences, device)
        return replace(candidate, log_q=log_q)

    def sample(self, candidate: Candidate, masks: int, visits: int, after_each: Callable[[], None]) -> Samples:
        """Returns the statistics of all gradients of one strategy."""
        vocab_size, context = self.corpus.vocab_size, self.context(candidate.method.strategy)
        count = mean_count(self.sentences, candidate.method.mask_rate)
        draws = (
            sentence_masks(candidate, number, tokens_L, masks, visits, vocab_size, count, context)
            for number, tokens_L in enumerate(self.sentences)
        )
        return self.instrument.sample(visits, draws, after_each)


def build_setup(lineage: Lineage, milestone: Checkpoint, plain: Method, sentences: int) -> Setup:
    """Returns the setup for a milestone. Raises UsageError, MissingResultError and DamagedError."""
    config, artifacts, row = lineage.config, lineage.artifacts, milestone
    artifacts.verify(lineage.manifest)
    corpus = CorpusFacts(artifacts, artifacts.read(lineage.manifest, CorpusManifest))
    device = choose_device(config.pretrain.device)
    if device.type == "cpu":
        torch.set_num_threads(config.pretrain.threads or torch.get_num_threads())
    model = load_model(config, artifacts, milestone, corpus.vocab_size, device)
    gradients = SentenceGradients(model)
    train = partial(_sentence, corpus.train)
    run = artifacts.path(lineage.pretraining(row.method, row.pretrain_seed).key)
    scale_P, second_moments = adam_scale(
        gradients, run, row.step, config.pretrain,
        lambda: batch_mean_squares(gradients, plain, train, config.pretrain.batch_size, corpus.vocab_size),
    )  # fmt: skip
    layers = {name: torch.full_like(p, name not in PER_TOKEN) for name, p in model.named_parameters()}
    scales = {"raw": None, "adam": scale_P, "adam-layers": scale_P * gradients.flatten(layers)}
    held_out = _held_out(open_shards(artifacts, corpus.manifest.validation), sentences)
    # a strategy and uniform masks each keep one mean gradient per sentence and norm
    project = Projection(gradients.size, 2 * len(NORMS) * sentences, SEED, device)
    instrument = Instrument(gradients, scales, project)
    context = cache(lambda strategy: STRATEGIES[strategy].prepare(corpus))
    return Setup(config, corpus, model, instrument, held_out, second_moments, context)


def _sentence(sequences: Sequences, number: int) -> Tensor:
    """Returns a random training sentence. The same number gives the same sentence."""
    generator = np.random.default_rng(derive_seed(SEED, "second moments' sentences", number))
    return torch.from_numpy(sequences[int(generator.integers(len(sequences)))].astype(np.int64))


def _held_out(sequences: Sequences, count: int) -> tuple[Tensor, ...]:
    """Returns `count` evenly spaced validation sequences among those with maskable positions."""
    tokens = (torch.from_numpy(sequences[n].astype(np.int64)) for n in range(len(sequences)))
    usable = [n for n, tokens_L in enumerate(tokens) if bool(maskable_positions(tokens_L).any())]
    if count > len(usable):
        raise UsageError(f"--sentences: {count} requested, but the validation set has only {len(usable)}")
    chosen = [usable[index] for index in np.linspace(0, len(usable) - 1, count).astype(np.int64)]
    return tuple(torch.from_numpy(sequences[n].astype(np.int64)) for n in chosen)
