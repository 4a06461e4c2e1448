"""One row a method at its last checkpoint: what it gains, and what it costs beside the first method."""

from collections.abc import Mapping

from mapnet_cli.core.tables import Cell, Table, plain
from mapnet_cli.glue.grid import other_rows
from mapnet_cli.report.compare import DEFINITION, Comparison, pairs_note
from mapnet_cli.report.heldout import loss_difference, spread_cell
from mapnet_cli.report.load import Results, signature
from mapnet_cli.report.notes import average_name, hours_notes, label, score_notes
from mapnet_cli.report.scores import Average, Scores
from mapnet_cli.report.tables import average_cell, difference_cell, number_cell

LOSS = "validation_loss_refit"
LOSS_NOTE = (
    "Held-out loss: nats a token under the same 15 % uniform masks for all methods, mean and standard deviation over"
    " pretraining seeds, of which differences pair equal ones; refitted: after fitting the output bias alone."
)


def summary_table(results: Results, scores: Scores, comparisons: Mapping[tuple[str, int], Comparison]) -> Table:
    """Returns score and held-out loss, each with its paired difference, and FLOPs and hours over the first method's."""
    config = results.config
    last = {method: config.fine_tuned_steps(method)[-1] for method in config.methods}
    trained = {method: results.trained(method, step) for method, step in last.items()}
    first = next(iter(config.methods), "")
    rows: list[tuple[Cell, ...]] = []
    for method, step in last.items():
        average, beside = scores.averages[method, step], scores.averages[first, last[first]]
        rows.append((
            Cell(label(method), method),
            Cell(f"{len(trained[method])}", len(trained[method])),
            average_cell(average, len(scores.columns)),
            difference_cell(comparisons.get((method, step)), len(scores.columns)),
            spread_cell([row.validation.get(LOSS) for row in trained[method]], "{:.3f}"),
            plain(None) if method == first else loss_difference(LOSS, trained[method], trained[first]),
            number_cell(_ratio(average, beside, "flops"), "{:.2f}"),
            number_cell(_ratio(average, beside, "hours"), "{:.2f}"),
        ))  # fmt: skip
    for other in other_rows(config):
        score = average_cell(scores.averages[other, 0], len(scores.columns))
        rows.append((Cell(other, other), plain(None), score, *[plain(None)] * 5))
    name = label(first) if first else "the first method"
    columns = (
        "Model", "Pretrainings", "Score", f"minus {name}, paired", "Held-out loss, refitted",
        f"loss minus {name}, paired", f"FLOPs, times {name}'s", f"Hours, times {name}'s",
    )  # fmt: skip
    notes = (*score_notes(results, scores), LOSS_NOTE, *hours_notes(results), *([DEFINITION] if comparisons else []))
    title = f"Gain and cost at the last fine-tuned checkpoint: {average_name(results, scores)}"
    signed = signature(results, scores.metrics)
    return Table("summary", title, columns, tuple(rows), (*notes, *pairs_note(config, comparisons)), signed)


def _ratio(average: Average, first: Average, cost: str) -> float | None:
    ours, theirs = getattr(average, cost), getattr(first, cost)
    return ours / theirs if ours is not None and theirs else None
