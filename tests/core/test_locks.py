"""The lock on a stage of an artifact directory, which names its holder."""

import errno
import fcntl
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mapnet_cli.core.errors import LockedError, MapnetError
from mapnet_cli.core.locks import held, holding


@contextmanager
def other_process(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds the lock, as `mapnet pretrain`."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom mapnet_cli.core.locks import holding\n"
        "with holding(Path(sys.argv[2]), 'pretrain'):\n    print('held', flush=True)\n    sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, "pretrain", str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        yield other
        other.kill()


def test_the_error_names_process_host_command_and_time(tmp_path: Path) -> None:
    path = tmp_path / ".lock-pretrain"
    with other_process(path) as other, pytest.raises(LockedError) as caught, holding(path, "pretrain"):
        pass
    holder = rf"process {other.pid} on {re.escape(socket.gethostname())} \(`mapnet pretrain`, since \d{{4}}-\d\d-\d\d "
    assert re.match(holder + rf"\d\d:\d\d\) is running pretrain in {re.escape(str(tmp_path))}; ", str(caught.value))


def test_looking_at_a_lock_neither_takes_it_nor_trusts_the_dead(tmp_path: Path) -> None:
    path = tmp_path / ".lock-pretrain"
    assert not held(path) and not path.exists()
    with other_process(path):
        assert held(path)
        note = path.read_text()
    path.write_text(note)
    assert not held(path), "its process was killed"
    path.write_text(json.dumps(json.loads(note) | {"host": "elsewhere"}))
    assert held(path), "whether a process of another machine runs can't be seen from here"
    with holding(path, "pretrain"):
        assert held(path) and json.loads(path.read_text())["pid"] == os.getpid()
    assert not held(path)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_refused(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with pytest.raises(MapnetError, match="this file system can't lock files"), holding(tmp_path / "lock", "pretrain"):
        raise AssertionError("it ran without a lock")
