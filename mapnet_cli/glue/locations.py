"""Where a GLUE task's data lies: only names are looked at, nothing is read."""

import re
from pathlib import Path

from mapnet_cli.config import Config
from mapnet_cli.core.errors import AbsentError, InputError
from mapnet_cli.core.hub import is_hub


def task_location(config: Config, task: str) -> str | Path:
    """Returns the folder or zip file that holds a task, or the hub's id as it stands in the config.

    In a folder of tasks a task is found by its name in any case, with or without "-" and the suffixes
    of GLUE's own zip files ("SST-2", "sst2", "QNLIv2.zip"). Raises AbsentError where it isn't there.
    """
    key, data = data_key(config, task)
    if is_hub(data):
        return data
    root = Path(data)
    if not root.exists():
        raise AbsentError(f"{key}: {root} does not exist; name the folder with GLUE's tasks")
    if root.is_file():
        return root
    children = sorted(p for p in root.iterdir() if not p.name.startswith("."))
    found = [p for p in children if p.is_dir() and short_name(p.name) == short_name(task)]
    found = found or [p for p in children if p.suffix == ".zip" and short_name(p.stem) == short_name(task)]
    if len(found) > 1:
        raise InputError(f"{key}: {root} has {task} twice, {' and '.join(p.name for p in found)}: which one?")
    if found:
        return found[0]
    if task in config.finetune.task_data or any(names_task(p.name, task) for p in children):
        return root  # the task's own folder, or files that carry its name
    raise AbsentError(
        f"{key}: {root} has no {task}, neither a folder nor a zip file; take it out of finetune.tasks, name its place "
        f'with finetune.task_data.{task}, or set finetune.data = "probe"'
    )


def data_key(config: Config, task: str) -> tuple[str, str]:
    """Returns the config key that says where a task is, and its value."""
    finetune = config.finetune
    if task in finetune.task_data:
        return f"finetune.task_data.{task}", finetune.task_data[task]
    return "finetune.data", finetune.data


def short_name(name: str) -> str:
    """Returns what all spellings of a task's name have in common."""
    short = re.sub(r"(v2|clean)$", "", name.lower().replace("-", "").replace("_", ""))
    return "ax" if short == "diagnostic" else short


def names_task(file: str, task: str) -> bool:
    """Returns whether a file among those of other tasks carries this one's name, as qqp.train.jsonl does."""
    first = re.split(r"[._]", file, maxsplit=1)[0]
    return Path(file).suffix in (".tsv", ".jsonl", ".parquet") and short_name(first) == short_name(task)


def is_test_file(name: str) -> bool:
    """Returns whether a file holds a test set, which no score depends on."""
    return bool(re.search(r"(^|[._-])(test|diagnostic|AX)", name))
