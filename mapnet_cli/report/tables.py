"""Table 3 with its tasks and its cost, the reading at equal cost, and the comparisons."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mapnet_cli.core import Cell, Column, Table, build_table, each, number_cell, short_steps
from mapnet_cli.glue import GLUE_COLUMNS, other_rows
from mapnet_cli.report.differences import CONFIDENCE, LOSS, SCORE, Difference, Differences, difference_cell
from mapnet_cli.report.flags import Flags
from mapnet_cli.report.labels import (
    is_probe,
    label,
    score_cell,
    spread_cell,
    time_cell,
    tokens_cell,
)
from mapnet_cli.report.load import Results
from mapnet_cli.report.scores import AVERAGE, PRIMARY, Average, Scores
from mapnet_cli.report.trajectories import SAME_COST, at_equal_cost

PAPER_TABLE_3 = {
    "bert": {400_000: 80.86, 600_000: 81.41, 800_000: 81.62, 1_000_000: 81.68},
    "mapnet": {400_000: 81.15, 600_000: 81.48, 800_000: 82.11, 1_000_000: 81.88},
}


@dataclass(frozen=True)
class Row:
    """A row of scores. Inapplicable fields are None or empty: an import has no step, a baseline no cost."""

    name: str
    shown: str
    step: int | None = None
    last: bool = True
    """Whether it is at the method's last fine-tuned checkpoint, or has no checkpoints."""
    average: Average | None = None
    cells: Mapping[str, Cell] = field(default_factory=dict)
    """Scores by column title."""


MODEL: Column[Row] = Column("Model", lambda row: Cell(row.shown, row.name))
STEPS: Column[Row] = Column("Steps", lambda row: Cell(short_steps(row.step), row.step) if row.step else None)


def _first(results: Results) -> str:
    return label(results.config.methods[0]) if results.config.methods else "first method"


def table3_rows(results: Results, scores: Scores, flags: Flags) -> list[Row]:
    """Returns one row per method and fine-tuned checkpoint, then imports, the untrained encoder and the baselines."""
    config, count = results.config, len(scores.columns)
    places = [(method, step) for method in config.methods for step in config.fine_tuned_steps(method)]
    rows = []
    for name, step in [*places, *((name, 0) for name in other_rows(config))]:
        cells = {
            column.name: score_cell(
                scores.cells[name, step, column.name], flags.marks(name, step, column.name), columns=1
            )
            for column in scores.columns
        }
        average = scores.averages[name, step]
        cells[AVERAGE] = score_cell(average, columns=count)
        last = not step or step == config.fine_tuned_steps(name)[-1]
        rows.append(Row(name, label(name), step or None, last, average, cells))
    rows = _with_best(rows)
    for name in dict.fromkeys(name for name, _ in scores.baselines):
        values = {c.name: scores.baselines.get((name, c.name)) for c in scores.columns}
        values[AVERAGE] = scores.baseline(name, AVERAGE)
        rows.append(Row(name, name, cells={title: number_cell(value, "{:.2f}") for title, value in values.items()}))
    if protocol(results) == "":
        for method, published in PAPER_TABLE_3.items():
            for step, value in published.items():
                cells = {AVERAGE: number_cell(value, "{:.2f}")}
                rows.append(Row(f"{method} (paper)", f"{label(method)} (paper)", step, step == 1_000_000, cells=cells))
    return rows


def _with_best(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows with the highest score of each column among those at the last checkpoint in bold."""
    shown = [row for row in rows if row.last]
    best = {
        title: max((value for row in shown if isinstance(value := row.cells[title].value, float)), default=None)
        for title in (shown[0].cells if len(shown) > 1 else ())
    }

    def marked(row: Row, title: str, cell: Cell) -> Cell:
        return replace(cell, best=best.get(title) is not None and cell.value == best[title])

    return [
        replace(row, cells={title: marked(row, title, cell) for title, cell in row.cells.items()}) if row.last else row
        for row in rows
    ]


def table3(results: Results, scores: Scores, rows: Sequence[Row], differences: Differences, signed: str) -> Table:
    """Returns Table 3 with a column per task, the differences to the first method, the held-out loss and the cost."""
    config = results.config
    count, first = len(scores.columns), config.methods[0] if config.methods else ""
    names = [column.name for column in scores.columns] + ([AVERAGE] if count > 1 else [])

    def difference(row: Row) -> Cell:
        return difference_cell(differences.get((SCORE, row.name, row.step or 0, first)), columns=count)

    def loss(row: Row) -> Cell:
        values = [c.validation.get(PRIMARY) for c in results.checkpoints_at(row.name, row.step or 0)]
        return spread_cell(values, "{:.3f}")

    columns: list[Column[Row]] = [
        MODEL,
        STEPS,
        *each({name: name for name in names}, lambda row, name: row.cells.get(name)),
        Column(f"Difference to {_first(results)}", difference),
        Column("Held-out loss", loss),
        Column(f"FLOPs (× {_first(results)})", lambda row: _relative_flops(results, row)),
        Column("Time", lambda row: time_cell(results, row.average.hours if row.average else None)),
    ]
    return build_table("table3", "Table 3: score and cost", columns, rows, (), signed)


def _relative_flops(results: Results, row: Row) -> Cell | None:
    """Returns the FLOPs relative to those of the first method at its last fine-tuned checkpoint."""
    first = results.config.methods[0] if row.step and results.config.methods else ""
    if not first or row.average is None or row.average.flops is None:
        return None
    end = results.checkpoints_at(first, results.config.fine_tuned_steps(first)[-1])
    if not end:
        return None
    return number_cell(row.average.flops * len(end) / sum(c.flops for c in end), "{:.2f}")


def protocol(results: Results) -> str:
    """Returns why the paper's own figures can't be compared with this report's, "" if they can."""
    config, why = results.config, []
    if is_probe(config):
        why.append("probe tasks instead of GLUE")
    elif len(config.finetune.tasks) < GLUE_COLUMNS - 1 or any(not facts.official for facts in results.tasks.values()):
        why.append(f"not all of GLUE ({', '.join(config.finetune.tasks)})")
    if config.finetune.max_train_examples:
        why.append(f"at most {config.finetune.max_train_examples:,} training rows per task")
    if config.pretrain.steps != 1_000_000:
        why.append(f"{config.pretrain.steps:,} steps instead of 1,000,000")
    if (config.encoder.layers, config.encoder.hidden) != (12, 768):
        why.append(f"an encoder of {config.encoder.layers} layers, H {config.encoder.hidden} instead of 12, H 768")
    return "; ".join(why)


def by_checkpoint(results: Results, scores: Scores) -> tuple[list[str], list[tuple[str, list[Average | None]]]]:
    """Returns the paper's form of Table 3: column titles, and each row's averages by checkpoint.

    Encoders without checkpoints are in the last column. Methods with steps of their own are shown by their fraction.
    """
    config = results.config
    titles = [short_steps(step) for step in config.fine_tuned_steps()]
    if any(config.method[method].steps for method in config.methods):
        titles = [f"{100 * share:g}%" for share in config.finetune.milestones or config.pretrain.milestones]
    rows: list[tuple[str, list[Average | None]]] = [
        (label(method), [scores.averages[method, step] for step in config.fine_tuned_steps(method)])
        for method in config.methods
    ]
    empty: list[Average | None] = [None] * (len(titles) - 1)
    return titles, [*rows, *((name, [*empty, scores.averages[name, 0]]) for name in other_rows(config))]


def cost_table(results: Results, scores: Scores, rows: Iterable[Row], signed: str) -> Table:
    """Returns the cost of each checkpoint, and the first method's score at the same FLOPs and time."""
    config, first = results.config, _first(results)

    def equal(row: Row, cost: str) -> Cell | None:
        if row.step is None or row.name == config.methods[0]:
            return None
        return number_cell(at_equal_cost(results, scores, row.name, row.step, cost), "{:.2f}")

    columns: list[Column[Row]] = [
        MODEL,
        STEPS,
        Column("Tokens", lambda row: tokens_cell(row.average.tokens if row.average else None)),
        Column("FLOPs", lambda row: number_cell(row.average.flops if row.average else None, "{:.2e}")),
        Column("Time", lambda row: time_cell(results, row.average.hours if row.average else None)),
        Column("Score", lambda row: row.cells.get(AVERAGE)),
        Column(f"{first} at equal FLOPs", lambda row: equal(row, "flops")),
        Column(f"{first} at equal time", lambda row: equal(row, "hours")),
    ]
    note = (
        f"{first} at equal cost: linear interpolation between {first}'s checkpoints, over the pretraining seeds that "
        f"both methods have; none more than {SAME_COST:.0%} outside their range."
    )
    shown = [row for row in rows if row.step and row.average]
    return build_table("cost", "Score at equal cost", columns, shown, (note,), signed)


def comparison_table(differences: Differences, scores: Scores, signed: str) -> Table:
    """Returns every comparison with its intervals and p-values."""
    found = list(differences.values())

    def form(one: Difference) -> str:
        return "{:+.3f}" if one.measure == LOSS else "{:+.2f}"

    def bootstrap(one: Difference) -> Cell | None:
        if one.bootstrap is None:
            return None
        low, high = one.bootstrap
        return Cell(f"{form(one).format(low)} to {form(one).format(high)}", {"low": low, "high": high})

    table: list[Column[Difference]] = [
        Column("Model", lambda one: Cell(label(one.method), one.method)),
        Column("Minus", lambda one: Cell(label(one.reference), one.reference)),
        Column("Measure", lambda one: one.measure),
        Column("Steps", lambda one: Cell(short_steps(one.step), one.step)),
        Column("Difference", lambda one: one.cell(form(one), len(scores.columns) if one.measure == SCORE else 1)),
        Column("Bootstrap interval", bootstrap),
        Column("p (t test)", lambda one: number_cell(one.p, "{:.3f}")),
        Column("p (permutation)", lambda one: number_cell(one.permutation_p, "{:.3f}")),
        Column("p (Holm)", lambda one: number_cell(one.adjusted, "{:.3f}")),
        Column("Seeds", lambda one: Cell(f"{one.n} {one.unit.removesuffix(' seed')}", one.n)),
    ]
    note = (
        "Bootstrap: BCa, 9,999 resamples; with few seeds it is too narrow. Permutation: exact test of random signs, "
        "which with n seeds can't be below 2 / 2^n (0.25 for 3)."
    )
    return build_table("comparisons", "All comparisons", table, found, (note,), signed)


def counted(differences: Differences) -> str:
    """Returns how many comparisons were made, and what they show."""
    found = differences.values()
    tested = sum(one.interval is not None for one in found)
    beyond = [f"{label(one.method)} minus {label(one.reference)}, {one.measure}" for one in found if one.beyond_noise]
    alone = sum(one.p is not None and one.p < 1 - CONFIDENCE for one in found)
    return (
        f"{len(found)} comparisons were made; {tested} have the three seeds that an interval needs. Of these {alone} "
        f"have an interval that excludes 0, and {len(beyond)} still do after Holm's correction for {tested} comparisons"
        f"{': ' * bool(beyond)}{'; '.join(beyond[:8])}."
    )
