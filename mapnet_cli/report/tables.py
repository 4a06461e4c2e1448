"""Table 3 with its tasks and its cost, the reading at equal cost, and the comparisons."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mapnet_cli.core import CONFIDENCE, Cell, Table, number_cell, table_of
from mapnet_cli.glue import GLUE_COLUMNS, other_rows
from mapnet_cli.report.differences import Differences, final
from mapnet_cli.report.flags import Flags
from mapnet_cli.report.labels import (
    TEXTS,
    label,
    model_cell,
    place_cells,
    score_cell,
    spread_cell,
    time_unit,
    tokens_cell,
)
from mapnet_cli.report.load import Results
from mapnet_cli.report.scores import AVERAGE, COSTS, LOSS, SCORE, Score, Scores, cost
from mapnet_cli.report.trajectories import at_equal_cost, losses_reached, share_cell

PAPER_TABLE_3 = {
    "bert": {400_000: 80.86, 600_000: 81.41, 800_000: 81.62, 1_000_000: 81.68},
    "mapnet": {400_000: 81.15, 600_000: 81.48, 800_000: 82.11, 1_000_000: 81.88},
}


class Row(NamedTuple):
    """A row of scores by column title; `step` is 0 for imports, the untrained encoder and baselines."""

    name: str
    step: int
    cells: Mapping[str, Cell]


def table3_rows(results: Results, scores: Scores, flags: Flags) -> list[Row]:
    """Returns one row per method and fine-tuned checkpoint, then imports, the untrained encoder and the baselines.

    The highest score of each column among those at the last checkpoint is marked as the best.
    """
    config, titles, rows = results.config, scores.titles, list[Row]()
    steps = {method: config.fine_tuned_steps(method) for method in config.methods}
    steps |= dict.fromkeys(other_rows(config), (0,))
    last = {t: [scores.cells[name, own[-1], t].mean for name, own in steps.items()] for t in titles}
    known = {t: [mean for mean in means if mean is not None] for t, means in last.items()}
    best = {t: max(means) for t, means in known.items() if len(means) > 1}
    for name, step in ((name, step) for name, own in steps.items() for step in own):
        cells = {}
        for place in ((name, step, title) for title in titles):
            score, title = scores.cells[place], place[2]
            is_best = step == steps[name][-1] and score.mean is not None and score.mean == best.get(title)
            cells[title] = score_cell(score, flags.marks(place), is_best)
        rows.append(Row(name, step, cells))
    if not scores.columns:  # rows of encoders that aren't trained here would be empty, but for the losses of imports
        rows = [row for row in rows if row.name in (*config.methods, *results.before)]
    for name in dict.fromkeys(name for name, _ in scores.baselines):
        rows.append(Row(name, 0, {title: number_cell(scores.baseline(name, title), "{:.2f}") for title in titles}))
    for method, published in PAPER_TABLE_3.items() if not protocol(results) else ():
        name = f"{label(method)} (paper)"
        rows += [Row(name, step, {AVERAGE: number_cell(score, "{:.2f}")}) for step, score in published.items()]
    return rows


def table3(results: Results, scores: Scores, rows: Sequence[Row], differences: Differences) -> Table:
    """Returns Table 3: average score, difference to the first method, held-out loss and cost, then each task."""
    config = results.config
    first = config.methods[0] if config.methods else ""
    end = cost(results, first, config.fine_tuned_steps(first)[-1], "flops") if first else None
    (unit, size), shown = time_unit(results), []
    for row in rows:
        found = differences.get((SCORE, row.name, row.step, first))
        flops, seconds = (cost(results, row.name, row.step, name) for name in ("flops", "seconds"))
        losses = [c.validation.get(results.loss) for c in results.checkpoints_at(row.name, row.step)]
        losses += [before.get(results.loss) for name, before in results.before.items() if name == row.name]
        shown.append({
            **place_cells(row.name, row.step),
            scores.titles[0]: row.cells.get(scores.titles[0]),
            f"Difference to {label(first)}": found.cell(len(scores.columns)) if found else None,
            "Held-out loss": spread_cell(losses, "{:.3f}"),
            f"FLOPs (× {label(first)})": number_cell(flops and end and flops / end, "{:.2f}"),
            f"Time ({unit})": number_cell(seconds and seconds / size, "{:,.1f}"),
            **{title: row.cells.get(title) for title in scores.titles[1:]},
        })  # fmt: skip
    return table_of("table3", "Table 3: score and cost", shown, (), results.signed)


def protocol(results: Results) -> str:
    """Returns why the paper's own figures can't be compared with this report's, "" if they can."""
    config, why = results.config, []
    if not config.finetune.tasks:
        why.append("no fine-tuning")
    elif config.finetune.data == "probe":
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


def by_checkpoint(results: Results, scores: Scores) -> tuple[list[str], list[tuple[str, list[Score | None]]]]:
    """Returns the paper's form of Table 3: column titles, and each row's averages by checkpoint.

    Encoders without checkpoints are in the last column. Methods with steps of their own are shown by their fraction.
    """
    config = results.config
    titles = [f"{step:,}" for step in config.fine_tuned_steps()]
    if any(config.method[method].steps for method in config.methods):
        titles = [f"{100 * share:g}%" for share in config.finetune.milestones or config.pretrain.milestones]
    rows: list[tuple[str, list[Score | None]]] = [
        (label(method), [scores.cells[method, step, AVERAGE] for step in config.fine_tuned_steps(method)])
        for method in config.methods
    ]
    empty: list[Score | None] = [None] * (len(titles) - 1)
    return titles, [*rows, *((name, [*empty, scores.cells[name, 0, AVERAGE]]) for name in other_rows(config))]


def cost_table(results: Results, scores: Scores, rows: Sequence[Row]) -> Table:
    """Returns the cost of each checkpoint, and the first method's score at the same FLOPs and time."""
    config = results.config
    first = config.methods[0] if config.methods else ""
    (unit, size), shown = time_unit(results), []
    for row in (row for row in rows if row.name in config.methods):
        costs = {name: cost(results, row.name, row.step, name) for name in COSTS}
        equal = {} if row.name == first else at_equal_cost(results, scores, row.name, row.step)
        shown.append({
            **place_cells(row.name, row.step),
            "Tokens": tokens_cell(costs["tokens"]),
            "FLOPs": number_cell(costs["flops"], "{:.2e}"),
            f"Time ({unit})": number_cell(costs["seconds"] and costs["seconds"] / size, "{:,.1f}"),
            "Score": row.cells[scores.titles[0]],
            f"{label(first)} at equal FLOPs": number_cell(equal.get("flops"), "{:.2f}"),
            f"{label(first)} at equal time": number_cell(equal.get("seconds"), "{:.2f}"),
        })  # fmt: skip
    notes = [TEXTS["notes"]["cost"]] if scores.columns else []
    return table_of("cost", "Cost of each checkpoint", shown, notes, results.signed)


def loss_cost_table(results: Results, differences: Differences) -> Table:
    """Returns each method's difference in held-out loss, and the cost at which it has the first method's loss."""
    config, shown = results.config, []
    costs = {"steps": "Steps", "flops": "FLOPs", "seconds": "Time"}
    for method in config.methods[1:]:
        first = config.methods[0]
        if difference := final(config, differences, LOSS, method, first):
            found = losses_reached(results, method).values()
            shown.append({
                "Model": model_cell(method),
                f"Held-out loss minus {label(first)}'s": difference.cell(),
                **{f"{title} to {label(first)}'s loss": share_cell(found, cost) for cost, title in costs.items()},
                "Seeds": number_cell(len(difference.values), "{:d}"),
            })  # fmt: skip
    notes = (TEXTS["notes"]["loss-cost"], TEXTS["schedules"][config.pretrain.schedule])
    return table_of("loss-cost", "Cost of the same held-out loss", shown, notes, results.signed)


def comparison_table(results: Results, scores: Scores, differences: Differences) -> Table:
    """Returns every comparison with its intervals and p-values."""

    rows = (
        {
            **place_cells(one.method, one.step),
            "Minus": label(one.reference),
            "Measure": one.measure,
            "Difference": one.cell(len(scores.columns) * (one.measure == SCORE)),
            "Bootstrap interval": Cell(f"[{one.text(*one.bootstrap)}]", one.bootstrap[0]) if one.bootstrap else None,
            "p (t test)": number_cell(one.p, "{:.3f}"),
            "p (permutation)": number_cell(one.permutation_p, "{:.3f}"),
            "p (Holm)": number_cell(one.adjusted, "{:.3f}"),
            "Seeds": Cell(f"{len(one.values)} {one.unit.removesuffix(' seed')}", len(one.values)),
        }
        for one in differences.values()
    )
    return table_of("comparisons", "All comparisons", rows, (TEXTS["notes"]["comparisons"],), results.signed)


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
