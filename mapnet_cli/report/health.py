"""Held-out losses and accuracies, proposal diagnostics, minimal pairs and gradient variances, as tables."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mapnet_cli.core import Cell, Checkpoint, PairScores, Table, mean_accuracy, number_cell, proposal_warnings, table_of
from mapnet_cli.lineage import scored_encoders
from mapnet_cli.report.labels import TEXTS, encoder_name, label, model_cell, spread_cell
from mapnet_cli.report.load import Results
from mapnet_cli.report.trajectories import run_losses


def _over_seeds(found: Sequence[Mapping[str, float]], titles: str, form: str) -> dict[str, Cell]:
    """Returns what the records name, under its title, as the mean over seeds."""
    return {title: spread_cell([row.get(name) for row in found], form) for name, title in TEXTS[titles].items()}


def held_out_table(results: Results) -> Table:
    """Returns the held-out losses and accuracies of each method at the last milestone, and of what it starts from."""
    rows, last = [], results.config.last_step
    by_model = {m: [row.validation for row in results.checkpoints_at(m, last(m))] for m in results.config.methods}
    for method, found in (by_model | {name: [row] for name, row in results.before.items()}).items():
        losses, accuracies = _over_seeds(found, "losses", "{:.3f}"), _over_seeds(found, "accuracies", "{:.1%}")
        rows.append({"Model": model_cell(method), **losses, **accuracies})
    return table_of("heldout", "Losses and accuracies", rows, (TEXTS["notes"]["heldout"],), results.signed)


def health_table(results: Results) -> Table:
    """Returns the proposal diagnostics over the last logging interval, with warnings as notes.

    Beside them, if it explores: the loss at the end, and that of the first method after as many steps as had
    uniform masks. If the two are equal, the other steps have taught the encoder nothing.
    """
    rows, warnings, config = [], dict[str, None](), results.config
    for method in config.methods:
        last = results.checkpoints_at(method, config.last_step(method))
        if any(row.health for row in last):
            explored = _explored(results, method, last) if any(config.method[method].exploration) else {}
            cells = _over_seeds([row.health for row in last], "diagnostics", "{:.3f}")
            rows.append({"Model": model_cell(method), **cells, **explored})
        for row in last:
            found = proposal_warnings({"step": row.step, **row.health}, method, *config.method[method].learning)
            warnings |= dict.fromkeys(found.values())
    notes = [TEXTS["notes"]["health"].format(first=label(config.methods[0]))] if rows else []
    return table_of("health", "Proposals at the end", rows, [*notes, *warnings], results.signed)


def _explored(results: Results, method: str, rows: Sequence[Checkpoint]) -> dict[str, Cell]:
    """Returns the expected number of uniform steps, the held-out loss, and the first method's after as many steps."""
    config, first = results.config, results.config.methods[0]
    last, steps = config.last_step(method), config.for_method(method).pretrain.steps
    uniform = last * config.method[method].explore_at(last / 2, steps)  # linear: its mean is the value half-way
    after = [_loss_after(results, first, row.pretrain_seed, uniform) for row in rows] if method != first else []
    return {
        "Uniform steps": number_cell(uniform, "{:,.0f}"),
        "Held-out loss": spread_cell([row.validation.get(results.loss) for row in rows], "{:.3f}"),
        f"{label(first)}'s after as many steps": spread_cell(after, "{:.3f}"),
    }


def _loss_after(results: Results, method: str, seed: int, step: float) -> float | None:
    """Returns a run's held-out loss after a step, interpolated between milestones, None outside them."""
    found = [(point.steps, point.value) for point in run_losses(results, method, seed)]
    if not found or not found[0][0] <= step <= found[-1][0]:
        return None
    return float(np.interp(step, *np.transpose(found)))


@dataclass
class Phenomenon:
    """A group of minimal pairs: their number, and (accuracy, standard error) in percent of each seed by model."""

    pairs: int = 0
    scores: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))


def phenomena(results: Results) -> dict[tuple[str, str], Phenomenon]:
    """Returns the accuracies at the last milestone, by data set and phenomenon ("all" for the whole set)."""
    last = {method: step for method, _, step in scored_encoders(results.config)}  # ascending: the last one remains
    found: dict[tuple[str, str], Phenomenon] = defaultdict(Phenomenon)
    for record in (row for row in results.pair_scores if row.step == last[row.method]):
        groups = {"all": [*record.paradigms]}
        for paradigm in record.paradigms:
            groups.setdefault(paradigm.phenomenon or paradigm.name, []).append(paradigm)
        for name, paradigms in groups.items():
            accuracy, error = mean_accuracy(paradigms)
            found[record.data, name].pairs = sum(paradigm.pairs for paradigm in paradigms)
            found[record.data, name].scores[record.method].append((100 * accuracy, 100 * error))
    return dict(sorted(found.items(), key=lambda item: (item[0][0], item[0][1] != "all", item[0][1])))


def pairs_table(results: Results) -> Table:
    """Returns the accuracies on minimal pairs, one row per data set and phenomenon and one column per model."""
    methods = dict.fromkeys(method for method, *_ in scored_encoders(results.config))
    rows = [
        {"Data": data, "Phenomenon": name, "Pairs": number_cell(one.pairs, "{:,}")}
        | {label(method): _accuracy(one.scores.get(method, ())) for method in methods}
        for (data, name), one in phenomena(results).items()
    ]
    words = "with the rest of its word" if results.config.minimal_pairs.whole_words else "on its own"
    notes = [
        f"{TEXTS['notes']['minimal-pairs']} Each token is masked {words}.",
        *(f"{name}: {_facts(row)}." for name, row in {row.data: row for row in results.pair_scores}.items()),
    ]
    used = (((row.method, row.pretrain_seed, row.step), row.checkpoint) for row in results.pair_scores)
    if stale := results.stale(used):
        notes.append(f"{stale:,} records are of other weights than the current: run mapnet minimal-pairs with --force.")
    return table_of("minimal-pairs", "Accuracy by phenomenon", rows, notes, results.signed)


def _accuracy(scores: Sequence[tuple[float, float]]) -> Cell:
    shown = spread_cell([accuracy for accuracy, _ in scores], "{:.1f}")
    if len(scores) != 1:
        return shown
    [(accuracy, error)] = scores
    return Cell(f"{shown.text} ± {error:.1f}", {"mean": accuracy, "standard_error": error})


def _facts(record: PairScores) -> str:
    """Returns the size of a data set, and what of it the models can't read."""
    unscored = Counter[str]()
    for paradigm in record.paradigms:
        unscored.update({reason: len(numbers) for reason, numbers in paradigm.unscored.items()})
    pairs = sum(paradigm.pairs for paradigm in record.paradigms)
    parts = [f"{pairs:,} pairs in {len(record.paradigms)} paradigms", f"{record.unknown_share:.2%} unknown tokens"]
    parts += [f"{count:,} pairs not scored ({reason})" for reason, count in sorted(unscored.items())]
    return ", ".join(parts)


def variance_table(results: Results) -> Table:
    """Returns the gradient variances of every measurement, one row per checkpoint, norm and strategy."""
    rows = [
        {
            "Checkpoint": encoder_name(m.method, m.pretrain_seed, m.step),
            "Gradient": TEXTS["norms"].get(norm, norm),
            "Masks": strategy.name,
            "Mask variance / uniform": _estimate(found["mask_to_uniform"]),
            "Over visits / uniform": _estimate(found["visits_to_uniform"]),
            "Share of the variance": _estimate(found["mask_share"]),
            "Batch error / uniform": _estimate(found["error_to_uniform"]),
        }
        for m in results.variances
        for strategy in m.measured
        for norm, found in strategy.variances.items()
    ]
    return table_of("variance", "Variances by strategy", rows, (TEXTS["notes"]["variance"],), results.signed)


def _estimate(found: Mapping[str, float | None]) -> Cell:
    value, error = found["value"], found["error"]
    if value is None or error is None:
        return number_cell(value, "{:.3f}")
    return Cell(f"{value:.3f} ± {error:.3f}", {"mean": value, "se": error})
