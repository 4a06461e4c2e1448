"""One of the processes that `torchrun.run_on_processes` starts: python -m mapnet_cli.jobs.rank FOLDER."""

import dataclasses
import json
import os
import pickle
import re
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.core.errors import MapnetError
from mapnet_cli.jobs import distributed as world
from mapnet_cli.jobs.job import Progress
from mapnet_cli.jobs.torchrun import OUTCOME, TASK

REPORT_INTERVAL = 0.5


def main(folder: Path) -> int:
    """Runs the task with the other processes and leaves this one's outcome in the folder; returns the exit code.

    What only follows from another process's death is no outcome.
    """
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    root, fn, args = pickle.loads((folder / TASK).read_bytes())
    rank = (world.launched() or world.ALONE).rank
    report = _Reporter() if rank == 0 else _silent
    try:
        with world.joined():
            outcome: Any = fn(Artifacts(root), report, **args)
    except MapnetError as error:
        outcome = error
    except Exception as error:  # a bug or a library's error: reported with its traceback
        if _another_died(error):
            traceback.print_exc()  # shown if it happens again and again
            return 1
        outcome = MapnetError(f"process {rank} failed:\n{traceback.format_exc()}")
    temporary = folder / f".{rank}"
    temporary.write_bytes(pickle.dumps(outcome))
    temporary.replace(folder / f"{OUTCOME}{rank}")
    return int(isinstance(outcome, MapnetError))


def _another_died(error: Exception) -> bool:
    """Returns whether an error is what a collective operation raises when another process is gone."""
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or bool(re.search(r"gloo|nccl|by peer|TCPStore", str(error), re.I))


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
    code = main(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # at once: after an error, torch would wait for operations that nobody will finish
