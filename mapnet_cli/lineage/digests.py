"""Fingerprints: names of artifacts end in the first digits; those of input files are hashes of their contents."""

import hashlib
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from stat import S_ISREG
from typing import Any, NamedTuple

from mapnet_cli import core
from mapnet_cli.config import Method, Source
from mapnet_cli.core import DamagedError, InputError

# Increased when a stage's output changes for the same settings.
FORMATS = {
    "text": 4, "corpus": 2, "pretraining": 3, "probe": 1, "task": 2, "finetuning": 4, "baseline": 2, "import": 2,
    "variance": 3, "predictions": 2, "pairs": 1, "kept": 1,
}  # fmt: skip


def fingerprint(*parts: Any) -> str:
    """Returns the SHA-256 of the parts' canonical JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def variance_id(checkpoint: core.Checkpoint, settings: dict[str, Any]) -> core.ArtifactId:
    """Gradient variances of a checkpoint, identified by its weights and the measurement settings."""
    prefix = f"variance/{checkpoint.method}-seed{checkpoint.pretrain_seed}-step{checkpoint.step}-"
    return artifact_id(prefix, "variance", checkpoint.fingerprint, settings)


def import_id(name: str, sizes: dict[str, Any], weights: str, tokenizer: str) -> core.ArtifactId:
    """An imported encoder, identified by its sizes and the SHA-256 of its weights and of its tokenizer."""
    return artifact_id(f"import/{name}-", "import", sizes, weights, tokenizer)


def artifact_id(prefix: str, kind: str, *parts: Any) -> core.ArtifactId:
    """Returns the id whose key is the prefix and the first digits of the fingerprint of a kind's parts."""
    digest = fingerprint(kind, FORMATS[kind], *parts)
    return core.ArtifactId(prefix + digest[:8], digest)


def code_of(*uses: tuple[str, str]) -> list[dict[str, str]]:
    """Returns a part of a fingerprint: the code of those (kind, name) that are plugins; no part if none is."""
    found = {reference: code for use in uses for reference, code in core.plugin_code(*use).items()}
    return [found] if found else []


def code_of_method(method: Method) -> list[dict[str, str]]:
    """Returns the same for the plugins that a method uses."""
    return code_of(("strategies", method.strategy), ("estimators", method.drawing.estimator))


def this_python() -> str:
    """Returns the implementation and version of this interpreter, which determine the text harvested from it."""
    return f"{platform.python_implementation()} {sys.version}"


class InputFile(NamedTuple):
    """A file below an input folder."""

    name: str  # path below the folder, with "/"; of a single file, its name
    path: str
    size: int  # in bytes
    modified: int  # time of the last change of the contents, in nanoseconds
    changed: int  # time of the last change of the contents or attributes, in nanoseconds


class InputListing(NamedTuple):
    """The files of an input, sorted by name, and what was left out."""

    files: list[InputFile]
    hidden: list[str]  # names of hidden files and folders
    artifacts: list[str]  # names of artifact directories and of parts of one
    parents: list[str]  # names of links to a parent folder


class Digests:
    """Content hashes of input files, cached by file size, mtime and ctime in the artifact directory.

    ctime is included because rsync and tar preserve mtime. If an input no longer exists (for example because the
    artifacts were copied to another machine), the cached hash is used.
    """

    def __init__(self, artifacts: core.Artifacts) -> None:
        self._artifacts, self._path = artifacts, artifacts.path("inputs.json")
        self._seen = self._remembered() if self._path.exists() else {}
        self._listed: dict[Path, InputListing] = {}

    def _remembered(self) -> dict[str, Any]:
        """Returns what was written earlier. Raises DamagedError."""
        content = core.read_json(self._path)
        if not isinstance(content, dict) or content.pop("checksum", None) != core.record_checksum(content):
            raise DamagedError(f"{self._path} is damaged (its checksum does not match): delete it and run again")
        return dict(content)

    def source(self, source: Source) -> str:
        """Returns a hash of the source's file names and contents, or its Hub id. Raises InputError if it is missing."""
        if source.kind == "cpython":
            return this_python()
        return source.path if source.from_hub else self.folder(Path(source.path))

    def remembered(self, known_as: str) -> str:
        """Returns the cached hash of an input, or "" if it was never hashed."""
        return str(self._seen.get(known_as, {}).get("digest", ""))

    def folder(self, path: Path, known_as: str = "", without: Callable[[str], bool] | None = None) -> str:
        """Returns a hash of a file or of all files below a folder but those `without`, cached as `known_as`."""
        known_as = known_as or str(path)
        if not path.exists():
            if not self.remembered(known_as):
                raise InputError(f"{path} does not exist")
            return self.remembered(known_as)
        known = self._seen.get(known_as, {"files": {}})
        files: dict[str, list[Any]] = {}
        for file in self.listing(path).files:
            if without is not None and without(file.name.rpartition("/")[2]):
                continue
            old, seen = known["files"].get(file.name), list(file[2:])
            files[file.name] = old if old and old[:-1] == seen else [*seen, core.sha256(Path(file.path))]
        digest = fingerprint(sorted((name, entry[-1]) for name, entry in files.items()))
        if known["files"] != files and self._artifacts.writable:
            change = _change(known["files"], files) or known.get("change", "")
            self._seen[known_as] = {"digest": digest, "files": files, "change": change}
            try:
                core.write_json(self._path, self._seen | {"checksum": core.record_checksum(self._seen)})
            except OSError as error:  # which isn't one of the input
                raise core.system_error(error, self._artifacts.root) from None
        return digest

    def change(self, known_as: str) -> str:
        """Returns how an input's last hash differed from the one before, in words, "" if it never did."""
        return str(self._seen.get(known_as, {}).get("change", ""))

    def listing(self, path: Path) -> InputListing:
        """Returns the files at or below `path`, listed once."""
        if path not in self._listed:
            self._listed[path] = list_input(path)
        return self._listed[path]


def _change(before: dict[str, list[Any]], now: dict[str, list[Any]]) -> str:
    """Returns the first difference between two states of an input and the number of others; "" for a new input."""
    found = [f"{name} is {'new' if name in now else 'gone'}" for name in sorted(before.keys() ^ now.keys())]
    found += [f"{name} has changed" for name in sorted(before.keys() & now.keys()) if before[name][-1] != now[name][-1]]
    more = f" and {len(found) - 1} more changes" if len(found) > 1 else ""
    return found[0] + more if before and found else ""


def list_input(root: Path) -> InputListing:
    """Returns the files at or below `root`, without hidden files and artifact directories.

    Links to folders are followed, except links to one of their own parent folders. Raises OSError for anything that
    can't be read, and InputError if `root` itself is an artifact directory or part of one.
    """
    found = InputListing([], [], [], [])
    if not root.is_dir():
        _add(found.files, root.name, str(root), root.stat())
    folders = [("", str(root), True)] * root.is_dir()
    while folders:
        prefix, folder, linked = folders.pop()
        with os.scandir(folder) as scan:
            entries = list(scan)
        made = not core.MARKS.isdisjoint(entry.name for entry in entries)
        if made or (linked and _is_output(Path(folder).resolve())):
            if not prefix:
                raise InputError(f"{root} is an artifact directory of mapnet: move the text into another folder")
            found.artifacts.append(prefix.rstrip("/"))
            continue
        for entry in entries:
            name = prefix + entry.name
            if entry.name[0] == ".":
                found.hidden.append(name)
            elif not entry.is_dir():
                _add(found.files, name, entry.path, entry.stat())
            elif entry.is_symlink() and _leads_back(Path(entry.path)):
                found.parents.append(name)
            else:
                folders.append((f"{name}/", entry.path, entry.is_symlink()))
    for names in found:
        names.sort()
    return found


def _add(files: list[InputFile], name: str, path: str, stat: os.stat_result) -> None:
    if not S_ISREG(stat.st_mode):
        raise InputError(f"{path} is neither a file nor a folder: remove it")
    files.append(InputFile(name, path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))


def _leads_back(folder: Path) -> bool:
    return folder.resolve() in (parent.resolve() for parent in folder.parents)


def _is_output(folder: Path) -> bool:
    """Returns whether the folder is a stage's in an artifact directory, or below it."""
    stages = {mark.removeprefix(".lock-") for mark in core.MARKS}
    owners = [path.parent for path in (folder, *folder.parents) if path.name in stages]
    return any((owner / mark).exists() for owner in owners for mark in core.MARKS)
