"""Eq. 5, Eq. 10 and loss matching on examples computed by hand."""

import math
from collections.abc import Callable
from itertools import permutations, product

import pytest
import torch
from torch import Tensor

from mapnet_cli.masking.objectives import encoder_loss, entropy, loss_matching, mean_of_others, pairwise
from mapnet_cli.masking.sampling import conditional_log_q
from mapnet_cli.model import masked_log_softmax


def test_eq_5_by_hand() -> None:
    loss_BK = torch.tensor([[1.0, 3.0], [2.0, 99.0]])
    valid_BK = torch.tensor([[True, True], [True, False]])
    weight_BK = torch.tensor([[0.8, 0.8], [1.2, 1.2]])
    assert encoder_loss(loss_BK, valid_BK, weight_BK, 3).item() == pytest.approx((0.8 * 4 + 1.2 * 2) / 3)


def test_eq_5_has_no_gradient_for_the_weight() -> None:
    loss_BK = torch.ones(1, 2, requires_grad=True)
    weight_BK = torch.tensor([[0.8, 0.8]], requires_grad=True)
    encoder_loss(loss_BK, torch.ones(1, 2, dtype=torch.bool), weight_BK, 2).backward()
    assert weight_BK.grad is None
    assert loss_BK.grad is not None
    assert loss_BK.grad.tolist() == [[pytest.approx(0.4)] * 2]


def test_eq_10_by_hand_with_its_baseline() -> None:
    """Losses 1, 2, 6: mean 3, coefficients -2, -1, 3."""
    log_q_BK = torch.tensor([[-1.0, -2.0, -0.5]], requires_grad=True)
    loss_BK = torch.tensor([[1.0, 2.0, 6.0]], requires_grad=True)
    value_B = pairwise(log_q_BK, loss_BK, torch.ones(1, 3, dtype=torch.bool))
    assert value_B.item() == pytest.approx(1.0 * -2 + 2.0 * -1 + 0.5 * 3)
    value_B.sum().backward()
    assert log_q_BK.grad is not None
    assert log_q_BK.grad.tolist() == [[2.0, 1.0, -3.0]]
    assert loss_BK.grad is None


def test_eq_10_coefficients_sum_to_zero() -> None:
    """So adding a constant to every log q changes nothing: only differences between positions matter."""
    generator = torch.Generator().manual_seed(0)
    log_q_BK = torch.randn(5, 7, generator=generator)
    loss_BK = torch.rand(5, 7, generator=generator)
    valid_BK = torch.arange(7) < torch.tensor([[7], [6], [1], [0], [3]])
    shifted = pairwise(log_q_BK + 10, loss_BK, valid_BK)
    assert torch.allclose(shifted, pairwise(log_q_BK, loss_BK, valid_BK), atol=1e-5)


def test_eq_10_has_no_gradient_for_unsampled_logits() -> None:
    """The gradient through the softmax cancels for positions that were not sampled."""
    logits_BL = torch.randn(1, 6, generator=torch.Generator().manual_seed(1), requires_grad=True)
    positions_BK = torch.tensor([[4, 1, 2]])
    log_q_BK = torch.log_softmax(logits_BL, dim=1).gather(1, positions_BK)
    value = pairwise(log_q_BK, torch.tensor([[0.5, 4.0, 1.0]]), torch.ones(1, 3, dtype=torch.bool))
    value.sum().backward()
    assert logits_BL.grad is not None
    assert logits_BL.grad[0, [0, 3, 5]].abs().max().item() < 1e-6
    assert logits_BL.grad[0, 1].item() < -1  # gradient descent raises the logit of the hard position


def test_eq_10_is_finite_with_positions_that_cannot_be_masked() -> None:
    log_q_BK = torch.tensor([[-1.0, -torch.inf]], requires_grad=True)
    valid_BK = torch.tensor([[True, False]])
    value_B = pairwise(log_q_BK, torch.tensor([[2.0, 0.0]]), valid_BK)
    assert value_B.item() == 0.0
    value_B.sum().backward()
    assert log_q_BK.grad is not None
    assert torch.isfinite(log_q_BK.grad).all()


def test_loss_matching_converges_to_the_signal() -> None:
    """Gradient descent on random positions converges to q proportional to the signal; with Eq. 10, to an argmax."""
    signal_L = torch.tensor([0.5, 1.0, 2.0, 4.0, 0.25])
    generator = torch.Generator().manual_seed(0)

    def descend(objective: Callable[[Tensor, Tensor, Tensor], Tensor], steps: int) -> Tensor:
        logits_L = torch.zeros(5, requires_grad=True)
        optimizer = torch.optim.Adam([logits_L], lr=0.05)
        for _ in range(steps):
            positions_BK = torch.rand(16, 5, generator=generator).argsort(dim=1)[:, :3]
            log_q_BK = torch.log_softmax(logits_L, dim=0)[positions_BK]
            valid_BK = torch.ones_like(positions_BK, dtype=torch.bool)
            optimizer.zero_grad()
            objective(log_q_BK, signal_L[positions_BK], valid_BK).mean().backward()
            optimizer.step()
        return torch.softmax(logits_L.detach(), dim=0)

    assert torch.allclose(descend(loss_matching, 1500), signal_L / signal_L.sum(), atol=1e-3)
    assert descend(pairwise, 1500).max() > 0.99


def test_loss_matching_has_no_gradient_at_its_fixed_point() -> None:
    signal_BK = torch.tensor([[1.0, 3.0, 4.0]])
    log_q_BK = torch.log(signal_BK / 20).requires_grad_()  # the remaining mass is on other positions
    loss_matching(log_q_BK, signal_BK, torch.ones(1, 3, dtype=torch.bool)).sum().backward()
    assert log_q_BK.grad is not None
    assert log_q_BK.grad.abs().max().item() < 1e-6


def test_loss_matching_by_hand_and_in_edge_cases() -> None:
    """The normalised signal is 1/4 and 3/4; q restricted to the two positions is 1/3 and 2/3."""
    log_q_BK = torch.log(torch.tensor([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2]])).requires_grad_()
    valid_BK = torch.tensor([[True, True, False], [False, False, False]])
    value_B = loss_matching(log_q_BK, torch.tensor([[1.0, 3.0, 9.0], [1.0, 1.0, 1.0]]), valid_BK)
    expected = -(math.log(1 / 3) / 4 + 3 * math.log(2 / 3) / 4)
    assert value_B.tolist() == pytest.approx([expected, 0.0])
    value_B.sum().backward()
    assert log_q_BK.grad is not None
    assert torch.isfinite(log_q_BK.grad).all()
    no_signal_B = loss_matching(log_q_BK, torch.zeros(2, 3), valid_BK)
    assert no_signal_B.tolist() == [0.0, 0.0]


def test_batch_baseline_leaves_the_expected_gradient_unchanged() -> None:
    """Two sentences of 4 positions, 2 ordered draws from each without replacement: all 144 outcomes, weighted.

    The losses depend on the whole draw. Eq. 10's own baseline changes the expectation.
    """
    generator = torch.Generator().manual_seed(0)
    logits_BL = torch.randn(2, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    losses = {draw: torch.rand(2, 2, generator=generator, dtype=torch.float64) for draw in permutations(range(4), 2)}
    valid_BK = torch.ones(2, 2, dtype=torch.bool)

    def expected(baseline: Callable[[Tensor], Tensor | None]) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for draws in product(losses, repeat=2):
            signal_BK = torch.stack([losses[draw][row] for row, draw in enumerate(draws)])
            log_q_BK = torch.log_softmax(logits_BL, dim=1).gather(1, torch.tensor(draws))
            draw_BK = conditional_log_q(log_q_BK, valid_BK)
            probability = draw_BK.sum().exp().detach()
            total = total + probability * pairwise(draw_BK, signal_BK, valid_BK, baseline(signal_BK)).sum()
        (gradient_BL,) = torch.autograd.grad(total, logits_BL)
        return gradient_BL

    none_BL = expected(lambda signal_BK: torch.zeros(2, 1, dtype=torch.float64))
    assert torch.allclose(expected(lambda signal_BK: mean_of_others(signal_BK, valid_BK)), none_BL, atol=1e-12)
    assert not torch.allclose(expected(lambda _: None), none_BL, atol=1e-3)


def test_batch_baseline_by_hand() -> None:
    signal_BK = torch.tensor([[1.0, 2.0], [3.0, 9.0], [5.0, 9.0]])
    valid_BK = torch.tensor([[True, True], [True, False], [False, False]])
    assert mean_of_others(signal_BK, valid_BK).flatten().tolist() == [3.0, 1.5, 2.0]
    assert mean_of_others(signal_BK[:1], valid_BK[:1]).tolist() == [[0.0]]


def test_gradient_of_the_entropy() -> None:
    """dH/dlogit_i = -q_i (log q_i + H), and 0 where nothing can be masked."""
    logits_BL = torch.randn(2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    maskable_BL = torch.tensor([[True, True, True, True, False], [False] * 5])
    log_q_BL = masked_log_softmax(logits_BL, maskable_BL)
    entropy_B = entropy(log_q_BL, maskable_BL)
    entropy_B.sum().backward()
    q_L, log_q_L = log_q_BL[0, :4].exp().detach(), log_q_BL[0, :4].detach()
    assert entropy_B.tolist() == [pytest.approx(-(q_L * log_q_L).sum().item()), 0.0]
    assert logits_BL.grad is not None
    assert torch.allclose(logits_BL.grad[0, :4], -q_L * (log_q_L + entropy_B[0].detach()))
    assert logits_BL.grad[0, 4] == 0 and not logits_BL.grad[1].any()
