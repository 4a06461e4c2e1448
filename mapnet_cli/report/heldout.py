"""What held-out text says of each method, and how its proposal is: figures of the last milestone."""

from collections.abc import Sequence

from mapnet_cli.config import Config
from mapnet_cli.core.records import Checkpoint
from mapnet_cli.core.tables import Cell, Table, plain
from mapnet_cli.masking.diagnostics import proposal_warnings
from mapnet_cli.report.compare import interval
from mapnet_cli.report.load import Results
from mapnet_cli.report.notes import label, steps_note
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


def held_out_tables(results: Results, signed: str) -> tuple[Table, Table]:
    """Returns the table of held-out losses and accuracies, and that of the proposals' health."""
    config = results.config
    last = {method: results.trained(method, config.last_step(method)) for method in config.methods}
    return _losses(config, last, signed), _health(config, last, signed)


def _losses(config: Config, last: dict[str, list[Checkpoint]], signed: str) -> Table:
    rows = []
    first = config.methods[0] if config.methods else ""
    reference = label(first) if first else "first method"
    for method, checkpoints in last.items():
        cells = []
        for name in LOSSES:
            cells.append(spread_cell([c.validation.get(name) for c in checkpoints], "{:.3f}"))
            cells.append(loss_difference(name, checkpoints, last[first]) if method != first else plain(None))
        cells += [spread_cell([c.validation.get(name) for c in checkpoints], "{:.1%}") for name in ACCURACIES]
        rows.append((Cell(label(method), method), *cells))
    notes = (
        "The same held-out sentences under the same two sets of 15 % masks for every method. Loss: nats a masked "
        "token; refitted: after fitting the output bias alone to the other half of the sentences, which takes out what "
        "a method's masks do to the prior over tokens.",
        "Accuracy: share of masked tokens (uniform masks) whose most probable guess is right. Decile 1: the most "
        "frequent tokens, which together are a tenth of the text; decile 10: the rarest.",
        f"± is the standard deviation over pretraining seeds. Minus {reference}: the mean difference between trainings "
        "of the same seed, with Student's 95 % interval where there are several; below 0 is better.",
        *steps_note(config),
    )
    losses = (column for name in LOSSES.values() for column in (name, f"{name} minus {reference}"))
    columns = ("Model", *losses, *ACCURACIES.values())
    return Table("heldout", "Held-out text", columns, tuple(rows), notes, signed)


def _health(config: Config, last: dict[str, list[Checkpoint]], signed: str) -> Table:
    rows = []
    said: list[str] = []
    for method, checkpoints in last.items():
        if any(c.health for c in checkpoints):
            cells = [spread_cell([c.health.get(name) for c in checkpoints], "{:.3f}") for name in HEALTH]
            rows.append((Cell(label(method), method), *cells))
            for c in checkpoints:
                said += proposal_warnings({"step": c.step, **c.health}, method, config.method[method]).values()
    notes = ("Between the last two lines of the training log. Entropies in nats.", *dict.fromkeys(said))
    return Table("health", "Health of the proposals", ("Model", *HEALTH.values()), tuple(rows), notes, signed)


def loss_difference(name: str, ours: list[Checkpoint], theirs: list[Checkpoint]) -> Cell:
    """Returns our held-out loss of that name minus theirs, paired by pretraining seed."""
    reference = {c.pretrain_seed: c.validation.get(name) for c in theirs}
    pairs = [(c.validation.get(name), reference.get(c.pretrain_seed)) for c in ours]
    values = [a - b for a, b in pairs if a is not None and b is not None]
    if not values:
        return plain(None)
    centre, (low, high) = mean(values), interval(values)
    within = "" if low is None or high is None else f" [{low:+.3f}, {high:+.3f}]"
    return Cell(f"{centre:+.3f}{within}", {"mean": centre, "low": low, "high": high, "n": len(values)})


def spread_cell(values: Sequence[float | None], form: str) -> Cell:
    """Returns the mean over seeds, with the standard deviation where there are several."""
    there = [value for value in values if value is not None]
    if not there:
        return plain(None)
    centre, deviation = mean(there), spread(there)
    return Cell(form.format(centre) + ("" if deviation is None else f" ± {form.format(deviation)}"), centre)
