"""Accuracy on minimal pairs at each method's last milestone: by data set, and by phenomenon."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mapnet_cli.core import Cell, Column, PairScores, Table, build_table, each, mean_accuracy, plain
from mapnet_cli.glue import UNTRAINED
from mapnet_cli.lineage import scored_encoders
from mapnet_cli.report.compare import seed_difference
from mapnet_cli.report.load import Results
from mapnet_cli.report.notes import label, model_cell, own_settings
from mapnet_cli.report.scores import mean, spread


@dataclass(frozen=True)
class _Row:
    """A model's records at its last milestone by data set, one per pretraining seed, and those of the first method."""

    method: str
    scores: Mapping[str, Sequence[PairScores]]
    reference: Mapping[str, Sequence[PairScores]]


@dataclass(frozen=True)
class _Phenomenon:
    """A phenomenon of a data set, with (accuracy, standard error) of every pretraining seed by model."""

    data: str
    name: str
    paradigms: int
    pairs: int
    scores: Mapping[str, Sequence[tuple[float, float]]]


def pair_tables(results: Results, signed: str) -> tuple[Table, ...]:
    """Returns the tables by data set and by phenomenon; () if the config has no minimal pairs."""
    config, names = results.config, list(results.config.minimal_pairs.sets)
    last = {method: step for method, _, step in scored_encoders(config)}  # ascending: the last one remains
    if not names or not last:
        return ()
    found = {method: defaultdict[str, list[PairScores]](list) for method in last}
    for row in results.pair_scores:
        if row.step == last[row.method]:
            found[row.method][row.data].append(row)
    first = next(iter(found))
    rows = [_Row(method, scores, found[first] if method != first else {}) for method, scores in found.items()]
    columns: list[Column[_Row]] = [Column("Model", lambda row: model_cell(row.method))]
    for name in names:
        columns += _columns(name, label(first))
    notes = _notes(results, rows, label(first))
    by_phenomenon: list[Column[_Phenomenon]] = [
        Column("Phenomenon", lambda row: Cell(f"{row.data}: {row.name}", row.name)),
        Column("Data", lambda row: row.data),
        Column("Paradigms", lambda row: row.paradigms),
        Column("Pairs", lambda row: Cell(f"{row.pairs:,}", row.pairs)),
        *each({method: label(method) for method in found}, lambda row, method: _accuracy(row.scores.get(method, ()))),
    ]
    title = "Minimal pairs: accuracy in percent at the last checkpoint"
    phenomena = list(_phenomena(rows, names))
    return (
        build_table("minimal-pairs", title, columns, rows, notes, signed),
        build_table("phenomena", f"{title}, by phenomenon", by_phenomenon, phenomena, notes, signed),
    )


def _columns(name: str, first: str) -> list[Column[_Row]]:
    def difference(row: _Row) -> Cell:
        ours, theirs = row.scores.get(name, ()), row.reference.get(name, ())
        errors = [rows[0].standard_error for rows in (ours, theirs) if rows]
        a, b = ({r.pretrain_seed: 100 * r.accuracy for r in rows} for rows in (ours, theirs))
        return seed_difference(a, b, "{:+.2f}", 100 * math.hypot(*errors))

    def accuracy(row: _Row) -> Cell:
        return _accuracy([(r.accuracy, r.standard_error) for r in row.scores.get(name, ())])

    def error(row: _Row) -> Cell:
        known = [100 * r.standard_error for r in row.scores.get(name, ())]
        return Cell(f"{mean(known):.2f}", mean(known)) if known else plain(None)

    return [
        Column(name, accuracy),
        Column(f"{name}: standard error over pairs", error),
        Column(f"{name}: difference to {first} (paired)", difference),
    ]


def _accuracy(scores: Sequence[tuple[float, float]]) -> Cell:
    """Returns the mean over pretraining seeds, with the standard deviation if there are several."""
    if not scores:
        return plain(None)
    values = [100 * accuracy for accuracy, _ in scores]
    centre, deviation = mean(values), spread(values)
    error = mean(100 * error for _, error in scores)
    text = f"{centre:.2f}" + ("" if deviation is None else f" ± {deviation:.2f}")
    return Cell(text, {"mean": centre, "sd": deviation, "n": len(values), "standard_error": error})


def _phenomena(rows: Sequence[_Row], names: Sequence[str]) -> Iterator[_Phenomenon]:
    for name in names:
        grouped: dict[str, dict[str, list[tuple[float, float]]]] = {}
        sizes: dict[str, tuple[int, int]] = {}
        for row in rows:
            for record in row.scores.get(name, ()):
                groups = defaultdict(list)
                for paradigm in record.paradigms:
                    groups[paradigm.phenomenon or paradigm.name].append(paradigm)
                for phenomenon, paradigms in groups.items():
                    scores = grouped.setdefault(phenomenon, defaultdict(list))
                    scores[row.method].append(mean_accuracy(paradigms))
                    sizes[phenomenon] = len(paradigms), sum(paradigm.pairs for paradigm in paradigms)
        for phenomenon in sorted(grouped):
            yield _Phenomenon(name, phenomenon, *sizes[phenomenon], grouped[phenomenon])


def _notes(results: Results, rows: Sequence[_Row], first: str) -> list[str]:
    config = results.config
    words = "with the rest of its word" if config.minimal_pairs.whole_words else "on its own"
    notes = [
        "Percent of pairs whose acceptable sentence has the higher pseudo-log-likelihood, each token masked "
        f"{words}; ties count one half, and so do pairs that a model can't tell apart. Mean over the paradigms.",
        "± is the standard deviation over pretraining seeds. Standard error over pairs: of one run's accuracy, "
        f"binomial in each paradigm. Difference to {first}: mean over runs with the same pretraining seed, with "
        "Student's 95% confidence interval if there are several; for a single one it is from the standard errors over "
        "pairs, and ignores the variance between pretraining runs.",
        *own_settings(config),
    ]
    if config.minimal_pairs.pairs:
        notes.append(f"At most {config.minimal_pairs.pairs:,} pairs per paradigm, the same for all models.")
    if detecting := [label(method) for method in config.methods if config.method[method].electra]:
        notes.append(f"{', '.join(detecting)}: left out, no masked-language-model head.")
    if any(row.method == UNTRAINED for row in rows):
        notes.append(f"{UNTRAINED}: encoder and head with the random weights from which pretraining starts.")
    for name in config.minimal_pairs.sets:
        by_text = defaultdict(list)
        for row in rows:
            if row.scores.get(name):
                by_text[_facts(row.scores[name][0])].append(label(row.method))
        for text, models in by_text.items():
            notes.append(f"{name} ({', '.join(models)}): {text}." if len(by_text) > 1 else f"{name}: {text}.")
    current = {key: checkpoint.fingerprint for key, checkpoint in results.checkpoints.items()}
    places = [(current.get((r.method, r.pretrain_seed, r.step)), r.checkpoint) for r in results.pair_scores]
    if stale := sum(expected is not None and expected != used for expected, used in places):
        notes.append(f"{stale:,} records are of other weights than the current: run mapnet minimal-pairs with --force.")
    return notes


def _facts(record: PairScores) -> str:
    """Returns the size of a data set, and what of it the model can't read."""
    pairs = sum(paradigm.pairs for paradigm in record.paradigms)
    unscored = Counter[str]()
    for paradigm in record.paradigms:
        unscored.update({reason: len(numbers) for reason, numbers in paradigm.unscored.items()})
    parts = [f"{pairs:,} pairs in {len(record.paradigms)} paradigms", f"{record.unknown_share:.2%} unknown tokens"]
    parts += [f"{count:,} pairs not scored ({reason})" for reason, count in sorted(unscored.items())]
    return ", ".join(parts)
