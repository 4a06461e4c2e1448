"""The bias of selecting settings and epochs on the dev set that is reported.

The paper selects the best of 16 settings on the dev set that it reports (section 4.1.2). The other tables do the
same, including each run's best epoch, so their scores are biased upwards. The selection table repeats both choices
on a random half of the dev set: the score on the other half is unbiased, and the difference between the two
halves is the bias of selecting on half of the dev set. If nothing is selected it is 0 on average, since
each half is used in both roles.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mapnet_cli.config import Config
from mapnet_cli.core import Cell, Column, Table, build_table, each
from mapnet_cli.glue import GridKey, Setting, other_rows
from mapnet_cli.report.labels import columns_suffix, model_cell
from mapnet_cli.report.load import Results
from mapnet_cli.report.runs import Choice, Run
from mapnet_cli.report.scores import Scores, mean


@dataclass(frozen=True)
class _Row:
    """A model's choices, by column."""

    method: str
    choices: Mapping[str, Choice]


def selection_table(results: Results, scores: Scores, signed: str) -> Table:
    """Returns the table of scores on the half not used for selection, and the selection bias, one row per model."""
    found = choices(results, scores)
    names = [column.name for column in scores.columns if column.chooser == column.name]
    rows = [
        _Row(method, {name: found[method, step, name] for name in names if (method, step, name) in found})
        for method, step in last_rows(results.config)
    ]
    columns: list[Column[_Row]] = [Column("Model", lambda row: model_cell(row.method))]
    columns += each({name: name for name in names}, lambda row, name: _choice_cell(row.choices.get(name)))
    columns += [Column("Average", lambda row: _average_cell([*row.choices.values()], len(names)))]
    note = (
        "Setting and epoch selected on one half of the dev set, scored on the other. In brackets: how much higher the "
        "score on the selection half is. Mean over both halves of five random splits, at the last checkpoint. Half a "
        "dev set is noisier than all of it, so the bias of the other tables is somewhat smaller."
    )
    title = "Scores on a half of the dev set that chose nothing"
    return build_table("selection", title, columns, (row for row in rows if row.choices), (note,), signed)


def last_rows(config: Config) -> list[tuple[str, int]]:
    """Returns method and step of each row of Table 3 at the last checkpoint."""
    last = [(method, config.fine_tuned_steps(method)[-1]) for method in config.methods]
    return last + [(name, 0) for name in other_rows(config)]


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
