"""Sampling without replacement, compared with exact enumeration and values computed by hand."""

import itertools
import math
from collections import Counter
from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mapnet_cli.masking import sampling
from mapnet_cli.masking.sampling import MaskNoise, Masks
from mapnet_cli.masking.strategies import STRATEGIES, MaskRequest
from mapnet_cli.text.words import CLS, FIRST_ORDINARY, MASK, PAD, SEP, UNK

VOCAB = 40


def sentence_batch(lengths: list[int], width: int) -> torch.Tensor:
    tokens_BL = torch.full((len(lengths), width), PAD)
    for row, length in zip(tokens_BL, lengths, strict=True):
        row[0], row[length + 1] = CLS, SEP
        row[1 : length + 1] = torch.arange(length) % (VOCAB - FIRST_ORDINARY) + FIRST_ORDINARY
    return tokens_BL


def test_specials_and_padding_are_never_maskable() -> None:
    tokens_BL = torch.tensor([[CLS, 7, UNK, 9, SEP, SEP, 11, SEP, MASK, PAD]])
    expected = [False, True, False, True, False, False, True, False, False, False]
    assert sampling.maskable_positions(tokens_BL).tolist() == [expected]


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    rate=st.floats(0.05, 0.95),
    strategy=st.sampled_from(sorted(STRATEGIES)),
    sampler=st.sampled_from(["gumbel", "systematic"]),
    mix=st.sampled_from([0.0, 0.3, 1.0]),
    spread=st.sampled_from([0.0, 1.0, 100.0]),
    seed=st.integers(0, 2**31),
)
def test_every_strategy_draws_k_distinct_maskable_positions(
    lengths: list[int],
    rate: float,
    strategy: str,
    sampler: Literal["gumbel", "systematic"],
    mix: float,
    spread: float,
    seed: int,
) -> None:
    tokens_BL = sentence_batch(lengths, 34)
    generator = torch.Generator().manual_seed(seed)
    noise = MaskNoise.draw(generator, *tokens_BL.shape)
    maskable_BL = sampling.maskable_positions(tokens_BL)
    counts_B = sampling.mask_counts(maskable_BL, rate, noise.rounding_B)
    scores_BL = (spread * torch.randn(tokens_BL.shape, generator=generator)).masked_fill(~maskable_BL, -torch.inf)
    max_masks = sampling.max_mask_count(tokens_BL.shape[1], rate)
    log_q_BL = torch.log_softmax(scores_BL, dim=1)
    visit_B, starts_BL = torch.full_like(counts_B, seed % 7), tokens_BL % 3 == 0
    request = MaskRequest(
        tokens_BL, maskable_BL, counts_B, max_masks, noise.order_BL, log_q_BL, sampler, mix, visit_B, starts_BL
    )
    masks = STRATEGIES[strategy].draw(request)
    for b, length in enumerate(lengths):
        chosen = masks.positions_BK[b][masks.valid_BK[b]].tolist()
        assert len(set(chosen)) == len(chosen) == int(counts_B[b])
        assert max(1, math.floor(rate * length)) <= len(chosen) <= math.floor(rate * length) + 1
        assert all(maskable_BL[b, position] for position in chosen)


def test_a_row_without_maskable_positions_gets_no_mask() -> None:
    tokens_BL = torch.tensor([[CLS, SEP, PAD, PAD], [CLS, 8, 9, SEP]])
    noise = MaskNoise.draw(torch.Generator().manual_seed(0), 2, 4)
    maskable_BL = sampling.maskable_positions(tokens_BL)
    counts_B = sampling.mask_counts(maskable_BL, 0.5, noise.rounding_B)
    assert counts_B.tolist() == [0, 1]
    masks = STRATEGIES["uniform"].draw(MaskRequest(tokens_BL, maskable_BL, counts_B, 3, noise.order_BL))
    assert masks.valid_BK.sum(dim=1).tolist() == [0, 1]


def test_random_rounding_has_the_exact_mean() -> None:
    maskable_BL = torch.ones(20_000, 10, dtype=torch.bool)
    rounding_B = torch.rand(20_000, generator=torch.Generator().manual_seed(1))
    counts_B = sampling.mask_counts(maskable_BL, 0.15, rounding_B)
    assert set(counts_B.tolist()) == {1, 2}  # 1.5
    assert counts_B.float().mean().item() == pytest.approx(1.5, abs=4 * 0.5 / 20_000**0.5)


def test_gumbel_top_k_matches_sequential_draws() -> None:
    """All 12 probabilities of ordered pairs drawn from a 4-way multinomial without replacement."""
    q = torch.tensor([0.5, 0.25, 0.15, 0.1])
    draws = 60_000
    noise = torch.rand(draws, 4, generator=torch.Generator().manual_seed(2))
    masks = sampling.gumbel_top_k(q.log().expand(draws, 4), torch.full((draws,), 2), 2, noise)
    seen = Counter(map(tuple, masks.positions_BK.tolist()))
    for first, second in itertools.permutations(range(4), 2):
        probability = float(q[first] * q[second] / (1 - q[first]))
        bound = 4.5 * math.sqrt(probability * (1 - probability) / draws)
        assert seen[first, second] / draws == pytest.approx(probability, abs=bound)


def test_noise_at_the_bounds_of_its_range_is_valid() -> None:
    noise_BL = torch.tensor([[0.0, 1.0, 0.5]])
    masks = sampling.gumbel_top_k(torch.full((1, 3), -math.log(3)), torch.tensor([3]), 3, noise_BL)
    assert sorted(masks.positions_BK[0].tolist()) == [0, 1, 2]


def test_noise_never_reaches_one() -> None:
    """The largest float64 draw rounds to 1 in float32, which would put a systematic sample's last mark out of range."""

    class Ones(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> torch.Tensor:
            out: torch.Tensor = func(*args, **(kwargs or {}))
            return torch.full_like(out, 1 - 2.0**-53) if "rand" in str(func) else out

    with Ones():
        noise = MaskNoise.draw(torch.Generator().manual_seed(0), 2, 3)
    assert noise.order_BL.max() < 1
    assert noise.order_BL.max() == sampling.BELOW_ONE


def test_corruption_is_80_10_10_at_chosen_positions_and_nothing_elsewhere() -> None:
    tokens_BL = sentence_batch([200] * 50, 202)
    noise = MaskNoise.draw(torch.Generator().manual_seed(3), *tokens_BL.shape)
    maskable_BL = sampling.maskable_positions(tokens_BL)
    counts_B = maskable_BL.sum(dim=1)
    masks = STRATEGIES["uniform"].draw(MaskRequest(tokens_BL, maskable_BL, counts_B, 202, noise.order_BL))
    corrupted_BL = sampling.corrupt(tokens_BL, masks, noise, VOCAB, 0.8, 0.1)
    assert torch.equal(corrupted_BL[~maskable_BL], tokens_BL[~maskable_BL])
    inside, before = corrupted_BL[maskable_BL], tokens_BL[maskable_BL]
    n = len(inside)
    assert (inside == MASK).float().mean().item() == pytest.approx(0.8, abs=4 * 0.4 / n**0.5)
    random = (inside != MASK) & (inside != before)  # a random token may equal the original
    expected = 0.1 * (1 - 1 / (VOCAB - FIRST_ORDINARY))
    assert random.float().mean().item() == pytest.approx(expected, abs=4 * 0.3 / n**0.5)
    assert inside[random].min() >= FIRST_ORDINARY
    assert inside[random].max() < VOCAB


def test_corruption_ignores_invalid_entries() -> None:
    tokens_BL = sentence_batch([6], 8)
    noise = MaskNoise(*(torch.zeros(shape) for shape in ((1,), (1, 8), (1, 8), (1, 8))))
    masks = Masks(torch.tensor([[2, 2, 3]]), torch.tensor([[True, False, False]]))
    corrupted_BL = sampling.corrupt(tokens_BL, masks, noise, VOCAB, 1.0, 0.0)
    assert (corrupted_BL != tokens_BL).nonzero().tolist() == [[0, 2]]


def test_noise_of_a_part_is_a_slice_of_the_batch_noise() -> None:
    whole = MaskNoise.draw(torch.Generator().manual_seed(4), 6, 5)
    part = whole.map(lambda tensor: tensor[2:4])
    assert torch.equal(part.order_BL, whole.order_BL[2:4])
    assert torch.equal(part.rounding_B, whole.rounding_B[2:4])


def test_conditional_log_q_is_that_of_ordered_draws() -> None:
    """For every ordered draw of 3 of 4 positions, the terms add up to its probability; those add up to 1."""
    q_L = torch.tensor([0.5, 0.2, 0.2, 0.1], dtype=torch.float64)
    draws = torch.tensor(list(itertools.permutations(range(4), 3)))
    expected_B = torch.tensor([
        q_L[a] * q_L[b] / (1 - q_L[a]) * q_L[c] / (1 - q_L[a] - q_L[b]) for a, b, c in draws.tolist()
    ])  # fmt: skip
    found_BK = sampling.conditional_log_q(q_L.log()[draws], torch.ones_like(draws, dtype=torch.bool))
    assert torch.allclose(found_BK.sum(dim=1).exp(), expected_B)
    assert expected_B.sum().item() == pytest.approx(1.0)


def test_one_coin_per_sentence_mixes_the_two_distributions() -> None:
    """A position's share of the masks is p/n + (1 - p) q."""
    rows, p = 40_000, 0.3
    q_L = torch.tensor([0.7, 0.1, 0.1, 0.1])
    tokens_BL = torch.full((rows, 4), FIRST_ORDINARY)
    noise = MaskNoise.draw(torch.Generator().manual_seed(1), rows, 4)
    request = MaskRequest(
        tokens_BL, tokens_BL > 0, torch.ones(rows, dtype=torch.long), 1, noise.order_BL, q_L.log().expand(rows, 4)
    )
    explore_B = torch.rand(rows, generator=torch.Generator().manual_seed(2)) < p
    masks = sampling.mixed(explore_B, STRATEGIES["uniform"].draw(request), STRATEGIES["mapnet"].draw(request))
    share_L = torch.bincount(masks.positions_BK.flatten(), minlength=4) / rows
    assert share_L.tolist() == pytest.approx((p / 4 + (1 - p) * q_L).tolist(), abs=4 * 0.5 / rows**0.5)
    assert masks.valid_BK.all()
