"""Held-out losses and accuracies, proposal diagnostics, minimal pairs and gradient variances, as tables."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mapnet_cli.core import (
    Cell,
    Checkpoint,
    Column,
    PairScores,
    Table,
    build_table,
    each,
    mean_accuracy,
    number_cell,
    plain,
    proposal_warnings,
)
from mapnet_cli.lineage import scored_encoders
from mapnet_cli.report.labels import label, model_cell, spread_cell
from mapnet_cli.report.load import Measurement, Results, Strategy
from mapnet_cli.report.logs import LOGGED_LOSS
from mapnet_cli.report.scores import PRIMARY, PRIMARY_NAME, mean
from mapnet_cli.report.trajectories import interpolate

LOSSES = {
    PRIMARY: f"Loss, {PRIMARY_NAME}",
    "validation_loss": "Loss, uniform masks",
    "validation_loss_refit": "Loss, bias refitted",
    "validation_loss_spaced": "Loss, spaced masks",
}
ACCURACIES = {
    "accuracy": "Accuracy",
    "accuracy_function": "Function words",
    "accuracy_content": "Content words",
    "accuracy_decile_1": "Commonest tenth",
    "accuracy_decile_10": "Rarest tenth",
}
DIAGNOSTICS = {
    "proposal_entropy": "Entropy (nats)",
    "kl_to_uniform": "KL to uniform (nats)",
    "largest_q": "Largest probability",
    "clip_fraction": "Clipped weights",
    "effective_sample_share": "Effective sample share",
}
NORMS = {"raw": "raw", "adam": "preconditioned by Adam", "adam-layers": "preconditioned, layers only"}


def held_out_table(results: Results, signed: str) -> Table:
    """Returns the table of held-out losses and accuracies at the last milestone, one row per method."""
    columns: list[Column[str]] = [Column("Model", model_cell)]
    columns += each(LOSSES, lambda method, name: spread_cell(_held_out(results, method, name), "{:.3f}"))
    columns += each(ACCURACIES, lambda method, name: spread_cell(_held_out(results, method, name), "{:.1%}"))
    note = (
        "The same held-out sentences and masks for all methods. Loss: nats per masked token. One mask per sentence: a "
        "single [MASK] in each of eight copies of a sentence, which favours no mask rate; the others have 15% masks. "
        "Bias refitted: after fitting only the output bias to the other half of the sentences, which removes the effect"
        " of a method's masking on the token prior. Accuracy: of masked tokens, under uniform masks. ± is the standard "
        "deviation over pretraining seeds."
    )
    return build_table("heldout", "Held-out text", columns, results.config.methods, (note,), signed)


def _held_out(results: Results, method: str, name: str) -> list[float | None]:
    last = results.checkpoints_at(method, results.config.last_step(method))
    return [row.validation.get(name) for row in last]


@dataclass(frozen=True)
class _Proposal:
    """A method with a proposal: its last checkpoints, and how many steps had uniform masks by pretraining seed."""

    method: str
    checkpoints: Sequence[Checkpoint]
    uniform: Mapping[int, tuple[float, float | None]]
    """Number of steps with uniform masks, and the held-out loss of the first method after as many."""


def health_table(results: Results, signed: str) -> Table:
    """Returns the proposal diagnostics at the end of training, with warnings as notes."""
    config = results.config
    rows = [
        _Proposal(method, results.checkpoints_at(method, config.last_step(method)), _uniform_steps(results, method))
        for method in config.methods
    ]
    rows = [row for row in rows if row.uniform or any(c.health for c in row.checkpoints)]
    warnings = [
        warning
        for row in rows
        for c in row.checkpoints
        for warning in proposal_warnings(
            {"step": c.step, **c.health}, row.method, config.method[row.method].objective
        ).values()
    ]
    first = label(config.methods[0]) if config.methods else "first method"
    columns: list[Column[_Proposal]] = [Column("Model", lambda row: model_cell(row.method))]
    columns += each(DIAGNOSTICS, lambda row, name: spread_cell([c.health.get(name) for c in row.checkpoints], "{:.3f}"))
    columns += [
        Column("Steps with uniform masks", lambda row: spread_cell([u for u, _ in row.uniform.values()], "{:,.0f}")),
        Column("Held-out loss", lambda row: spread_cell(_held_out(results, row.method, LOGGED_LOSS), "{:.3f}")),
        Column(
            f"{first}'s loss after as many steps",
            lambda row: spread_cell([loss for _, loss in row.uniform.values()], "{:.3f}"),
        ),
    ]
    note = (
        f"Over the last logging interval. If {first} has the same held-out loss (bias refitted) after as many steps as "
        "the method had with uniform masks, the other steps taught the encoder nothing."
    )
    return build_table("health", "Proposals at the end", columns, rows, (note, *dict.fromkeys(warnings)), signed)


def _uniform_steps(results: Results, method: str) -> dict[int, tuple[float, float | None]]:
    config, found = results.config, {}
    for seed in config.seeds_of(method) if any(config.method[method].exploration) else ():
        log, first = results.logs.get((method, seed)), results.logs.get((config.methods[0], seed))
        if log and log.complete:
            loss = interpolate(first.losses, log.uniform_steps) if first and method != config.methods[0] else None
            found[seed] = log.uniform_steps, loss
    return found


@dataclass(frozen=True)
class Phenomenon:
    """A phenomenon of a data set ("" for the whole set), with (accuracy, standard error) of each seed by model."""

    data: str
    name: str
    paradigms: int
    pairs: int
    scores: Mapping[str, Sequence[tuple[float, float]]]


def phenomena(results: Results) -> list[Phenomenon]:
    """Returns the accuracies at the last milestone, for each data set as a whole and by phenomenon, in percent."""
    last = {method: step for method, _, step in scored_encoders(results.config)}  # ascending: the last one remains
    scores: dict[tuple[str, str], dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    sizes: dict[tuple[str, str], tuple[int, int]] = {}
    for record in results.pair_scores:
        if record.step != last[record.method]:
            continue
        groups = defaultdict(list, {"": list(record.paradigms)})
        for paradigm in record.paradigms:
            groups[paradigm.phenomenon or paradigm.name].append(paradigm)
        for name, paradigms in groups.items():
            accuracy, error = mean_accuracy(paradigms)
            scores[record.data, name][record.method].append((100 * accuracy, 100 * error))
            sizes[record.data, name] = len(paradigms), sum(paradigm.pairs for paradigm in paradigms)
    return [Phenomenon(*key, *sizes[key], scores[key]) for key in sorted(scores)]


def pairs_table(results: Results, signed: str) -> Table:
    """Returns the accuracies on minimal pairs, one row per data set and phenomenon and one column per model."""
    rows = phenomena(results)
    methods = list(dict.fromkeys(method for method, *_ in scored_encoders(results.config)))
    columns: list[Column[Phenomenon]] = [
        Column("Data", lambda row: row.data),
        Column("Phenomenon", lambda row: row.name or "all"),
        Column("Pairs", lambda row: Cell(f"{row.pairs:,}", row.pairs)),
        *each({name: label(name) for name in methods}, lambda row, name: _accuracy(row.scores.get(name, ()))),
    ]
    words = "with the rest of its word" if results.config.minimal_pairs.whole_words else "on its own"
    first = {row.data: row for row in results.pair_scores}
    notes = [
        "Percent of pairs whose acceptable sentence has the higher pseudo-log-likelihood, each token masked "
        f"{words}; 50 is chance, ties and pairs that a model can't tell apart count one half. Mean over the paradigms. "
        "± is the standard deviation over pretraining seeds, or (one seed) the standard error over pairs.",
        *(f"{name}: {_facts(row)}." for name, row in first.items()),
    ]
    current = {key: checkpoint.fingerprint for key, checkpoint in results.checkpoints.items()}
    places = [(current.get((r.method, r.pretrain_seed, r.step)), r.checkpoint) for r in results.pair_scores]
    if stale := sum(expected is not None and expected != used for expected, used in places):
        notes.append(f"{stale:,} records are of other weights than the current: run mapnet minimal-pairs with --force.")
    return build_table("minimal-pairs", "Minimal pairs", columns, rows, notes, signed)


def _accuracy(scores: Sequence[tuple[float, float]]) -> Cell:
    if not scores:
        return plain(None)
    shown = spread_cell([accuracy for accuracy, _ in scores], "{:.1f}")
    error = mean(error for _, error in scores)
    text = f"{shown.text} ± {error:.1f}" if len(scores) == 1 else shown.text
    assert isinstance(shown.data, Mapping)
    return Cell(text, {**shown.data, "standard_error": error})


def _facts(record: PairScores) -> str:
    """Returns the size of a data set, and what of it the models can't read."""
    unscored = defaultdict[str, int](int)
    for paradigm in record.paradigms:
        for reason, numbers in paradigm.unscored.items():
            unscored[reason] += len(numbers)
    pairs = sum(paradigm.pairs for paradigm in record.paradigms)
    parts = [f"{pairs:,} pairs in {len(record.paradigms)} paradigms", f"{record.unknown_share:.2%} unknown tokens"]
    return ", ".join(
        [*parts, *(f"{count:,} pairs not scored ({reason})" for reason, count in sorted(unscored.items()))]
    )


def variance_table(results: Results, signed: str) -> Table:
    """Returns the gradient variances of every measurement, one row per checkpoint, norm and strategy."""
    rows = [(m, norm, s) for m in results.variances for norm in m.measured[0].variances for s in m.measured]
    columns: list[Column[tuple[Measurement, str, Strategy]]] = [
        Column("Checkpoint", lambda row: f"{label(row[0].method)}, seed {row[0].pretrain_seed}, step {row[0].step:,}"),
        Column("Gradient", lambda row: NORMS.get(row[1], row[1])),
        Column("Masks", lambda row: row[2].name),
        Column("Mask variance / uniform", lambda row: _estimate(row[2].variances[row[1]].mask_to_uniform)),
        Column("Over visits / uniform", lambda row: _estimate(row[2].variances[row[1]].visits_to_uniform)),
        Column("Share of the variance", lambda row: _estimate(row[2].variances[row[1]].mask_share)),
        Column("Batch error / uniform", lambda row: _estimate(row[2].variances[row[1]].error_to_uniform)),
    ]
    note = (
        "Variance of the gradient over masks of the same sentence (Theorem 1), relative to uniform masks. Batch error: "
        "mean squared error of a batch's gradient. ± one standard error over sentences. All columns: variance.md."
    )
    return build_table("variance", "Gradient variance", columns, rows, (note,), signed)


def _estimate(found: Mapping[str, float | None]) -> Cell:
    value, error = found["value"], found["error"]
    shown = number_cell(value, "{:.3f}")
    return (
        shown if error is None or value is None else Cell(f"{shown.text} ± {error:.3f}", {"mean": value, "se": error})
    )
