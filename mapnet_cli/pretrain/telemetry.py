"""The training log: sums kept on the device between two log lines, one host-device synchronisation a line."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mapnet_cli.artifacts import write_text
from mapnet_cli.training.accounting import peak_memory_mb


class Telemetry:
    """Appends to a JSONL file. Lines after the step that a resumed run starts from are cut."""

    def __init__(self, path: Path, step: int, seconds: float) -> None:
        self.path = path
        self.bad_step: int | None = None
        """The first step whose loss or gradient was not finite, counted from 0."""
        write_text(path, "".join(_lines_up_to(path, step)))
        self._reset(step, seconds)

    def _reset(self, step: int, seconds: float) -> None:
        self._start = step
        self._seconds = seconds
        self._sums: dict[str, Tensor] = {}
        self._norms: list[Tensor] = []
        self._finite: list[Tensor] = []
        self._tokens = 0
        self._uniform_steps = 0

    def add(self, sums: dict[str, Tensor], norm: Tensor, tokens: int, explore: bool) -> None:
        """Adds a step's sums, without waiting for the device."""
        for name, value in sums.items():
            if name not in self._sums:
                self._sums[name] = value
            elif name == "largest_q":
                self._sums[name] = torch.maximum(self._sums[name], value)
            else:
                self._sums[name] = self._sums[name] + value
        self._norms.append(norm)
        self._finite.append(torch.isfinite(norm) & torch.isfinite(sums["objective"]))
        self._tokens += tokens
        self._uniform_steps += explore

    def flush(self, step: int, seconds: float, **facts: float) -> dict[str, Any]:
        """Writes and returns the line of the steps since the last one."""
        steps = step - self._start
        sums = {name: float(value) for name, value in self._sums.items()}
        finite = torch.stack(self._finite).tolist()
        if not all(finite) and self.bad_step is None:
            self.bad_step = self._start + finite.index(False)
        elapsed = max(seconds - self._seconds, 1e-9)
        row: dict[str, Any] = {
            "step": step,
            "loss": sums["loss"] / max(sums["masked"], 1),
            "objective": sums["objective"] / steps,
            "gradient_norm": float(torch.stack(self._norms).mean()),
            "uniform_steps": self._uniform_steps / steps,
            "tokens_per_second": self._tokens / elapsed,
            "peak_memory_mb": round(peak_memory_mb()),
            **facts,
        }
        if "mapnet_loss" in sums:
            row["mapnet_loss"] = sums["mapnet_loss"] / steps
        if sums.get("proposals"):
            row["proposal_entropy"] = sums["entropy"] / sums["proposals"]
            row["kl_to_uniform"] = sums["kl_to_uniform"] / sums["proposals"]
            row["largest_q"] = sums["largest_q"]
        if sums.get("weighted"):
            row["clip_fraction"] = sums["clipped"] / sums["weighted"]
            row["effective_sample_share"] = sums["weight"] ** 2 / (sums["weight_squared"] * sums["weighted"])
        if self.bad_step is None:
            self.write(row)
        self._reset(step, seconds)
        return row

    def write(self, row: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(row) + "\n")


def _lines_up_to(path: Path, step: int) -> list[str]:
    """Returns the log's lines up to a step; what a kill or a power cut left half-written is left out."""
    if not path.exists():
        return []
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        try:
            if line.endswith("\n") and json.loads(line)["step"] <= step:
                kept.append(line)
        except (json.JSONDecodeError, KeyError, TypeError):
            continue
    return kept
