"""Machines as people have them: terminals without UTF-8, other Pythons, little memory, folders of somebody else."""

import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from mapnet_cli.cli.commands import app
from mapnet_cli.core import ArtifactId, Artifacts, Console, UsageError, main_memory, publishing, spell_out
from mapnet_cli.core.errors import memory_advice, out_of_memory
from mapnet_cli.jobs import Job, Output, ProgressCallback
from mapnet_cli.jobs.engine import attempt
from mapnet_cli.jobs.job import ignore_progress
from mapnet_cli.lineage import Lineage
from mapnet_cli.pretrain.forecast import too_much
from mapnet_cli.pretrain.stage import Pretrain
from mapnet_cli.training import save_checkpoint
from tests.conftest import small_config, unprivileged
from tests.prepare_corpus.corpora import text_folder


def test_terminals_without_utf8_show_similar_characters() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    spell_out(stream)
    stream.write("84.1 ± 0.3 × 2 → “ok” 漢")
    stream.seek(0)
    assert stream.read() == '84.1 +/- 0.3 x 2 -> "ok" \\u6f22'


def test_the_command_line_works_in_ascii(tmp_path: Path) -> None:
    (tmp_path / "überall").mkdir()
    command = [sys.executable, "-m", "mapnet_cli", "report", "--artifacts", str(tmp_path / "überall")]
    done = subprocess.run(command, env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True)
    assert done.returncode == 2 and b"\\xfcberall is not an artifact directory" in done.stderr


def test_json_in_ascii_has_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    Console(as_json=True).result({"text": "± 漢"}, "unused")
    stream.seek(0)
    assert json.loads(stream.read()) == {"text": "± 漢"}


def test_a_python_without_the_packages_is_named() -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-S", "-m", "mapnet_cli", "status"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"error: {sys.executable} has no package 'typer', which mapnet needs: use the Python" in done.stderr


def test_a_python_that_is_too_old_is_named() -> None:
    without_tomllib = "import importlib.util as u; u.find_spec = lambda name: None; import mapnet_cli"
    done = subprocess.run([sys.executable, "-c", without_tomllib], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("error: mapnet needs Python 3.11 or newer, but ")


@dataclass(frozen=True, kw_only=True)
class Greedy(Job):
    """Asks for more memory than there is: of Python if `size` is 0, else of torch."""

    size: int

    def run(self, artifacts: Artifacts, progress: ProgressCallback) -> Output:
        if self.size:
            torch.empty(self.size)
        raise MemoryError


@pytest.mark.parametrize("size", [0, 1 << 60])
def test_out_of_memory_is_said_with_what_to_do(size: int, artifacts: Artifacts) -> None:
    failure = attempt(Greedy(artifact=ArtifactId("pretrain/x", "f"), size=size), artifacts, ignore_progress)
    assert str(failure) == f"pretrain/x: out of memory: {memory_advice('pretrain')}"
    assert "pretrain.micro_batch_size" in str(failure) and "--workers" in memory_advice("finetune-glue")
    assert not out_of_memory(RuntimeError("shapes differ"))


def test_dry_run_compares_memory_with_what_is_free() -> None:
    free, device = main_memory()[1], torch.device("cpu")
    assert too_much(0.2 * free, (0.0, 0.1 * free), 4, 1, device) == []
    (line,) = too_much(0.15 * free, (0.0, 0.1 * free), 32, 1, device)
    assert line.endswith(("set pretrain.micro_batch_size=8", "set pretrain.micro_batch_size=7"))
    (line,) = too_much(2.0 * free, (0.0, 1.0), 1, 1, device)
    assert "use fewer --workers, or a smaller encoder" in line


def test_a_warm_up_that_never_ends_is_refused_for_any_method(artifacts: Artifacts) -> None:
    methods = 'methods=["bert", "mapnet"]'
    Pretrain(Lineage(small_config(methods), artifacts)).validate()
    long = small_config(methods, "pretrain.steps=100", "pretrain.warmup_steps=40", "method.mapnet.steps=40")
    with pytest.raises(
        UsageError, match=r"warmup_steps \(40\) leaves mapnet no step .* ends at step 40\. .* such as 4$"
    ):
        Pretrain(Lineage(long, artifacts)).validate()
    wsd = ("pretrain.schedule=wsd", "pretrain.warmup_steps=4")
    with pytest.raises(UsageError, match="the first milestone ends at step 4"):
        Pretrain(Lineage(small_config(*wsd), artifacts)).validate()


def test_published_files_have_the_mode_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        save_checkpoint(tmp_path / "checkpoint", {"weight": torch.zeros(2)}, {})
        with publishing(tmp_path / "alone.txt") as temporary:
            temporary.write_text("text")
    finally:
        os.umask(before)
    modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.rglob("*") if file.is_file()}
    assert modes == dict.fromkeys(("tensors.safetensors", "facts.json", "alone.txt"), 0o640)


@pytest.mark.parametrize("arguments", ["status", "config show", "run --dry-run", "report", "doctor"])
def test_commands_that_look_work_in_somebody_elses_folder(arguments: str, public_folder: Path) -> None:
    artifacts, own = Artifacts(public_folder / "theirs"), public_folder / "own"
    with artifacts.lock("pretrain"):
        pass
    (artifacts.root / "prepare-corpus").mkdir()
    text_folder(public_folder / "text", files=2)
    for path in public_folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    own.mkdir()
    own.chmod(0o777)
    before = sorted(artifacts.root.rglob("*"))
    text = f"corpus.sources=[{{path='{public_folder / 'text'}'}}]"
    command = [*arguments.split(), "--artifacts", str(artifacts.root), "--set", text]
    home = Path.cwd()
    os.chdir(own)
    try:
        CliRunner().invoke(app, command)  # imports what another user may not be able to read
        for file in sorted(artifacts.root.rglob("*")):
            if file not in before and file.is_file():
                file.unlink()
        with unprivileged():
            done = CliRunner().invoke(app, command)
    finally:
        os.chdir(home)
    assert done.exit_code == 0, done.stderr
    assert not [file for file in artifacts.root.rglob("*") if file not in before and file.is_file()]
    assert ("the report's files go to" in done.stderr) == (arguments == "report")
    assert any(own.rglob("report.md")) == (arguments == "report")
