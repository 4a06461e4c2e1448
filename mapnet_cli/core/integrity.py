"""`mapnet verify`: compares every file of an artifact directory with its checksum, without the config."""

import shutil
from collections import defaultdict
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from mapnet_cli.core.artifacts import TEMPORARY, Artifacts, Marker, command_of, read_json, record_checksum, sha256
from mapnet_cli.core.errors import DamagedError, UsageError

FOLDERS = ("import", "prepare-corpus", "pretrain", "minimal-pairs", "finetune-glue", "variance")


@dataclass(frozen=True)
class Damage:
    """A missing or altered file, and all that has to go so that `command` makes it again."""

    path: str
    problem: str
    command: str
    remove: tuple[Path, ...]


@dataclass(frozen=True)
class Verified:
    """Number of results and files whose checksums were compared, and what is wrong."""

    results: int
    files: int
    damaged: list[Damage] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        shown = [{"path": item.path, "problem": item.problem, "command": item.command} for item in self.damaged]
        return {"results": self.results, "files": self.files, "damaged": shown}


def verify(artifacts: Artifacts) -> Verified:
    """Reads every file that a result names. Raises UsageError if the folder is not an artifact directory."""
    root = artifacts.root
    if not any((root / folder).is_dir() for folder in FOLDERS):
        raise UsageError(f"{root} is not an artifact directory: correct --artifacts")
    candidates = [
        path
        for folder in FOLDERS
        for path in sorted((root / folder).rglob("*.json"))
        if not any(part.startswith(TEMPORARY) for part in path.parts)
    ]
    broken = list[Path]()
    named: defaultdict[str, list[tuple[Path, str]]] = defaultdict(list)
    for path in candidates:
        try:
            found = artifacts.marker(path.relative_to(root).with_suffix("").as_posix())
        except DamagedError:  # or no marker at all
            broken.append(path)
            continue
        assert found is not None
        for name, checksum in found.files.items():
            named[name].append((path, checksum))

    damaged = list[Damage]()

    def add(path: Path, problem: str, *remove: Path) -> None:
        name = path.relative_to(root).as_posix()
        damaged.append(Damage(name, problem, command_of(name), remove))

    for name, owners in sorted(named.items()):
        path = root / name
        problem = "" if path.is_file() else "missing"
        if not problem and any(sha256(path) != checksum for _, checksum in owners):
            problem = "altered"
        if problem:
            add(path, problem, path, *(owner for owner, _ in owners))
    for path in (path for path in broken if path.relative_to(root).as_posix() not in named):
        if path.name == "facts.json":
            if _resume_point_altered(path):
                add(path.parent, "altered", path.parent)
        elif _looks_like_marker(path):
            add(path, "altered", path)
    return Verified(len(candidates) - len(broken), len(named), damaged)


def heal(damaged: list[Damage]) -> None:
    """Removes what is damaged and the results that name it; their commands then make them again."""
    for path in dict.fromkeys(path for damage in damaged for path in damage.remove):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _resume_point_altered(path: Path) -> bool:
    """Returns whether a checkpoint's facts or tensors don't match the checksums in its facts."""
    try:
        facts = read_json(path)
        tensors = [file for file in path.parent.iterdir() if file != path]
        return facts.pop("checksum") != record_checksum(facts) or [facts["sha256"]] != list(map(sha256, tensors))
    except (DamagedError, KeyError, TypeError, AttributeError):
        return True


def _looks_like_marker(path: Path) -> bool:
    """Returns whether a file isn't JSON or has most keys of a marker: one of them may be altered."""
    try:
        record = read_json(path)
    except DamagedError:
        return True
    keys = {one.name for one in fields(Marker)}
    return isinstance(record, dict) and len(record.keys() & keys) > len(keys) / 2
