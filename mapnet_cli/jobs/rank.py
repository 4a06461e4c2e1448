"""One of the processes that `torchrun.run_on_processes` starts: python -m mapnet_cli.jobs.rank FOLDER."""

import dataclasses
import json
import os
import pickle
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from mapnet_cli import world
from mapnet_cli.artifacts import Artifacts
from mapnet_cli.errors import MapnetError
from mapnet_cli.jobs.job import Progress
from mapnet_cli.jobs.torchrun import OUTCOME, TASK

REPORT_INTERVAL = 0.5


def main(folder: Path) -> int:
    """Runs the task with the other processes; the first one leaves the outcome in the folder."""
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    root, fn, args = pickle.loads((folder / TASK).read_bytes())
    place = world.launched() or world.ALONE
    report = _Reporter() if place.rank == 0 else _silent
    try:
        with world.joined():
            outcome: Any = fn(Artifacts(root), report, **args)
    except MapnetError as error:
        outcome = error
    except Exception:  # a bug or a library's error: reported with its traceback
        outcome = MapnetError(f"process {place.rank} failed:\n{traceback.format_exc()}")
    # An error of one process alone must not leave the others waiting: its exit makes torchrun end them.
    if place.rank == 0 or isinstance(outcome, MapnetError):
        temporary = folder / f"{OUTCOME}.{place.rank}"
        temporary.write_bytes(pickle.dumps(outcome))
        if place.rank == 0 or not (folder / OUTCOME).exists():
            temporary.replace(folder / OUTCOME)
    return isinstance(outcome, MapnetError)


class _Reporter:
    """Writes progress to the standard output, a JSON object a line."""

    def __init__(self) -> None:
        self._last = 0.0

    def __call__(self, progress: Progress) -> None:
        if progress.warning or time.monotonic() - self._last >= REPORT_INTERVAL:
            self._last = time.monotonic()
            print(json.dumps(dataclasses.asdict(progress)), flush=True)


def _silent(progress: Progress) -> None:
    pass


def _end_with_launcher() -> None:
    """The standard input ends when the process that started torchrun does."""
    while os.read(0, 1024):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
