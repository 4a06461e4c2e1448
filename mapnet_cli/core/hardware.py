"""GPUs, their memory, and the precision that suits this machine, detected without importing torch."""

import os
import shutil
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

MIB = 2**20
CUDA_BYTES = 2**30  # GPU memory that CUDA and its libraries take per process
TRAINING_BYTES = 16  # memory per parameter in training: a float32 weight, its gradient and Adam's two moments
NVIDIA_SMI = ("nvidia-smi", "--query-gpu=index,uuid,memory.free,memory.total", "--format=csv,noheader,nounits")

CAPABILITY = ("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader")
BFLOAT16_CAPABILITY = 8.0  # compute capability from which GPUs multiply in bfloat16
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}
"""Features of CPUs on which a training step in bfloat16 was measured to be faster (docs/measurements.md)."""


def visible_gpus() -> int:
    """Returns the number of visible NVIDIA GPUs, without importing torch or initialising CUDA."""
    return len(visible_devices())


def visible_devices() -> list[str]:
    """Returns the visible NVIDIA GPUs: indices, or UUIDs if CUDA_VISIBLE_DEVICES lists those."""
    present = sum(1 for _ in Path("/dev").glob("nvidia[0-9]*"))
    return parse_visible_devices(os.environ.get("CUDA_VISIBLE_DEVICES"), present)


def parse_visible_devices(listed: str | None, present: int) -> list[str]:
    """Parses CUDA_VISIBLE_DEVICES as CUDA does: the first invalid entry ends the list; None means all GPUs."""
    if listed is None:
        return [str(number) for number in range(present)]
    names = []
    for name in listed.split(","):
        name = name.strip()
        if not (name.startswith(("GPU-", "MIG-")) or (name.isdigit() and int(name) < present)) or not present:
            break
        names.append(name)
    return names


def query_gpus() -> str:
    """Returns nvidia-smi's output, one line "index, UUID, free MiB, total MiB" per GPU, or "" if it can't be run."""
    return _output(NVIDIA_SMI)


def _output(command: tuple[str, ...]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def min_free_memory(devices: list[str], listing: str) -> int:
    """Returns the smallest free memory of these GPUs in bytes, given `query_gpus` output; 0 if unknown."""
    rows = _rows(listing)
    free = [row[2] for name in devices for row in rows if row[0] == name or row[1].startswith(name)]
    return min(map(int, free)) * MIB if len(free) == len(devices) > 0 else 0


def min_total_memory(listing: str) -> int:
    """Returns the total memory of the smallest GPU in bytes, given `query_gpus` output; 0 if unknown."""
    return min((int(row[3]) for row in _rows(listing)), default=0) * MIB


def main_memory() -> tuple[int, int]:
    """Returns the machine's memory and the part of it that is available, in bytes, within the limit of a container.

    (0, 0) if unknown: limits are those of Linux's control groups, version 2.
    """
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
        total, free = (int(fields[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError):
        return 0, 0
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and (most := limit.read_text().strip()).isdigit():
        total, free = min(total, int(most)), max(0, min(free, int(most) - int(used.read_text())))
    return total, free


def free_disk(path: Path) -> int:
    """Returns the free bytes on the disk of a file or folder, which need not exist yet."""
    path = path.resolve()
    return shutil.disk_usage(next(folder for folder in (path, *path.parents) if folder.exists())).free


def _rows(listing: str) -> list[list[str]]:
    """Returns [index, UUID, free MiB, total MiB] of the GPUs that report their memory."""
    rows = [[field.strip() for field in line.split(",")] for line in listing.splitlines()]
    return [row for row in rows if len(row) == 4 and row[2].isdigit() and row[3].isdigit()]


@cache
def automatic_precision(device: str) -> Literal["float32", "bfloat16"]:
    """Returns what precision "auto" means for a device setting ("auto", "cpu" or "cuda") on this machine.

    It is bfloat16 where matrix products have hardware for it: on recent GPUs, and CPUs with `BFLOAT16_FLAGS`.
    """
    cuda = device != "cpu" and visible_gpus() and not installed_version("torch").endswith("+cpu")
    cpu = Path("/proc/cpuinfo")
    return precision_of(cpu.read_text() if cpu.exists() else "", _output(CAPABILITY) if cuda else "")


def precision_of(cpu: str, capabilities: str) -> Literal["float32", "bfloat16"]:
    """Returns the precision for the contents of /proc/cpuinfo and the compute capabilities of GPUs, "" if none."""
    if capabilities:
        native = min(map(float, capabilities.split())) >= BFLOAT16_CAPABILITY
    else:
        native = bool(BFLOAT16_FLAGS & set(cpu.split()))
    return "bfloat16" if native else "float32"


def installed_version(package: str) -> str:
    """Returns the version of an installed package, or ""."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
