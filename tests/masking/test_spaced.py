"""Systematic samples with a random offset: inclusion probability K/n everywhere, evenly spaced masks."""

import itertools
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mapnet_cli.masking.strategies import STRATEGIES, MaskRequest


def draw(n: int, k: int, offset: float, gaps: tuple[int, ...] = ()) -> list[int]:
    """Returns K masked positions among n maskable ones; `gaps` are positions that can't be masked."""
    length = n + len(gaps)
    maskable_BL = torch.tensor([[i not in gaps for i in range(length)]])
    noise_BL = torch.full((1, length), offset)
    request = MaskRequest(torch.full((1, length), 9), maskable_BL, torch.tensor([k]), k + 1, noise_BL)
    masks = STRATEGIES["spaced"].draw(request)
    assert masks.valid_BK.sum() == k
    return masks.positions_BK[masks.valid_BK].tolist()


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.data())
def test_masks_are_distinct_and_evenly_spaced(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, n))
    offset = data.draw(st.floats(0, 1, exclude_max=True, width=32))
    positions = draw(n, k, offset)
    assert len(set(positions)) == k
    assert all(0 <= position < n for position in positions)
    steps = {b - a for a, b in itertools.pairwise(positions)}
    assert steps <= {n // k, -(-n // k)}


@pytest.mark.parametrize(("n", "k"), [(7, 3), (10, 4), (13, 1), (5, 5), (12, 5)])
def test_every_position_has_inclusion_probability_k_over_n(n: int, k: int) -> None:
    """Exact: the sample is constant between consecutive borders, so each is weighted by its interval's length."""
    borders = sorted({Fraction(j, n) * k % 1 for j in range(n)} | {Fraction(0), Fraction(1)})
    included = [Fraction(0)] * n
    for low, high in itertools.pairwise(borders):
        for position in draw(n, k, float((low + high) / 2)):
            included[position] += high - low
    assert included == [Fraction(k, n)] * n


def test_only_maskable_positions_are_chosen() -> None:
    assert draw(6, 3, 0.0, gaps=(0, 3, 8)) == [1, 4, 6]


def test_a_row_without_maskable_positions_has_no_masks() -> None:
    tokens_BL = torch.zeros(1, 4, dtype=torch.long)
    request = MaskRequest(tokens_BL, tokens_BL > 0, torch.tensor([0]), 2, torch.rand(1, 4))
    assert not STRATEGIES["spaced"].draw(request).valid_BK.any()
