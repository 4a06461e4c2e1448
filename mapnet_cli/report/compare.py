"""Paired differences between each method and the first method of the config."""

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mapnet_cli.config import Config
from mapnet_cli.core import Cell, Scalar, plain
from mapnet_cli.glue import Grid, ScoreColumn, Seeds, Setting
from mapnet_cli.report.notes import columns_suffix, label
from mapnet_cli.report.scores import Scores, mean, spread

CONFIDENCE = 0.95

DEFINITION = (
    "Paired difference: in each column, both methods use the same fine-tuning setting (the one with the best mean over"
    " the two methods), scores with equal seeds are subtracted, and the columns are averaged for each seed. Brackets:"
    " 95% confidence interval (Student's t), over pretraining seeds if the methods share several, otherwise over the"
    " fine-tuning seeds of one pretraining run; the latter ignores the variance between pretraining runs."
)


@dataclass(frozen=True)
class Comparison:
    """`method` minus `reference`, in points, at a step and the same fraction of the reference's training.

    The interval is None if there is only one unit.
    """

    method: str
    reference: str
    step: int
    difference: float
    low: float | None
    high: float | None
    n: int
    """Number of paired units."""
    unit: str
    """Kind of unit: "pretraining seed" or "fine-tuning seed"."""
    columns: int


def compare(config: Config, scores: Scores) -> dict[tuple[str, int], Comparison]:
    """Returns the comparison of each other method with the first by (method, step), where paired runs exist."""
    compared = {
        (method, step): paired(config, scores, method, config.methods[0], step, scores.columns)
        for method in config.methods[1:]
        for step in config.fine_tuned_steps(method)
    }
    return {key: comparison for key, comparison in compared.items() if comparison is not None}


def pairs_note(config: Config, comparisons: Mapping[tuple[str, int], Comparison]) -> list[str]:
    """Returns notes on the units of the paired differences; [] if all methods have the same pretraining seeds."""
    if not any(config.method[method].seeds for method in config.methods):
        return []
    first, by_unit = config.methods[0], defaultdict(list)
    for method in config.methods[1:]:
        found = comparisons.get((method, config.fine_tuned_steps(method)[-1]))
        if found is not None:
            by_unit[f"Paired over {found.n} {found.unit}{'s' * (found.n > 1)}"].append(label(method))
        elif not {*config.seeds_of(method)} & {*config.seeds_of(first)}:
            by_unit[f"Not paired, no pretraining seed in common with {label(first)}"].append(label(method))
    return [f"{units}: {', '.join(names)}." for units, names in by_unit.items()]


def difference_cell(comparison: Comparison | None, columns: int = 1) -> Cell:
    """Returns a paired difference with its interval, and its number of columns if that is less than `columns`."""
    if comparison is None:
        return plain(None)
    data: dict[str, Scalar] = {
        "mean": comparison.difference, "low": comparison.low, "high": comparison.high,
        "n": comparison.n, "unit": comparison.unit, "columns": comparison.columns,
    }  # fmt: skip
    text = f"{comparison.difference:+.2f}"
    if comparison.low is not None and comparison.high is not None:
        text += f" [{comparison.low:+.2f}, {comparison.high:+.2f}]"
    return Cell(text + columns_suffix(comparison.columns, columns), data)


def seed_difference(
    ours: Mapping[int, float | None], theirs: Mapping[int, float | None], form: str, error: float | None = None
) -> Cell:
    """Returns the mean of `ours` minus `theirs` over common pretraining seeds, with Student's confidence interval.

    For a single seed the interval is that of a normal distribution with standard error `error`, if given.
    """
    pairs = [(value, theirs.get(seed)) for seed, value in ours.items()]
    values = [a - b for a, b in pairs if a is not None and b is not None]
    if not values:
        return plain(None)
    centre, (low, high) = mean(values), interval(values)
    if len(values) == 1 and error is not None:
        half = statistics.NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * error
        low, high = centre - half, centre + half
    within = "" if low is None or high is None else f" [{form.format(low)}, {form.format(high)}]"
    return Cell(f"{form.format(centre)}{within}", {"mean": centre, "low": low, "high": high, "n": len(values)})


def interval(values: list[float]) -> tuple[float | None, float | None]:
    """Returns Student's t confidence interval of the mean, (None, None) for fewer than two values."""
    deviation = spread(values)
    if deviation is None:
        return None, None
    from scipy.special import stdtrit  # scipy.stats takes a second to import

    half = float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2)) * deviation / math.sqrt(len(values))
    centre = mean(values)
    return centre - half, centre + half


def paired(
    config: Config, scores: Scores, method: str, reference: str, step: int, columns: Sequence[ScoreColumn]
) -> Comparison | None:
    """Returns the comparison of two methods over some columns, None if there are no paired runs.

    The reference may be the untrained encoder, which is paired by fine-tuning seed with every pretraining run.
    """
    by_column: list[dict[Seeds, float]] = []
    trained = reference in config.methods
    reference_step = config.matching_step(method, step, reference) if trained else 0
    common = {*config.seeds_of(method)} & {*config.seeds_of(reference if trained else method)}
    for column in columns:
        differences: dict[Seeds, float] = {}
        for seed in sorted(common):
            ours, theirs, chooser_ours, chooser_theirs = (
                scores.grids.get((*place, column_name), {})
                for column_name in (column.name, column.chooser)
                for place in ((method, seed, step), (reference, seed if trained else 0, reference_step))
            )
            if (setting := _common_setting(chooser_ours, chooser_theirs)) is not None:
                for fine, run in ours[setting].items():
                    if fine in theirs[setting]:
                        differences[seed, fine] = run.counted - theirs[setting][fine].counted
        if differences:
            by_column.append(differences)
    shared = sorted(set.intersection(*map(set, by_column))) if by_column else []
    if not shared:
        return None
    units = {seeds: mean(column[seeds] for column in by_column) for seeds in shared}
    by_run = trained and len({seed for seed, _ in shared}) > 1
    unit, index = ("pretraining seed", 0) if by_run else ("fine-tuning seed", 1)
    groups = sorted({seeds[index] for seeds in shared})
    values = [mean(value for seeds, value in units.items() if seeds[index] == group) for group in groups]
    low, high = interval(values)
    return Comparison(method, reference, step, mean(values), low, high, len(values), unit, len(by_column))


def _common_setting(ours: Grid, theirs: Grid) -> Setting | None:
    """Returns the setting with the best mean over both methods, among those with the most paired seeds."""
    paired = {setting: sorted(ours[setting].keys() & theirs[setting].keys()) for setting in ours if setting in theirs}
    fullest = max(map(len, paired.values()), default=0)
    rivals = [setting for setting, seeds in paired.items() if fullest and len(seeds) == fullest]

    def both(setting: Setting) -> float:
        return round(mean(ours[setting][s].counted + theirs[setting][s].counted for s in paired[setting]), 9)

    return max(rivals, key=both, default=None)
