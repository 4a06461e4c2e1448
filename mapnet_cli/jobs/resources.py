"""Sharing of this machine's GPUs and cores among processes."""

import os

from mapnet_cli.jobs.job import Phase

USABLE_SHARE = 0.9
"""Fraction of a GPU's memory available to jobs; the rest allows for fragmentation."""


def local_processes() -> int:
    """Returns the number of processes that torchrun has started on this machine, at least 1."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE") or 1))


def jobs_per_gpu(phase: Phase, memory: int) -> int:
    """Returns the number of the phase's jobs that share a GPU with `memory` bytes, at least 1."""
    return phase.jobs_per_gpu or max(1, int(USABLE_SHARE * memory) // phase.gpu_bytes)


def gpu_slots(phase: Phase, devices: list[str], memory: int) -> list[str]:
    """Returns the GPU of each slot, in round-robin order, so that a few jobs are spread over all GPUs."""
    return devices * jobs_per_gpu(phase, memory)
