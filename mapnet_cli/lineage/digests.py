"""Content hashes of input files, which are part of the fingerprints of the artifacts that depend on them."""

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
    """Returns the implementation and version of this interpreter, which determine the text harvested from it."""
    return f"{platform.python_implementation()} {sys.version}"


class Digests:
    """Content hashes of input files, cached by file size, mtime and ctime in the artifact directory.

    ctime is included because rsync and tar preserve mtime. If an input no longer exists (for example because the
    artifacts were copied to another machine), the cached hash is used.
    """

    def __init__(self, artifacts: Artifacts) -> None:
        self._path = artifacts.path("inputs.json")
        self._seen: dict[str, Any] = read_json(self._path) if self._path.exists() else {}

    def source(self, source: Source) -> str:
        """Returns a hash of the source's file names and contents, or its Hub id. Raises InputError if it is missing."""
        if source.kind == "cpython":
            return this_python()
        return source.path if source.from_hub else self.folder(Path(source.path))

    def remembered(self, known_as: str) -> str:
        """Returns the cached hash of an input, or "" if it was never hashed."""
        return str(self._seen.get(known_as, {}).get("digest", ""))

    def folder(self, path: Path, known_as: str = "", without: Callable[[str], bool] | None = None) -> str:
        """Returns a hash of a file, or of the names and contents of all files below a folder.

        It is cached as `known_as` (default: the path). Files for whose name `without` is true are excluded.
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
    """Returns the files at or below `path`, sorted by name, without hidden files.

    Links to folders are followed, except links to one of their own parent folders.
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
