"""Runs commands in forks of a process that has imported everything, with the faults of `shim.c`.

The process reads one JSON object per line, {"arguments", "root", "fault", "at", "output", "seconds"}, and answers with
{"code", "operations"}; a negative code is a signal. Its caller preloads the shim, whose path is the argument.
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from mapnet_cli.cli.commands import app
from mapnet_cli.report import page

FAULTS = ("none", "once", "full", "half", "before", "after", "power")
PRELOADED = (
    "sacremoses", "scipy.stats", "sklearn.linear_model", "spacy", "tensorboard.summary", "torch._dynamo",
    "mapnet_cli.finetune_glue.loop", "mapnet_cli.pretrain.loop", "mapnet_cli.report.stage",
)  # fmt: skip


def serve(library: str) -> None:
    """Answers requests until the input ends."""
    shim = ctypes.CDLL(library)
    shim.fault_count.restype = ctypes.c_long
    shim.fault_share()
    with contextlib.suppress(SystemExit):
        run(["--help"], os.devnull)
    # Bundling it takes half of a report's time; done here, its engine's threads would not survive a fork.
    bundle = [sys.executable, "-c", "from mapnet_cli.report.page import library; print(library())"]
    text = subprocess.run(bundle, check=True, capture_output=True, encoding="utf-8").stdout.removesuffix("\n")
    page.library = lambda: text
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if not child:
            arm = (request["root"].encode(), FAULTS.index(request["fault"]), ctypes.c_long(request["at"]))
            code = 70
            try:
                run(request["arguments"], request["output"], partial(shim.fault_arm, *arm))
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
            finally:
                os._exit(code)
        print(json.dumps({"code": wait(child, request["seconds"]), "operations": shim.fault_count()}), flush=True)


def run(arguments: list[str], output: str, arm: Any = lambda: None) -> None:
    """Runs the command line with both outputs in a file. Raises SystemExit."""
    for module in PRELOADED:
        import_module(module)
    with Path(output).open("a", encoding="utf-8") as file:
        if output != os.devnull:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        arm()
        with contextlib.redirect_stdout(file) if output == os.devnull else contextlib.nullcontext():
            app(arguments, prog_name="mapnet")


def wait(child: int, seconds: float) -> int:
    """Returns the child's exit code; kills it if it takes longer."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -signal.SIGALRM


if __name__ == "__main__":
    serve(sys.argv[1])
