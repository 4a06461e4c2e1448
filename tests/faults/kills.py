"""Helpers of the fault tests, which kill processes with SIGKILL at random moments.

The number of kills is the environment variable KILLS: 2 by default, 20 in `make faults`.
"""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

KILLS = int(os.environ.get("KILLS", "2"))
MARK = "KILLS_IN"
"""Environment variable that marks all processes of a command: driver, fork server, workers, torchrun, ranks."""

Process = subprocess.Popen[bytes]
Kill = Callable[[Path, Process], bool]
"""Kills a process of the command that runs in a folder, given its driver; returns whether there was one to kill."""
_random = random.Random(KILLS)


def start(command: list[str], root: Path) -> Process:
    """Starts a command that works in `root`; its output goes to a file next to `root`."""
    with (root.parent / f"{root.name}.txt").open("ab") as output:
        return subprocess.Popen(command, env=os.environ | {MARK: str(root)}, stdout=output, stderr=output)


def processes_in(root: Path) -> list[int]:
    """Returns the ids of the processes that work in `root`."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # the process has just ended, or belongs to another user
            if process.environ().get(MARK) == str(root):
                found.append(process.pid)
    return found


def wait_for_orphans(root: Path) -> None:
    """Waits until no process works in the folder: workers exit when their driver does."""
    deadline = time.monotonic() + 30
    while processes_in(root):
        assert time.monotonic() < deadline, "processes outlived their driver"
        time.sleep(0.1)


def kill_any_process(root: Path, driver: Process) -> bool:
    """Kills the driver or, with probability 1/2, any of the command's processes; the command may survive the latter."""
    os.kill(driver.pid if _random.random() < 0.5 else _random.choice(processes_in(root)), signal.SIGKILL)
    return True


def uninterrupted_and_killed(
    artifacts: Path,
    folder: Path,
    command: Callable[[Path], list[str]],
    wait: float,
    state: Callable[[Path], object],
    max_delay: float,
    check: Callable[[Path], None] = lambda root: None,
    kill: Kill = kill_any_process,
    kills: int = KILLS,
) -> tuple[Path, Path]:
    """Runs a command in two copies of an artifact directory, one uninterrupted, one with `kills` kills; returns both.

    Each kill happens after the value of `state` has changed and a random delay of up to `max_delay`
    seconds. `check` is called with the folder after each kill.
    """
    uninterrupted, root = folder / "uninterrupted", folder / "killed"
    for copy in (uninterrupted, root):
        subprocess.run(["cp", "-r", artifacts, copy], check=True)
    assert start(command(uninterrupted), uninterrupted).wait(wait) == 0
    process, killed = start(command(root), root), 0
    while killed < kills:
        before = state(root)
        while process.poll() is None and state(root) == before:
            time.sleep(0.01)
        time.sleep(_random.uniform(0, max_delay))
        if process.poll() is None and kill(root, process):
            killed += 1
            time.sleep(0.1)
        check(root)
        if process.poll() is not None:  # killed, or its workers died too often
            assert process.returncode != 0, "the command finished before all kills were done"
            wait_for_orphans(root)
            check(root)
            process = start(command(root), root)
    while process.wait(600) != 0:
        process = start(command(root), root)
    check(root)
    return uninterrupted, root
