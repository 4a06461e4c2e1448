"""The proposal without a network: running means per token, independent of how a batch is split."""

import math

import pytest
import torch

from mapnet_cli.model.proposal import PRIOR, UNIT, TokenTable


def observe(table: TokenTable, tokens: list[int], signals: list[float]) -> None:
    ones = torch.ones(1, len(tokens), dtype=torch.bool)
    table.observe(torch.tensor([tokens]), torch.tensor([signals]), ones)


def test_a_fresh_table_is_uniform() -> None:
    maskable_BL = torch.tensor([[False, True, True, True, False]])
    log_q_BL = TokenTable(10).log_q(torch.tensor([[2, 7, 8, 7, 3]]), maskable_BL)
    assert log_q_BL[0, 1:4].exp().tolist() == pytest.approx([1 / 3] * 3)
    assert log_q_BL[0, [0, 4]].tolist() == [-math.inf] * 2


def test_weights_are_running_means_shrunk_to_the_overall_mean() -> None:
    """Token 7 is observed twice (1 and 3) and token 8 once (8): sums 4 and 8, overall mean 4."""
    table = TokenTable(10)
    observe(table, [7, 8, 7], [1.0, 8.0, 3.0])
    table.learn(table.fresh_2V, memory=10**9)
    weight_V = table.log_weight_V.exp()
    assert weight_V[7].item() == pytest.approx((4 + PRIOR * 4) / (2 + PRIOR), rel=1e-5)
    assert weight_V[8].item() == pytest.approx((8 + PRIOR * 4) / (1 + PRIOR), rel=1e-5)
    assert weight_V[9].item() == pytest.approx(4.0, rel=1e-5)
    assert table.fresh_2V.abs().sum() == 0


def test_q_becomes_proportional_to_the_mean_signal() -> None:
    """The fixed point of loss matching, which a table reaches without gradient descent."""
    generator = torch.Generator().manual_seed(0)
    mean_V = torch.tensor([0.0] * 5 + [1.0, 2.0, 5.0])
    table = TokenTable(8)
    for _ in range(400):
        tokens_BK = torch.randint(5, 8, (4, 8), generator=generator)
        signal_BK = mean_V[tokens_BK] * 2 * torch.rand(4, 8, generator=generator)
        table.observe(tokens_BK, signal_BK, torch.ones_like(tokens_BK, dtype=torch.bool))
        table.learn(table.fresh_2V, memory=10**9)
    q_L = table.log_q(torch.tensor([[5, 6, 7]]), torch.ones(1, 3, dtype=torch.bool)).exp()[0]
    assert q_L.tolist() == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=0.015)


def test_old_signals_are_forgotten() -> None:
    table = TokenTable(6)
    observe(table, [5] * 1000, [10.0] * 1000)
    table.learn(table.fresh_2V, memory=10)
    for _ in range(200):
        observe(table, [5] * 10, [1.0] * 10)
        table.learn(table.fresh_2V, memory=10)
    assert table.log_weight_V[5].exp().item() == pytest.approx(1.0, abs=0.01)


def test_sums_do_not_depend_on_order_and_ignore_invalid_entries() -> None:
    generator = torch.Generator().manual_seed(1)
    tokens_BK = torch.randint(5, 9, (64, 20), generator=generator)
    signal_BK = torch.rand(64, 20, generator=generator) * 9
    valid_BK = torch.rand(64, 20, generator=generator) < 0.7
    whole, parts = TokenTable(9), TokenTable(9)
    whole.observe(tokens_BK, signal_BK, valid_BK)
    for part in torch.randperm(64, generator=generator).split(7):
        parts.observe(tokens_BK[part], signal_BK[part], valid_BK[part])
    assert torch.equal(whole.fresh_2V, parts.fresh_2V)
    assert whole.fresh_2V[1].sum() == valid_BK.sum()
    assert whole.fresh_2V[0].sum().item() * UNIT == pytest.approx(signal_BK[valid_BK].sum().item(), rel=1e-5)


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_amlm_matches_plain_counting(soft: bool) -> None:
    """Dictionaries of counts, a window of 3 steps, and a falling mask rate, against AMLM's formulas step by step."""
    tokens, generator = range(7), torch.Generator().manual_seed(0)
    table, weight = TokenTable(len(tokens)), dict.fromkeys(tokens, 1.0)
    total, count = dict.fromkeys(tokens, 0.0), dict.fromkeys(tokens, 0)
    for step in range(12):
        rate = 0.4 - 0.02 * step
        seen = torch.randint(3, 7, (8,), generator=generator).tolist()  # 0 to 2 are never masked
        signals = torch.rand(8, generator=generator)
        values = (signals * 4 if soft else (signals < 0.3).float()).tolist()
        observe(table, seen, values)
        table.adapt(table.fresh_2V.clone(), (step + 1) % 3 == 0, rate, soft)
        for token, value in zip(seen, values, strict=True):
            total[token], count[token] = total[token] + value, count[token] + 1
        if (step + 1) % 3 == 0:
            prior = math.log(len(tokens)) if soft else 0.5
            new = {token: (total[token] + prior) / (count[token] + 1) for token in tokens}
            if soft:
                low, high = min(new.values()), max(new.values())
                new = {token: (mean - low) / (high - low) for token, mean in new.items()}
            weight = {token: max(0.2 * weight[token] + 0.8 * new[token], 0.005 / rate) for token in tokens}
            mean = sum(weight.values()) / len(tokens)
            weight = {token: value / mean for token, value in weight.items()}
            total, count = dict.fromkeys(tokens, 0.0), dict.fromkeys(tokens, 0)
        assert table.log_weight_V.exp().tolist() == pytest.approx(list(weight.values()), rel=1e-5), step
    assert not table.fresh_2V.any()
