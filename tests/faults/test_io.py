"""Every kind of fault at operations on files, in each stage of a tiny run: a typed error, and a rerun that heals.

`make faults` tries every operation with every fault; `make test` a few of each.
"""

import random
import re
from pathlib import Path

import pytest

from tests.faults.conftest import Arguments, Finished, previous
from tests.faults.trials import STAGES, TRIALS, Server, contents, copy, differences, lasting

pytestmark = pytest.mark.slow


FULL = re.compile(r"/artifacts.*: No space left on device: (.+ needed: )?.+ free: make room")
FAULTS = ("once", "full", "half", "before", "after", "power")
CASES = [(stage, fault) for stage in STAGES for fault in FAULTS]
if TRIALS == 1:  # a report takes seconds
    CASES = [(stage, fault) for number, stage in enumerate(STAGES[:3]) for fault in FAULTS[number::3]]


@pytest.mark.parametrize(("stage", "fault"), CASES)
def test_a_rerun_heals_any_fault(
    stage: str, fault: str, server: Server, arguments: Arguments, finished: Finished, tmp_path: Path
) -> None:
    (before, _), (after_stage, total) = finished(previous(stage)), finished(stage)
    expected, root = contents(after_stage), tmp_path / "artifacts"
    command = arguments(stage, root)
    kept = list if stage == "report" else lasting  # an older checkpoint may stay after a fault
    assert total > 20
    numbers, failures = range(1, total + 1), []
    for at in random.Random(f"{stage}{fault}").sample(numbers, TRIALS) if TRIALS else numbers:
        first = server.run(command, copy(before, root), fault, at)
        told = stage == "report" and "the report is partial" in first.output  # a record could not be read
        after = kept(differences(contents(root), expected)) if first.code == 0 and not told else []
        again = server.run(command, root)
        wrong = [
            "Traceback" in first.output and "a traceback",
            fault == "full" and first.code > 0 and not FULL.search(first.output) and "no path or free space",
            fault in ("before", "after", "power") and first.code != -9 and f"it ended with {first.code}",
            first.code > 0 and "error: " not in first.output and "no message",
            after and f"exit code 0, but other results: {after}",
            again.code and f"the rerun failed: {again.output}",
            (after := kept(differences(contents(root), expected))) and f"other results after the rerun: {after}",
        ]
        failures += [f"{fault} at {at} of {total}: {text}\n{first.output}" for text in wrong if text]
    assert not failures, "\n\n".join(failures)
