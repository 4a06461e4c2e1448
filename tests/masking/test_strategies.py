"""Properties of individual strategies beyond drawing K distinct maskable positions."""

import pytest
import torch

from mapnet_cli.masking.sampling import Masks
from mapnet_cli.masking.strategies import LONGEST_SPAN, STRATEGIES, MaskRequest, visits_in_turn


def request(n: int, k: int, rows: int, seed: int = 0, **more: torch.Tensor) -> MaskRequest:
    """Returns a request with n maskable positions between two that aren't in every row."""
    maskable_BL = torch.ones(rows, n + 2, dtype=torch.bool)
    maskable_BL[:, [0, -1]] = False
    noise_BL = torch.rand(rows, n + 2, generator=torch.Generator().manual_seed(seed))
    return MaskRequest(torch.full((rows, n + 2), 9), maskable_BL, torch.full((rows,), k), k + 1, noise_BL, **more)


def chosen(masks: Masks) -> list[list[int]]:
    return [row[valid].tolist() for row, valid in zip(masks.positions_BK, masks.valid_BK, strict=True)]


def frequencies(masks: Masks, length: int) -> torch.Tensor:
    return torch.bincount(masks.positions_BK[masks.valid_BK], minlength=length) / len(masks.positions_BK)


@pytest.mark.parametrize(("n", "k"), [(12, 3), (12, 4), (7, 1)])
def test_disjoint_visits_partition_the_positions(n: int, k: int) -> None:
    """If K divides n, every position is masked exactly once in n / K visits."""
    visits = n // k
    seen = []
    for visit in range(visits):
        seen += chosen(STRATEGIES["disjoint"].draw(request(n, k, 1, visit_B=torch.tensor([visit]))))[0]
    assert sorted(seen) == list(range(1, n + 1))
    assert visits_in_turn(k / n) == visits


def test_disjoint_visits_cover_all_positions_if_k_does_not_divide_n() -> None:
    """With n = 20 and K = 3, seven visits at a rate of 0.15; the last wraps around by one position."""
    masks = [chosen(STRATEGIES["disjoint"].draw(request(20, 3, 1, visit_B=torch.tensor([v]))))[0] for v in range(7)]
    assert visits_in_turn(0.15) == 7
    assert len({position for mask in masks[:6] for position in mask}) == 18
    assert {position for mask in masks for position in mask} == set(range(1, 21))


def test_a_single_disjoint_mask_is_uniform() -> None:
    rows = 40_000
    masks = STRATEGIES["disjoint"].draw(request(6, 2, rows, visit_B=torch.full((rows,), 1)))
    assert torch.allclose(frequencies(masks, 8)[1:-1], torch.full((6,), 1 / 3), atol=0.012)


def test_whole_words_are_masked_whole() -> None:
    """Words of 3, 1, 2 and 4 tokens, K = 6: every word except the truncated one is masked entirely or not at all."""
    rows, words = 500, [[1, 2, 3], [4], [5, 6], [7, 8, 9, 10]]
    starts_BL = torch.zeros(rows, 12, dtype=torch.bool)
    starts_BL[:, [1, 4, 5, 7]] = True
    masks = STRATEGIES["whole-word"].draw(request(10, 6, rows, unit_starts_BL=starts_BL))
    for row in chosen(masks):
        partly = [word for word in words if 0 < len(set(word) & set(row)) < len(word)]
        assert len(partly) <= 1
        assert all(set(word) & set(row) == set(word[: len(set(word) & set(row))]) for word in partly)


def test_every_word_is_equally_likely_to_come_first() -> None:
    starts_BL = torch.zeros(30_000, 8, dtype=torch.bool)
    starts_BL[:, [1, 3, 4]] = True
    masks = STRATEGIES["whole-word"].draw(request(6, 1, 30_000, unit_starts_BL=starts_BL))
    assert torch.allclose(frequencies(masks, 8)[[1, 3, 4]], torch.full((3,), 1 / 3), atol=0.015)


def test_spans_are_contiguous_and_as_long_as_in_spanbert() -> None:
    """With 15 % of a long sentence masked, runs are much longer than those of uniform masks."""
    rows, n, k = 300, 500, 75

    def mean_run(strategy: str) -> float:
        marks_BL = torch.zeros(rows, n + 2, dtype=torch.long)
        for row, places in enumerate(chosen(STRATEGIES[strategy].draw(request(n, k, rows)))):
            marks_BL[row, places] = 1
        begins = (marks_BL.diff(dim=1) == 1).sum().item()
        return rows * k / begins

    # geometric with p = 0.2, truncated at 10: mean (1 - 0.8^10) / 0.2 = 4.46; adjacent spans merge into longer runs
    assert 4.2 < mean_run("span") < 5.6
    assert mean_run("uniform") < 1.3
    assert LONGEST_SPAN == 10


def test_span_masks_all_but_the_first_positions_equally_often() -> None:
    """A span always starts at the first position, and starts are never truncated: at most 50 % more likely there."""
    seen_L = frequencies(STRATEGIES["span"].draw(request(60, 9, 40_000)), 62)[1:-1]
    assert seen_L.mean().item() == pytest.approx(0.15)
    assert torch.allclose(seen_L[LONGEST_SPAN:], torch.full((50,), 0.147), atol=0.012)
    assert seen_L[:LONGEST_SPAN].max() < 0.225
