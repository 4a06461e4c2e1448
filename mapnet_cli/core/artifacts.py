"""The artifact directory: the only place that builds paths, publishes files and takes locks.

A file appears under its final name only when it is complete: it is written under a temporary name
in the same folder, flushed to disk, and renamed. A finished job leaves a marker, `KEY.json`, with
its fingerprint, its result and the checksums of its files; the marker is written last.
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from pydantic import ValidationError

from mapnet_cli.core.errors import DamagedError, LockedError, NotMadeError
from mapnet_cli.core.records import Row

TEMPORARY = ".tmp-"
R = TypeVar("R", bound=Row)


@dataclass(frozen=True)
class ArtifactId:
    """`key` is the artifact's path below the artifact directory; it ends in the short fingerprint."""

    key: str
    fingerprint: str


@dataclass(frozen=True)
class Marker:
    """What a finished job leaves behind. `files` maps paths below the artifact directory to checksums."""

    key: str
    fingerprint: str
    result: dict[str, Any]
    files: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)

    def row(self, kind: type[R]) -> R:
        """Returns the result as a typed row; raises DamagedError if it is of another kind."""
        try:
            return kind.model_validate(self.result)
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"]))
            raise DamagedError(
                f"{self.key}.json is not a {kind.__name__} of this version of mapnet ({where}: {problem['msg']}): "
                "run its command again with --force"
            ) from None


class Artifacts:
    """One artifact directory. Keys are paths below it, with '/' between their parts."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, key: str) -> Path:
        return self.root / key

    def marker(self, key: str) -> Marker | None:
        """Returns the marker of a finished job, None if there is none; raises DamagedError."""
        path = self.path(key + ".json")
        if not path.exists():
            return None
        record = read_json(path)
        stated = record.pop("checksum", None)
        if stated != record_checksum(record):
            raise DamagedError(f"{path} is damaged (its checksum does not match): delete it and run again")
        return Marker(**record)

    def find(self, key: str, kind: type[R]) -> R | None:
        """Returns the result of a finished job as a typed row, None if there is none; raises DamagedError."""
        marker = self.marker(key)
        return None if marker is None else marker.row(kind)

    def read(self, key: str, kind: type[R]) -> R:
        """Returns the result of a finished job as a typed row; raises NotMadeError and DamagedError."""
        return self.require(key).row(kind)

    def require(self, key: str) -> Marker:
        """Returns the marker of a finished job; raises NotMadeError, naming the command that makes it."""
        marker = self.marker(key)
        if marker is None:
            command = key.partition("/")[0].replace("import", "import-hf")
            raise NotMadeError(f"{self.path(key)} is not made yet: run `mapnet {command}` with the same options")
        return marker

    def publish(self, marker: Marker) -> None:
        record = asdict(marker)
        write_json(self.path(marker.key + ".json"), record | {"checksum": record_checksum(record)})

    def discard(self, key: str) -> None:
        """Removes a job's marker, then its folder if it has one."""
        self.path(key + ".json").unlink(missing_ok=True)
        if self.path(key).is_dir():
            shutil.rmtree(self.path(key))

    def checksums(self, paths: list[Path]) -> dict[str, str]:
        """Returns {path below the artifact directory: SHA-256} for a marker's `files`."""
        return {path.relative_to(self.root).as_posix(): sha256(path) for path in paths}

    def verify(self, key: str, only: str = "") -> None:
        """Raises DamagedError if a file of a finished job, or `only` that one, is missing or altered."""
        marker = self.require(key)
        for name, checksum in [(only, marker.files.get(only))] if only else marker.files.items():
            path = self.root / name
            if not path.exists():
                raise DamagedError(f"{path} is missing: run its command again with --force")
            if sha256(path) != checksum:
                raise DamagedError(f"{path} is damaged (its checksum does not match): run again with --force")

    @contextmanager
    def lock(self, stage: str) -> Iterator[None]:
        """Holds the stage for this process; raises LockedError if another process has it."""
        path = self.root / f".lock-{stage}"
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise LockedError(
                f"another process is running {stage} in {self.root}; wait for it, or name another --artifacts folder"
            ) from None
        try:
            self._sweep(stage)
            yield
        finally:
            lock.release()

    def locked(self, stage: str) -> bool:
        """Returns whether a process holds the stage now."""
        path = self.root / f".lock-{stage}"
        if not path.exists():
            return False
        try:
            with FileLock(path).acquire(timeout=0):
                return False
        except Timeout:
            return True

    def _sweep(self, stage: str) -> None:
        """Removes what a killed process left half-written; its stage's lock is held."""
        for path in list((self.root / stage).rglob(f"{TEMPORARY}*")):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


@contextmanager
def publishing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; what is there at the end appears under `path`.

    The temporary may become a file or a folder. An existing file is replaced in one step; an
    existing folder is moved aside first. Nothing appears if the block raises.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(4)}-{path.name}")
    try:
        yield temporary
        for file in sorted(temporary.rglob("*")) if temporary.is_dir() else [temporary]:
            _flush(file)
        if path.is_dir() and not temporary.is_dir():
            raise IsADirectoryError(f"{path} is a folder, and stays one: name a file")
        aside = path.with_name(f"{TEMPORARY}{secrets.token_hex(4)}-old-{path.name}")
        if path.is_dir():
            path.replace(aside)
        temporary.replace(path)
        _flush(path.parent)
        shutil.rmtree(aside, ignore_errors=True)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    with publishing(path) as temporary:
        # a file name may hold bytes that are no text: in JSON what replaces them is read as the same again
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Returns the parsed file; raises DamagedError if it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DamagedError(f"{path} is damaged ({error}): delete it and run again") from None


def sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def record_checksum(record: dict[str, Any]) -> str:
    """Returns the SHA-256 of a record's canonical JSON."""
    text = json.dumps(record, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()


def lines_up_to(path: Path, step: int) -> list[str]:
    """Returns the log's lines up to a step; what a kill or a power cut left half-written is left out."""
    return [text for text, row in _rows(path) if row["step"] <= step]


def last_line(path: Path) -> dict[str, Any] | None:
    """Returns the newest line about training itself, None if there is none yet."""
    rows = [row for _, row in _rows(path) if "loss" in row]
    return rows[-1] if rows else None


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if not path.exists():
        return
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        try:
            row = json.loads(text)
        except json.JSONDecodeError:
            continue
        if text.endswith("\n") and isinstance(row, dict) and isinstance(row.get("step"), int):
            yield text, row
