"""Content hashes of input files, by which an artifact that depends on them is named."""

import hashlib
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mapnet_cli.config import Source
from mapnet_cli.core import Artifacts, InputError, read_json, sha256, write_json


def fingerprint(*parts: Any) -> str:
    """Returns the SHA-256 of the parts' canonical JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def this_python() -> str:
    """Returns what the text harvested from this interpreter depends on."""
    return f"{platform.python_implementation()} {sys.version}"


class Digests:
    """Content hashes of input files, remembered by size and times beside the artifacts.

    The time of change is one of them: rsync and tar set a file's modification time to what it was elsewhere.

    Where an input is gone (the artifacts were copied to another machine), the remembered hash stands.
    """

    def __init__(self, artifacts: Artifacts) -> None:
        self._path = artifacts.path("inputs.json")
        self._seen: dict[str, Any] = read_json(self._path) if self._path.exists() else {}

    def source(self, source: Source) -> str:
        """Returns a hash of the source's file names and contents, or its id on the hub; raises InputError."""
        if source.kind == "cpython":
            return this_python()
        return source.path if source.of_hub else self.folder(Path(source.path))

    def remembered(self, known_as: str) -> str:
        """Returns the hash of an input as it was when it was last seen, "" if it never was."""
        return str(self._seen.get(known_as, {}).get("digest", ""))

    def folder(self, path: Path, known_as: str = "", without: Callable[[str], bool] | None = None) -> str:
        """Returns a hash of a file, or of the names and contents of all files below a folder.

        It is remembered as `known_as` (the path); files whose name `without` says yes to are left out.
        """
        known_as = known_as or str(path)
        if not path.exists():
            if not self.remembered(known_as):
                raise InputError(f"{path} does not exist")
            return self.remembered(known_as)
        known = self._seen.get(known_as, {"files": {}})
        files: dict[str, list[Any]] = {}
        for file in input_files(path):
            if without is not None and without(file.name):
                continue
            name = file.relative_to(path).as_posix() if file != path else file.name
            stat = file.stat()
            old = known["files"].get(name)
            seen = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
            files[name] = [*seen, old[-1] if old is not None and old[:-1] == seen else sha256(file)]
        digest = fingerprint(sorted((name, entry[-1]) for name, entry in files.items()))
        if known["files"] != files:
            self._seen[known_as] = {"digest": digest, "files": files}
            write_json(self._path, self._seen)
        return digest


def input_files(path: Path) -> list[Path]:
    """Returns the files at or below `path` in sorted order of their names, hidden ones left out.

    Links to folders are followed, but for those that lead back to where they are.
    """
    if path.is_file():
        return [path]
    files = []
    for folder, below, names in os.walk(path, followlinks=True):
        here = Path(folder)
        below[:] = [name for name in below if name[0] != "." and not _leads_back(here / name)]
        files += [here / name for name in names if name[0] != "." and (here / name).is_file()]
    return sorted(files, key=lambda p: p.relative_to(path).as_posix())


def _leads_back(folder: Path) -> bool:
    return folder.is_symlink() and folder.resolve() in (parent.resolve() for parent in folder.parents)
