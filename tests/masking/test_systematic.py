"""Sampling with known inclusion probabilities: their sum, their values, and the frequencies of the samples."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mapnet_cli.masking.sampling import (
    BELOW_ONE,
    inclusion_probabilities,
    mixed_with_uniform,
    systematic,
    uniform_log_q,
)


def maskable(n: int) -> torch.Tensor:
    """Returns a mask of all positions except the first, as in a sentence."""
    maskable_BL = torch.ones(1, n + 1, dtype=torch.bool)
    maskable_BL[0, 0] = False
    return maskable_BL


def probabilities(q: list[float], k: int, mix: float) -> list[float]:
    log_q_BL = torch.log(torch.tensor([[0.0, *q]]))
    return inclusion_probabilities(log_q_BL, maskable(len(q)), torch.tensor([k]), mix)[0, 1:].tolist()


def test_inclusion_probabilities_by_hand() -> None:
    """With K = 2 and q = (0.6, 0.2, 0.1, 0.1), the first position is certain and c = 1 / 0.4 for the others."""
    assert probabilities([0.6, 0.2, 0.1, 0.1], 2, 0.0) == pytest.approx([1.0, 0.5, 0.25, 0.25])
    assert probabilities([0.6, 0.2, 0.1, 0.1], 2, 0.5) == pytest.approx([0.75, 0.5, 0.375, 0.375])
    assert probabilities([0.25] * 4, 3, 0.0) == pytest.approx([0.75] * 4)
    assert probabilities([0.7, 0.1, 0.1, 0.1], 4, 0.3) == pytest.approx([1.0] * 4)


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 40), st.data())
def test_inclusion_probabilities_sum_to_k_and_are_proportional_to_q_below_one(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, n))
    mix = data.draw(st.sampled_from([0.0, 0.3, 1.0]))
    spread = data.draw(st.sampled_from([0.0, 0.5, 3.0, 30.0]))
    seed = data.draw(st.integers(0, 2**31))
    logits_BL = spread * torch.randn(1, n + 1, generator=torch.Generator().manual_seed(seed))
    log_q_BL = torch.log_softmax(logits_BL.masked_fill(~maskable(n), -torch.inf), dim=1)
    pi_BL = inclusion_probabilities(log_q_BL, maskable(n), torch.tensor([k]), mix)
    assert pi_BL.sum().item() == pytest.approx(k, rel=1e-9)
    assert pi_BL[0, 0] == 0
    assert pi_BL[0, 1:].min().item() >= mix * k / n - 1e-12
    assert pi_BL.max().item() <= 1 + 1e-12
    if mix == 0 and spread <= 3 and k < n:
        free_L = pi_BL[0, 1:] < 1 - 1e-9
        ratio_L = (pi_BL[0, 1:].log() - log_q_BL[0, 1:].double())[free_L]
        assert len(ratio_L) == 0 or (ratio_L.max() - ratio_L.min()).item() < 1e-5
        if len(ratio_L):  # positions that are certain have c q >= 1
            assert (
                (log_q_BL[0, 1:].double()[~free_L] + ratio_L.mean()).min().item() > -1e-5 if (~free_L).any() else True
            )


def test_inclusion_frequencies_equal_pi() -> None:
    draws, n, k = 100_000, 9, 4
    generator = torch.Generator().manual_seed(3)
    logits_BL = (1.5 * torch.randn(1, n + 1, generator=generator)).masked_fill(~maskable(n), -torch.inf)
    log_q_BL = torch.log_softmax(logits_BL, dim=1)
    pi_BL = inclusion_probabilities(log_q_BL, maskable(n), torch.tensor([k]), 0.2)
    noise_BL = torch.rand(draws, n + 1, generator=generator)
    masks = systematic(pi_BL.expand(draws, -1), log_q_BL.expand(draws, -1), torch.full((draws,), k), k + 1, noise_BL)
    chosen = masks.positions_BK[:, :k]
    assert chosen.sort(dim=1).values.diff(dim=1).min() > 0, "K distinct positions"
    assert masks.log_pi_BK is not None
    assert torch.allclose(masks.log_pi_BK[:, :k].exp().double(), pi_BL[0][chosen], atol=1e-6)
    seen_L = torch.bincount(chosen.flatten(), minlength=n + 1) / draws
    for frequency, pi in zip(seen_L.tolist(), pi_BL[0].tolist(), strict=True):
        assert frequency == pytest.approx(pi, abs=4.5 * math.sqrt(pi * (1 - pi) / draws) + 1e-9)


def test_frequencies_are_exact_for_a_fixed_order() -> None:
    """Over a fine grid of starts, each position is selected with frequency pi, up to the grid's resolution."""
    q = [0.5, 0.25, 0.15, 0.1]
    log_q_BL = torch.log(torch.tensor([[0.0, *q]]))
    pi_BL = inclusion_probabilities(log_q_BL, maskable(4), torch.tensor([2]), 0.0)
    grid = 4000
    starts_B = (torch.arange(grid) + 0.5) / grid
    noise_BL = torch.tensor([0.0, 0.3, 0.1, 0.9, 0.5]).repeat(grid, 1)
    noise_BL[:, 0] = starts_B
    masks = systematic(pi_BL.expand(grid, -1), log_q_BL.expand(grid, -1), torch.full((grid,), 2), 2, noise_BL)
    seen_L = torch.bincount(masks.positions_BK.flatten(), minlength=5)
    for count, pi in zip(seen_L.tolist(), pi_BL[0].tolist(), strict=True):
        assert float(Fraction(count, grid)) == pytest.approx(pi, abs=2 / grid)


def test_certain_positions_are_drawn_exactly_once() -> None:
    log_q_BL = torch.log(torch.tensor([[0.0, 0.49, 0.49, 0.01, 0.01]])).expand(1000, -1)
    maskable_BL = maskable(4).expand(1000, -1)
    counts_B = torch.full((1000,), 3)
    pi_BL = inclusion_probabilities(log_q_BL, maskable_BL, counts_B, 0.0)
    noise_BL = torch.rand(1000, 5, generator=torch.Generator().manual_seed(0))
    noise_BL[:5, 0] = torch.tensor([0.0, 2.0**-24, 0.5, BELOW_ONE, 1 - 2.0**-23])
    drawn_BK = systematic(pi_BL, log_q_BL, counts_B, 3, noise_BL).positions_BK.sort(dim=1).values
    assert drawn_BK[:, :2].tolist() == [[1, 2]] * 1000
    assert set(drawn_BK[:, 2].tolist()) == {3, 4}


def test_the_defensive_mixture_by_hand() -> None:
    log_q_BL = torch.log(torch.tensor([[0.0, 0.5, 0.25, 0.25, 0.0]]))
    mixed_BL = mixed_with_uniform(log_q_BL, maskable(4), 0.4).exp()
    assert mixed_BL[0].tolist() == pytest.approx([0.0, 0.4, 0.25, 0.25, 0.1])
    assert torch.equal(mixed_with_uniform(log_q_BL, maskable(4), 0.0), log_q_BL)
    all_uniform_BL = mixed_with_uniform(log_q_BL, maskable(4), 1.0)
    assert torch.allclose(all_uniform_BL, uniform_log_q(maskable(4)), atol=1e-6)
