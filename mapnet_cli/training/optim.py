"""AdamW, gradient clipping and the learning rate schedule, for pretraining (Table 1) and fine-tuning (Table 2)."""

import torch
from torch import Tensor, nn

from mapnet_cli.config import Optimiser

MOMENTS = ("exp_avg", "exp_avg_sq", "step")
"""Adam's state per parameter. MAP-Net's step count differs from the encoder's if it skips uniform steps."""


def build_adamw(
    model: nn.Module, config: Optimiser, submodule: nn.Module | None = None, ratio: float = 1.0
) -> torch.optim.AdamW:
    """Returns AdamW; as in BERT, biases and norms don't decay. The rate of `submodule` is `ratio` times as high."""
    scaled = set() if submodule is None else set(submodule.parameters())
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            kind = (config.weight_decay if parameter.ndim > 1 else 0.0, ratio if parameter in scaled else 1.0)
            groups.setdefault(kind, []).append(parameter)
    rows = [{"params": chosen, "weight_decay": decay, "scale": scale} for (decay, scale), chosen in groups.items()]
    return torch.optim.AdamW(rows, lr=0.0, betas=config.adam_betas, eps=config.adam_eps, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr * group["scale"]


def learning_rate(step: int, peak: float, warmup: int, total: int, stable: int = 0) -> float:
    """Returns the rate of a step: linear warm-up, `peak` up to step `stable`, linear decay to 0 at step `total`."""
    if step < warmup:
        return peak * (step + 1) / max(warmup, 1)
    begin = max(warmup, stable)
    return peak if step < begin else peak * (total - step) / max(total - begin, 1)


def gradient_norm(
    model: nn.Module, clip_norm: float, submodule: nn.Module | None = None, submodule_clip_norm: float = 0.0
) -> Tensor:
    """Returns the norm of all gradients before clipping; clips them to `clip_norm` if it is above 0.

    If `submodule_clip_norm` is above 0, the submodule and the rest are each clipped by their own norm.
    """
    separate = list(submodule.parameters()) if submodule is not None and submodule_clip_norm > 0 else []
    excluded = {parameter for parameter in separate if parameter.grad is not None}
    norm = _clipped_norm([parameter for parameter in model.parameters() if parameter not in excluded], clip_norm)
    if not excluded:
        return norm
    total: Tensor = torch.linalg.vector_norm(torch.stack([norm, _clipped_norm(separate, submodule_clip_norm)]))
    return total


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
    """Restores the state that `optimizer_state` returned."""
    optimizer.state.clear()
    for name, parameter in model.named_parameters():
        if f"exp_avg.{name}" in state:
            optimizer.state[parameter] = {m: state[f"{m}.{name}"].to(parameter.device) for m in MOMENTS}
