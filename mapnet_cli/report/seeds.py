"""Spread of scores over seeds, and the bias of selecting settings on the dev set that is reported.

The paper selects the best of 16 settings on the dev set that it reports (section 4.1.2). The other tables do the
same, including each run's best epoch, so their scores are biased upwards. The selection table repeats both choices
on a random half of the dev set: the score on the other half is unbiased, and the difference between the two
halves is the bias of selecting on half of the dev set. If nothing is selected it is 0 on average, since
each half is used in both roles.
"""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mapnet_cli.config import Config
from mapnet_cli.core import Cell, Column, Table, build_table, each, number_cell
from mapnet_cli.glue import GridKey, Setting, other_rows
from mapnet_cli.report.compare import CONFIDENCE, Comparison, difference_cell, interval, paired
from mapnet_cli.report.load import Results, signature
from mapnet_cli.report.notes import columns_suffix, data_suffix, label, marks, model_cell, score_notes
from mapnet_cli.report.runs import Choice, Run
from mapnet_cli.report.scores import Scores, TaskScore, mean


@dataclass(frozen=True)
class _SpreadRow:
    """A model's score in one column."""

    method: str
    task: str
    score: TaskScore
    difference: Comparison | None
    """Difference to the first method; None for that method itself, imports and the untrained encoder."""

    @property
    def values(self) -> list[float]:
        return list((self.score.by_seed or {}).values())


def spread_table(results: Results, scores: Scores) -> Table:
    """Returns the table of score statistics over seeds, one row per model and task."""
    config = results.config
    first = config.methods[0] if config.methods else ""
    rows = []
    for method, step in _last_rows(config):
        for column in scores.columns:
            score, other = scores.cells[method, step, column.name], method in config.methods[1:]
            difference = paired(config, scores, method, first, step, (column,)) if other else None
            rows += [_SpreadRow(method, column.name, score, difference)] if score.by_seed else []
    columns: list[Column[_SpreadRow]] = [
        Column("Model", lambda row: model_cell(row.method)),
        Column("Task", lambda row: row.task),
        Column("Runs", lambda row: row.score.n),
        Column("Mean", lambda row: Cell(f"{row.score.mean:.2f}{marks(row.score)}", row.score.mean)),
        Column("Standard deviation", lambda row: number_cell(row.score.sd, "{:.2f}")),
        Column(f"{CONFIDENCE:.0%} confidence interval", lambda row: _interval_cell(row.score.by_seed or {})),
        Column("Median", lambda row: number_cell(statistics.median(row.values), "{:.2f}")),
        Column("Worst", lambda row: number_cell(min(row.values), "{:.2f}")),
        Column("Best", lambda row: number_cell(max(row.values), "{:.2f}")),
        Column("Mean at best epochs", lambda row: number_cell(row.score.best, "{:.2f}")),
        Column("Mean at last epochs", lambda row: number_cell(row.score.last, "{:.2f}")),
        Column(f"Difference to {label(first) or 'first method'} (paired)", lambda row: difference_cell(row.difference)),
    ]
    notes = [
        *score_notes(results, scores),
        "Scores are those of each task's best setting at the last checkpoint. The confidence interval of the mean is "
        "Student's t over pretraining seeds if there are several, otherwise over the fine-tuning seeds of one "
        "pretraining run; the latter ignores the variance between pretraining runs.",
        "Paired difference: both models use the same setting (the one with the best mean over the two), and scores "
        "with equal seeds are subtracted.",
    ]
    title = f"Spread over seeds{data_suffix(results)}"
    return build_table("seeds", title, columns, rows, notes, signature(results, scores.metrics))


def _last_rows(config: Config) -> list[tuple[str, int]]:
    last = [(method, config.fine_tuned_steps(method)[-1]) for method in config.methods]
    return last + [(name, 0) for name in other_rows(config)]


def _interval_cell(by_seed: Mapping[tuple[int, int], float]) -> Cell | None:
    units = list(by_seed.values())
    pretrain_seeds = sorted({seed for seed, _ in by_seed})
    if len(pretrain_seeds) > 1:
        units = [mean(v for (seed, _), v in by_seed.items() if seed == one) for one in pretrain_seeds]
    low, high = interval(units)
    return None if low is None or high is None else Cell(f"{low:.2f} to {high:.2f}", {"low": low, "high": high})


@dataclass(frozen=True)
class _SelectionRow:
    """A model's choices, by column."""

    method: str
    choices: Mapping[str, Choice]


def selection_table(results: Results, scores: Scores) -> Table:
    """Returns the table of scores on the half not used for selection, and the selection bias, one row per model."""
    config = results.config
    found = choices(results, scores)
    names = [column.name for column in scores.columns if column.chooser == column.name]
    rows = [
        _SelectionRow(method, {name: found[method, step, name] for name in names if (method, step, name) in found})
        for method, step in _last_rows(config)
    ]
    columns: list[Column[_SelectionRow]] = [Column("Model", lambda row: model_cell(row.method))]
    columns += each({name: name for name in names}, lambda row, name: _choice_cell(row.choices.get(name)))
    columns += [Column("Average", lambda row: _average_cell([*row.choices.values()], len(names)))]
    settings = len(config.finetune.batch_sizes) * len(config.finetune.learning_rates)
    selected = f"The best of {settings} settings" if settings > 1 else "The only setting"
    epochs = "each run's best epoch" if config.finetune.epoch == "best" else "each run's last epoch"
    notes = (
        *score_notes(results, scores),
        f"{selected} at {epochs}, selected on one half of the dev set and scored on the other half. In brackets: how "
        "much higher the score on the selection half is, i.e. the bias of selecting and scoring on the same data. Mean "
        "over both halves of five random splits, at the last checkpoint. Half a dev set is noisier than all of it, so "
        "the bias of the tables above is somewhat smaller.",
        *(
            f"{column.name} is omitted: nothing is selected on it."
            for column in scores.columns
            if column.name not in names
        ),
    )
    title = f"Selection on one half of the dev set, scores on the other{data_suffix(results)}"
    return build_table("selection", title, columns, rows, notes, signature(results, scores.metrics))


def _choice_cell(choice: Choice | None, suffix: str = "") -> Cell | None:
    if choice is None:
        return None
    return Cell(f"{choice.other:.2f} ({choice.bias:+.2f}){suffix}", {"other": choice.other, "own": choice.own})


def _average_cell(found: Sequence[Choice], columns: int) -> Cell | None:
    return _choice_cell(_mean(found), columns_suffix(len(found), columns)) if found else None


def choices(results: Results, scores: Scores) -> dict[tuple[str, int, str], Choice]:
    """Returns the choice by (method, step, column), averaged over pretraining seeds.

    MNLI-mm is omitted, since its settings are chosen on the matched set. So are encoders with runs
    that recorded no scores on halves.
    """
    columns = {column.task: column for column in scores.columns if column.chooser == column.name}
    by_encoder: dict[GridKey, list[Run]] = defaultdict(list)
    for run in results.runs:
        place = run.grid_run
        by_encoder[place.method, place.pretrain_seed, place.step, place.task].append(run)
    by_row: dict[tuple[str, int, str], list[Choice]] = defaultdict(list)
    for (method, _, step, task), group in by_encoder.items():
        column = columns[task]
        numbers = {len(run.choices) for run in group if run.epochs}
        if len(numbers) == 1 and numbers != {0}:
            fallback = scores.baselines.get(("majority", column.name), 0.0)
            found = [_chosen(group, number, Choice(fallback, fallback)) for number in range(numbers.pop())]
            by_row[method, step, column.name].append(_mean(found))
    return {row: _mean(group) for row, group in by_row.items()}


def _chosen(runs: Sequence[Run], number: int, fallback: Choice) -> Choice:
    """Returns the mean over seeds of the setting that is best on a half; runs without epochs count as `fallback`."""
    by_setting: dict[Setting, list[Choice]] = defaultdict(list)
    for run in runs:
        by_setting[run.grid_run.batch_size, run.grid_run.lr].append(run.choices[number] if run.epochs else fallback)
    fullest = max(map(len, by_setting.values()))
    means = [_mean(seeds) for seeds in by_setting.values() if len(seeds) == fullest]
    return max(means, key=lambda choice: round(choice.own, 9))


def _mean(found: Sequence[Choice]) -> Choice:
    return Choice(mean(choice.own for choice in found), mean(choice.other for choice in found))
