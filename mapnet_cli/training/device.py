"""Selection of device and precision, and the peak FLOP/s of a device."""

import os
import re
import time
from contextlib import AbstractContextManager, nullcontext

import torch

from mapnet_cli.core import ProcessError, UsageError
from mapnet_cli.jobs import cores

PEAK_BF16 = {
    "H100 NVL": 835e12, "H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "H800": 989e12, "GH200": 989e12,
    "B200": 2250e12, "A100": 312e12, "A800": 312e12, "A40": 150e12, "A10G": 70e12, "A30": 165e12, "L40S": 362e12,
    "L40": 181e12, "L4": 121e12, "RTX 4090": 165e12, "RTX 3090": 71e12,
}  # fmt: skip
"""Dense bfloat16 FLOP/s with float32 accumulation, from the vendors' data sheets. Longer names must come first."""
MATRIX_SIDES = 4096, 768
"""Side of the square matrices whose product is timed on devices that are not in the table: (GPU, CPU)."""

MIN_CAST_GAIN, MIN_ADVICE_GAIN = 1.2, 1.5
"""Minimum speed-up of bfloat16 products on a CPU to outweigh the casts, and for bfloat16 to be recommended."""


def choose_device(wanted: str, local_rank: int = 0) -> torch.device:
    """Returns the device for `auto`, `cpu` or `cuda`. Raises UsageError or ProcessError if there is no GPU for it."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UsageError("device is 'cuda', but torch sees no GPU; use 'auto' or 'cpu', or see `mapnet doctor`")
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if count == 1 and "SLURM_STEP_NUM_TASKS" in os.environ:
        local_rank = 0  # srun made one GPU visible to each task
    if local_rank >= count:
        raise ProcessError(
            f"process {local_rank} on this machine has no GPU: torch sees {count}; "
            f"start at most one process per GPU, or set pretrain.device=cpu"
        )
    return torch.device("cuda", local_rank)


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, {torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''}"


def resolve_precision(device: torch.device, precision: str) -> str:
    """Returns "bfloat16" or "float32"; `auto` means bfloat16 on a GPU that supports it, and float32 elsewhere."""
    if precision == "auto":
        return "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    return precision


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Returns the context manager for a forward pass: bfloat16 autocast, or a null context for float32."""
    if resolve_precision(device, precision) == "bfloat16":
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


def peak_flops(device: torch.device, precision: str) -> tuple[float, str]:
    """Returns (peak FLOP/s, its source): the data sheet's value, or that of a matrix product measured now."""
    precision = resolve_precision(device, precision)
    if device.type == "cuda" and precision == "bfloat16":
        name = re.sub(r"[-_]", " ", torch.cuda.get_device_name(device))
        for model, peak in PEAK_BF16.items():
            if re.search(rf"\b{model}\b", name):
                return peak, f"{model}, data sheet, dense bfloat16"
    return _measured(device, precision), f"matrix product in {precision}, measured"


def precision_advice(device: torch.device, precision: str, section: str) -> list[str]:
    """Returns a message if matrix products, measured now, are faster in the other precision on this CPU, else none.

    There is no advice against float32 if it was set explicitly.
    """
    if device.type != "cpu":
        return []
    gain = _measured(device, "bfloat16") / _measured(device, "float32")
    measured = f"this CPU multiplies large matrices {gain:.2g} times as fast in bfloat16 as in float32"
    if precision == "bfloat16" and gain < MIN_CAST_GAIN:
        return [f"{measured}: {section}.precision=float32 is faster here"]
    if precision == "auto" and gain > MIN_ADVICE_GAIN:
        return [f"{measured}: {section}.precision=bfloat16 may be worth it (results change: everything is retrained)"]
    return []


def _measured(device: torch.device, precision: str, tries: int = 5) -> float:
    side = MATRIX_SIDES[device.type == "cpu"]
    a = torch.ones(side, side, device=device, dtype=getattr(torch, precision))
    best = 0.0
    for _ in range(tries + 1):  # the first is a warm-up
        _synchronise(device)
        start = _seconds(device)
        a @ a
        _synchronise(device)
        best = max(best, 2 * side**3 / (_seconds(device) - start))
    return best


def _seconds(device: torch.device) -> float:
    """Returns a clock reading: wall time on a GPU, process time per busy core on a CPU, to exclude other processes.

    It assumes that torch's threads are equally busy, on at most as many cores as are available.
    """
    return time.perf_counter() if device.type == "cuda" else time.process_time() / min(torch.get_num_threads(), cores())


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
