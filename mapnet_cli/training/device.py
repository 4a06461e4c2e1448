"""Where training runs, in which precision, and how fast that is at best."""

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
"""Dense bfloat16 FLOP/s by the makers' data sheets, float32 accumulation; a longer name goes before a shorter one."""
MATRIX = 4096, 768
"""Side of the square matrices whose product measures a device that is not in the table: a GPU's, a CPU's."""

WORTH_A_CAST, WORTH_A_CHANGE = 1.2, 1.5
"""So many times as fast must bfloat16 products be on a CPU to pay for the casts, and to be worth telling."""


def choose_device(wanted: str, local_rank: int = 0) -> torch.device:
    """Returns the device for `auto`, `cpu` or `cuda`; raises UsageError for a GPU that isn't there."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UsageError("device is 'cuda', but torch sees no GPU; use 'auto' or 'cpu', or see `mapnet doctor`")
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if count == 1 and "SLURM_STEP_NUM_TASKS" in os.environ:
        local_rank = 0  # srun has bound each task to a GPU of its own, the only one that it sees
    if local_rank >= count:
        raise ProcessError(
            f"process {local_rank} of this machine has no GPU: torch sees {count}; "
            f"start as many processes as there are GPUs, or set pretrain.device=cpu"
        )
    return torch.device("cuda", local_rank)


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, {torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''}"


def resolve_precision(device: torch.device, precision: str) -> str:
    """Returns "bfloat16" or "float32": `auto` is bfloat16 on a GPU that has it."""
    if precision == "auto":
        return "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    return precision


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Returns the context of a forward pass: bfloat16 autocast or plain float32."""
    if resolve_precision(device, precision) == "bfloat16":
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


def peak_flops(device: torch.device, precision: str) -> tuple[float, str]:
    """Returns (FLOP/s at best, where that is from): the maker's figure, or a matrix product measured now."""
    precision = resolve_precision(device, precision)
    if device.type == "cuda" and precision == "bfloat16":
        words = re.sub(r"[-_]", " ", torch.cuda.get_device_name(device))
        for name, peak in PEAK_BF16.items():
            if re.search(rf"\b{name}\b", words):
                return peak, f"{name}, data sheet, dense bfloat16"
    return _measured(device, precision), f"matrix product in {precision}, measured"


def precision_advice(device: torch.device, precision: str, section: str) -> list[str]:
    """Returns a line where a CPU's matrix products, measured now, speak for the other precision, else none.

    float32 that was asked for by name is left alone.
    """
    if device.type != "cpu":
        return []
    gain = _measured(device, "bfloat16") / _measured(device, "float32")
    measured = f"this CPU multiplies large matrices {gain:.2g} times as fast in bfloat16 as in float32"
    if precision == "bfloat16" and gain < WORTH_A_CAST:
        return [f"{measured}: {section}.precision=float32 is the faster one here"]
    if precision == "auto" and gain > WORTH_A_CHANGE:
        return [f"{measured}: {section}.precision=bfloat16 may be worth it (other results: everything is trained anew)"]
    return []


def _measured(device: torch.device, precision: str, tries: int = 5) -> float:
    side = MATRIX[device.type == "cpu"]
    a = torch.ones(side, side, device=device, dtype=getattr(torch, precision))
    best = 0.0
    for _ in range(tries + 1):  # the first warms up
        _finish(device)
        start = _seconds(device)
        a @ a
        _finish(device)
        best = max(best, 2 * side**3 / (_seconds(device) - start))
    return best


def _seconds(device: torch.device) -> float:
    """Returns a time whose differences count, on a CPU, only what this process got of it: others may be at work too.

    All of torch's threads are taken to have had as much, of as many cores as there are for them.
    """
    return time.perf_counter() if device.type == "cuda" else time.process_time() / min(torch.get_num_threads(), cores())


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
