"""The artifact directory: the only place that builds paths, publishes files and takes locks.

Files are written under a temporary name in the same folder, flushed to disk and renamed, so a file
under its final name is always complete. A finished job has a marker, `KEY.json`, with its
fingerprint, its result and the checksums of its files; the marker is written last.
"""

import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import from_json

from mapnet_cli.core.errors import DamagedError, MissingResultError, UsageError, writing
from mapnet_cli.core.locks import held, holding
from mapnet_cli.core.records import Row

TEMPORARY = ".tmp-"
LOCK = ".lock-"
OLD = 3600  # seconds after which a temporary file was left by a killed process
_FOLDERS = ("prepare-corpus", "minimal-pairs", "finetune-glue")
_LOCKS = (f"{LOCK}{name}" for name in (*_FOLDERS, "pretrain", "report", "variance", "import"))
MARKS = frozenset([*_FOLDERS, *_LOCKS])
"""Names of files and folders; a folder that contains one of them is an artifact directory."""
CHECKSUM = b',\n "checksum": "'  # what a marker's checksum follows; it is over all bytes before that
R = TypeVar("R", bound=Row)


@dataclass(frozen=True)
class ArtifactId:
    """Identifies an artifact. `key` is its path below the artifact directory and ends in the short fingerprint."""

    key: str
    fingerprint: str


@dataclass(frozen=True)
class Marker:
    """The record of a finished job. `files` maps paths below the artifact directory to SHA-256 checksums."""

    key: str
    fingerprint: str
    result: dict[str, Any]
    files: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)
    line: bytes = field(default=b"", repr=False, compare=False)
    """The result as it is in the file, for a marker that was read."""

    def row(self, kind: type[R]) -> R:
        """Returns the result as a typed row; raises DamagedError if it does not validate as `kind`."""
        try:
            return kind.model_validate(self.result)
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"]))
            raise DamagedError(
                f"{self.key}.json is not a valid {kind.__name__} in this version of mapnet "
                f"({where}: {problem['msg']}): rerun its command with --force"
            ) from None


class Artifacts:
    """An artifact directory. Keys are paths below it, with '/' as separator.

    A command that is only `looking` for results creates nothing in a folder that isn't an artifact directory.
    """

    def __init__(self, root: Path, looking: bool = False) -> None:
        self.root = root
        self.looking = looking

    @property
    def recognised(self) -> bool:
        """Whether the directory has content of mapnet."""
        return any((self.root / mark).exists() for mark in MARKS)

    @property
    def writable(self) -> bool:
        """Whether the command may create files."""
        return not self.looking or (self.recognised and os.access(self.root, os.W_OK))

    @property
    def outputs(self) -> Path:
        """The directory for a report: the current one if this user can't write to the artifact directory."""
        return self.root if os.access(self.root, os.W_OK) or not self.root.exists() else Path.cwd()

    def refuse_text(self, key: str, path: Path) -> None:
        """Raises UsageError if the directory is, or lies in, the input folder `path` and has content of its own."""
        if not self.root.is_dir() or not path.is_dir() or not self.root.resolve().is_relative_to(path.resolve()):
            return
        names = {file.name for file in self.root.iterdir()}
        if names and MARKS.isdisjoint(names):
            raise UsageError(
                f"--artifacts {self.root} is in {key} ({path}) and has other files ({min(names)}): results would mix "
                "with the text; choose another folder"
            )

    def path(self, key: str) -> Path:
        return self.root / key

    def marker(self, key: str) -> Marker | None:
        """Returns the marker of a finished job, or None; raises DamagedError if its checksum does not match."""
        path = self.path(key + ".json")
        try:
            data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        record = parse_json(data, path)
        stored = record.pop("checksum", None) if isinstance(record, dict) else None
        body = data.rpartition(CHECKSUM)[0]
        if stored != hashlib.sha256(body).hexdigest():
            raise DamagedError(f"{path} is damaged (its checksum does not match): delete it and run again")
        line = (body.split(b"\n", 4)[3:4] or [b""])[0].removeprefix(b' "result": ').removesuffix(b",")
        try:
            return Marker(**record, line=line)
        except TypeError:
            raise DamagedError(f"{path} is not a record of mapnet: delete it and run again") from None

    def find(self, key: str, kind: type[R]) -> R | None:
        """Returns the result of a finished job as a typed row, or None; raises DamagedError."""
        marker = self.marker(key)
        return None if marker is None else marker.row(kind)

    def read(self, key: str, kind: type[R]) -> R:
        """Returns the result of a finished job as a typed row; raises MissingResultError or DamagedError."""
        return self.require(key).row(kind)

    def require(self, key: str) -> Marker:
        """Returns the marker of a finished job; raises MissingResultError, which names the command to run."""
        marker = self.marker(key)
        if marker is None:
            raise MissingResultError(
                f"{self.path(key)} does not exist yet: run `mapnet {command_of(key)}` with the same options"
            )
        return marker

    def stands(self, key: str, fingerprint: str = "") -> bool:
        """Returns whether a job is finished and its files exist; with a fingerprint, also whether that is its own."""
        marker = self.marker(key)
        if marker is None or marker.fingerprint != (fingerprint or marker.fingerprint):
            return False
        return all((self.root / name).exists() for name in marker.files)

    def publish(self, marker: Marker) -> None:
        """Writes the marker: one line per field, last the SHA-256 of all bytes before it."""
        fields = {name: value for name, value in vars(marker).items() if name != "line"}
        values = (json.dumps(value, ensure_ascii=False, allow_nan=False) for value in fields.values())
        lines = (f' "{name}": {value}' for name, value in zip(fields, values, strict=True))
        body = ("{\n" + ",\n".join(lines)).encode(errors="backslashreplace")
        checksum = f'{hashlib.sha256(body).hexdigest()}"\n}}\n'.encode()
        write_bytes(self.path(marker.key + ".json"), body + CHECKSUM + checksum)

    def discard(self, key: str) -> None:
        """Removes a job's marker, then its folder, if any."""
        self.path(key + ".json").unlink(missing_ok=True)
        if self.path(key).is_dir():
            shutil.rmtree(self.path(key))

    def checksums(self, paths: list[Path]) -> dict[str, str]:
        """Returns {path below the artifact directory: SHA-256} for a marker's `files`."""
        return {path.relative_to(self.root).as_posix(): sha256(path) for path in paths}

    def verify(self, key: str, only: str = "") -> None:
        """Raises DamagedError if a file of a finished job is missing or altered; `only` restricts this to one file."""
        marker = self.require(key)
        for name, checksum in [(only, marker.files.get(only))] if only else marker.files.items():
            path = self.root / name
            if not path.exists():
                raise DamagedError(f"{path} is missing: rerun its command with --force")
            if sha256(path) != checksum:
                raise DamagedError(f"{path} is damaged (its checksum does not match): run again with --force")

    @contextmanager
    def lock(self, stage: str) -> Iterator[None]:
        """Holds the stage's lock; raises LockedError if another process holds it, and UsageError."""
        if self.looking and not self.recognised:
            raise UsageError(f"{self.root} is not an artifact directory: correct --artifacts, or use `mapnet run`")
        path = self.root / f"{LOCK}{stage}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with holding(path, stage):
            # incomplete files of killed processes; another stage may be writing one in a folder of all stages
            shared = [*self.root.glob(f"{TEMPORARY}*"), *self.root.glob(f"configs/{TEMPORARY}*")]
            old = [path for path in shared if path.exists() and time.time() - path.lstat().st_mtime > OLD]
            for path in [*old, *(self.root / stage).rglob(f"{TEMPORARY}*")]:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
            yield

    def locked(self, stage: str) -> bool:
        """Returns whether a process currently holds the stage's lock."""
        return held(self.root / f"{LOCK}{stage}")


def command_of(key: str) -> str:
    """Returns the command that makes a result."""
    return key.partition("/")[0].replace("import", "import-hf")


@contextmanager
def publishing(path: Path, need: int = 0) -> Iterator[Path]:
    """Yields a temporary path next to `path` and renames it to `path` when the block ends.

    The caller creates a file or a folder there. An existing file is replaced atomically; an
    existing folder is moved aside first. If the block raises, nothing is published. `need` is the size in bytes, for
    the message about a full disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(4)}-{path.name}")
    try:
        with writing(path, need, temporary):
            yield temporary
            for file in sorted(temporary.rglob("*")) if temporary.is_dir() else [temporary]:
                if file.is_file() and temporary.is_dir():  # safetensors makes files that only their owner can read
                    file.chmod(temporary.stat().st_mode & 0o666)
                sync(file)
            if path.is_dir() and not temporary.is_dir():
                raise IsADirectoryError(f"{path} is a folder, not a file")
            aside = path.with_name(f"{TEMPORARY}{secrets.token_hex(4)}-old-{path.name}")
            if path.is_dir():
                path.replace(aside)
            temporary.replace(path)
            sync(path.parent)
            shutil.rmtree(aside, ignore_errors=True)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, content: bytes) -> None:
    with publishing(path, len(content)) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    # file names may contain undecodable bytes (lone surrogates), whose escapes JSON reads back unchanged
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Returns the parsed file; raises DamagedError if it is not JSON."""
    return parse_json(path.read_bytes(), path)


def parse_json(data: bytes, path: Path) -> Any:
    """Returns the parsed content of a file; raises DamagedError if it is not JSON."""
    try:
        return from_json(data)  # takes half as long as json.loads
    except ValueError:
        pass
    try:
        return json.loads(data.decode())  # reads lone surrogates too, and its errors say where
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path} is damaged ({error}): delete it and run again") from None


def sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def record_checksum(record: dict[str, Any]) -> str:
    """Returns the SHA-256 of a record's canonical JSON."""
    text = json.dumps(record, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()
