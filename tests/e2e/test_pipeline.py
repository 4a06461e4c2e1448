"""The whole pipeline from raw text to Table 3 on the command line: first run, reruns, changed settings, kills."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mapnet_cli.core.artifacts import Artifacts
from tests.conftest import SMALL
from tests.finetune_glue.glue_files import write_glue
from tests.prepare_corpus.corpora import text_folder

pytestmark = pytest.mark.slow

CONFIG = """
recipe = "demo"

[[corpus.sources]]
kind = "text"
path = {books}
paragraphs = "line"

[corpus]
slice_mb = 0.01
validation_every = 3

[corpus.cleanup]
min_chars = 10
min_letters = 10

[finetune]
data = {glue}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: books, GLUE, a config file, and one finished run in `whole`, copied to `untouched`."""
    folder = tmp_path_factory.mktemp("user")
    text_folder(folder / "books", files=9)
    write_glue(folder / "glue")
    text = CONFIG.format(books=json.dumps(str(folder / "books")), glue=json.dumps(str(folder / "glue")))
    (folder / "mine.toml").write_text(text)
    done = mapnet(folder, "run", "whole")
    assert done.returncode == 0, done.stderr
    (folder / "stdout").write_text(done.stdout)
    shutil.copytree(folder / "whole", folder / "untouched")
    return folder


def arguments(folder: Path, command: str, artifacts: str, *more: str) -> list[str]:
    settings = [part for setting in SMALL for part in ("--set", setting)]
    return [sys.executable, "-m", "mapnet_cli", command, "--config", str(folder / "mine.toml"),
            "--artifacts", str(folder / artifacts), *settings, *more]  # fmt: skip


def mapnet(folder: Path, command: str, artifacts: str, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments(folder, command, artifacts, *more), capture_output=True, text=True, timeout=1200)


def results(artifacts: Path) -> dict[str, object]:
    """Returns fingerprint, result (without times) and file checksums of each marker, by path."""
    found: dict[str, object] = {}
    for path in sorted(artifacts.rglob("*.json")):
        record = json.loads(path.read_text())
        if "fingerprint" in record and "files" in record:
            timeless = {k: v for k, v in record["result"].items() if k != "seconds"}
            files = {k: v for k, v in record["files"].items() if not k.endswith((".jsonl", "facts.json"))}
            found[path.relative_to(artifacts).as_posix()] = (record["fingerprint"], timeless, files)
    return found


def test_a_run_writes_table_3_and_a_report(folder: Path) -> None:
    out = (folder / "stdout").read_text()
    for phrase in ("Table 3", "BERT", "MAP-Net", "majority", "bag of words", "index.html"):
        assert phrase in out
    report = folder / "whole" / "report" / "latest"
    for name in ("index.html", "report.md", "results.csv", "table3.tex", "figure3.png", "curves.svg"):
        assert (report / name).stat().st_size > 0
    assert json.loads((report / "results.json").read_text())["missing"] == {}


def test_a_second_run_skips_everything(folder: Path) -> None:
    before = {
        path: path.stat().st_mtime_ns for path in (folder / "whole").rglob("*.json") if "report" not in path.parts
    }
    done = mapnet(folder, "run", "whole")
    assert done.returncode == 0
    assert done.stdout == (folder / "stdout").read_text()
    after = {path: path.stat().st_mtime_ns for path in (folder / "whole").rglob("*.json") if "report" not in path.parts}
    assert after == before


def test_a_changed_setting_reruns_only_its_dependents(folder: Path) -> None:
    before = results(folder / "whole")
    changed = ("--set", "method.mapnet.proposal.ratio_clip=0.3", "--set", "finetune.seeds=[1,2]")
    done = mapnet(folder, "run", "whole", *changed)
    assert done.returncode == 0, done.stderr
    after = results(folder / "whole")
    assert before.items() <= after.items(), "old results are kept"
    new = sorted(after.keys() - before.keys())
    pretraining = [key for key in new if key.startswith("pretrain/")]
    assert len(pretraining) == 1 + 4  # MAP-Net and its milestones
    assert all("mapnet" in key for key in pretraining)
    runs = [key for key in new if key not in pretraining]
    assert len(runs) == 3 * 4 * 8  # seed 1 of MAP-Net, seed 2 of both: 4 checkpoints, 8 tasks, one setting
    assert all(key.startswith("finetune-glue/") for key in runs)


def test_rerunning_after_kill_9_gives_the_same_results(folder: Path) -> None:
    """The driver and its workers are killed at random moments; the finished run equals the uninterrupted one.

    KILLS is the number of kills: 4 by default, 20 in `make faults`.
    """
    killed = 0
    random_delay = random.Random(1)
    for delay in [random_delay.uniform(2, 9) for _ in range(int(os.environ.get("KILLS", "4")))]:
        command = arguments(folder, "run", "killed")
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        ) as run:
            time.sleep(delay)
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
                killed += 1
    assert killed >= 2
    done = mapnet(folder, "run", "killed")
    assert done.returncode == 0, done.stderr
    assert results(folder / "killed") == results(folder / "untouched")
    assert not list((folder / "killed").rglob(".tmp-*"))


@pytest.mark.usefixtures("signals_not_ignored")
@pytest.mark.parametrize(("number", "ffn"), [(signal.SIGINT, 33), (signal.SIGHUP, 35), (signal.SIGTERM, 36)])
def test_a_signal_to_all_processes_saves_a_checkpoint(number: int, ffn: int, folder: Path) -> None:
    """As Ctrl-C, a closed terminal and schedulers send it, to the driver, its workers and their fork server alike."""
    command = arguments(
        folder, "pretrain", "whole", "--force", "--set", "pretrain.steps=100000", "--set", f"encoder.ffn={ffn}"
    )
    before = {*(folder / "whole" / "pretrain").rglob("resume/step*/facts.json")}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as run:
        assert run.stderr is not None
        for line in run.stderr:
            if "loss" in line:
                break
        os.killpg(run.pid, number)
        stuck = threading.Timer(120, os.killpg, (run.pid, signal.SIGKILL))
        stuck.start()
        rest = run.stderr.read()
        stuck.cancel()
    assert run.returncode == 130, rest
    assert "Traceback" not in rest
    assert "run the same command" in rest
    saved = {*(folder / "whole" / "pretrain").rglob("resume/step*/facts.json")} - before
    assert any(json.loads(p.read_text())["step"] not in (8, 9, 10) for p in saved)


def test_input_that_changes_during_the_run_counts_as_read(folder: Path) -> None:
    """The report at the end of `mapnet run` belongs to the files that fine-tuning read, not to those at the start."""
    shutil.copytree(folder / "untouched", folder / "changing")
    train = folder / "glue" / "CoLA" / "train.tsv"
    before = train.read_bytes()
    changed = ("--set", "encoder.ffn=34", "--workers", "0")
    with subprocess.Popen(arguments(folder, "run", "changing", *changed), stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr is not None
        for line in run.stderr:
            if line.startswith("pretrain:"):
                train.write_bytes(before + before.splitlines(keepends=True)[0])
                break
        rest = run.stderr.read()
    try:
        assert run.returncode == 0, rest
        assert "partial" not in rest
    finally:
        train.write_bytes(before)


def test_artifacts_work_without_the_text(folder: Path) -> None:
    """As on a GPU machine with artifacts that were prepared elsewhere."""
    (folder / "books").rename(folder / "books elsewhere")
    (folder / "glue").rename(folder / "glue elsewhere")
    try:
        done = mapnet(folder, "run", "whole", "--set", "pretrain.peak_lr=2e-3")
        assert done.returncode == 0, done.stderr
    finally:
        (folder / "books elsewhere").rename(folder / "books")
        (folder / "glue elsewhere").rename(folder / "glue")


def test_one_method_is_enough_for_a_partial_report(folder: Path) -> None:
    settings = ("--set", 'methods=["bert"]')
    for command in ("prepare-corpus", "pretrain", "finetune-glue"):
        assert mapnet(folder, command, "partial", *settings).returncode == 0
    done = mapnet(folder, "report", "partial")
    assert done.returncode == 0, done.stderr
    assert "4 of 8 checkpoints" in done.stdout
    assert "mapnet pretrain" in done.stderr
    assert Artifacts(folder / "partial").path("report/latest/index.html").exists()
