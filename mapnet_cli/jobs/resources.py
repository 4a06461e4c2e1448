"""What this machine has to run jobs on, found out without importing torch."""

import os
import subprocess
from pathlib import Path

from mapnet_cli.jobs.job import Phase

MIB = 2**20
USED = 0.9
"""Share of a GPU's memory that jobs get: the allocator leaves holes."""
NVIDIA_SMI = ("nvidia-smi", "--query-gpu=index,uuid,memory.free,memory.total", "--format=csv,noheader,nounits")


def local_processes() -> int:
    """Returns how many processes a launcher has started on this machine to work together."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE") or 1))


def visible_gpus() -> int:
    """Returns the number of NVIDIA GPUs, without importing torch or touching them."""
    return len(visible_devices())


def visible_devices() -> list[str]:
    """Returns the NVIDIA GPUs, named as in CUDA_VISIBLE_DEVICES: numbers, or UUIDs where the variable has them."""
    present = sum(1 for _ in Path("/dev").glob("nvidia[0-9]*"))
    return chosen_devices(os.environ.get("CUDA_VISIBLE_DEVICES"), present)


def chosen_devices(listed: str | None, present: int) -> list[str]:
    """Returns what CUDA makes of CUDA_VISIBLE_DEVICES: the first name of no GPU ends the list; None chooses all."""
    if listed is None:
        return [str(number) for number in range(present)]
    names = []
    for name in listed.split(","):
        name = name.strip()
        if not (name.startswith(("GPU-", "MIG-")) or (name.isdigit() and int(name) < present)) or not present:
            break
        names.append(name)
    return names


def gpu_listing() -> str:
    """Returns a line a GPU, "number, UUID, free MiB, all MiB", as nvidia-smi has them; "" where it can't be asked."""
    try:
        return subprocess.run(NVIDIA_SMI, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def least_free(devices: list[str], listing: str) -> int:
    """Returns the free bytes of the fullest of these GPUs, from what `gpu_listing` returns; 0: not known."""
    rows = _rows(listing)
    free = [row[2] for name in devices for row in rows if row[0] == name or row[1].startswith(name)]
    return min(map(int, free)) * MIB if len(free) == len(devices) > 0 else 0


def least_memory(listing: str) -> int:
    """Returns the bytes of memory of the smallest GPU, from what `gpu_listing` returns; 0: not known."""
    return min((int(row[3]) for row in _rows(listing)), default=0) * MIB


def _rows(listing: str) -> list[list[str]]:
    """Returns (number, UUID, free MiB, all MiB) of the GPUs that say how much memory they have."""
    rows = [[field.strip() for field in line.split(",")] for line in listing.splitlines()]
    return [row for row in rows if len(row) == 4 and row[2].isdigit() and row[3].isdigit()]


def sharing(phase: Phase, memory: int) -> int:
    """Returns how many of the phase's jobs share a GPU with so many bytes of memory, at least one."""
    return phase.jobs_per_gpu or max(1, int(USED * memory) // phase.gpu_bytes)


def gpu_slots(phase: Phase, devices: list[str], memory: int) -> list[str]:
    """Returns the GPU of each slot: a round of all GPUs, then the next, so that few jobs spread over all."""
    return devices * sharing(phase, memory)
