"""Sharing of GPUs."""

from mapnet_cli.core.hardware import MIB
from mapnet_cli.jobs.job import Phase
from mapnet_cli.jobs.resources import gpu_slots, jobs_per_gpu


def test_number_of_jobs_per_gpu() -> None:
    phase = Phase("p", [], gpu_bytes=10 * MIB)
    assert [jobs_per_gpu(phase, memory * MIB) for memory in (0, 9, 24, 100)] == [1, 1, 2, 9]
    assert jobs_per_gpu(Phase("p", [], gpu_bytes=10 * MIB, jobs_per_gpu=5), MIB) == 5
    assert gpu_slots(phase, ["0", "1"], 24 * MIB) == ["0", "1", "0", "1"]
