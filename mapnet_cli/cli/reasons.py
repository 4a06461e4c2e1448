"""Why work is done again: the settings and input files that changed since a config's stages last finished."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from mapnet_cli.config.explain import flatten
from mapnet_cli.core import DamagedError, read_json, write_json
from mapnet_cli.lineage import Lineage, code_of, code_of_method

SHOWN, LONGEST = 3, 80  # number of settings that are named, and characters up to which their values are shown
LATER = {
    "prepare-corpus": ("methods", "method", "encoder", "proposal", "pretrain", "finetune", "minimal_pairs", "report"),
    "pretrain": ("finetune", "minimal_pairs", "report"),
}
"""Sections that a stage doesn't depend on."""


def reasons(lineage: Lineage, name: str, stages: Iterable[str]) -> list[str]:
    """Returns what changed since the stages finished for the config called `name`, for the first stage it affects."""
    before, now, found = _finished(lineage, name), _now(lineage), dict[str, str]()
    for stage in (stage for stage in stages if stage in before):
        changes = [*(_inputs(lineage) if stage == "prepare-corpus" else ())]
        changes += _settings(before[stage], now, LATER.get(stage, ("report",)))
        found = dict.fromkeys(changes, stage) | found
    kept = ["pretrain: earlier trainings are kept: see `mapnet runs` and `mapnet clean`"]
    return [f"{stage}: {change}" for change, stage in found.items()] + kept * ("pretrain" in found.values())


def remember(lineage: Lineage, name: str, stage: str) -> None:
    """Records the settings with which a stage has finished."""
    before, now = _finished(lineage, name), _now(lineage)
    if before.get(stage) != now:
        write_json(lineage.artifacts.path(f"configs/{name}.json"), before | {stage: now})


def _now(lineage: Lineage) -> dict[str, Any]:
    """Returns all settings, and hashes of the code of the plugins that are used."""
    config, uses = lineage.config, [("tasks", name) for name in lineage.config.finetune.tasks]
    uses += [("sources", source.kind) for source in config.corpus.sources]
    codes = [*code_of(*uses), *(code for name in config.methods for code in code_of_method(config.method[name]))]
    modules = {f"the code of {place.partition(':')[0]}": digest for code in codes for place, digest in code.items()}
    return flatten(config.results_view()) | modules


def _finished(lineage: Lineage, name: str) -> dict[str, dict[str, Any]]:
    """Returns the settings by stage; nothing if their file is damaged, since no result depends on it."""
    try:
        found = read_json(lineage.artifacts.path(f"configs/{name}.json"))
        return {stage: dict(settings) for stage, settings in found.items()}
    except (FileNotFoundError, NotADirectoryError, DamagedError, AttributeError, TypeError, ValueError):
        return {}


def _inputs(lineage: Lineage) -> Iterator[str]:
    """Yields what changed in the sources, if their present text wasn't prepared yet, but another one was."""
    text = lineage.artifacts.path(lineage.text.key)
    if not text.exists() and any(text.parent.glob("text-*")):
        changes = ((source.path, lineage.digests.change(source.path)) for source in lineage.config.corpus.sources)
        yield from (f"{path}: {change}" for path, change in changes if change)


def _settings(before: dict[str, Any], now: dict[str, Any], without: tuple[str, ...]) -> Iterator[str]:
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key) and key.split(".")[0] not in without]
    for key in keys[:SHOWN]:
        new, old = (json.dumps(values[key]) if key in values else "the default" for values in (now, before))
        yield f"{key} is {new}, was {old}" if len(new + old) <= LONGEST else f"{key} has changed"
    if len(keys) > SHOWN:
        yield f"{len(keys) - SHOWN} more settings have changed"
