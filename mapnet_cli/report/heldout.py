"""Held-out losses and accuracies, and proposal diagnostics, of each method at its last milestone."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mapnet_cli.core import Cell, Checkpoint, Column, Table, build_table, each, plain, proposal_warnings
from mapnet_cli.report.compare import seed_difference
from mapnet_cli.report.load import Results
from mapnet_cli.report.logs import LOGGED_LOSS
from mapnet_cli.report.notes import label, model_cell, own_settings
from mapnet_cli.report.scores import PRIMARY, PRIMARY_NAME, mean, spread
from mapnet_cli.report.trajectories import interpolate

LOSSES = {
    PRIMARY: PRIMARY_NAME,
    "validation_loss": "uniform masks",
    "validation_loss_refit": "uniform masks, bias refitted",
    "validation_loss_spaced": "spaced masks",
    "validation_loss_spaced_refit": "spaced masks, bias refitted",
}
ACCURACIES = {
    "accuracy": "Accuracy",
    "accuracy_function": "Accuracy (function words)",
    "accuracy_content": "Accuracy (content words)",
    **{f"accuracy_decile_{i}": f"Accuracy (decile {i})" for i in range(1, 11)},
}
DIAGNOSTICS = {
    "proposal_entropy": "Entropy (nats)",
    "kl_to_uniform": "KL to uniform (nats)",
    "largest_q": "Largest probability",
    "clip_fraction": "Fraction of clipped weights",
    "effective_sample_share": "Relative effective sample size",
}


@dataclass(frozen=True)
class _Row:
    """A method's checkpoints at its last milestone, one per pretraining seed."""

    method: str
    checkpoints: Sequence[Checkpoint]
    reference: Sequence[Checkpoint]
    """Checkpoints of the first method; empty for the first method itself."""
    uniform: Mapping[int, tuple[float, float | None]]
    """By seed, of a method that explores: the number of steps with uniform masks so far, and the held-out loss of the
    first method after as many."""


MODEL: Column[_Row] = Column("Model", lambda row: model_cell(row.method))


def held_out_tables(results: Results, signed: str) -> tuple[Table, Table]:
    """Returns the table of held-out losses and accuracies, and the table of proposal diagnostics."""
    config = results.config
    last = {method: results.checkpoints_at(method, config.last_step(method)) for method in config.methods}
    first = next(iter(last.values()), [])
    rows = [
        _Row(method, found, first if found is not first else (), _uniform_steps(results, method))
        for method, found in last.items()
    ]
    return _losses(results, rows, signed), _diagnostics(results, rows, signed)


def _losses(results: Results, rows: Sequence[_Row], signed: str) -> Table:
    reference = label(rows[0].method) if rows else "first method"
    columns = [MODEL]
    for name, condition in LOSSES.items():
        columns += _loss_columns(name, condition, reference)
    columns += each(ACCURACIES, lambda row, name: spread_cell(held_out(row.checkpoints, name), "{:.1%}"))
    notes = (
        "All methods are evaluated on the same held-out sentences with the same masks. Loss: nats per masked token. "
        f"{PRIMARY_NAME.capitalize()}: a single [MASK] in each of eight copies of a sentence, which favours no rate; "
        "the others have 15% masks. Bias refitted: after fitting only the output bias to the other half of the "
        "sentences, which removes the effect of a method's masking on the token prior.",
        "Accuracy: fraction of masked tokens (uniform masks) whose most probable prediction is correct. Decile 1: the "
        "most frequent tokens, which make up a tenth of the text; decile 10: the rarest tokens.",
        f"± is the standard deviation over pretraining seeds. Loss difference to {reference}: mean over runs with the "
        "same pretraining seed, with Student's 95% confidence interval if there are several; negative is better.",
        *own_settings(results.config),
    )
    return build_table("heldout", "Held-out text", columns, rows, notes, signed)


def _loss_columns(name: str, condition: str, reference: str) -> list[Column[_Row]]:
    difference = f"Loss difference to {reference} ({condition})"
    return [
        Column(f"Loss ({condition})", lambda row: spread_cell(held_out(row.checkpoints, name), "{:.3f}")),
        Column(difference, lambda row: loss_difference(name, row.checkpoints, row.reference)),
    ]


def _diagnostics(results: Results, rows: Sequence[_Row], signed: str) -> Table:
    warnings: list[str] = []
    proposing = [row for row in rows if any(c.health for c in row.checkpoints) or row.uniform]
    for row in proposing:
        for c in row.checkpoints:
            method = results.config.method[row.method]
            warnings += proposal_warnings({"step": c.step, **c.health}, row.method, method.objective).values()
    columns = [MODEL]
    columns += each(DIAGNOSTICS, lambda row, name: spread_cell((c.health.get(name) for c in row.checkpoints), "{:.3f}"))
    reference = label(rows[0].method) if rows else "first method"
    validations = "checkpoints" if results.config.pretrain.schedule == "wsd" else "validations"
    columns += [
        Column("Steps with uniform masks", lambda row: spread_cell((u for u, _ in row.uniform.values()), "{:,.0f}")),
        Column("Held-out loss", lambda row: spread_cell(held_out(row.checkpoints, LOGGED_LOSS), "{:.3f}")),
        Column(
            f"{reference} held-out loss after as many steps",
            lambda row: spread_cell((loss for _, loss in row.uniform.values()), "{:.3f}") if row.reference else None,
        ),
    ]
    notes = (
        "Measured over the last logging interval of pretraining.",
        f"Steps with uniform masks: exploration steps. If {reference} has the same held-out loss (uniform "
        "masks, bias refitted) after as many steps, the other steps taught the encoder nothing. It is from the log of "
        f"the same seed, interpolated between {validations}.",
        *dict.fromkeys(warnings),
    )
    return build_table("health", "Proposal diagnostics", columns, proposing, notes, signed)


def _uniform_steps(results: Results, method: str) -> dict[int, tuple[float, float | None]]:
    config = results.config
    if not any(config.method[method].exploration):
        return {}
    found = {}
    for seed in config.seeds_of(method):
        if log := results.logs.get((method, seed)):
            first = results.logs.get((config.methods[0], seed))
            found[seed] = log.uniform_steps, interpolate(first.losses, log.uniform_steps) if first else None
    return found


def held_out(checkpoints: Iterable[Checkpoint], name: str) -> list[float | None]:
    """Returns a held-out metric of each checkpoint."""
    return [c.validation.get(name) for c in checkpoints]


def loss_difference(name: str, ours: Sequence[Checkpoint], theirs: Sequence[Checkpoint]) -> Cell:
    """Returns the mean of a held-out loss of `ours` minus that of `theirs`, paired by pretraining seed."""
    a, b = ({c.pretrain_seed: c.validation.get(name) for c in checkpoints} for checkpoints in (ours, theirs))
    return seed_difference(a, b, "{:+.3f}")


def spread_cell(values: Iterable[float | None], form: str) -> Cell:
    """Returns the mean over seeds, with the standard deviation if there are several."""
    known = [value for value in values if value is not None]
    if not known:
        return plain(None)
    centre, deviation = mean(known), spread(known)
    return Cell(form.format(centre) + ("" if deviation is None else f" ± {form.format(deviation)}"), centre)
