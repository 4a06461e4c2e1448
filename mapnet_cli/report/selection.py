"""What choosing on the dev set adds to a score: settings and epochs chosen on one half, scored on the other.

The paper picks the best of 16 settings on the dev set that it reports (section 4.1.2); so it is done here, and each
run's best epoch with it. The best of many noisy scores is too high. Here both are chosen again on a random
half of the dev set; what the choice then scores on the other half has nothing added, and the
difference between the halves is the bias of choosing on a half. It is 0 on average where nothing is
chosen, since each half takes both parts.
"""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mapnet_cli.config import Config
from mapnet_cli.core.records import FinetuneRun
from mapnet_cli.glue.scoring import Column, Place, Setting
from mapnet_cli.report.scores import Scores, mean

Both = tuple[float, float]
"""A score on the half that chose, and on the other half."""


@dataclass(frozen=True)
class Choice:
    """Mean over splits and halves, times 100: where the choice was made, and on the other half."""

    own: float
    other: float

    @property
    def bias(self) -> float:
        return self.own - self.other


def choices(runs: Iterable[FinetuneRun], config: Config, scores: Scores) -> dict[tuple[str, int, str], Choice]:
    """Returns the choice by (method, step, column), averaged over pretraining seeds.

    MNLI-mm is left out: its settings are chosen on the matched set anyway. So is an encoder with
    runs that recorded no halves.
    """
    columns = [column for column in scores.columns if column.chooser == column.name]
    by_place: dict[Place, list[FinetuneRun]] = defaultdict(list)
    for run in runs:
        for column in columns:
            if column.task == run.task:
                by_place[run.method, run.pretrain_seed, run.step, column.name].append(run)
    named = {column.name: column for column in columns}
    by_row: dict[tuple[str, int, str], list[Choice]] = defaultdict(list)
    for (method, _, step, name), group in by_place.items():
        fallback = scores.baselines.get(("majority", name), 0.0)
        if (choice := _choice(group, named[name], config, fallback)) is not None:
            by_row[method, step, name].append(choice)
    return {row: Choice(mean(c.own for c in group), mean(c.other for c in group)) for row, group in by_row.items()}


def _choice(runs: Sequence[FinetuneRun], column: Column, config: Config, fallback: float) -> Choice | None:
    splits = {len(epoch.halves) for run in runs for epoch in run.epochs}
    if len(splits) != 1 or splits == {0}:
        return None
    pairs = [_chosen(runs, column, config, fallback, split, half) for split in range(splits.pop()) for half in (0, 1)]
    return Choice(mean(own for own, _ in pairs), mean(other for _, other in pairs))


def _chosen(
    runs: Sequence[FinetuneRun], column: Column, config: Config, fallback: float, split: int, half: int
) -> Both:
    """Returns the best setting's mean over seeds by this half, and its mean on the other."""
    by_setting: dict[Setting, list[Both]] = defaultdict(list)
    for run in runs:
        by_setting[run.batch_size, run.lr].append(_run(run, column.metric, config, fallback, split, half))
    fullest = max(map(len, by_setting.values()))
    means = [_means(both) for both in by_setting.values() if len(both) == fullest]
    return max(means, key=lambda both: round(both[0], 9))


def _run(run: FinetuneRun, metric: str, config: Config, fallback: float, split: int, half: int) -> Both:
    """Returns a run's score on both halves at the epoch that this half chooses; a failed run's at its last."""
    if not run.epochs:
        return fallback, fallback
    found = [(100 * e.halves[split][half][metric], 100 * e.halves[split][1 - half][metric]) for e in run.epochs]
    if run.failure or config.finetune.epoch == "last":
        return found[-1]
    return max(found, key=lambda both: both[0])


def _means(both: Sequence[Both]) -> Both:
    return statistics.fmean(own for own, _ in both), statistics.fmean(other for _, other in both)


def average(found: Mapping[tuple[str, int, str], Choice], method: str, step: int) -> Choice | None:
    """Returns the average over the columns that have a choice, None if none has."""
    there = [choice for (name, at, _), choice in found.items() if (name, at) == (method, step)]
    return Choice(mean(c.own for c in there), mean(c.other for c in there)) if there else None
