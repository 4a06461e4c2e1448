"""Fine-tuning runs, reduced to what the tables need: a report doesn't hold the records of a large grid in memory."""

import json
from dataclasses import dataclass
from typing import Any

from mapnet_cli.core import FinetuneRun, Row
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
    checkpoint: str  # SHA-256 of the pretrained weights; "" for random weights
    device: str
    failure: str  # why the run failed, "" if it didn't
    epochs: int  # number of epochs with scores
    constant: bool  # whether its predictions at the epoch that counts are all the same
    choices: tuple[Choice, ...]
    """The epoch selected on each half of each split; () if the run has no epochs or no scores on halves."""

    @property
    def encoder(self) -> tuple[str, int, int]:
        return self.grid_run.method, self.grid_run.pretrain_seed, self.grid_run.step


def reduced(grid_run: GridRun, row: FinetuneRun, metric: str, epoch: str) -> Run:
    """Returns the run, with its epochs selected by a metric: each half's best one, or the last if `epoch` is "last"."""
    eligible = row.epochs[-1:] if row.failure or epoch == "last" else row.epochs
    choices = list[Choice]()
    if len({len(found.halves) for found in row.epochs}) == 1:
        for splits in zip(*(found.halves for found in eligible), strict=True):
            scores = [(100 * first[metric], 100 * second[metric]) for first, second in splits]
            for half in (0, 1):
                best = max(scores, key=lambda pair: pair[half])
                choices.append(Choice(best[half], best[1 - half]))
    constant = bool(eligible) and one_class(max(eligible, key=lambda found: found.metrics[metric]).metrics)
    failure = row.failure or ("" if row.epochs else "no epoch finished")
    return Run(grid_run, row.checkpoint, row.device, failure, len(row.epochs), constant, tuple(choices))


def record_line(row: Row, written: bytes = b"") -> bytes:
    """Returns a row's line of records.jsonl. `written` is its JSON object if that is known, which is faster."""
    kind = type(row).__name__
    if written:
        return f'{{"record": "{kind}", '.encode() + written.removeprefix(b"{") + b"\n"
    return json_line({"record": kind} | row.to_json())


def json_line(value: dict[str, Any]) -> bytes:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return text.encode(errors="backslashreplace") + b"\n"
