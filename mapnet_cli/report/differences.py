"""Paired differences between methods, and whether they are beyond the noise.

In each column, both methods use the same fine-tuning setting (the one with the best mean over the two methods), scores
with equal seeds are subtracted, and the columns are averaged for each seed. The unit is the pretraining seed if the
methods share several, otherwise the fine-tuning seed of one pretraining run, which ignores the variance between
pretraining runs. Fewer than three units give no interval. With several comparisons in a report, Holm's method corrects
their p-values.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean

from mapnet_cli import core
from mapnet_cli.config import Config
from mapnet_cli.glue import UNTRAINED, Grid, ScoreColumn, Seeds, Setting, best_setting
from mapnet_cli.report.labels import BEYOND
from mapnet_cli.report.load import Results
from mapnet_cli.report.scores import LOSS, SCORE, Scores, values


@dataclass(frozen=True)
class Difference:
    """`method` minus `reference` by unit, at a step of the method and the same fraction of the reference's training."""

    method: str
    reference: str
    step: int
    values: tuple[float, ...]  # one per seed that both have
    unit: str  # kind of unit: "pretraining seed" or "fine-tuning seed"
    measure: str = SCORE
    columns: int = 1  # number of columns behind an average
    lower_is_better: bool = False
    adjusted: float | None = None
    """p-value of Student's t test, corrected by Holm's method for the comparisons of the report."""

    @property
    def mean(self) -> float:
        return fmean(self.values)

    @cached_property
    def interval(self) -> core.Interval | None:
        return core.t_interval(self.values)

    @cached_property
    def bootstrap(self) -> core.Interval | None:
        return core.bootstrap_interval(self.values)

    @cached_property
    def p(self) -> float | None:
        return core.t_test(self.values)

    @cached_property
    def permutation_p(self) -> float | None:
        return core.permutation_test(self.values)

    @property
    def beyond_noise(self) -> bool:
        """Whether the interval excludes 0, after the correction where there is one."""
        p = self.p if self.adjusted is None else self.adjusted
        return p is not None and p < 1 - core.CONFIDENCE

    @property
    def better(self) -> bool:
        return self.beyond_noise and (self.mean < 0) == self.lower_is_better

    def text(self, *numbers: float) -> str:
        """Returns numbers in the measure's unit, all with the same number of decimal places."""
        return ", ".join(f"{number:+.{3 if self.measure == LOSS else 2}f}" for number in numbers)

    def cell(self, columns: int = 1) -> core.Cell:
        """Returns the difference with its interval, and a star if it is beyond the noise."""
        low, high = self.interval or (None, None)
        data = {"mean": self.mean, "low": low, "high": high, "n": len(self.values)}
        within = f" [{self.text(*self.interval)}]" if self.interval else ""
        partial = f" ({self.columns} of {columns} columns)" if self.columns < columns else ""
        return core.Cell(f"{self.text(self.mean)}{within}{BEYOND * self.beyond_noise}{partial}", data)


Differences = Mapping[tuple[str, str, int, str], Difference]  # by measure, method, step and reference


def find_differences(results: Results, scores: Scores) -> dict[tuple[str, str, int, str], Difference]:
    """Returns every comparison of the report, with p-values corrected for all of them.

    Each method with the first one: the average score at each fine-tuned checkpoint, and at the last one each column's
    score, the held-out loss and the accuracy on minimal pairs. And the first method with the
    untrained encoder, or each with the import from which it starts.
    """
    config, columns = results.config, scores.columns
    found = list[Difference | None]()
    for method in config.methods[1:]:
        first, steps = config.methods[0], config.fine_tuned_steps(method)
        found += [paired(results, method, first, step, columns) for step in steps]
        if len(columns) > 1:
            found += [paired(results, method, first, steps[-1], (c,), c.name) for c in columns]
        for measure in (LOSS, *config.minimal_pairs.sets):
            step = config.last_step(method)
            ours, theirs = (values(results, scores, m, config.last_step(m), measure) for m in (method, first))
            by_seed = tuple(own - theirs[seed][0] for seed, [own] in ours.items() if seed in theirs)
            unit, lower = "pretraining seed", measure == LOSS
            found += [Difference(method, first, step, by_seed, unit, measure, 1, lower)] if by_seed else []
    starts = {method: config.method[method].init_from for method in config.methods}
    before = {method: start for method, start in starts.items() if start in results.before}
    before |= dict.fromkeys(config.methods[:1] if config.finetune.untrained else (), UNTRAINED)
    for method, reference in before.items():
        found += [paired(results, method, reference, step, columns) for step in config.fine_tuned_steps(method)]
    known = [one for one in found if one]
    adjusted = core.holm([one.p for one in known])
    corrected = (replace(one, adjusted=p) for one, p in zip(known, adjusted, strict=True))
    return {(one.measure, one.method, one.step, one.reference): one for one in corrected}


def final(config: Config, differences: Differences, measure: str, method: str, reference: str) -> Difference | None:
    """Returns the comparison at the method's last checkpoint that has the measure."""
    step = config.last_step(method) if measure == LOSS else config.fine_tuned_steps(method)[-1]
    return differences.get((measure, method, step, reference))


def paired(
    results: Results, method: str, reference: str, step: int, columns: Sequence[ScoreColumn], measure: str = SCORE
) -> Difference | None:
    """Returns the comparison of two methods over some columns, None if there are no paired runs.

    The reference may be the untrained encoder, which is paired by fine-tuning seed with every pretraining run.
    """
    by_column: list[dict[Seeds, float]] = []
    config, trained = results.config, reference in results.config.methods
    reference_step = config.matching_step(method, step, reference) if trained else 0
    common = {*config.seeds_of(method)} & {*config.seeds_of(reference if trained else method)}
    for column in columns:
        differences: dict[Seeds, float] = {}
        for seed in sorted(common):
            ours, theirs, chooser_ours, chooser_theirs = (
                results.grids.get((*place, column_name), {})
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
    units = {seeds: fmean(column[seeds] for column in by_column) for seeds in shared}
    by_run = trained and len({seed for seed, _ in shared}) > 1
    unit, index = ("pretraining seed", 0) if by_run else ("fine-tuning seed", 1)
    groups: dict[int, list[float]] = defaultdict(list)
    for seeds, value in sorted(units.items(), key=lambda item: item[0][index]):
        groups[seeds[index]].append(value)
    return Difference(method, reference, step, tuple(map(fmean, groups.values())), unit, measure, len(by_column))


def _common_setting(ours: Grid, theirs: Grid) -> Setting | None:
    """Returns the setting with the best mean over both methods, among those with the most paired seeds."""
    both = dict[Setting, list[float]]()
    for setting, own in ours.items():
        if others := theirs.get(setting):
            both[setting] = [own[seed].counted + others[seed].counted for seed in own if seed in others]
    return best_setting(both)
