"""AdamW and the learning rate's course, for pretraining (Table 1) and fine-tuning (Table 2)."""

import torch
from torch import Tensor, nn

from mapnet_cli.config import Optimiser

MOMENTS = ("exp_avg", "exp_avg_sq", "step")
"""Adam's state of a parameter. MAP-Net's count of steps differs where it rests on uniform steps."""


def build_adamw(
    model: nn.Module, config: Optimiser, apart: nn.Module | None = None, ratio: float = 1.0
) -> torch.optim.AdamW:
    """Returns Adam with decoupled weight decay; biases and LayerNorms don't decay (BERT's choice).

    The learning rate starts at 0 and is set before each step; that of the part `apart` is `ratio` times as high.
    """
    other = set() if apart is None else set(apart.parameters())
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            kind = (config.weight_decay if parameter.ndim > 1 else 0.0, ratio if parameter in other else 1.0)
            groups.setdefault(kind, []).append(parameter)
    rows = [{"params": chosen, "weight_decay": decay, "scale": scale} for (decay, scale), chosen in groups.items()]
    return torch.optim.AdamW(rows, lr=0.0, betas=config.adam_betas, eps=config.adam_eps, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr * group["scale"]


def learning_rate(step: int, peak: float, warmup: int, total: int) -> float:
    """Returns the rate of step number `step`, counted from 0: linear up over `warmup` steps, then linear to 0."""
    if step < warmup:
        return peak * (step + 1) / max(warmup, 1)
    return peak * (total - step) / max(total - warmup, 1)


def gradient_norm(
    model: nn.Module, clip_norm: float, apart: nn.Module | None = None, apart_clip_norm: float = 0.0
) -> Tensor:
    """Returns the norm of all gradients together, and then scales them down to `clip_norm` where it is above 0.

    The part `apart` is scaled by its own norm, and left out of the others', if `apart_clip_norm` is above 0.
    """
    others = [] if apart is None else [p for p in apart.parameters() if p.grad is not None]
    if others and apart_clip_norm > 0:
        left_out = set(others)
        norms = [
            _clipped_norm([p for p in model.parameters() if p not in left_out], clip_norm),
            _clipped_norm(others, apart_clip_norm),
        ]
        both: Tensor = torch.linalg.vector_norm(torch.stack(norms))
        return both
    return _clipped_norm(list(model.parameters()), clip_norm)


def _clipped_norm(parameters: list[nn.Parameter], clip_norm: float) -> Tensor:
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if clip_norm > 0:
        torch.nn.utils.clip_grads_with_norm_(parameters, clip_norm, norm)
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
