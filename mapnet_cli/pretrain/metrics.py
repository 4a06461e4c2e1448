"""The training log: sums are kept on the device between log lines, with one host-device synchronisation per line."""

import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mapnet_cli.core import log_rows, write_text, writing
from mapnet_cli.jobs import DistContext
from mapnet_cli.pretrain.electra import detection_metrics
from mapnet_cli.pretrain.segments import Segment, place_of
from mapnet_cli.pretrain.step import MAXIMA, add_up

NEVER = -(1 << 40)
HOST = ("tokens", "flops", "uniform_steps", "learned")


class StepMetrics:
    """Writes a JSONL log, and to TensorBoard if it is installed. A resumed run removes the lines after its place."""

    def __init__(
        self, folder: Path, parts: Sequence[Segment], place: int, dist: DistContext, peak_flops: float
    ) -> None:
        self.path = folder / "log.jsonl"
        self.dist = dist
        self.peak_flops = peak_flops  # peak FLOP/s of all processes' devices together
        self.bad_step: int | None = None  # first step, counted from 0, whose loss or gradient was not finite
        if dist.rank == 0:
            kept = [line for line, row in log_rows(self.path) if place > 0 and place_of(row, parts) <= place]
            write_text(self.path, "".join(kept))
        self._board: Any = None
        self._reset()

    def begin(self, step: int, branch: int) -> None:
        """Starts a segment of the run, whose TensorBoard events are a run of their own for a branch."""
        self._branch = {"branch": branch} if branch else {}
        self.close()
        if self.dist.rank == 0 and find_spec("tensorboard"):
            folder = self.path.with_name("tensorboard") / (f"branch{branch}" if branch else "")
            self._board = EventFile(folder, step + 1)  # without events of an interrupted run

    def _reset(self) -> None:
        self._kept: dict[str, Tensor] = {}
        self._host: dict[str, float] = {}
        self._waited = self._seconds = 0.0
        self._steps = 0

    def restore(self, totals: dict[str, float], device: torch.device) -> None:
        """Continues a line that a stopped run had begun, so that the log doesn't depend on where it was stopped."""
        left = dict(totals)
        self._steps, self._waited, self._seconds = int(left.pop("steps")), left.pop("data_wait"), left.pop("seconds")
        self._host = {name: left.pop(name) for name in HOST}
        kept = {name: value for name, value in left.items() if self.dist.rank == 0 or name in MAXIMA}
        self._kept = {name: torch.tensor(value, dtype=torch.float64, device=device) for name, value in kept.items()}

    def add(self, step: int, sums: dict[str, Tensor], norm: Tensor, host: dict[str, float], waited: float) -> None:
        """Adds a step's sums, counts made on the host (equal in all processes), and seconds waited, without a sync."""
        for name, count in host.items():
            self._host[name] = self._host.get(name, 0.0) + count
        self._waited += waited
        self._steps += 1
        finite = torch.isfinite(norm) & torch.isfinite(sums["objective"])
        # the maximum of -step is the first bad step
        values = {**sums, "gradient_norm": norm / self.dist.size, "gradient_norm_max": norm}
        values["bad"] = torch.where(finite, NEVER, -step)
        add_up(self._kept, {name: value.double() for name, value in values.items()})

    def pace(self, seconds: float) -> tuple[float, float]:
        """Returns tokens per second and seconds per step since the last line, for the seconds since then."""
        seconds = max(seconds + self._seconds, 1e-9)
        return self._host["tokens"] / seconds, seconds / self._steps

    def totals(self) -> dict[str, float]:
        """Synchronises with the device and returns the totals of all processes since the last line."""
        added = sorted(self._kept.keys() - set(MAXIMA))
        maxima = [name for name in MAXIMA if name in self._kept]
        sums = self.dist.all_reduce_sum_(torch.stack([self._kept[name] for name in added]))
        waited = torch.tensor(self._waited, dtype=torch.float64, device=sums.device)
        largest = self.dist.all_reduce_max_(torch.stack([*(self._kept[name] for name in maxima), waited]))
        names = [*added, *maxima, "data_wait"]
        values = dict(zip(names, torch.cat([sums, largest]).tolist(), strict=True)) | self._host
        values |= {"steps": self._steps, "seconds": self._seconds}
        bad = values.pop("bad")
        if bad > NEVER and self.bad_step is None:
            self.bad_step = int(-bad)
        return values

    def line(self, sums: dict[str, float], step: int, seconds: float, facts: dict[str, float]) -> dict[str, Any]:
        """Writes and returns the log line of the steps since the previous one, given their totals and seconds."""
        self._reset()
        steps, seconds = sums["steps"], max(seconds + sums["seconds"], 1e-9)
        row: dict[str, Any] = {
            "step": step,
            "loss": sums["loss"] / max(sums["masked"], 1),
            "objective": sums["objective"] / steps,
            "gradient_norm": sums["gradient_norm"] / steps,
            "gradient_norm_max": sums["gradient_norm_max"],
            "uniform_steps": sums["uniform_steps"] / steps,
            "tokens_per_second": sums["tokens"] / seconds,
            "step_seconds": seconds / steps,
            "flops_per_second": sums["flops"] / seconds,
            "mfu": sums["flops"] / seconds / self.peak_flops,
            "data_wait": sums["data_wait"] / seconds,
            **facts,
        }
        if "mapnet_loss" in sums:
            row["mapnet_loss"] = sums["mapnet_loss"] / sums["learned"]
        if "detection" in sums:
            row |= detection_metrics(sums)
        row |= diagnostics(sums)
        if self.bad_step is None:
            self.write(row)
        return row

    def write(self, row: dict[str, Any]) -> None:
        if self.dist.rank == 0:
            with writing(self.path), self.path.open("a", encoding="utf-8") as handle:
                handle.write(json.dumps(row | self._branch) + "\n")
        if self._board is not None:
            self._board.write(row)

    def close(self) -> None:
        if self._board is not None:
            self._board.close()


def diagnostics(sums: dict[str, float]) -> dict[str, float]:
    """Returns the DIAGNOSTICS of steps from their totals, {} for a method without a proposal or weights."""
    row = {}
    if sums.get("proposals"):
        row["proposal_entropy"] = sums["entropy"] / sums["proposals"]
        row["kl_to_uniform"] = sums["kl_to_uniform"] / sums["proposals"]
        row["largest_q"] = sums["largest_q"]
    if sums.get("weighted"):
        row["clip_fraction"] = sums["clipped"] / sums["weighted"]
        squares = sums["weight_squared"] * sums["weighted"]
        row["effective_sample_share"] = sums["weight"] ** 2 / squares if squares else 0.0
    return row


class EventFile:
    """A file for TensorBoard. Its own writer has a thread, whose failures print a traceback and stop nothing."""

    def __init__(self, folder: Path, first: int) -> None:
        """Creates the file; TensorBoard then drops the events of older files from step `first` on."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary = Event, Summary
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"events.out.tfevents.{time.time_ns()}.{os.getpid()}"
        self._records = RecordWriter(self._path.open("wb"))
        self._add(file_version="brain.Event:2")
        self._add(step=first, session_log=SessionLog(status=SessionLog.START))

    def write(self, row: dict[str, Any]) -> None:
        """Writes a log line."""
        values = [self._summary.Value(tag=name, simple_value=value) for name, value in row.items()]
        self._add(step=row["step"], summary=self._summary(value=values))

    def _add(self, **fields: Any) -> None:
        with writing(self._path):
            self._records.write(self._event(wall_time=time.time(), **fields).SerializeToString())
            self._records.flush()

    def close(self) -> None:
        with suppress(OSError):  # of an event that could not be written, which was raised before
            self._records.close()
