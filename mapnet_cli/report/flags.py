"""What to be careful with: runs that predict one class, encoders below the bag of words, failed and missing runs."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from mapnet_cli.core import Table, few, table_of
from mapnet_cli.glue import fine_tuned, other_rows
from mapnet_cli.report.labels import BELOW, CONSTANT, encoder_name, label
from mapnet_cli.report.load import Encoder, Results, runs_of_a_task
from mapnet_cli.report.scores import Scores

Place = tuple[str, int, str]  # method, step and column
SHOWN = 300  # maximum number of rows of the table of runs
BAG = "bag of words"


@dataclass(frozen=True)
class Flags:
    constant: Mapping[Place, int]  # number of runs of the chosen settings that predict one class
    below: frozenset[Place]  # columns in which an encoder isn't above the bag of words
    columns: tuple[str, ...]  # columns in which no encoder is above the bag of words at its last checkpoint

    def marks(self, place: Place) -> str:
        return CONSTANT * bool(self.constant.get(place)) + BELOW * (place in self.below)


def find_flags(results: Results, scores: Scores) -> Flags:
    constant = Counter[Place]()
    for run in (run for run in results.runs if run.constant):
        method, seed, step = run.encoder
        for column in (column for column in scores.columns if column.task == run.grid_run.task):
            chosen = dict(scores.cells[method, step, column.name].settings).get(seed)
            constant[method, step, column.name] += chosen == (run.grid_run.batch_size, run.grid_run.lr)
    bags = {name: bag for (baseline, name), bag in scores.baselines.items() if baseline == BAG}
    means = {place: cell.mean for place, cell in scores.cells.items() if cell.mean is not None and place[2] in bags}
    below = frozenset(place for place, mean in means.items() if mean <= bags[place[2]])
    last = [(method, results.config.fine_tuned_steps(method)[-1]) for method in results.config.methods]
    last += [(name, 0) for name in other_rows(results.config)]
    known = {name: {(*row, name) for row in last} & means.keys() for name in bags}
    columns = tuple(one.name for one in scores.columns if (places := known.get(one.name)) and places <= below)
    return Flags(+constant, below, columns)


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
        found.append(f"{column}: runs that predict one class for all examples: {few(names, 5)}.")
    if failed := Counter(run.failure for run in results.runs if run.failure):
        reasons = "; ".join(f"{reason}, {count:,}" for reason, count in failed.most_common(5))
        found.append(f"{failed.total():,} of {len(results.runs):,} fine-tuning runs failed ({reasons}).")
    for method, seed, step in (key for key, masks in results.masks.items() if masks.collapsed):
        found.append(f"The proposal of {label(method)} has collapsed (seed {seed}, step {step:,}).")
    if results.damaged:
        found.append(f"{len(results.damaged):,} damaged records are left out: {'; '.join(results.damaged[:3])}")
    return found


def run_table(results: Results) -> Table:
    """Returns failed, constant and missing runs by name; missing ones are counted by encoder and task."""
    found, finished = list[tuple[Encoder, str, str]](), Counter[tuple[Encoder, str]]()
    for run in results.runs:
        at = run.grid_run
        finished[run.encoder, at.task] += 1
        if run.failure or run.constant:
            name = f"{at.task}, batch {at.batch_size}, lr {at.lr:g}, seed {at.seed}"
            found.append((run.encoder, name, f"failed: {run.failure}" if run.failure else "one class"))
    for encoder in results.config.checkpoints():
        if encoder not in results.checkpoints:
            ended = results.logs.get(encoder[:2], {}).get("diverged_at")
            what = f"diverged at step {ended[-1][1]:,.0f}" if ended else "missing checkpoint"
            found.append((encoder, "pretraining", what))
    every = runs_of_a_task(results.config)
    for encoder in fine_tuned(results.config):
        missing = {task: every - finished[encoder, task] for task in results.config.finetune.tasks}
        found += [(encoder, task, f"missing: {n} of {every} runs") for task, n in missing.items() if n]
    rows = [{"Encoder": encoder_name(*encoder), "Run": run, "What": what} for encoder, run, what in found]
    rows += [{"Encoder": "damaged record", "Run": "-", "What": problem} for problem in results.damaged]
    title = "By name" if len(rows) <= SHOWN else f"By name, the first {SHOWN} of {len(rows):,}"
    return table_of("runs", title, rows[:SHOWN], (), results.signed)
