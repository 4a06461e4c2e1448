"""One process per stage and artifact directory: an exclusive flock, and a note in its file that says who holds it.

The kernel releases the lock when its holder ends, however it ends; on NFS (Linux) it also holds between machines.
"""

import errno
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mapnet_cli.core.errors import LockedError, MapnetError, writing

_UNSUPPORTED = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@contextmanager
def holding(path: Path, stage: str) -> Iterator[None]:
    """Holds the lock on a file, which is created. Raises LockedError, which names the process that holds it."""
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(
                f"{_describe(_note(path))} is running {stage} in {path.parent}; wait for it, or use another "
                "--artifacts folder"
            ) from None
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            raise MapnetError(
                f"{path.parent}: this file system can't lock files ({os.strerror(error.errno)}), so two processes "
                "could overwrite each other's results: choose a local folder, or mount it with locking"
            ) from None
        command = " ".join(["mapnet", *sys.argv[1:2]])
        note = {"pid": os.getpid(), "host": socket.gethostname(), "command": command, "since": time.time()}
        with writing(path):
            os.ftruncate(file.fileno(), 0)
            os.pwrite(file.fileno(), json.dumps(note).encode(), 0)
        try:
            yield
        finally:
            with suppress(OSError):  # of a full disk, which would hide what went wrong before
                os.ftruncate(file.fileno(), 0)


def held(path: Path) -> bool:
    """Returns whether a process holds the lock, as far as its note tells, without taking it."""
    note = _note(path)
    if not note or note["host"] != socket.gethostname():
        return bool(note)
    try:
        os.kill(note["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _describe(note: dict[str, Any]) -> str:
    """Returns a holder in words."""
    if not note:
        return "another process"
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(note["since"]))
    return f"process {note['pid']} on {note['host']} (`{note['command']}`, since {since})"


def _note(path: Path) -> dict[str, Any]:
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # no file, or none of ours, or written at this moment
        return {}
    return note if isinstance(note, dict) and {"pid", "host", "command", "since"} <= note.keys() else {}
