"""The import contracts in pyproject.toml are kept, and import-linter detects violations."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINTER = Path(sys.executable).with_name("lint-imports")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs import-linter on the package in a folder, with the contracts in that folder's pyproject.toml."""
    return subprocess.run([LINTER, "--no-cache"], cwd=folder, capture_output=True, text=True)


def test_the_package_keeps_its_contracts() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("core/errors.py", "import mapnet_cli.jobs.job", "Layered architecture"),
        ("core/errors.py", "from mapnet_cli.jobs import job", "Layered architecture"),
        ("core/errors.py", "from mapnet_cli.jobs.job import Job", "Layered architecture"),
        ("pretrain/metrics.py", "def lazy():\n    from mapnet_cli.report import load", "Layered architecture"),
        (
            "report/scores.py",
            "from mapnet_cli.core.tables import Table",
            "Imports go through __init__",
        ),
        ("core/errors.py", "from mapnet_cli.core.artifacts import Artifacts", "No cycles within a package"),
        ("report/scores.py", "import torch", "No heavy imports in light packages"),
        ("report/scores.py", "from mapnet_cli.masking import sampling", "No heavy imports in light packages"),
    ],
)
def test_violations_are_detected(file: str, line: str, contract: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "mapnet_cli", tmp_path / "mapnet_cli", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    path = tmp_path / "mapnet_cli" / file
    path.write_text(path.read_text(encoding="utf-8") + f"\n\n{line}\n", encoding="utf-8")
    done = lint(tmp_path)
    assert done.returncode == 1 and f"{contract} BROKEN" in done.stdout, done.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["config", "show"], ["status"]])
def test_light_commands_import_no_heavy_modules(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import sys\nfrom mapnet_cli.cli.commands import app\n"
        f"try:\n    app({arguments!r})\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'spacy', 'sacremoses', 'sklearn', 'scipy', 'vl_convert', 'transformers', 'ray'}\n"
        f"heavy |= {{'numpy', 'mapnet_cli.config', 'mapnet_cli.core'}} if '--help' in {arguments!r} else set()\n"
        "found = heavy & set(sys.modules)\nsys.exit(f'loaded {found}' if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-500:]
