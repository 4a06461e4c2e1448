"""Selection of device and precision, and the peak FLOP/s of a device."""

import ctypes
import os
import platform
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
MIN_CAST_GAIN = 1.2  # minimum speed-up of bfloat16 products on a CPU to outweigh the casts
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # parameters of glibc's mallopt


def keep_freed_memory() -> None:
    """Makes glibc reuse freed memory for this process's large tensors instead of returning it to the system.

    Otherwise every step maps and clears hundreds of megabytes again, a fifth of its time on a CPU. Does nothing
    with another C library.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


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


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Returns the context manager for a forward pass: bfloat16 autocast, or a null context for float32."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def peak_flops(device: torch.device, precision: str) -> tuple[float, str]:
    """Returns (peak FLOP/s, its source): the data sheet's value, or that of a matrix product measured now."""
    if device.type == "cuda" and precision == "bfloat16":
        name = re.sub(r"[-_]", " ", torch.cuda.get_device_name(device))
        for model, peak in PEAK_BF16.items():
            if re.search(rf"\b{model}\b", name):
                return peak, f"{model}, data sheet, dense bfloat16"
    return _measured(device, precision), f"matrix product in {precision}, measured"


def precision_advice(device: torch.device, precision: str, section: str) -> list[str]:
    """Returns a message if bfloat16 is set on a CPU whose matrix products, measured now, hardly gain from it."""
    if device.type != "cpu" or precision != "bfloat16":
        return []
    gain = _measured(device, "bfloat16") / _measured(device, "float32")
    if gain >= MIN_CAST_GAIN:
        return []
    return [
        f"this CPU multiplies large matrices {gain:.2g} times as fast in bfloat16 as in float32: "
        f"{section}.precision=float32 is faster here"
    ]


def _measured(device: torch.device, precision: str, tries: int = 5) -> float:
    """Returns the FLOP/s of a product: by wall time on a GPU; on a CPU by process time, which excludes other processes.

    On a CPU it assumes that torch's threads are equally busy, on at most as many cores as are available.
    """
    gpu = device.type == "cuda"
    side = MATRIX_SIDES[not gpu]
    a = torch.ones(side, side, device=device, dtype=getattr(torch, precision))

    def seconds() -> float:
        if gpu:
            torch.cuda.synchronize(device)
            return time.perf_counter()
        return time.process_time() / min(torch.get_num_threads(), cores())

    best = 0.0
    for _ in range(tries + 1):  # the first is a warm-up
        start = seconds()
        a @ a
        best = max(best, 2 * side**3 / (seconds() - start))
    return best
