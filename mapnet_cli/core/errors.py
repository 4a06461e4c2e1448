"""Exceptions raised on purpose, each with an exit code, and "did you mean" hints.

A message says what is wrong, where, and what to do. Any other exception is a bug.
"""

import difflib
import errno
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mapnet_cli.core.formatting import format_size
from mapnet_cli.core.hardware import free_disk


class MapnetError(Exception):
    """Base class of expected failures; exit code 1 unless a subclass overrides it."""

    exit_code = 1


class UsageError(MapnetError):
    """The command line or the config is wrong."""

    exit_code = 2


class PluginError(UsageError):
    """An installed plugin can't be used."""


class ProcessError(UsageError):
    """A usage error that only one of several launched processes detects and therefore reports itself."""


class MissingResultError(UsageError):
    """A required result of an earlier command does not exist yet."""


class InputError(MapnetError):
    """Input data (text, GLUE files) is missing or malformed."""

    exit_code = 3


class AbsentError(InputError):
    """Input data does not exist at the expected location."""


class DamagedError(MapnetError):
    """A file written by mapnet is truncated or altered."""

    exit_code = 4


class LockedError(MapnetError):
    """Another process is working on the same stage of the same artifact directory."""

    exit_code = 5


class DivergedError(MapnetError):
    """Training produced a non-finite loss or gradient."""

    exit_code = 6


class Interrupted(MapnetError):
    """SIGINT or SIGTERM arrived; everything finished so far is saved."""

    exit_code = 130


_ADVICE = {
    errno.ENOSPC: "make room on the disk, or choose another --artifacts folder",
    errno.EDQUOT: "your quota is used up: make room, or choose another --artifacts folder",
    errno.EROFS: "the disk is read-only: choose another folder to write to",
    errno.ENOENT: "restore it, correct the path, or remove the link that leads to it",
    errno.EISDIR: "a file is expected here: correct the path",
    errno.ENOTDIR: "a folder is expected here: correct the path",
    errno.EEXIST: "a folder is expected here: correct the path",
    errno.ELOOP: "remove the link, which leads to itself",
    errno.ENAMETOOLONG: "use a shorter path",
    errno.ENOMEM: "use fewer --workers, or a machine with more memory",
    errno.EMFILE: "raise the limit of open files (ulimit -n), or use fewer --workers",
    errno.EIO: "the disk or network file system fails: check it and run again",
    errno.ESTALE: "the network file system changed: run again",
}
"""What to do about a failed system call."""
_LESS_MEMORY = {
    "pretrain": "set a smaller pretrain.micro_batch_size, which gives the same batches in more passes",
    "minimal-pairs": "set a smaller minimal_pairs.batch_tokens, or use fewer --workers",
}
_WHILE_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
_IN_WORDS = re.compile(r"\(os error (\d+)\)|requested and \d+ written")
"""How Rust's libraries and NumPy report a failed system call; NumPy's writes fail on full disks."""


@contextmanager
def writing(path: Path, need: int = 0, temporary: Path | None = None) -> Iterator[None]:
    """Gives errors of the block that are due to a full or read-only disk their path, also those that say it in words.

    `need` is the number of bytes to be written; 0: more than were written so far to `temporary`, or to `path`.
    """
    try:
        yield
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        if number is None and (found := _IN_WORDS.search(str(error))):
            number = int(found[1] or errno.ENOSPC)
        if number not in _WHILE_WRITING:
            raise
        failure = OSError(number, os.strerror(number), str(path))
        file = temporary or path
        files = [file, *file.rglob("*")] if file.exists() else []
        least = f"more than {format_size(sum(file.stat().st_size for file in files))}"
        failure.add_note(f"{format_size(need) if need else least} needed")
        raise failure from None


def system_error(error: OSError, artifacts: Path | None = None, what: str = "") -> MapnetError:
    """Returns the error for a failed system call, with its path, reason and what to do about it.

    It is an InputError for a file that can't be read, other than those below the artifact directory. `what` is the
    name of the source or job that needed the file.
    """
    if error.errno is None:  # from a library
        return MapnetError(f"{what}: {error}" if what else str(error))
    path = Path(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes, os.PathLike)) else None
    advice, written = _ADVICE.get(error.errno, ""), path is None or error.errno in _WHILE_WRITING
    if path and error.errno in (errno.EACCES, errno.EPERM):
        created = not os.path.lexists(path) and os.access(path.parent, os.X_OK)
        written = created or os.access(path, os.R_OK)
        advice = f"allow this user to {'write' if written else 'read'} it (chmod), or choose another path"
    inside = path and artifacts and path.absolute().is_relative_to(artifacts.absolute())
    where = path or (f"in {artifacts}" if artifacts and not what else "")
    notes = [*getattr(error, "__notes__", ())]
    if error.errno == errno.ENOSPC and (disk := path or artifacts):
        notes.append(f"{format_size(free_disk(disk))} free")
    parts = [what, str(where) if str(where) not in what else "", os.strerror(error.errno), *notes, advice]
    message = ": ".join(part for part in parts if part).encode("utf-8", "backslashreplace").decode()
    return MapnetError(message) if written or inside else InputError(message)


def out_of_memory(error: BaseException) -> bool:
    """Returns whether Python, a library or a GPU had no memory left."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"  # torch's
        or "can't allocate memory" in str(error)
    )


def memory_advice(stage: str) -> str:
    """Returns what to do if a stage runs out of memory."""
    remedy = _LESS_MEMORY.get(stage, "use fewer --workers")
    return f"{remedy}; --dry-run shows how much pretraining and fine-tuning need"


@contextmanager
def reading_input(what: str) -> Iterator[None]:
    """Turns system errors into InputErrors, whose messages begin with `what`, the name of the input."""
    try:
        yield
    except InputError as error:
        raise error if what in str(error) else type(error)(f"{what}: {error}") from None
    except OSError as error:
        raise InputError(str(system_error(error, None, what))) from None


def did_you_mean(name: str, known: Iterable[str], list_all: bool = False) -> str:
    """Returns a hint to append to a message: the closest known name, else all names if `list_all`, else ""."""
    names = {known_name.lower(): known_name for known_name in known}
    near = difflib.get_close_matches(name.lower(), names, 1, 0.5 if len(name) < 3 else 0.6)
    choices = f"; choose one of {', '.join(names.values())}" if list_all and names else ""
    return f"; did you mean {names[near[0]]!r}?" if near else choices
