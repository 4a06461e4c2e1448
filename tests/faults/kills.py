"""kill -9 again and again: what the fault tests share.

A few kills in the test suite; `make faults` does KILLS of them.
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
"""The variable by which a command's whole family is known: driver, fork server, workers, torchrun, ranks."""

Process = subprocess.Popen[bytes]
Kill = Callable[[Path, Process], bool]
"""Kills something of what works in a folder, given the driver too; returns whether there was something to kill."""
_chance = random.Random(KILLS)


def start(command: list[str], root: Path) -> Process:
    """Starts a command that works in `root`; what it says goes into a file beside it."""
    with (root.parent / f"{root.name}.txt").open("ab") as said:
        return subprocess.Popen(command, env=os.environ | {MARK: str(root)}, stdout=said, stderr=said)


def family(root: Path) -> list[int]:
    """Returns the processes that work in `root`."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it has just ended, or is somebody else's
            if process.environ().get(MARK) == str(root):
                found.append(process.pid)
    return found


def wait_for_orphans(root: Path) -> None:
    """Waits until nothing works in the folder any more: workers end with their driver."""
    deadline = time.monotonic() + 30
    while family(root):
        assert time.monotonic() < deadline, "processes outlived their driver"
        time.sleep(0.1)


def any_of_the_family(root: Path, driver: Process) -> bool:
    """Kills the driver, or just as often anyone of its family, after which it may go on by itself."""
    os.kill(driver.pid if _chance.random() < 0.5 else _chance.choice(family(root)), signal.SIGKILL)
    return True


def undisturbed_and_killed(
    artifacts: Path,
    folder: Path,
    command: Callable[[Path], list[str]],
    wait: float,
    moved: Callable[[Path], object],
    longest: float,
    check: Callable[[Path], None] = lambda root: None,
    kill: Kill = any_of_the_family,
    kills: int = KILLS,
) -> tuple[Path, Path]:
    """Runs a command in two copies of an artifact directory and returns them: one in peace, one under `kills` kills.

    After each start a kill waits until what `moved` returns has changed, and then up to `longest`
    seconds. `check` looks at the folder after each kill.
    """
    peace, war = folder / "undisturbed", folder / "killed"
    for root in (peace, war):
        subprocess.run(["cp", "-r", artifacts, root], check=True)
    assert start(command(peace), peace).wait(wait) == 0
    process, killed = start(command(war), war), 0
    while killed < kills:
        before = moved(war)
        while process.poll() is None and moved(war) == before:
            time.sleep(0.01)
        time.sleep(_chance.uniform(0, longest))
        if process.poll() is None and kill(war, process):
            killed += 1
            time.sleep(0.1)
        check(war)
        if process.poll() is not None:  # killed, or its workers died too often
            assert process.returncode != 0, "it ended before it was killed as often as it should"
            wait_for_orphans(war)
            check(war)
            process = start(command(war), war)
    while process.wait(600) != 0:
        process = start(command(war), war)
    check(war)
    return peace, war
