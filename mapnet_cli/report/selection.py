"""The bias of selecting settings and epochs on the dev set that is reported.

The paper selects the best of 16 settings on the dev set that it reports (section 4.1.2). Table 3 does the same, also
for each run's best epoch, so its scores are biased upwards. Here both are chosen on a random half of the dev set:
the score on the other half is unbiased, and the difference between the two halves is the bias of selecting on half of
the dev set. If nothing is selected it is 0 on average, since each half is used in both roles.
"""

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

from mapnet_cli.core import Table, number_cell, table_of
from mapnet_cli.glue import GridKey, Setting, best_setting
from mapnet_cli.report.labels import TEXTS, place_cells
from mapnet_cli.report.load import Results
from mapnet_cli.report.runs import Choice, Run
from mapnet_cli.report.scores import Scores


def selection_table(results: Results, scores: Scores) -> Table:
    """Returns the score on the half not used for selection and the bias, per model and checkpoint, over the columns."""
    by_place: dict[tuple[str, int], list[Choice]] = defaultdict(list)
    for (method, step, _), choice in choices(results, scores).items():
        by_place[method, step].append(choice)
    rows = (
        {
            **place_cells(*place),
            "Score on the other half": number_cell(_mean(found).other, "{:.2f}"),
            "Bias": number_cell(_mean(found).bias, "{:+.2f}"),
            "Columns": len(found),
        }
        for place, found in by_place.items()
    )
    title = "Scores on a half of the dev set that chose nothing"
    return table_of("selection", title, rows, (TEXTS["notes"]["selection"],), results.signed)


def choices(results: Results, scores: Scores) -> dict[tuple[str, int, str], Choice]:
    """Returns the choice by (method, step, column), averaged over pretraining seeds.

    MNLI-mm is omitted, since its settings are chosen on the matched set. So are encoders with runs
    that recorded no scores on halves.
    """
    columns = {column.task: column for column in scores.columns if column.chooser == column.name}
    by_encoder: dict[GridKey, list[Run]] = defaultdict(list)
    for run in results.runs:
        by_encoder[*run.encoder, run.grid_run.task].append(run)
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
    best = best_setting({setting: [choice.own for choice in found] for setting, found in by_setting.items()})
    assert best is not None  # there are runs
    return _mean(by_setting[best])


def _mean(found: Sequence[Choice]) -> Choice:
    return Choice(fmean(choice.own for choice in found), fmean(choice.other for choice in found))
