"""Where training runs and in which precision."""

from contextlib import AbstractContextManager, nullcontext

import torch

from mapnet_cli.errors import UsageError


def choose_device(wanted: str) -> torch.device:
    """Returns the device for `auto`, `cpu` or `cuda`; raises UsageError for a GPU that isn't there."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UsageError("device is 'cuda', but torch sees no GPU; use 'auto' or 'cpu', or see `mapnet doctor`")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, {torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''}"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Returns the context of a forward pass: bfloat16 autocast or plain float32."""
    if precision == "auto":
        precision = "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    if precision == "bfloat16":
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()
