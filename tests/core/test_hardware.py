"""Detection of GPUs, their memory and the precision of this machine."""

import pytest

from mapnet_cli.core.hardware import MIB, min_free_memory, min_total_memory, parse_visible_devices, precision_of

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
        ("0,5,1", 2, ["0"]),  # CUDA stops at the first invalid entry
        ("-1", 2, []),
        ("NoDevFiles", 2, []),
        ("GPU-22bb,MIG-7", 2, ["GPU-22bb", "MIG-7"]),
        ("0", 0, []),
    ],
)
def test_cuda_visible_devices(listed: str | None, present: int, devices: list[str]) -> None:
    assert parse_visible_devices(listed, present) == devices


def test_memory_from_nvidia_smi_output() -> None:
    assert min_free_memory(["0"], LISTING) == 70_000 * MIB
    assert min_free_memory(["0", "1"], LISTING) == 3_000 * MIB
    assert min_free_memory(["GPU-22"], LISTING) == 3_000 * MIB
    assert min_free_memory(["0", "2"], LISTING) == 0, "GPU 2 doesn't report its memory"
    assert min_free_memory(["0"], "") == 0
    assert min_total_memory(LISTING) == 81_559 * MIB
    assert min_total_memory("No devices were found") == 0


@pytest.mark.parametrize(
    ("cpu", "capabilities", "precision"),
    [
        ("", "", "float32"),
        ("flags : fpu avx2 avx512f\n", "", "float32"),
        ("flags : avx512f avx512_bf16 x\n", "", "bfloat16"),
        ("flags : amx_bf16 amx_tile\n", "", "bfloat16"),
        ("flags : avx512_bf16\n", "7.5\n", "float32"),  # the GPU counts
        ("flags : avx2\n", "8.0\n9.0\n", "bfloat16"),
        ("flags : avx2\n", "9.0\n7.0\n", "float32"),
    ],
)
def test_precision_follows_the_hardware(cpu: str, capabilities: str, precision: str) -> None:
    assert precision_of(cpu, capabilities) == precision
