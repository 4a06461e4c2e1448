"""Eq. 5, Eq. 10 and loss matching on examples computed by hand."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mapnet_cli.masking.objectives import encoder_loss, loss_matching, pairwise


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
