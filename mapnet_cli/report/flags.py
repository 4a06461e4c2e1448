"""What to be careful with: runs that predict one class, encoders below the bag of words, failed and missing runs."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from mapnet_cli.core import Table, table_of
from mapnet_cli.glue import fine_tuned
from mapnet_cli.report.labels import BELOW, CONSTANT, label
from mapnet_cli.report.load import Results, runs_of_a_task
from mapnet_cli.report.scores import Scores

Place = tuple[str, int, str]
"""Method, step and task."""
SHOWN = 300
"""Maximum number of rows of the table of runs."""
BAG = "bag of words"


@dataclass(frozen=True)
class Flags:
    constant: Mapping[Place, int]
    """Number of runs of the chosen settings that predict one class."""
    below: frozenset[Place]
    """Columns in which an encoder isn't above the bag of words."""
    columns: tuple[str, ...]
    """Columns in which no encoder is above the bag of words at its last checkpoint."""

    def marks(self, method: str, step: int, column: str) -> str:
        place = (method, step, column)
        return CONSTANT * bool(self.constant.get(place)) + BELOW * (place in self.below)


def find_flags(results: Results, scores: Scores) -> Flags:
    constant = Counter[Place]()
    for run in results.runs:
        at = run.grid_run
        if run.constant:
            for column in scores.columns:
                chosen = dict(scores.cells[at.method, at.step, column.name].settings).get(at.pretrain_seed)
                if column.task == at.task and chosen == (at.batch_size, at.lr):
                    constant[at.method, at.step, column.name] += 1
    below, above, known = set[Place](), set[str](), set[str]()
    last = {method: results.config.fine_tuned_steps(method)[-1] for method in results.config.methods}
    for (method, step, name), cell in scores.cells.items():
        bag = scores.baselines.get((BAG, name))
        if cell.mean is not None and bag is not None:
            if cell.mean <= bag:
                below.add((method, step, name))
            if step == last.get(method, 0):
                known.add(name)
                above |= {name} if cell.mean > bag else set()
    return Flags(constant, frozenset(below), tuple(c.name for c in scores.columns if c.name in known - above))


def warnings(results: Results, scores: Scores, flags: Flags) -> list[str]:
    """Returns one line per kind of problem, at the last checkpoints."""
    found = []
    for column in flags.columns:
        bag = scores.baselines[BAG, column]
        found.append(f"{column}: no encoder is above the bag of words ({bag:.1f}), so this column compares little.")
    by_column = defaultdict(list)
    for (method, step, column), count in sorted(flags.constant.items()):
        n = len(scores.cells[method, step, column].by_seed)
        by_column[column].append(f"{label(method)}{f' at {step:,} steps' if step else ''} ({count} of {n})")
    for column, names in by_column.items():
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        found.append(f"{column}: runs that predict one class for all examples: {', '.join(names[:5])}{more}.")
    failed = Counter(run.failure or "no epoch finished" for run in results.runs if run.failure or not run.epochs)
    if failed:
        reasons = "; ".join(f"{reason}, {count:,}" for reason, count in failed.most_common(5))
        found.append(f"{failed.total():,} of {len(results.runs):,} fine-tuning runs failed ({reasons}).")
    for method, seed, step in (key for key, masks in results.masks.items() if masks.collapsed):
        found.append(f"The proposal of {label(method)} has collapsed (seed {seed}, step {step:,}).")
    if results.damaged:
        found.append(f"{len(results.damaged):,} damaged records are left out: {'; '.join(results.damaged[:3])}")
    return found


def run_table(results: Results, signed: str) -> Table:
    """Returns failed, constant and missing runs by name; missing ones are counted by encoder and task."""
    rows: list[dict[str, str]] = []

    def add(encoder: tuple[str, int, int], run: str, what: str) -> None:
        method, seed, step = encoder
        name = f"{label(method)}, seed {seed}, step {step:,}" if step else label(method)
        rows.append({"Encoder": name, "Run": run, "What": what})

    finished = Counter[tuple[str, int, int, str]]()
    for run in results.runs:
        at = run.grid_run
        finished[at.method, at.pretrain_seed, at.step, at.task] += 1
        what = f"failed: {run.failure or 'no epoch finished'}" if run.failure or not run.epochs else ""
        if what or run.constant:
            setting = f"batch {at.batch_size}, lr {at.lr:g}, seed {at.seed}"
            add((at.method, at.pretrain_seed, at.step), f"{at.task}, {setting}", what or "one class")
    every = runs_of_a_task(results.config)
    for key in results.expected_checkpoints:
        if key not in results.checkpoints:
            add(key, "pretraining", "missing checkpoint")
    for encoder in fine_tuned(results.config):
        for task in results.config.finetune.tasks:
            if absent := every - finished[*encoder, task]:
                add(encoder, task, f"missing: {absent} of {every} runs")
    rows += [{"Encoder": "damaged record", "Run": "-", "What": problem} for problem in results.damaged]
    more = (f"{len(rows) - SHOWN:,} more are not shown.",) if len(rows) > SHOWN else ()
    return table_of("runs", "Failed, constant and missing runs", rows[:SHOWN], more, signed)
