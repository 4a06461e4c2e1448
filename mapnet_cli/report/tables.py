"""The report's tables of results: Table 3, its cost, and the score of each task."""

from collections.abc import Mapping

from mapnet_cli.core.tables import NOTHING, Cell, Scalar, Table, plain
from mapnet_cli.glue.grid import other_rows
from mapnet_cli.glue.scoring import Setting
from mapnet_cli.report.compare import DEFINITION, Comparison, pairs_note
from mapnet_cli.report.load import Results, signature
from mapnet_cli.report.notes import (
    FAILED_MARK,
    MID_SCHEDULE,
    MISSING_MARK,
    average_name,
    hours_notes,
    import_notes,
    is_probe,
    label,
    on_what,
    score_notes,
    short_steps,
    task_notes,
)
from mapnet_cli.report.scores import Average, Scores, TaskScore, mean
from mapnet_cli.report.trajectories import SAME_COST, at_equal_cost

PAPER_TABLE_3 = {
    "bert": {400_000: 80.86, 600_000: 81.41, 800_000: 81.62, 1_000_000: 81.68},
    "mapnet": {400_000: 81.15, 600_000: 81.48, 800_000: 82.11, 1_000_000: 81.88},
}


def result_tables(
    results: Results, scores: Scores, comparisons: Mapping[tuple[str, int], Comparison]
) -> tuple[Table, Table, Table]:
    """Returns Table 3, the cost table and the per-task table."""
    return (
        table3(results, scores, comparisons),
        cost_table(results, scores, comparisons),
        task_table(results, scores),
    )


def table3(results: Results, scores: Scores, comparisons: Mapping[tuple[str, int], Comparison]) -> Table:
    """Table 3: a row a method, a column a checkpoint, the average over tasks; then differences and cost."""
    config = results.config
    steps = {method: config.fine_tuned_steps(method) for method in config.methods}
    differ = any(config.method[method].steps for method in config.methods)
    places = [short_steps(step) for step in config.fine_tuned_steps()]
    if differ:
        places = [f"{100 * share:g}%" for share in config.finetune.milestones or config.pretrain.milestones]
    columns = ("Model", *places, *(["Steps"] if differ else []), "Tokens", "FLOPs", "Hours")
    no_costs = [plain(None)] * (3 + differ)
    rows = []
    for method in config.methods:
        averages = [scores.averages[method, step] for step in steps[method]]
        cells = [average_cell(average, len(scores.columns)) for average in averages]
        last = [Cell(f"{steps[method][-1]:,}", steps[method][-1])] if differ else []
        rows.append((Cell(label(method), method), *cells, *last, *_cost_cells(averages[-1])))
    for name in other_rows(config):
        score = average_cell(scores.averages[name, 0], len(scores.columns))
        rows.append((Cell(name, name), *[plain(None)] * (len(columns) - len(no_costs) - 2), score, *no_costs))
    for method in config.methods[1:]:
        name = f"{method} minus {config.methods[0]}"
        shown = f"{label(method)} minus {label(config.methods[0])}, paired"
        cells = [difference_cell(comparisons.get((method, step)), len(scores.columns)) for step in steps[method]]
        rows.append((Cell(shown, name), *cells, *no_costs))
    if config.recipe == "paper" and not is_probe(config):
        for method, published in PAPER_TABLE_3.items():
            cells = [_published_cell(published.get(step)) for step in config.fine_tuned_steps()]
            rows.append((Cell(f"{label(method)} (paper)", f"{method} (paper)"), *cells, *no_costs))
    until = "its last fine-tuned checkpoint" if differ else f"{short_steps(config.fine_tuned_steps()[-1])} steps"
    cost_note = f"Tokens, FLOPs and hours: pretraining of one model up to {until}."
    notes = [
        *score_notes(results, scores),
        *import_notes(results),
        cost_note,
        *hours_notes(results),
        *([DEFINITION] if comparisons else []),
        *pairs_note(config, comparisons),
    ]
    title = f"Table 3: {average_name(results, scores)}"
    return Table("table3", title, columns, tuple(rows), tuple(notes), signature(results, scores.metrics))


def cost_table(results: Results, scores: Scores, comparisons: Mapping[tuple[str, int], Comparison]) -> Table:
    """Each method and checkpoint: the score beside what it cost, and the first method's score at equal cost."""
    config = results.config
    first = label(config.methods[0]) if config.methods else "first method"
    rows = []
    for method in config.methods:
        for step in config.fine_tuned_steps(method):
            average = scores.averages[method, step]
            equal: list[Cell] = [plain(None)] * 2
            if method != config.methods[0]:
                equal = [
                    number_cell(at_equal_cost(results, scores, method, step, c), "{:.2f}") for c in ("flops", "hours")
                ]
            rows.append((
                Cell(label(method), method),
                Cell(short_steps(step), step),
                average_cell(average, len(scores.columns)),
                difference_cell(comparisons.get((method, step)), len(scores.columns)),
                *equal,
                *_cost_cells(average),
                number_cell(average.validation_loss, "{:.3f}"),
                *(Cell(f"{n:,}", n) for n in (average.runs, average.failed, average.missing)),
            ))  # fmt: skip
    columns = (
        "Model", "Steps", "Score", f"minus {first}, paired", f"{first} at equal FLOPs", f"{first} at equal hours",
        "Tokens", "FLOPs", "Hours", "Validation loss", "Runs", "Failed", "Missing",
    )  # fmt: skip
    notes = [
        *score_notes(results, scores),
        "Tokens, FLOPs and hours are one pretraining's up to that step, fine-tuning not counted.",
        *hours_notes(results),
        f"{first} at equal cost: linear between its own checkpoints, nothing more than {SAME_COST:.0%} outside them;"
        f" over the pretraining seeds that both methods have. {MID_SCHEDULE}",
        *pairs_note(config, comparisons),
        "Validation loss: nats a token under fixed uniform masks.",
    ]
    if detecting := [label(m) for m in config.methods if config.method[m].task == "replaced-token"]:
        notes.append(f"{', '.join(detecting)}: no masked-language-model head, so no validation loss.")
    devices = sorted({row.device for row in results.checkpoints.values()})
    notes += [f"Pretrained on: {', '.join(devices)}."] if devices else []
    title = f"Score and cost: {average_name(results, scores)}"
    return Table("cost", title, columns, tuple(rows), tuple(notes), signature(results, scores.metrics))


def task_table(results: Results, scores: Scores) -> Table:
    """Each method and checkpoint: the score of each task, and the baselines without an encoder."""
    config = results.config
    rows = []
    for method in config.methods:
        for step in config.fine_tuned_steps(method):
            cells = [_task_cell(scores.cells[method, step, column.name]) for column in scores.columns]
            average = average_cell(scores.averages[method, step], len(scores.columns))
            rows.append((Cell(label(method), method), Cell(short_steps(step), step), *cells, average))
    for name in other_rows(config):
        cells = [_task_cell(scores.cells[name, 0, column.name]) for column in scores.columns]
        rows.append((Cell(name, name), plain(None), *cells, average_cell(scores.averages[name, 0], len(cells))))
    for name in dict.fromkeys(name for name, _ in scores.baselines):
        values = [scores.baselines.get((name, column.name)) for column in scores.columns]
        values.append(baseline_average(scores, name))
        rows.append((plain(name), plain(None), *(number_cell(value, "{:.2f}") for value in values)))
    columns = ("Model", "Steps", *(column.name for column in scores.columns), "Average")
    measured = ", ".join(f"{column.name} {column.metric.removesuffix('-mm')}" for column in scores.columns)
    notes = [*score_notes(results, scores), f"Metrics, times 100: {measured}.", *task_notes(results)]
    title = f"Score of each task{on_what(results)}"
    return Table("tasks", title, columns, tuple(rows), tuple(notes), signature(results, scores.metrics))


def baseline_average(scores: Scores, name: str) -> float | None:
    """Returns a baseline's average over the columns, None unless it is known for all of them."""
    values = [scores.baselines[name, c.name] for c in scores.columns if (name, c.name) in scores.baselines]
    return mean(values) if len(values) == len(scores.columns) else None


def marks(missing_runs: int, failed_counted: int) -> str:
    return (MISSING_MARK if missing_runs else "") + (FAILED_MARK if failed_counted else "")


def average_cell(average: Average, columns: int) -> Cell:
    data: dict[str, Scalar] = {
        "mean": average.mean, "sd": average.sd, "best": average.best, "last": average.last,
        "columns": average.columns, "runs": average.runs, "failed": average.failed, "missing": average.missing,
    }  # fmt: skip
    text = _plus_minus(average.mean, average.sd) + marks(average.missing, average.failed_counted)
    return Cell(NOTHING if average.mean is None else text + _of_columns(average.columns, columns), data)


def _of_columns(there: int, columns: int) -> str:
    return f" ({there} of {columns} columns)" if there < columns else ""


def _task_cell(score: TaskScore) -> Cell:
    settings = ", ".join(f"seed {seed}: {setting_name(setting)}" for seed, setting in score.settings)
    data: dict[str, Scalar] = {
        "mean": score.mean, "sd": score.sd, "n": score.n, "best": score.best, "last": score.last,
        "setting": settings, "runs": score.runs, "failed": score.failed, "missing": score.missing,
    }  # fmt: skip
    if score.mean is None:
        return Cell(NOTHING, data)
    return Cell(_plus_minus(score.mean, score.sd) + marks(score.missing, score.failed_counted), data)


def difference_cell(comparison: Comparison | None, columns: int = 1) -> Cell:
    """Returns a paired difference with its interval; it says so where it is over fewer than so many columns."""
    if comparison is None:
        return plain(None)
    data: dict[str, Scalar] = {
        "mean": comparison.difference, "low": comparison.low, "high": comparison.high,
        "n": comparison.n, "unit": comparison.unit, "columns": comparison.columns,
    }  # fmt: skip
    text = f"{comparison.difference:+.2f}"
    if comparison.low is not None and comparison.high is not None:
        text += f" [{comparison.low:+.2f}, {comparison.high:+.2f}]"
    return Cell(text + _of_columns(comparison.columns, columns), data)


def _published_cell(value: float | None) -> Cell:
    return plain(None) if value is None else Cell(f"{value:.2f}", {"mean": value})


def _cost_cells(average: Average) -> tuple[Cell, Cell, Cell]:
    tokens = average.tokens
    shown_tokens = plain(None) if tokens is None else Cell(_count(tokens), tokens)
    hours = "{:,.1f}" if average.hours is not None and average.hours >= 10 else "{:.3f}"
    return shown_tokens, number_cell(average.flops, "{:.2e}"), number_cell(average.hours, hours)


def _count(value: float) -> str:
    """Returns 131072000 as "131.1M"."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:,.1f}{unit}"
    return f"{value:.0f}"


def number_cell(value: float | None, shown: str) -> Cell:
    return plain(None) if value is None else Cell(shown.format(value), value)


def _plus_minus(value: float | None, sd: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}" + ("" if sd is None else f" ± {sd:.2f}")


def setting_name(setting: Setting) -> str:
    return f"batch {setting[0]}, lr {setting[1]:g}"
