"""The report's tables of scores: summary, Table 3, cost, and scores per task."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mapnet_cli.core import Cell, Checkpoint, Column, Table, build_table, each, number_cell, plain, short_steps
from mapnet_cli.glue import UNTRAINED, other_rows
from mapnet_cli.report.compare import DEFINITION, Comparison, difference_cell, paired, pairs_note
from mapnet_cli.report.heldout import held_out, loss_difference, spread_cell
from mapnet_cli.report.load import Results, signature
from mapnet_cli.report.notes import (
    SCHEDULES,
    average_cell,
    average_name,
    data_suffix,
    hours_notes,
    import_notes,
    is_probe,
    label,
    score_notes,
    task_cell,
    task_notes,
)
from mapnet_cli.report.scores import PRIMARY, PRIMARY_NAME, Average, Scores
from mapnet_cli.report.trajectories import SAME_COST, at_equal_cost

PAPER_TABLE_3 = {
    "bert": {400_000: 80.86, 600_000: 81.41, 800_000: 81.62, 1_000_000: 81.68},
    "mapnet": {400_000: 81.15, 600_000: 81.48, 800_000: 82.11, 1_000_000: 81.88},
}
LOSS_NOTE = (
    "Held-out loss: nats per token, the same for all methods, each the only [MASK] of its sentence, which favours no"
    " mask rate; mean ± standard deviation over pretraining seeds; differences are between runs with equal seeds."
)

LOSS = f"Held-out loss ({PRIMARY_NAME})"

Comparisons = Mapping[tuple[str, int], Comparison]


@dataclass(frozen=True)
class _Row:
    """A row of scores. Inapplicable fields are None or empty: an import has no step, a published score no cost."""

    name: str
    shown: str
    step: int | None = None
    average: Average | None = None
    difference: Comparison | None = None
    checkpoints: Sequence[Checkpoint] = ()
    reference: Sequence[Checkpoint] = ()
    """The first method's checkpoints, with which `checkpoints` are compared."""
    cells: Mapping[str, Cell] = field(default_factory=dict)
    """Cells by column title, for tables with a column per checkpoint or task."""


MODEL: Column[_Row] = Column("Model", lambda row: Cell(row.shown, row.name))
STEPS: Column[_Row] = Column("Steps", lambda row: Cell(short_steps(row.step), row.step) if row.step else None)
COSTS: list[Column[_Row]] = [
    Column("Tokens", lambda row: _tokens_cell(_value(row, "tokens"))),
    Column("FLOPs", lambda row: number_cell(_value(row, "flops"), "{:.2e}")),
    Column("Hours", lambda row: _hours_cell(_value(row, "hours"))),
]


def _by_title(titles: Iterable[str]) -> list[Column[_Row]]:
    return each({title: title for title in titles}, lambda row, title: row.cells.get(title))


def _method_rows(results: Results, scores: Scores, comparisons: Comparisons) -> list[_Row]:
    """Returns one row per method and fine-tuned checkpoint."""
    config = results.config

    def row(method: str, step: int) -> _Row:
        first = config.methods[0]
        same_share = config.matching_step(method, step, first)
        reference = results.checkpoints_at(first, same_share) if method != first else ()
        average, difference = scores.averages[method, step], comparisons.get((method, step))
        return _Row(method, label(method), step, average, difference, results.checkpoints_at(method, step), reference)

    return [row(method, step) for method in config.methods for step in config.fine_tuned_steps(method)]


def _other_rows(results: Results, scores: Scores) -> list[_Row]:
    return [_Row(name, name, average=scores.averages[name, 0]) for name in other_rows(results.config)]


def summary_table(results: Results, scores: Scores, comparisons: Comparisons) -> Table:
    """Returns score, held-out loss and cost relative to the first method, one row per method at its last checkpoint."""
    config, count = results.config, len(scores.columns)
    all_rows = _method_rows(results, scores, comparisons)
    rows = [row for row in all_rows if row.step == config.fine_tuned_steps(row.name)[-1]] + _other_rows(results, scores)
    first, name = rows[0], label(config.methods[0]) if config.methods else "the first method"
    columns: list[Column[_Row]] = [
        MODEL,
        Column("Pretraining runs", lambda row: len(row.checkpoints) if row.step else None),
        Column("Score", lambda row: average_cell(row.average, count)),
        Column(f"Difference to {name} (paired)", lambda row: difference_cell(row.difference, count)),
        Column(LOSS, lambda row: spread_cell(held_out(row.checkpoints, PRIMARY), "{:.3f}")),
        Column(
            f"Loss difference to {name} (paired)", lambda row: loss_difference(PRIMARY, row.checkpoints, row.reference)
        ),
        Column(f"Relative FLOPs (× {name})", lambda row: _ratio(row, first, "flops")),
        Column(f"Relative hours (× {name})", lambda row: _ratio(row, first, "hours")),
    ]
    notes = (*score_notes(results, scores), LOSS_NOTE, *hours_notes(results), *([DEFINITION] if comparisons else []))
    title = f"Score and cost at the last fine-tuned checkpoint: {average_name(results, scores)}"
    signed = signature(results, scores.metrics)
    return build_table("summary", title, columns, rows, (*notes, *pairs_note(config, comparisons)), signed)


def table3(results: Results, scores: Scores, comparisons: Comparisons) -> Table:
    """Returns Table 3: average scores with one row per method and one column per checkpoint, differences and cost."""
    config = results.config
    differ = any(config.method[method].steps for method in config.methods)
    titles = [short_steps(step) for step in config.fine_tuned_steps()]
    if differ:
        titles = [f"{100 * share:g}%" for share in config.finetune.milestones or config.pretrain.milestones]
    steps: list[Column[_Row]] = [Column("Steps", lambda row: number_cell(row.step, "{:,}"))]
    columns = [MODEL, *_by_title(titles), *(steps if differ else []), *COSTS]
    until = "its last fine-tuned checkpoint" if differ else f"{short_steps(config.fine_tuned_steps()[-1])} steps"
    notes = [
        *score_notes(results, scores),
        *import_notes(results),
        f"Tokens, FLOPs and hours: one pretraining run up to {until}.",
        *hours_notes(results),
        *([DEFINITION] if comparisons else []),
        *pairs_note(config, comparisons),
    ]
    title = f"Table 3: {average_name(results, scores)}"
    rows = _table3_rows(results, scores, comparisons, titles)
    return build_table("table3", title, columns, rows, notes, signature(results, scores.metrics))


def _table3_rows(results: Results, scores: Scores, comparisons: Comparisons, titles: Sequence[str]) -> Iterator[_Row]:
    config, count = results.config, len(scores.columns)
    by_method = defaultdict(list)
    for row in _method_rows(results, scores, comparisons):
        by_method[row.name].append(row)

    def by_title(cells: Iterable[Cell]) -> dict[str, Cell]:
        return dict(zip(titles, cells, strict=True))

    for rows in by_method.values():
        yield replace(rows[-1], cells=by_title(average_cell(row.average, count) for row in rows))
    for row in _other_rows(results, scores):
        yield replace(row, cells={titles[-1]: average_cell(row.average, count)})
    others = config.methods[1:]
    differences = [(name, config.methods[0], [row.difference for row in by_method[name]]) for name in others]
    for first in config.methods[:1] if config.finetune.untrained else ():
        steps = config.fine_tuned_steps(first)
        found = [paired(config, scores, first, UNTRAINED, step, scores.columns) for step in steps]
        differences.append((first, UNTRAINED, found))
    for method, other, found in differences:
        name, shown = (f"{form(method)} minus {form(other)}" for form in (str, label))
        cells = by_title(difference_cell(difference, count) for difference in found)
        yield _Row(name, f"{shown} (paired)", cells=cells)
    if config.recipe == "paper" and not is_probe(config):
        for method, published in PAPER_TABLE_3.items():
            cells = by_title(_published_cell(published.get(step)) for step in config.fine_tuned_steps())
            yield _Row(f"{method} (paper)", f"{label(method)} (paper)", cells=cells)


def cost_table(results: Results, scores: Scores, comparisons: Comparisons) -> Table:
    """Returns score, cost, and the first method's score at equal cost, one row per method and checkpoint."""
    config, count = results.config, len(scores.columns)
    first = label(config.methods[0]) if config.methods else "first method"

    def equal(row: _Row, cost: str) -> Cell | None:
        if row.step is None or row.name == config.methods[0]:
            return None
        return number_cell(at_equal_cost(results, scores, row.name, row.step, cost), "{:.2f}")

    columns: list[Column[_Row]] = [
        MODEL,
        STEPS,
        Column("Score", lambda row: average_cell(row.average, count)),
        Column(f"Difference to {first} (paired)", lambda row: difference_cell(row.difference, count)),
        Column(f"{first} score at equal FLOPs", lambda row: equal(row, "flops")),
        Column(f"{first} score at equal hours", lambda row: equal(row, "hours")),
        *COSTS,
        Column(LOSS, lambda row: number_cell(_value(row, "held_out_loss"), "{:.3f}")),
        Column("Fine-tuning runs", lambda row: number_cell(_value(row, "runs"), "{:,}")),
        Column("Failed runs", lambda row: number_cell(_value(row, "failed"), "{:,}")),
        Column("Missing runs", lambda row: number_cell(_value(row, "missing"), "{:,}")),
    ]
    notes = [
        *score_notes(results, scores),
        "Tokens, FLOPs and hours: one pretraining run up to that step, without fine-tuning.",
        *hours_notes(results),
        f"{first} score at equal cost: linear interpolation between {first}'s checkpoints, omitted more than"
        f" {SAME_COST:.0%} outside their range; over the pretraining seeds that both methods have.",
        SCHEDULES[config.pretrain.schedule],
        *pairs_note(config, comparisons),
        LOSS_NOTE,
    ]
    if detecting := [label(m) for m in config.methods if config.method[m].electra]:
        notes.append(f"{', '.join(detecting)}: no masked-language-model head, so no held-out loss.")
    devices = sorted({row.device for row in results.checkpoints.values()})
    notes += [f"Pretrained on: {', '.join(devices)}."] if devices else []
    title = f"Score and cost: {average_name(results, scores)}"
    rows = _method_rows(results, scores, comparisons)
    return build_table("cost", title, columns, rows, notes, signature(results, scores.metrics))


def task_table(results: Results, scores: Scores) -> Table:
    """Returns the score of each task, one row per method and checkpoint, and the baselines without an encoder."""
    names = [column.name for column in scores.columns]
    rows = []
    for row in (*_method_rows(results, scores, {}), *_other_rows(results, scores)):
        cells = {name: task_cell(scores.cells[row.name, row.step or 0, name]) for name in names}
        rows.append(replace(row, cells=cells | {"Average": average_cell(row.average, len(names))}))
    for baseline in dict.fromkeys(baseline for baseline, _ in scores.baselines):
        values = {name: scores.baselines.get((baseline, name)) for name in names}
        values["Average"] = scores.baseline_average(baseline)
        cells = {title: number_cell(value, "{:.2f}") for title, value in values.items()}
        rows.append(_Row(baseline, baseline, cells=cells))
    measured = ", ".join(f"{column.name} {column.metric.removesuffix('-mm')}" for column in scores.columns)
    notes = [*score_notes(results, scores), f"Metrics (× 100): {measured}.", *task_notes(results)]
    if any(baseline == "token overlap" for baseline, _ in scores.baselines):
        notes.append("token overlap: regression on the share of tokens that the two texts have in common; no encoder.")
    columns = [MODEL, STEPS, *_by_title([*names, "Average"])]
    title = f"Score per task{data_suffix(results)}"
    return build_table("tasks", title, columns, rows, notes, signature(results, scores.metrics))


def _published_cell(value: float | None) -> Cell:
    return plain(None) if value is None else Cell(f"{value:.2f}", {"mean": value})


def _tokens_cell(tokens: float | None) -> Cell:
    """Returns 131072000 as "131.1M"."""
    if tokens is None:
        return plain(None)
    units = (("B", 1e9), ("M", 1e6), ("k", 1e3))
    shown = (f"{tokens / size:,.1f}{unit}" for unit, size in units if tokens >= size)
    return Cell(next(shown, f"{tokens:.0f}"), tokens)


def _hours_cell(hours: float | None) -> Cell:
    return number_cell(hours, "{:.3f}" if hours is None or hours < 10 else "{:,.1f}")


def _value(row: _Row, name: str) -> float | None:
    """Returns a field of a row's average, None if there is no average or no value."""
    number: float | None = getattr(row.average, name, None)
    return number


def _ratio(row: _Row, first: _Row, cost: str) -> Cell:
    ours, theirs = _value(row, cost), _value(first, cost)
    return number_cell(ours / theirs if ours is not None and theirs else None, "{:.2f}")
