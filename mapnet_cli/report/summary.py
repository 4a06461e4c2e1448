"""One row a method at its last checkpoint: what it gains, and what it costs beside the first method."""

from collections.abc import Mapping

from mapnet_cli.glue import other_rows
from mapnet_cli.render import Cell, Table, plain
from mapnet_cli.report.compare import DEFINITION, HOURS, Comparison, pairs_note
from mapnet_cli.report.gather import Results, signature
from mapnet_cli.report.scores import Average, Scores
from mapnet_cli.report.tables import average_cell, difference_cell, number_cell
from mapnet_cli.report.trajectories import loss_trajectory, seeds_with
from mapnet_cli.report.wording import average_name, label, score_notes

LOSS = "validation_loss_refit"


def summary_table(results: Results, scores: Scores, comparisons: Mapping[tuple[str, int], Comparison]) -> Table:
    """Returns score, paired difference, held-out loss, and FLOPs and hours as multiples of the first method's."""
    config = results.config
    last = {method: config.fine_tuned_steps(method)[-1] for method in config.methods}
    first = scores.averages[config.methods[0], last[config.methods[0]]] if config.methods else None
    rows: list[tuple[Cell, ...]] = []
    for method, step in last.items():
        average = scores.averages[method, step]
        losses = loss_trajectory(results, LOSS, method, seeds_with(results, LOSS, method))
        rows.append((
            Cell(label(method), method),
            plain(f"{len(config.seeds_of(method))}"),
            average_cell(average, len(scores.columns)),
            difference_cell(comparisons.get((method, step))),
            number_cell(losses[-1].value if losses else None, "{:.3f}"),
            number_cell(_ratio(average, first, "flops"), "{:.2f}"),
            number_cell(_ratio(average, first, "hours"), "{:.2f}"),
        ))  # fmt: skip
    for name in other_rows(config):
        score = average_cell(scores.averages[name, 0], len(scores.columns))
        rows.append((Cell(name, name), plain(None), score, *[plain(None)] * 4))
    name = label(config.methods[0]) if config.methods else "the first method"
    columns = (
        "Model", "Pretrainings", "Score", f"minus {name}, paired", "Held-out loss, refitted", f"FLOPs over {name}'s",
        f"Hours over {name}'s",
    )  # fmt: skip
    notes = (*score_notes(results, scores), HOURS, *([DEFINITION] if comparisons else []))
    title = f"Gain and cost at the last checkpoint: {average_name(results, scores)}"
    signed = signature(results, scores.metrics)
    return Table("summary", title, columns, tuple(rows), (*notes, *pairs_note(config, comparisons)), signed)


def _ratio(average: Average, first: Average | None, cost: str) -> float | None:
    ours, theirs = getattr(average, cost), getattr(first, cost, None)
    return ours / theirs if ours is not None and theirs else None
