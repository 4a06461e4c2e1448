"""Device selection, peak FLOP/s and precision advice."""

import itertools
import re

import pytest
import torch

from mapnet_cli.core.errors import UsageError
from mapnet_cli.training import device

GPU = torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
    ],
)
def test_data_sheet_peak_is_found_by_name(name: str, peak: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    assert device.peak_flops(GPU, "bfloat16")[0] == peak


def test_unlisted_devices_are_measured() -> None:
    peak, source = device.peak_flops(torch.device("cpu"), "float32")
    assert 1e8 < peak < 1e14
    assert "float32" in source
    assert "measured" in source


@pytest.mark.parametrize(("threads", "seconds"), [(1, 10), (2, 5), (4, 2.5), (8, 2.5)])
def test_measured_peak_excludes_other_processes(threads: int, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A product takes 10 s of process time over all threads, on 4 cores; wall time doesn't matter."""
    clock = itertools.count(0.0, 10.0)
    monkeypatch.setattr(device.time, "process_time", lambda: next(clock))
    monkeypatch.setattr(device, "cores", lambda: 4)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert device.peak_flops(torch.device("cpu"), "float32")[0] == pytest.approx(
        2 * device.MATRIX_SIDES[1] ** 3 / seconds
    )


def test_more_processes_than_gpus_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device.choose_device("auto", 1) == torch.device("cuda", 1)
    assert device.choose_device("cpu", 5) == torch.device("cpu")
    with pytest.raises(UsageError, match=r"process 2 .* sees 2"):
        device.choose_device("auto", 2)


def test_missing_gpu_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="no GPU"):
        device.choose_device("cuda")


@pytest.mark.parametrize(
    ("precision", "bfloat16", "message"),
    [
        ("float32", 5e9, None),
        ("bfloat16", 3e11, None),
        ("bfloat16", 5e9, r"0\.05 times as fast in bfloat16 as in float32: pretrain\.precision=float32 is faster"),
    ],
)
def test_slow_precision_is_reported(
    precision: str, bfloat16: float, message: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "_measured", lambda _, precision: bfloat16 if precision == "bfloat16" else 1e11)
    advice = device.precision_advice(torch.device("cpu"), precision, "pretrain")
    assert len(advice) == (message is not None)
    assert message is None or re.search(message, advice[0])
    assert device.precision_advice(GPU, precision, "pretrain") == []
