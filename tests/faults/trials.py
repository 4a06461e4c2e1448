"""Trials: a stage of a tiny run with one fault, then the same command again; the result must be that of no fault.

TRIALS is the number of trials per stage and fault (1 by default); 0: every operation, and every kind of damage once.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mapnet_cli.core import TEMPORARY

TRIALS = int(os.environ.get("TRIALS", "1"))
STAGES = ("prepare-corpus", "pretrain", "finetune-glue", "report")
VARYING = {
    "seconds", "checksum", "versions", "tokens_per_second", "step_seconds", "flops_per_second", "mfu", "data_wait",
    "peak_memory_mb",
}  # fmt: skip
"""Keys of records whose values differ between two runs."""


@dataclass(frozen=True)
class Trial:
    """What a command did: its exit code (negative: a signal), its output, and the number of operations on files."""

    code: int
    output: str
    operations: int


class Server:
    """A process that runs commands in forks, see `server.py`."""

    def __init__(self, shim: Path, folder: Path) -> None:
        self._folder = folder
        command = [sys.executable, "-m", "tests.faults.server", str(shim)]
        environment = os.environ | {"LD_PRELOAD": str(shim), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def run(self, arguments: list[str], root: Path, fault: str = "none", at: int = 0, seconds: float = 120) -> Trial:
        """Runs a command; the `at`-th operation on a file below `root` fails."""
        output = self._folder / "output.txt"
        output.unlink(missing_ok=True)
        request = {
            "arguments": arguments, "root": str(root.resolve()), "fault": fault, "at": at, "output": str(output),
            "seconds": seconds,
        }  # fmt: skip
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return Trial(answer["code"], output.read_text(encoding="utf-8", errors="replace"), answer["operations"])

    def close(self) -> None:
        with self._process:  # closes its pipes
            self._process.terminate()


def contents(root: Path) -> dict[str, Any]:
    """Returns what an artifact directory holds, by path: bytes, or records without times and checksums."""
    found: dict[str, Any] = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        young = path.name.startswith(TEMPORARY) and path.parent in (root, root / "configs")  # removed after an hour
        if path.is_file() and not young and not path.name.startswith((".lock-", "events.out.")):
            data = path.read_bytes()
            if path.suffix == ".json":
                found[name] = _constant(json.loads(data))
            elif path.suffix == ".jsonl":
                found[name] = [_constant(json.loads(line)) for line in data.splitlines()]
            else:
                found[name] = data
    return found


def _constant(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _constant(item) for key, item in value.items() if key not in VARYING and not _is_log(key)}
    return [_constant(item) for item in value] if isinstance(value, list) else value


def _is_log(key: str) -> bool:
    return key.endswith(("log.jsonl", "facts.json"))  # their checksums, in markers


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Returns the paths that only one of two directories has, or whose contents differ."""
    return sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))


def lasting(names: list[str]) -> list[str]:
    """Returns the names without those of checkpoints to resume from and reports, which tell times."""
    return [name for name in names if "/resume/" not in name and not name.startswith("report/")]


def copy(source: Path, target: Path) -> Path:
    """Replaces a folder by a copy of another one."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    return target
