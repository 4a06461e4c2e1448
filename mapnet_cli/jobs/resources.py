"""What this machine has to run jobs on, found out without importing torch."""

import os
from pathlib import Path


def cores() -> int:
    """Returns the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def local_processes() -> int:
    """Returns how many processes a launcher has started on this machine to work together."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE") or 1))


def visible_gpus() -> int:
    """Returns the number of NVIDIA GPUs, without importing torch or touching them."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    present = sum(1 for _ in Path("/dev").glob("nvidia[0-9]*"))
    return present if listed is None else min(present, len([d for d in listed.split(",") if d.strip()]))
