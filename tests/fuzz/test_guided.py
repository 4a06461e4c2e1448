"""A slice of coverage-guided fuzzing, which `make fuzz` does at length."""

import subprocess
import sys
from pathlib import Path

import pytest


def test_guided_fuzzing_finds_nothing(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="atheris isn't installed (extra `fuzz`)")
    command = [sys.executable, "-m", "tests.fuzz.guided", "test_json_of_any_form", "300"]
    done = subprocess.run([*command, f"-artifact_prefix={tmp_path}/"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "300 examples" in done.stdout, done.stderr
