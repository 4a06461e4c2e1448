"""What the paper leaves out beside its means: how scores spread over seeds, and what choosing adds to them."""

import statistics

from mapnet_cli.core.tables import Cell, Table, plain
from mapnet_cli.glue.grid import other_rows
from mapnet_cli.report.compare import CONFIDENCE, compare_column, interval
from mapnet_cli.report.load import Results, signature
from mapnet_cli.report.notes import label, on_what, score_notes
from mapnet_cli.report.scores import Scores, TaskScore, mean
from mapnet_cli.report.selection import Choice, average, choices
from mapnet_cli.report.tables import difference_cell, marks, number_cell


def seed_tables(results: Results, scores: Scores) -> tuple[Table, Table]:
    """Returns the table of spreads over seeds and that of choosing on half of the dev set, at the last checkpoint."""
    return spread_table(results, scores), selection_table(results, scores)


def spread_table(results: Results, scores: Scores) -> Table:
    """A row a model and task: mean, spread, interval, median, best, both epochs, paired difference."""
    config = results.config
    first = config.methods[0] if config.methods else ""
    rows = []
    for method, step in _last_rows(results):
        for column in scores.columns:
            score = scores.cells[method, step, column.name]
            if not score.by_seed:
                continue
            paired = None
            if method != first and method in config.methods:
                paired = compare_column(config, scores, method, first, step, column)
            rows.append(
                (Cell(label(method), method), plain(column.name), *_spread_cells(score), difference_cell(paired))
            )
    columns = (
        "Model", "Task", "Seeds", "Mean", "Standard deviation", f"{CONFIDENCE:.0%} interval", "Median", "Worst", "Best",
        "At best epochs", "At last epochs", f"minus {label(first) if first else 'first method'}, paired",
    )  # fmt: skip
    notes = [
        *score_notes(results, scores),
        "Of each task's best setting at the last checkpoint. The interval of the mean is Student's t over pretraining "
        "seeds where there are several, else over fine-tuning seeds; the latter says nothing about another "
        "pretraining.",
        "Paired: both models take the one setting with the best mean over the two, runs of the same seeds are "
        "subtracted.",
    ]
    title = f"Spread over seeds{on_what(results)}"
    return Table("seeds", title, columns, tuple(rows), tuple(notes), signature(results, scores.metrics))


def selection_table(results: Results, scores: Scores) -> Table:
    """A row a model: the score on the half of the dev set that had no part in choosing, and what choosing added."""
    found = choices(results.runs, results.config, scores)
    names = [column.name for column in scores.columns if column.chooser == column.name]
    rows = []
    for method, step in _last_rows(results):
        cells = [_choice_cell(found.get((method, step, name))) for name in names]
        there = sum((method, step, name) in found for name in names)
        of_all = f" ({there} of {len(names)} columns)" if 0 < there < len(names) else ""
        rows.append((Cell(label(method), method), *cells, _choice_cell(average(found, method, step), of_all)))
    finetune = results.config.finetune
    settings = len(finetune.batch_sizes) * len(finetune.learning_rates)
    what = f"The best of {settings} settings" if settings > 1 else "The one setting"
    epochs = "each run's best epoch" if finetune.epoch == "best" else "each run's last epoch"
    notes = (
        *score_notes(results, scores),
        f"{what} and {epochs} by one half of the dev set, scored on the other half; in brackets what the choosing half "
        "scores above that: what choosing on the scored set adds. Mean over both halves of five random splits, at "
        "the last checkpoint. Half a dev set is noisier than all of it, so the tables above gain somewhat less.",
        *(["MNLI-mm is left out: nothing is chosen on it."] if "MNLI" in finetune.tasks else []),
    )
    title = f"Chosen on one half of the dev set, scored on the other{on_what(results)}"
    columns = ("Model", *names, "Average")
    return Table("selection", title, columns, tuple(rows), notes, signature(results, scores.metrics))


def _last_rows(results: Results) -> list[tuple[str, int]]:
    config = results.config
    last = [(method, config.fine_tuned_steps(method)[-1]) for method in config.methods]
    return last + [(name, 0) for name in other_rows(config)]


def _spread_cells(score: TaskScore) -> list[Cell]:
    by_seed = score.by_seed or {}
    values = list(by_seed.values())
    pretrainings = sorted({seed for seed, _ in by_seed})
    units = values
    if len(pretrainings) > 1:
        units = [mean(v for (seed, _), v in by_seed.items() if seed == one) for one in pretrainings]
    low, high = interval(units)
    shown = plain(None) if low is None or high is None else Cell(f"{low:.2f} to {high:.2f}", {"low": low, "high": high})
    marked = Cell(f"{score.mean:.2f}{marks(score.missing, score.failed_counted)}", score.mean)
    return [
        Cell(str(score.n), score.n), marked, _two_digits(score.sd), shown,
        *map(_two_digits, (statistics.median(values), min(values), max(values), score.best, score.last)),
    ]  # fmt: skip


def _choice_cell(choice: Choice | None, more: str = "") -> Cell:
    if choice is None:
        return plain(None)
    return Cell(f"{choice.other:.2f} ({choice.bias:+.2f}){more}", {"other": choice.other, "own": choice.own})


def _two_digits(value: float | None) -> Cell:
    return number_cell(value, "{:.2f}")
