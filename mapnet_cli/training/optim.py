"""AdamW and the learning rate's course, for pretraining (Table 1) and fine-tuning (Table 2)."""

import torch
from torch import Tensor, nn

from mapnet_cli.config import Optimiser

MOMENTS = ("exp_avg", "exp_avg_sq", "step")
"""Adam's state of a parameter. MAP-Net's count of steps differs where it rests on uniform steps."""


def build_adamw(model: nn.Module, config: Optimiser) -> torch.optim.AdamW:
    """Returns Adam with decoupled weight decay; biases and LayerNorms don't decay (BERT's choice).

    The learning rate starts at 0 and is set before each step.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=config.adam_betas, eps=config.adam_eps, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def learning_rate(step: int, peak: float, warmup: int, total: int) -> float:
    """Returns the rate of step number `step`, counted from 0: linear up over `warmup` steps, then linear to 0."""
    if step < warmup:
        return peak * (step + 1) / max(warmup, 1)
    return peak * (total - step) / max(total - warmup, 1)


def gradient_norm(model: nn.Module, clip_norm: float) -> Tensor:
    """Returns the norm of all gradients together, after scaling them down to `clip_norm` where it is above 0."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if clip_norm > 0:
        torch.nn.utils.clip_grads_with_norm_(model.parameters(), clip_norm, norm)
    return norm


def optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Returns Adam's moments by parameter name; empty before the first step."""
    return {
        f"{moment}.{name}": optimizer.state[parameter][moment]
        for name, parameter in model.named_parameters()
        for moment in MOMENTS
        if parameter in optimizer.state
    }


def restore_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Tensor]) -> None:
    """Puts back what `optimizer_state` returned."""
    for name, parameter in model.named_parameters():
        if f"exp_avg.{name}" in state:
            optimizer.state[parameter] = {m: state[f"{m}.{name}"].to(parameter.device) for m in MOMENTS}
