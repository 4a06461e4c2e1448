"""The paper's clipped sequence ratio, and the weights that need no proposal."""

import itertools
import math

import numpy as np
import pytest
import torch

from mapnet_cli.masking.importance import ESTIMATORS, Drawn, log_sequence_ratio, none, sequence_ratio


def drawn(log_q: np.ndarray, n: int) -> Drawn:
    log_q_BK = torch.tensor(log_q, dtype=torch.float32)
    return Drawn(log_q_BK, torch.ones_like(log_q_BK, dtype=torch.bool), torch.full((len(log_q),), n))


@pytest.mark.parametrize("spread", [0.0, 0.25, 1.0, 20.0])
def test_ratio_equals_float64_at_full_size(spread: float) -> None:
    """n = 512, K = 77: (1/n)^K is 0 in float32, the ratio must not become NaN."""
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
    assert weights.weight_B.numpy()[clear] == pytest.approx(expected[clear], rel=1e-3)
    assert torch.isfinite(weights.weight_B).all()


def test_ratio_by_hand() -> None:
    """Two draws from q = (1/2, 1/4, 1/4): r = (1/3)^2 / (1/2 * 1/4) = 8/9."""
    ratio = sequence_ratio(drawn(np.log([[0.5, 0.25]]), 3), 0.2)
    assert ratio.weight_B.item() == pytest.approx(8 / 9, rel=1e-6)
    assert not ratio.clipped_B.any()


def test_ratio_of_a_uniform_proposal_is_one() -> None:
    ratio = sequence_ratio(drawn(np.full((3, 5), -math.log(40)), 40), 0.2)
    assert ratio.weight_B.tolist() == pytest.approx([1.0] * 3, abs=1e-5)


def test_clip_holds_both_ends_and_says_so() -> None:
    ratio = sequence_ratio(drawn(np.log([[0.9], [0.01], [0.25]]), 4), 0.2)
    assert ratio.weight_B.tolist() == pytest.approx([0.8, 1.2, 1.0])
    assert ratio.clipped_B.tolist() == [True, True, False]


def test_invalid_entries_do_not_count() -> None:
    log_q_BK = torch.tensor([[math.log(0.5), -torch.inf]])
    entry = Drawn(log_q_BK, torch.tensor([[True, False]]), torch.tensor([4]))
    assert log_sequence_ratio(entry).item() == pytest.approx(math.log(0.25 / 0.5))


def test_the_papers_ratio_is_biased_without_replacement() -> None:
    """Its mean over ordered draws of K = 2 from n = 3 is not 1, though the paper calls it unbiased: enumeration."""
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
    assert weights.weight_B.tolist() == [1.0, 1.0]
    assert set(ESTIMATORS) == {"none", "sequence-ratio"}
