"""What held-out text says of each method, and how its proposal is: figures of the last milestone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mapnet_cli.core import Cell, Checkpoint, Column, Table, build_table, each, plain, proposal_warnings
from mapnet_cli.report.compare import interval
from mapnet_cli.report.load import Results
from mapnet_cli.report.notes import label, model_cell, steps_note
from mapnet_cli.report.scores import mean, spread

LOSSES = {
    "validation_loss": "Loss, uniform masks",
    "validation_loss_refit": "refitted",
    "validation_loss_spaced": "Loss, spaced masks",
    "validation_loss_spaced_refit": "spaced, refitted",
}
ACCURACIES = {
    "accuracy": "Accuracy",
    "accuracy_function": "function words",
    "accuracy_content": "content words",
    **{f"accuracy_decile_{i}": f"decile {i}" for i in range(1, 11)},
}
HEALTH = {
    "proposal_entropy": "Entropy",
    "kl_to_uniform": "KL to uniform",
    "largest_q": "Largest probability",
    "clip_fraction": "Clipped weights",
    "effective_sample_share": "Effective sample share",
}


@dataclass(frozen=True)
class _Row:
    """A method's checkpoints of the last milestone, one a pretraining seed."""

    method: str
    trained: Sequence[Checkpoint]
    beside: Sequence[Checkpoint]
    """The first method's, for every other method."""


MODEL: Column[_Row] = Column("Model", lambda row: model_cell(row.method))


def held_out_tables(results: Results, signed: str) -> tuple[Table, Table]:
    """Returns the table of held-out losses and accuracies, and that of the proposals' health."""
    config = results.config
    last = {method: results.trained(method, config.last_step(method)) for method in config.methods}
    first = next(iter(last.values()), [])
    rows = [_Row(method, trained, first if trained is not first else ()) for method, trained in last.items()]
    return _losses(results, rows, signed), _health(results, rows, signed)


def _losses(results: Results, rows: Sequence[_Row], signed: str) -> Table:
    reference = label(rows[0].method) if rows else "first method"
    columns = [MODEL]
    for name, title in LOSSES.items():
        columns += _loss_columns(name, title, reference)
    columns += each(ACCURACIES, lambda row, name: spread_cell(held_out(row.trained, name), "{:.1%}"))
    notes = (
        "The same held-out sentences under the same two sets of 15 % masks for every method. Loss: nats a masked "
        "token; refitted: after fitting the output bias alone to the other half of the sentences, which takes out what "
        "a method's masks do to the prior over tokens.",
        "Accuracy: share of masked tokens (uniform masks) whose most probable guess is right. Decile 1: the most "
        "frequent tokens, which together are a tenth of the text; decile 10: the rarest.",
        f"± is the standard deviation over pretraining seeds. Minus {reference}: the mean difference between trainings "
        "of the same seed, with Student's 95 % interval where there are several; below 0 is better.",
        *steps_note(results.config),
    )
    return build_table("heldout", "Held-out text", columns, rows, notes, signed)


def _loss_columns(name: str, title: str, reference: str) -> list[Column[_Row]]:
    return [
        Column(title, lambda row: spread_cell(held_out(row.trained, name), "{:.3f}")),
        Column(f"{title} minus {reference}", lambda row: loss_difference(name, row.trained, row.beside)),
    ]


def _health(results: Results, rows: Sequence[_Row], signed: str) -> Table:
    said: list[str] = []
    proposing = [row for row in rows if any(c.health for c in row.trained)]
    for row in proposing:
        for c in row.trained:
            method = results.config.method[row.method]
            said += proposal_warnings({"step": c.step, **c.health}, row.method, method.objective).values()
    columns = [MODEL]
    columns += each(HEALTH, lambda row, name: spread_cell((c.health.get(name) for c in row.trained), "{:.3f}"))
    notes = ("Between the last two lines of the training log. Entropies in nats.", *dict.fromkeys(said))
    return build_table("health", "Health of the proposals", columns, proposing, notes, signed)


def held_out(trained: Iterable[Checkpoint], name: str) -> list[float | None]:
    """Returns a held-out figure of each checkpoint."""
    return [c.validation.get(name) for c in trained]


def loss_difference(name: str, ours: Sequence[Checkpoint], theirs: Sequence[Checkpoint]) -> Cell:
    """Returns our held-out loss of that name minus theirs, paired by pretraining seed."""
    reference = {c.pretrain_seed: c.validation.get(name) for c in theirs}
    pairs = [(c.validation.get(name), reference.get(c.pretrain_seed)) for c in ours]
    values = [a - b for a, b in pairs if a is not None and b is not None]
    if not values:
        return plain(None)
    centre, (low, high) = mean(values), interval(values)
    within = "" if low is None or high is None else f" [{low:+.3f}, {high:+.3f}]"
    return Cell(f"{centre:+.3f}{within}", {"mean": centre, "low": low, "high": high, "n": len(values)})


def spread_cell(values: Iterable[float | None], form: str) -> Cell:
    """Returns the mean over seeds, with the standard deviation where there are several."""
    there = [value for value in values if value is not None]
    if not there:
        return plain(None)
    centre, deviation = mean(there), spread(there)
    return Cell(form.format(centre) + ("" if deviation is None else f" ± {form.format(deviation)}"), centre)
