"""One optimiser, two rates and two clips: MAP-Net's may be its own."""

import pytest
import torch
from torch import nn

from mapnet_cli.config import Optimiser
from mapnet_cli.training.optim import build_adamw, gradient_norm, set_learning_rate


def two_parts() -> nn.ModuleDict:
    torch.manual_seed(0)
    model = nn.ModuleDict({"encoder": nn.Linear(3, 4), "proposal": nn.Linear(4, 2)})
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    return model


def test_a_part_may_have_its_own_learning_rate() -> None:
    """Adam's first step moves every weight by the rate, whatever the gradient."""
    model = two_parts()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = build_adamw(model, Optimiser(weight_decay=0.0), model["proposal"], ratio=5.0)
    set_learning_rate(optimizer, 0.01)
    optimizer.step()
    for name, parameter in model.named_parameters():
        moved = (before[name] - parameter.detach()).abs()
        assert torch.allclose(moved, torch.full_like(moved, 0.05 if "proposal" in name else 0.01), rtol=1e-3), name


def test_only_matrices_decay() -> None:
    groups = build_adamw(two_parts(), Optimiser(weight_decay=0.3)).param_groups
    assert {group["weight_decay"]: {p.ndim for p in group["params"]} for group in groups} == {0.3: {2}, 0.0: {1}}


def test_clipping_together_and_apart() -> None:
    """16 encoder gradients and 10 of the other part, all 1: norms 4 and the root of 10."""
    together = two_parts()
    assert gradient_norm(together, 1.0, together["proposal"]).item() == pytest.approx(26**0.5)
    assert together["encoder"].bias.grad[0].item() == pytest.approx(26**-0.5, rel=1e-4)
    apart = two_parts()
    assert gradient_norm(apart, 1.0, apart["proposal"], 0.5).item() == pytest.approx(26**0.5)
    assert apart["encoder"].bias.grad[0].item() == pytest.approx(1 / 4, rel=1e-4)
    assert apart["proposal"].bias.grad[0].item() == pytest.approx(0.5 / 10**0.5, rel=1e-4)
    resting = two_parts()
    for parameter in resting["proposal"].parameters():
        parameter.grad = None
    assert gradient_norm(resting, 1.0, resting["proposal"], 0.5).item() == pytest.approx(4.0)
    assert resting["encoder"].bias.grad[0].item() == pytest.approx(1 / 4, rel=1e-4)
    free = two_parts()
    gradient_norm(free, 0.0, free["proposal"], 0.5)
    assert free["encoder"].bias.grad[0].item() == 1.0
