"""A tiny grid over trained checkpoints, for tests of the job engines."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mapnet_cli.cli.stages import run_stages
from mapnet_cli.config import Config
from mapnet_cli.core.artifacts import TEMPORARY, Artifacts
from mapnet_cli.core.console import Console
from mapnet_cli.lineage.graph import Lineage
from tests.conftest import SMALL, small_config
from tests.finetune_glue.glue_files import write_glue


def train(artifacts: Artifacts, make_corpus: Callable[[Config], object], folder: Path, *more: str) -> tuple[str, ...]:
    """Writes tiny tasks into `folder` and trains a model. Returns the settings of a grid over its four milestones."""
    glue = write_glue(folder / "glue", repeat=2)
    settings = ('methods=["bert"]', "encoder.dropout=0.1", f"finetune.data={json.dumps(str(glue))}", *more)
    config = small_config(*settings)
    make_corpus(config)
    run_stages(["pretrain"], Lineage(config, artifacts), Console(quiet=True), workers=0, force=False)
    return settings


def command(name: str, root: Path, settings: tuple[str, ...], *more: str) -> list[str]:
    """Returns the command line of a stage with the settings of a grid."""
    shared = [part for setting in (*SMALL, *settings) for part in ("--set", setting)]
    return [sys.executable, "-m", "mapnet_cli", name, "--recipe", "demo", "--artifacts", str(root), *shared, *more]


def fine_tune(root: Path, settings: tuple[str, ...], *more: str) -> None:
    """Runs a grid from the command line."""
    done = subprocess.run(command("finetune-glue", root, settings, *more), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def records(root: Path) -> dict[str, dict[str, Any]]:
    """Returns the record of each fine-tuning job, without its duration and checksum."""
    found = {path.relative_to(root).as_posix(): json.loads(path.read_text()) for path in markers(root)}
    for record in found.values():
        del record["seconds"], record["checksum"]
    return found


def markers(root: Path) -> list[Path]:
    """Returns the markers of finished fine-tuning jobs."""
    return sorted(path for path in root.glob("finetune-glue/**/*.json") if not path.name.startswith(TEMPORARY))
