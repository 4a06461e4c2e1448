"""Importance weights: the paper's clipped sequence ratio and the other estimators."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from mapnet_cli.masking.importance import (
    ESTIMATORS,
    Drawn,
    horvitz_thompson,
    log_ordered_ratio,
    log_sequence_ratio,
    none,
    position_ratio,
    self_normalised,
    sequence_ratio,
)
from mapnet_cli.masking.sampling import Masks, gumbel_top_k, inclusion_probabilities, log_undrawn, systematic
from mapnet_cli.model.proposal import masked_log_softmax


def drawn(log_q: np.ndarray, n: int) -> Drawn:
    log_q_BK = torch.tensor(log_q, dtype=torch.float32)
    return Drawn(log_q_BK, torch.ones_like(log_q_BK, dtype=torch.bool), torch.full((len(log_q),), n))


@pytest.mark.parametrize("spread", [0.0, 0.25, 1.0, 20.0])
def test_ratio_equals_float64_at_full_size(spread: float) -> None:
    """With n = 512 and K = 77, (1/n)^K is 0 in float32, and the ratio must not become NaN."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, spread, (32, 512))
    log_q = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    chosen = np.stack([rng.permutation(512)[:77] for _ in range(32)])
    picked = np.take_along_axis(log_q, chosen, axis=1)
    reference = (-math.log(512) - picked).sum(axis=1)
    ours = log_sequence_ratio(drawn(picked, 512))
    assert torch.isfinite(ours).all()
    assert ours.numpy() == pytest.approx(reference, rel=1e-4, abs=1e-3)
    weights = sequence_ratio(drawn(picked, 512), 0.2)
    clear = np.abs(reference[:, None] - np.log([[0.8, 1.2]])).min(axis=1) > 1e-2
    expected = np.clip(np.exp(np.clip(reference, -50, 50)), 0.8, 1.2)
    assert weights.weight_BK[:, 0].numpy()[clear] == pytest.approx(expected[clear], rel=1e-3)
    assert torch.isfinite(weights.weight_BK).all()


def test_ratio_by_hand() -> None:
    """Two draws from q = (1/2, 1/4, 1/4): r = (1/3)^2 / (1/2 * 1/4) = 8/9."""
    ratio = sequence_ratio(drawn(np.log([[0.5, 0.25]]), 3), 0.2)
    assert ratio.weight_BK[0, 0].item() == pytest.approx(8 / 9, rel=1e-6)
    assert not ratio.clipped_BK.any()


def test_ratio_of_a_uniform_proposal_is_one() -> None:
    ratio = sequence_ratio(drawn(np.full((3, 5), -math.log(40)), 40), 0.2)
    assert ratio.weight_BK[:, 0].tolist() == pytest.approx([1.0] * 3, abs=1e-5)


def test_ratios_are_clipped_on_both_sides_and_flagged() -> None:
    ratio = sequence_ratio(drawn(np.log([[0.9], [0.01], [0.25]]), 4), 0.2)
    assert ratio.weight_BK[:, 0].tolist() == pytest.approx([0.8, 1.2, 1.0])
    assert ratio.clipped_BK[:, 0].tolist() == [True, True, False]


def test_invalid_entries_are_ignored() -> None:
    log_q_BK = torch.tensor([[math.log(0.5), -torch.inf]])
    entry = Drawn(log_q_BK, torch.tensor([[True, False]]), torch.tensor([4]))
    assert log_sequence_ratio(entry).item() == pytest.approx(math.log(0.25 / 0.5))


def test_the_papers_ratio_is_biased_without_replacement() -> None:
    """Its mean over all ordered draws of K = 2 from n = 3 is not 1, although the paper calls it unbiased."""
    q = np.array([0.5, 0.3, 0.2])
    mean = exact = 0.0
    for first, second in itertools.permutations(range(3), 2):
        probability = q[first] * q[second] / (1 - q[first])
        mean += probability * (1 / 9) / (q[first] * q[second])
        exact += probability * (1 / 6) / probability
    assert exact == pytest.approx(1.0)
    assert mean == pytest.approx((1 / 9) * sum(2 / (1 - value) for value in q))
    assert abs(mean - 1) > 0.03


def test_none_is_exactly_one() -> None:
    weights = none(drawn(np.log([[0.9], [0.01]]), 4), 0.2)
    assert weights.weight_BK.flatten().tolist() == [1.0, 1.0]


@pytest.mark.parametrize("estimator", sorted(ESTIMATORS))
def test_uniform_masks_have_weight_one(estimator: str) -> None:
    """Masks drawn without a proposal have weight 1 for every estimator."""
    positions_BK, valid_BK = torch.tensor([[3, 1, 2]]), torch.tensor([[True, True, False]])
    log_pi_BK = torch.full((1, 3), 2 / 7, dtype=torch.float64).log()
    entry = Drawn.of(Masks(positions_BK, valid_BK, None, log_pi_BK), torch.tensor([7]))
    weights = ESTIMATORS[estimator](entry, 0.2)
    exact = estimator not in ("ordered-ratio", "sequence-ratio")  # sums of logarithms
    assert weights.weight_BK[valid_BK].tolist() == pytest.approx([1.0, 1.0], abs=0 if exact else 1e-6)
    assert not weights.clipped_BK.any()


def test_ordered_ratio_has_mean_one() -> None:
    """Over all ordered draws of K = 3 from n = 5, unlike the paper's product (above)."""
    q = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
    orders = list(itertools.permutations(range(5), 3))
    probability = [q[a] * q[b] / (1 - q[a]) * q[c] / (1 - q[a] - q[b]) for a, b, c in orders]
    picked = torch.from_numpy(np.log(q)[np.array(orders)])
    rest = torch.tensor([math.log(1 - q[[*order]].sum()) for order in orders])
    everything = torch.ones(len(orders), 3, dtype=torch.bool)
    entry = Drawn(picked, everything, torch.full((len(orders),), 5), log_rest_B=rest)
    ratio = torch.exp(log_ordered_ratio(entry)).numpy()
    assert ratio == pytest.approx(1 / 60 / np.array(probability), rel=1e-6)
    assert (np.array(probability) * ratio).sum() == pytest.approx(1.0)
    product = torch.exp(log_sequence_ratio(entry)).numpy()
    assert abs((np.array(probability) * product).sum() - 1) > 0.1


def test_ordered_ratio_with_extreme_logits() -> None:
    """n = 4, one position almost certain: drawn first with probability 1, then the other three are equally likely."""
    log_q_BL = torch.log_softmax(torch.tensor([[0.0, -100.0, -100.0, -100.0]]), dim=1)
    masks = gumbel_top_k(log_q_BL, torch.tensor([2]), 2, torch.tensor([[0.5, 0.9, 0.1, 0.1]]))
    assert masks.positions_BK.tolist() == [[0, 1]]
    drawn_masks = replace(masks, log_rest_B=log_undrawn(log_q_BL, masks))
    ratio = log_ordered_ratio(Drawn.of(drawn_masks, torch.tensor([4])))
    assert ratio.item() == pytest.approx(math.log((1 / 4 * 1 / 3) / (1 * 1 / 3)), rel=1e-5)
    logits = torch.randn(8, 512, generator=torch.Generator().manual_seed(0)) * 50
    log_q_BL = torch.log_softmax(logits, dim=1)
    masks = gumbel_top_k(log_q_BL, torch.full((8,), 77), 77, torch.rand(8, 512))
    drawn_masks = replace(masks, log_rest_B=log_undrawn(log_q_BL, masks))
    assert torch.isfinite(log_ordered_ratio(Drawn.of(drawn_masks, torch.full((8,), 512)))).all()


def test_position_ratio_by_hand() -> None:
    """n = 4: 1 / (4 q), or K / (n pi) from a sampler that knows pi; the two are equal if pi = K q."""
    entry = drawn(np.log([[0.5, 0.2, 0.25]]), 4)
    assert position_ratio(entry, 0.9).weight_BK.tolist() == [pytest.approx([0.5, 1.25, 1.0])]
    assert position_ratio(entry, 0.2).clipped_BK.tolist() == [[True, True, False]]
    known = replace(entry, log_pi_BK=torch.log(torch.tensor([[0.75, 0.3, 0.375]])))
    both = [1.0, 2.5, 2.0]
    assert horvitz_thompson(known, 0.2).weight_BK.tolist() == [pytest.approx(both)]
    assert position_ratio(known, 9.0).weight_BK.tolist() == [pytest.approx(both)]


def test_self_normalised_weights_have_mean_one() -> None:
    entry = drawn(np.log([[0.5, 0.2, 0.25], [0.1, 0.1, 0.1]]), 4)
    weight_BK = self_normalised(entry, 0.2).weight_BK
    assert weight_BK.mean(dim=1).tolist() == pytest.approx([1.0, 1.0])
    assert (weight_BK[0, 1] / weight_BK[0, 0]).item() == pytest.approx(2.5)
    nothing = Drawn(torch.full((1, 2), -torch.inf), torch.zeros(1, 2, dtype=torch.bool), torch.tensor([0]))
    assert torch.isfinite(self_normalised(nothing, 0.2).weight_BK).all()


def test_horvitz_thompson_is_unbiased_and_bounded() -> None:
    """The mean over systematic samples is the mean over all positions; no weight exceeds 1 / alpha."""
    n, k, alpha, repeats = 12, 4, 0.3, 200_000
    generator = torch.Generator().manual_seed(1)
    log_q_BL = torch.log_softmax(2 * torch.randn(1, n + 1, generator=generator), dim=1)
    maskable_BL = torch.ones(1, n + 1, dtype=torch.bool)
    maskable_BL[0, 0] = False
    log_q_BL = masked_log_softmax(log_q_BL, maskable_BL)
    pi_BL = inclusion_probabilities(log_q_BL, maskable_BL, torch.tensor([k]), alpha)
    value_L = torch.rand(n + 1, generator=generator).double() * 5
    noise_BL = torch.rand(repeats, n + 1, generator=generator)
    counts_B = torch.full((repeats,), k)
    masks = systematic(pi_BL.expand(repeats, -1), log_q_BL.expand(repeats, -1), counts_B, k + 1, noise_BL)
    weights = horvitz_thompson(Drawn.of(masks, torch.full((repeats,), n)), 0.2)
    assert weights.weight_BK[masks.valid_BK].max() <= 1 / alpha + 1e-5
    estimate_B = torch.where(masks.valid_BK, weights.weight_BK.double() * value_L[masks.positions_BK], 0).sum(1) / k
    error = estimate_B.std() / math.sqrt(repeats)
    assert abs(estimate_B.mean() - value_L[1:].mean()) < 4 * error
    plain_B = torch.where(masks.valid_BK, value_L[masks.positions_BK], 0).sum(1) / k
    assert abs(plain_B.mean() - value_L[1:].mean()) > 20 * error, "the unweighted mean must be biased in this case"
