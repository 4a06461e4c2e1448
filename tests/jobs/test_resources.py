"""What a machine has to run jobs on."""

import pytest

from mapnet_cli.jobs.job import Phase
from mapnet_cli.jobs.resources import MIB, chosen_devices, gpu_slots, least_free, least_memory, sharing

LISTING = """0, GPU-11aa, 70000, 81559
1, GPU-22bb, 3000, 81559
2, GPU-33cc, [N/A], [N/A]
"""


@pytest.mark.parametrize(
    ("listed", "present", "devices"),
    [
        (None, 2, ["0", "1"]),
        (None, 0, []),
        ("", 2, []),
        ("1", 2, ["1"]),
        ("1, 0", 2, ["1", "0"]),
        ("0,5,1", 2, ["0"]),  # CUDA stops at the first that is none
        ("-1", 2, []),
        ("NoDevFiles", 2, []),
        ("GPU-22bb,MIG-7", 2, ["GPU-22bb", "MIG-7"]),
        ("0", 0, []),
    ],
)
def test_cuda_visible_devices(listed: str | None, present: int, devices: list[str]) -> None:
    assert chosen_devices(listed, present) == devices


def test_memory_from_what_nvidia_smi_says() -> None:
    assert least_free(["0"], LISTING) == 70_000 * MIB
    assert least_free(["0", "1"], LISTING) == 3_000 * MIB
    assert least_free(["GPU-22"], LISTING) == 3_000 * MIB
    assert least_free(["0", "2"], LISTING) == 0, "one of them does not say"
    assert least_free(["0"], "") == 0
    assert least_memory(LISTING) == 81_559 * MIB
    assert least_memory("No devices were found") == 0


def test_how_many_share_a_gpu() -> None:
    phase = Phase("p", [], gpu_bytes=10 * MIB)
    assert [sharing(phase, memory * MIB) for memory in (0, 9, 24, 100)] == [1, 1, 2, 9]
    assert sharing(Phase("p", [], gpu_bytes=10 * MIB, jobs_per_gpu=5), MIB) == 5
    assert gpu_slots(phase, ["0", "1"], 24 * MIB) == ["0", "1", "0", "1"]
