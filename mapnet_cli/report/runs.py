"""Fine-tuning runs, reduced to what the tables need: a report doesn't hold the records of a large grid in memory."""

import json
from dataclasses import dataclass
from typing import Any

from mapnet_cli.core import EpochScores, FinetuneRun, Row
from mapnet_cli.glue import GridRun, one_class


@dataclass(frozen=True, slots=True)
class Choice:
    """A score times 100 on the half of the dev set used for selection (`own`), and on the other half."""

    own: float
    other: float

    @property
    def bias(self) -> float:
        return self.own - self.other


@dataclass(frozen=True, slots=True)
class Run:
    """A finished or failed fine-tuning run; its scores on the whole dev set are in `Results.grids`."""

    grid_run: GridRun
    checkpoint: str
    """SHA-256 of the pretrained weights; "" for random weights."""
    device: str
    failure: str
    epochs: int
    """Number of epochs with scores."""
    constant: bool
    """Whether its predictions at the epoch that counts are all the same."""
    choices: tuple[Choice, ...]
    """The epoch selected on each half of each split; () if the run has no epochs or no scores on halves."""


def reduced(grid_run: GridRun, row: FinetuneRun, metric: str, epoch: str) -> Run:
    """Returns the run, with its epochs selected by a metric: each half's best one, or the last if `epoch` is "last"."""
    last = row.failure != "" or epoch == "last"
    eligible = row.epochs[-1:] if last else row.epochs
    choices = _choices(eligible, metric) if _halves(row.epochs) else ()
    constant = bool(eligible) and one_class(max(eligible, key=lambda found: found.metrics[metric]).metrics)
    return Run(grid_run, row.checkpoint, row.device, row.failure, len(row.epochs), constant, choices)


def _halves(epochs: list[EpochScores]) -> int:
    """Returns the number of splits into halves that every epoch has scores on, 0 if it isn't the same for all."""
    numbers = {len(epoch.halves) for epoch in epochs}
    return numbers.pop() if len(numbers) == 1 else 0


def _choices(epochs: list[EpochScores], metric: str) -> tuple[Choice, ...]:
    found = []
    for splits in zip(*(epoch.halves for epoch in epochs), strict=True):
        scores = [(100 * first[metric], 100 * second[metric]) for first, second in splits]
        for half in (0, 1):
            best = max(scores, key=lambda pair: pair[half])
            found.append(Choice(best[half], best[1 - half]))
    return tuple(found)


def record_line(row: Row, written: bytes = b"") -> bytes:
    """Returns a row's line of records.jsonl. `written` is its JSON object if that is known, which is faster."""
    kind = type(row).__name__
    if written:
        return f'{{"record": "{kind}", '.encode() + written.removeprefix(b"{") + b"\n"
    return json_line({"record": kind} | row.to_json())


def json_line(value: dict[str, Any]) -> bytes:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return text.encode(errors="backslashreplace") + b"\n"
