"""What the paper leaves out beside its means: how scores spread over seeds, and what choosing adds to them.

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
from mapnet_cli.core import Cell, Column, FinetuneRun, Table, build_table, each, number_cell
from mapnet_cli.glue import Place, Setting, other_rows
from mapnet_cli.report.compare import CONFIDENCE, Comparison, difference_cell, interval, paired
from mapnet_cli.report.load import Results, signature
from mapnet_cli.report.notes import label, marks, model_cell, of_columns, on_what, score_notes
from mapnet_cli.report.scores import Scores, TaskScore, mean


@dataclass(frozen=True)
class _Spread:
    """A model's score in one column."""

    method: str
    task: str
    score: TaskScore
    difference: Comparison | None
    """To the first method; None for that one and for what no method pretrains."""

    @property
    def values(self) -> list[float]:
        return list((self.score.by_seed or {}).values())


def spread_table(results: Results, scores: Scores) -> Table:
    """A row a model and task: mean, spread, interval, median, best, both epochs, paired difference."""
    config = results.config
    first = config.methods[0] if config.methods else ""
    rows = []
    for method, step in _last_rows(config):
        for column in scores.columns:
            score, other = scores.cells[method, step, column.name], method in config.methods[1:]
            difference = paired(config, scores, method, first, step, (column,)) if other else None
            rows += [_Spread(method, column.name, score, difference)] if score.by_seed else []
    columns: list[Column[_Spread]] = [
        Column("Model", lambda row: model_cell(row.method)),
        Column("Task", lambda row: row.task),
        Column("Seeds", lambda row: row.score.n),
        Column("Mean", lambda row: Cell(f"{row.score.mean:.2f}{marks(row.score)}", row.score.mean)),
        Column("Standard deviation", lambda row: number_cell(row.score.sd, "{:.2f}")),
        Column(f"{CONFIDENCE:.0%} interval", lambda row: _interval_cell(row.score.by_seed or {})),
        Column("Median", lambda row: number_cell(statistics.median(row.values), "{:.2f}")),
        Column("Worst", lambda row: number_cell(min(row.values), "{:.2f}")),
        Column("Best", lambda row: number_cell(max(row.values), "{:.2f}")),
        Column("At best epochs", lambda row: number_cell(row.score.best, "{:.2f}")),
        Column("At last epochs", lambda row: number_cell(row.score.last, "{:.2f}")),
        Column(f"minus {label(first) or 'first method'}, paired", lambda row: difference_cell(row.difference)),
    ]
    notes = [
        *score_notes(results, scores),
        "Of each task's best setting at the last checkpoint. The interval of the mean is Student's t over pretraining "
        "seeds where there are several, else over fine-tuning seeds; the latter says nothing about another "
        "pretraining.",
        "Paired: both models take the one setting with the best mean over the two, runs of the same seeds are "
        "subtracted.",
    ]
    title = f"Spread over seeds{on_what(results)}"
    return build_table("seeds", title, columns, rows, notes, signature(results, scores.metrics))


def _last_rows(config: Config) -> list[tuple[str, int]]:
    last = [(method, config.fine_tuned_steps(method)[-1]) for method in config.methods]
    return last + [(name, 0) for name in other_rows(config)]


def _interval_cell(by_seed: Mapping[tuple[int, int], float]) -> Cell | None:
    units = list(by_seed.values())
    pretrainings = sorted({seed for seed, _ in by_seed})
    if len(pretrainings) > 1:
        units = [mean(v for (seed, _), v in by_seed.items() if seed == one) for one in pretrainings]
    low, high = interval(units)
    return None if low is None or high is None else Cell(f"{low:.2f} to {high:.2f}", {"low": low, "high": high})


@dataclass(frozen=True)
class Choice:
    """A score times 100 on the half of the dev set where the choice was made, and on the other half."""

    own: float
    other: float

    @property
    def bias(self) -> float:
        return self.own - self.other


@dataclass(frozen=True)
class _Chosen:
    """A model's choices by column."""

    method: str
    choices: Mapping[str, Choice]


def selection_table(results: Results, scores: Scores) -> Table:
    """A row a model: the score on the half of the dev set that had no part in choosing, and what choosing added."""
    config = results.config
    found = choices(results.runs, config, scores)
    names = [column.name for column in scores.columns if column.chooser == column.name]
    rows = [
        _Chosen(method, {name: found[method, step, name] for name in names if (method, step, name) in found})
        for method, step in _last_rows(config)
    ]
    columns: list[Column[_Chosen]] = [Column("Model", lambda row: model_cell(row.method))]
    columns += each({name: name for name in names}, lambda row, name: _choice_cell(row.choices.get(name)))
    columns += [Column("Average", lambda row: _average_cell([*row.choices.values()], len(names)))]
    settings = len(config.finetune.batch_sizes) * len(config.finetune.learning_rates)
    what = f"The best of {settings} settings" if settings > 1 else "The one setting"
    epochs = "each run's best epoch" if config.finetune.epoch == "best" else "each run's last epoch"
    notes = (
        *score_notes(results, scores),
        f"{what} and {epochs} by one half of the dev set, scored on the other half; in brackets what the choosing half "
        "scores above that: what choosing on the scored set adds. Mean over both halves of five random splits, at "
        "the last checkpoint. Half a dev set is noisier than all of it, so the tables above gain somewhat less.",
        *(["MNLI-mm is left out: nothing is chosen on it."] if "MNLI" in config.finetune.tasks else []),
    )
    title = f"Chosen on one half of the dev set, scored on the other{on_what(results)}"
    return build_table("selection", title, columns, rows, notes, signature(results, scores.metrics))


def _choice_cell(choice: Choice | None, more: str = "") -> Cell | None:
    if choice is None:
        return None
    return Cell(f"{choice.other:.2f} ({choice.bias:+.2f}){more}", {"other": choice.other, "own": choice.own})


def _average_cell(there: Sequence[Choice], columns: int) -> Cell | None:
    return _choice_cell(_mean(there), of_columns(len(there), columns)) if there else None


def choices(runs: Iterable[FinetuneRun], config: Config, scores: Scores) -> dict[tuple[str, int, str], Choice]:
    """Returns the choice by (method, step, column), averaged over pretraining seeds.

    MNLI-mm is left out: its settings are chosen on the matched set anyway. So is an encoder with
    runs that recorded no halves.
    """
    columns = {column.task: column for column in scores.columns if column.chooser == column.name}
    by_place: dict[Place, list[FinetuneRun]] = defaultdict(list)
    for run in runs:
        if run.task in columns:
            by_place[run.method, run.pretrain_seed, run.step, run.task].append(run)
    by_row: dict[tuple[str, int, str], list[Choice]] = defaultdict(list)
    for (method, _, step, task), group in by_place.items():
        column = columns[task]
        splits = {len(epoch.halves) for run in group for epoch in run.epochs}
        if len(splits) == 1 and splits != {0}:
            fallback = scores.baselines.get(("majority", column.name), 0.0)
            halves = [(split, half) for split in range(splits.pop()) for half in (0, 1)]
            found = [_chosen(group, column.metric, config.finetune.epoch, fallback, *which) for which in halves]
            by_row[method, step, column.name].append(_mean(found))
    return {row: _mean(group) for row, group in by_row.items()}


def _chosen(runs: Sequence[FinetuneRun], metric: str, epoch: str, fallback: float, split: int, half: int) -> Choice:
    """Returns the mean over seeds of the setting that is best by this half."""
    by_setting: dict[Setting, list[Choice]] = defaultdict(list)
    for run in runs:
        by_setting[run.batch_size, run.lr].append(_of_run(run, metric, epoch, fallback, split, half))
    fullest = max(map(len, by_setting.values()))
    means = [_mean(seeds) for seeds in by_setting.values() if len(seeds) == fullest]
    return max(means, key=lambda choice: round(choice.own, 9))


def _of_run(run: FinetuneRun, metric: str, epoch: str, fallback: float, split: int, half: int) -> Choice:
    """Returns a run's score on both halves at the epoch that this half chooses; a failed run's at its last."""
    if not run.epochs:
        return Choice(fallback, fallback)
    both = [(e.halves[split][half][metric], e.halves[split][1 - half][metric]) for e in run.epochs]
    found = [Choice(100 * own, 100 * other) for own, other in both]
    return found[-1] if run.failure or epoch == "last" else max(found, key=lambda choice: choice.own)


def _mean(found: Sequence[Choice]) -> Choice:
    return Choice(mean(choice.own for choice in found), mean(choice.other for choice in found))
