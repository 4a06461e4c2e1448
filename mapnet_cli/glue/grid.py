"""Task and metric names and the fine-tuning grid, shared by lineage, fine-tuning and report."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

from mapnet_cli.config import Config, task_name
from mapnet_cli.core import UsageError, did_you_mean, find_plugin
from mapnet_cli.glue.tasks import OWN_TASKS, TASKS, check_task_data, get_task, task_data

TEST_ONLY = ("WNLI", "AX")  # sets that are predicted for GLUE's server but not trained on
TRAINED = tuple(name for name in TASKS if name not in TEST_ONLY)
GLUE_COLUMNS = 9
UNTRAINED = "untrained"  # name of the encoder without pretraining, a row of Table 3


@dataclass(frozen=True)
class GridRun:
    """One fine-tuning run. Imports and the untrained encoder are methods with pretraining seed 0 and step 0."""

    method: str
    pretrain_seed: int
    step: int
    task: str
    batch_size: int
    lr: float
    seed: int


def grid_runs(config: Config) -> Iterator[GridRun]:
    """Yields all runs of the grid (Table 2); those of a checkpoint are consecutive, so that workers load it once."""
    for encoder, task in product(fine_tuned(config), config.finetune.tasks):
        yield from runs_of(config, *encoder, task)


def runs_of(config: Config, method: str, pretrain_seed: int, step: int, task: str) -> list[GridRun]:
    """Returns the runs of one encoder on one task."""
    finetune = config.finetune
    settings = product(finetune.batch_sizes, finetune.learning_rates, finetune.seeds)
    return [GridRun(method, pretrain_seed, step, task, *setting) for setting in settings]


def fine_tuned(config: Config) -> list[tuple[str, int, int]]:
    """Returns (method, pretraining seed, step) of every encoder in the grid; (name, 0, 0) if not pretrained here."""
    return config.checkpoints(config.finetune.milestones) + [(name, 0, 0) for name in other_rows(config)]


def other_rows(config: Config) -> tuple[str, ...]:
    """Returns the rows of Table 3 that aren't pretrained here: imports and, with methods, the untrained encoder."""
    return (*config.imports, *([UNTRAINED] if config.finetune.untrained and config.methods else []))


def used_tasks(config: Config) -> tuple[str, ...]:
    """Returns the tasks whose data is needed: the scored tasks, and MNLI if one of them starts from it."""
    return tuple(dict.fromkeys([*config.finetune.tasks, *(["MNLI"] if starts_from_mnli(config) else [])]))


def starts_from_mnli(config: Config) -> bool:
    return bool(set(config.finetune.from_mnli) & set(config.finetune.tasks))


def metrics_by_task(config: Config) -> dict[str, str]:
    """Returns the metric that scores each task. Raises UsageError for unknown names, with the closest known one."""
    finetune = config.finetune
    for name in OWN_TASKS:
        if task_name(name) in TASKS and task_name(name) in finetune.tasks:
            find_plugin("tasks", name, (name,))
    own = [name for name in dict.fromkeys((*finetune.task_data, *OWN_TASKS)) if name not in TASKS]
    for name in (*finetune.task_data, *(name for name in own if name in finetune.tasks)):
        check_task_data(name, task_data(config, name))
    trained = (*TRAINED, *own)
    for key, known in {"tasks": trained, "metrics": trained, "from_mnli": trained, "subsets": tuple(TASKS)}.items():
        for task in (tasks := getattr(finetune, key)):
            if task not in known:
                where = f"{key}.{task}" if isinstance(tasks, dict) else key
                hint = did_you_mean(task, known, list_all=True)
                raise UsageError(f"finetune.{where}: there is no task {task!r}{hint}")
    chosen = {name: get_task(config, name).metric for name in finetune.tasks} | finetune.metrics
    for name, metric in chosen.items():
        if metric not in (recorded := get_task(config, name).metrics):
            raise unknown_metric(name, metric, recorded)
    return {name: chosen[name] for name in finetune.tasks}


def unknown_metric(task: str, metric: str, known: Iterable[str]) -> UsageError:
    hint = did_you_mean(metric, known, list_all=True)
    return UsageError(f"finetune.metrics.{task}: there is no metric {metric!r} for {task}{hint}")
