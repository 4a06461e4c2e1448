"""Measurements on a synthetic language whose hard positions are known.

In each sentence, all even positions have the same one of four tokens, which the context reveals. Each
odd position has one of eight tokens at random, which nothing reveals: its mean loss is at least log 8.
"""

import math

import pytest
import torch
from torch import Tensor

from mapnet_cli.config import MapNetProposal, Method, Transformer
from mapnet_cli.masking import sampling
from mapnet_cli.masking.context import NO_CONTEXT
from mapnet_cli.masking.sampling import MaskNoise
from mapnet_cli.masking.strategies import draw_masks
from mapnet_cli.model.masked_lm import PretrainingModel
from mapnet_cli.text.words import CLS, FIRST_ORDINARY, SEP
from mapnet_cli.variance.candidates import Candidate, sentence_masks
from mapnet_cli.variance.gradients import Instrument, Projection, SentenceGradients
from mapnet_cli.variance.positions import (
    PositionFacts,
    alignment,
    correlations,
    measure_positions,
    norms_by_loss,
    oracle_log_q,
)
from mapnet_cli.variance.results import Measured
from mapnet_cli.variance.stage import compare
from mapnet_cli.variance.statistics import Samples

TOPICS, NOISE, LENGTH, STEPS = 4, 8, 12, 400
VOCAB = FIRST_ORDINARY + TOPICS + NOISE
UNIFORM = Method(mask_rate=0.25, replace_mask=1.0, replace_random=0.0)
SENTENCES, MASKS, VISITS, BATCH = 24, 24, 4, 16
HARD_L = torch.tensor([False] + [False, True] * (LENGTH // 2) + [False])


def language(count: int, generator: torch.Generator) -> Tensor:
    """Returns sentences [count, L]."""
    topic = FIRST_ORDINARY + torch.randint(TOPICS, (count, 1), generator=generator).expand(-1, LENGTH)
    noise = FIRST_ORDINARY + TOPICS + torch.randint(NOISE, (count, LENGTH), generator=generator)
    inside = torch.where(torch.arange(LENGTH) % 2 == 0, topic, noise)
    return torch.cat([torch.full((count, 1), CLS), inside, torch.full((count, 1), SEP)], dim=1)


class Experiment:
    """A model trained on the language, held-out sentences, and measurements on them."""

    def __init__(self, steps: int = STEPS) -> None:
        sizes = {"layers": 2, "hidden": 32, "heads": 2, "ffn": 64, "max_length": LENGTH + 2, "dropout": 0.0}
        self.model = PretrainingModel(Transformer(**sizes, attention_dropout=0.0, init_std=0.1), VOCAB, None)
        self.model.init_weights(0)
        self._train(steps)
        self.gradients = SentenceGradients(self.model)
        self.sentences = list(language(SENTENCES, torch.Generator().manual_seed(99)))
        self.scales = {"raw": None, "adam": torch.full((self.gradients.size,), 3.0), "adam-layers": None}
        self.project = Projection(self.gradients.size, 1, 0, torch.device("cpu"))
        self.uniform = self.samples(Candidate("uniform", UNIFORM))
        self.facts = [self.positions(number, whole=True) for number in range(SENTENCES)]

    def _train(self, steps: int) -> None:
        optimizer = torch.optim.Adam(self.model.parameters(), lr=3e-3)
        for step in range(steps):
            generator = torch.Generator().manual_seed(step)
            tokens_BL = language(32, generator)
            noise = MaskNoise.draw(generator, *tokens_BL.shape)
            masks = draw_masks(UNIFORM, tokens_BL, noise, NO_CONTEXT)
            corrupted_BL = sampling.corrupt(tokens_BL, masks, noise, VOCAB, 1.0, 0.0)
            targets_BK = tokens_BL.gather(1, masks.positions_BK)
            loss_BK, _ = self.model.token_losses(corrupted_BL, None, masks.positions_BK, targets_BK, None)
            optimizer.zero_grad()
            loss_BK[masks.valid_BK].mean().backward()
            optimizer.step()

    def samples(self, candidate: Candidate, project: Projection | None = None) -> Samples:
        draws = (
            sentence_masks(candidate, number, tokens_L, MASKS, VISITS, VOCAB, UNIFORM.mask_rate * LENGTH)
            for number, tokens_L in enumerate(self.sentences)
        )
        return Instrument(self.gradients, self.scales, project or self.project).sample(VISITS, draws, lambda: None)

    def positions(self, number: int, whole: bool) -> PositionFacts:
        return measure_positions(
            Instrument(self.gradients, self.scales, self.project), self.model, UNIFORM, self.uniform.means_SD, number,
            self.sentences[number], whole,
        )  # fmt: skip

    def measured(self, candidate: Candidate) -> Measured:
        return compare(candidate, self.samples(candidate), self.uniform, BATCH)


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return Experiment()


def proposing(name: str, log_q: list[Tensor], proposal: MapNetProposal) -> Candidate:
    method = UNIFORM.model_copy(update={"strategy": "mapnet", "proposal": proposal})
    return Candidate(name, method, log_q=tuple(log_q))


def test_the_hard_positions_have_the_large_gradients(experiment: Experiment) -> None:
    hard_N = torch.cat([HARD_L[fact.position_N] for fact in experiment.facts])
    loss_N = torch.cat([fact.signals["loss"] for fact in experiment.facts])
    norm_N = torch.cat([fact.norms["raw"] for fact in experiment.facts])
    assert float(loss_N[hard_N].mean()) == pytest.approx(math.log(NOISE), rel=0.1)
    assert float(loss_N[~hard_N].mean()) < 0.1
    assert float(norm_N[hard_N].mean()) > 5 * float(norm_N[~hard_N].mean())
    for found in correlations(experiment.facts):
        assert found.pearson.value is not None and found.pearson.value > 0.7, found
    bins = norms_by_loss(experiment.facts)
    assert sum(b.positions for b in bins) == len(loss_N)
    assert bins[-1].norm.value > 5 * bins[0].norm.value


def test_products_of_positions_add_up_to_those_of_their_masks(experiment: Experiment) -> None:
    """The loss of a mask is the sum of its positions' losses; all positions are in two of the disjoint masks."""
    disjoint = Candidate("positions", UNIFORM.model_copy(update={"strategy": "disjoint"}))
    tokens_L, products = experiment.sentences[3], experiment.facts[3].products
    masks = sentence_masks(disjoint, 3, tokens_L, 8, 4, VOCAB, stream="positions")
    whole_P = torch.cat(list(experiment.gradients.of(masks))).sum(dim=0)
    for norm, factor in (("raw", 1.0), ("adam", 9.0)):
        expected_S = factor * experiment.uniform.means_SD["raw"] @ whole_P
        torch.testing.assert_close(products[norm].sum(dim=0), expected_S.double(), rtol=1e-3, atol=1e-4 * factor)
    for norm in products:
        share = alignment([fact.products[norm] for fact in experiment.facts])
        assert share.value is None or share.value > 0.3


def test_bins_by_loss_have_equal_numbers_of_positions_also_if_losses_coincide() -> None:
    """Four sentences of ten positions, most of them with a loss of 0; the norm is the position's rank."""
    norm_N = torch.arange(40, dtype=torch.float64)
    loss_N = (norm_N - 30).clamp(min=0)
    facts = [PositionFacts(n, {"loss": loss_N[n]}, {"raw": norm_N[n]}, {}) for n in torch.arange(40).split(10)]
    bins = norms_by_loss(facts)
    assert [b.positions for b in bins] == [5] * 8
    assert [(b.low, b.high) for b in bins] == [(0.0, 0.0)] * 6 + [(0.0, 4.0), (5.0, 9.0)]
    assert [b.norm.value for b in bins] == [2.0 + 5 * n for n in range(8)]
    assert all(b.norm.error is None for b in bins), "each bin is within one sentence"


def test_all_positions_are_measured_for_an_oracle_and_else_one_mask(experiment: Experiment) -> None:
    for fact in experiment.facts:
        assert set(fact.position_N.tolist()) == set(range(1, LENGTH + 1))
    assert len(experiment.positions(0, whole=False).position_N) == LENGTH * UNIFORM.mask_rate


def test_most_of_the_variance_is_mask_variance(experiment: Experiment) -> None:
    """Sentences differ only in their topics, which the model predicts with certainty, and in random tokens."""
    found = compare(Candidate("uniform", UNIFORM), experiment.uniform, experiment.uniform, BATCH)
    share = found.variances["raw"].mask_share
    assert share.value > 0.6 and share.error < 0.1
    assert found.variances["raw"].mask_to_uniform.value == 1
    assert found.variances["adam"].mask.value == pytest.approx(9 * found.variances["raw"].mask.value, rel=1e-4)
    assert found.clipping is None


@pytest.mark.parametrize(("signal", "at_most"), [("gradient norm", 0.8), ("loss", 1.0)])
def test_oracles_lower_the_mask_variance_without_bias(experiment: Experiment, signal: str, at_most: float) -> None:
    maskable_L = sampling.maskable_positions(experiment.sentences[0])
    log_q = [oracle_log_q(fact, signal, maskable_L) for fact in experiment.facts]
    weighted = MapNetProposal(sampler="systematic", uniform_mix=0.1, estimator="horvitz-thompson")
    found = experiment.measured(proposing("oracle", log_q, weighted))
    raw = found.variances["raw"]
    assert raw.mask_to_uniform.value < at_most
    assert abs(raw.difference.value) < 3 * raw.difference.error
    assert found.clipping is None, "the sequence ratio is defined for sequential draws"


def test_hard_masks_are_biased_without_weights_and_unbiased_with_weights() -> None:
    """Uses a barely trained model, since at the optimum the mean gradient is zero for any masks."""
    experiment = Experiment(steps=20)
    weight_L = torch.where(HARD_L, 5.0, 1.0)
    weight_L[[0, -1]] = 0.0
    log_q = [(weight_L / weight_L.sum()).log()] * SENTENCES
    unweighted, exact = (
        MapNetProposal(estimator="none"), MapNetProposal(sampler="systematic", estimator="horvitz-thompson")
    )  # fmt: skip
    skewed = experiment.measured(proposing("skewed", log_q, unweighted)).variances["raw"]
    weighted = experiment.measured(proposing("weighted", log_q, exact)).variances["raw"]
    assert skewed.bias.value > 5 * skewed.bias.error > 0
    assert abs(weighted.bias.value) < 3 * weighted.bias.error < skewed.bias.value


def test_disjoint_visits_reduce_the_variance_of_their_mean(experiment: Experiment) -> None:
    disjoint = Candidate("disjoint", UNIFORM.model_copy(update={"strategy": "disjoint"}))
    raw = experiment.measured(disjoint).variances["raw"]
    assert raw.mask_to_uniform.value == pytest.approx(1, abs=4 * raw.mask_to_uniform.error)
    assert raw.visits_to_uniform.value < 0.5


def test_sketched_means_are_within_the_stated_error(experiment: Experiment) -> None:
    """Mask variances stay exact; inner products of means deviate by the stated share of the norms."""
    project = Projection(experiment.gradients.size, 1, 3, torch.device("cpu"), budget=4 * 4096)
    assert not project.exact
    sketched = experiment.samples(Candidate("uniform", UNIFORM), project).moments["raw"]
    exact = experiment.uniform.moments["raw"]
    assert torch.equal(sketched.mask_variance(), exact.mask_variance())
    norms_S = exact.gram_SS.diagonal().sqrt()
    errors_SS = (sketched.gram_SS - exact.gram_SS) / (norms_S[:, None] * norms_S)
    assert float(errors_SS.square().mean().sqrt()) < 2 * project.relative_error
    assert not torch.equal(sketched.gram_SS, exact.gram_SS)
