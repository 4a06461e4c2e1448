"""The optimiser, with a separate learning rate and clip norm for a submodule (MAP-Net)."""

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


def test_submodule_has_its_own_learning_rate() -> None:
    """Adam's first step changes every weight by the learning rate, independent of the gradient."""
    model = two_parts()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = build_adamw(model, Optimiser(weight_decay=0.0), model["proposal"], ratio=5.0)
    set_learning_rate(optimizer, 0.01)
    optimizer.step()
    for name, parameter in model.named_parameters():
        moved = (before[name] - parameter.detach()).abs()
        assert torch.allclose(moved, torch.full_like(moved, 0.05 if "proposal" in name else 0.01), rtol=1e-3), name


def test_weight_decay_applies_to_matrices_only() -> None:
    groups = build_adamw(two_parts(), Optimiser(weight_decay=0.3)).param_groups
    assert {group["weight_decay"]: {p.ndim for p in group["params"]} for group in groups} == {0.3: {2}, 0.0: {1}}


def test_joint_and_separate_clipping() -> None:
    """16 encoder gradients and 10 of the submodule, all 1: norms 4 and sqrt(10)."""
    joint = two_parts()
    assert gradient_norm(joint, 1.0, joint["proposal"]).item() == pytest.approx(26**0.5)
    assert joint["encoder"].bias.grad[0].item() == pytest.approx(26**-0.5, rel=1e-4)
    separate = two_parts()
    assert gradient_norm(separate, 1.0, separate["proposal"], 0.5).item() == pytest.approx(26**0.5)
    assert separate["encoder"].bias.grad[0].item() == pytest.approx(1 / 4, rel=1e-4)
    assert separate["proposal"].bias.grad[0].item() == pytest.approx(0.5 / 10**0.5, rel=1e-4)
    resting = two_parts()
    for parameter in resting["proposal"].parameters():
        parameter.grad = None
    assert gradient_norm(resting, 1.0, resting["proposal"], 0.5).item() == pytest.approx(4.0)
    assert resting["encoder"].bias.grad[0].item() == pytest.approx(1 / 4, rel=1e-4)
    unclipped = two_parts()
    gradient_norm(unclipped, 0.0, unclipped["proposal"], 0.5)
    assert unclipped["encoder"].bias.grad[0].item() == 1.0
