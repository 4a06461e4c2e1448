"""Prediction files: the models that the records speak of, in the layout that GLUE's server takes."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mapnet_cli.console import Console
from mapnet_cli.errors import InputError, UsageError
from mapnet_cli.finetune_glue.examples import read_examples
from mapnet_cli.finetune_glue.metrics import score
from mapnet_cli.finetune_glue.submission import FILES, choose_run, write_submission
from mapnet_cli.finetune_glue.tasks import TASKS
from mapnet_cli.glue import TASKS as TRAINABLE
from mapnet_cli.lineage import Lineage
from mapnet_cli.records import FinetuneRun
from tests.finetune_glue.conftest import User

PLACE = ("bert", 1, 10)
EVERYTHING = (
    f"finetune.tasks={list(TRAINABLE)}".replace("'", '"'), "finetune.seeds=[1,2]", "finetune.epochs=6",
    "finetune.learning_rates=[1e-2]",
    'finetune.subsets=["CoLA","SST-2","MRPC","STS-B","QQP","MNLI","QNLI","RTE","AX"]',
)  # fmt: skip


def submit(user: User, file: Path, *overrides: str, capsys: pytest.CaptureFixture[str]) -> dict[str, list[str]]:
    """Returns the predictions of each file."""
    write_submission(user.config(*overrides), user.artifacts, Console(quiet=True), 0, PLACE, file)
    found = {}
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            header, *lines = io.TextIOWrapper(archive.open(name)).read().splitlines()
            assert header == "index\tprediction"
            numbers, values = zip(*(line.split("\t") for line in lines), strict=True)
            assert list(numbers) == [str(n) for n in range(len(lines))]
            found[name.removesuffix(".tsv")] = list(values)
    return found


def test_eleven_files_of_the_models_that_were_scored(
    user: User, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tiny test sets have the dev sets' texts, so their predictions must score what the records say."""
    config = user.run("finetune-glue", *EVERYTHING)
    found = submit(user, tmp_path / "glue.zip", *EVERYTHING, capsys=capsys)
    assert list(found) == ["CoLA", "SST-2", "MRPC", "STS-B", "QQP", "MNLI-m", "MNLI-mm", "QNLI", "RTE", "WNLI", "AX"]
    assert capsys.readouterr().err == ""
    lineage = Lineage(config, user.artifacts)
    for name, (task_name, split) in FILES.items():
        if task_name in ("WNLI", "AX"):
            continue
        task = TASKS[task_name]
        run, epoch = choose_run(config, user.artifacts, lineage, PLACE, task_name)
        marker = user.artifacts.marker(lineage.finetuning(run).key)
        assert marker is not None
        recorded = FinetuneRun(**marker.result).epochs[epoch - 1].metrics
        dev = read_examples(user.folder / "glue" / task_name, task, split.replace("test", "dev"))
        values = [float(v) / 5 if task.regression else task.labels.index(v) for v in found[name]]
        for metric, value in score(task, np.array(values, np.float32), np.array(dev.labels, np.float32)).items():
            assert value == pytest.approx(recorded[metric + split.removeprefix("test")], abs=2e-3), (name, metric)
    assert found["AX"] == found["MNLI-mm"]  # the same texts, by the same model
    assert found["WNLI"] == ["0"] * 146
    again = submit(user, tmp_path / "again.zip", *EVERYTHING, capsys=capsys)
    assert again == found and (tmp_path / "again.zip").read_bytes() == (tmp_path / "glue.zip").read_bytes()


def test_the_best_seed_of_the_best_setting_is_taken_at_its_best_epoch(user: User) -> None:
    config = user.run("finetune-glue", *EVERYTHING, "finetune.batch_sizes=[8,16]")
    lineage = Lineage(config, user.artifacts)
    run, epoch = choose_run(config, user.artifacts, lineage, PLACE, "RTE")
    best = {}
    for batch in (8, 16):
        for seed in (1, 2):
            marker = user.artifacts.marker(lineage.finetuning(run.__class__(*PLACE, "RTE", batch, 1e-2, seed)).key)
            assert marker is not None
            best[batch, seed] = [e["metrics"]["accuracy"] for e in marker.result["epochs"]]
    means = {batch: max(best[batch, 1]) + max(best[batch, 2]) for batch in (8, 16)}
    assert run.batch_size == max(means, key=lambda batch: means[batch])
    assert max(best[run.batch_size, run.seed]) == max(max(best[run.batch_size, seed]) for seed in (1, 2))
    scores = best[run.batch_size, run.seed]
    assert epoch == scores.index(max(scores)) + 1


def test_tasks_out_of_the_config_are_filled_and_said(
    user: User, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    user.run("finetune-glue")
    found = submit(user, tmp_path / "glue.zip", capsys=capsys)
    assert len(found) == 11 and len(found["RTE"]) == 8
    assert found["QNLI"] == ["entailment"] * 5463 and found["STS-B"] == ["0.000000"] * 1379
    said = capsys.readouterr().err
    assert said.count("warning") == 9 and "QNLI.tsv is filled with 'entailment'" in said
    assert "WNLI" not in said


def test_what_is_missing_is_named(user: User, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match=r"bert has no finished run of RTE: run `mapnet finetune-glue`"):
        submit(user, tmp_path / "x.zip", "finetune.epochs=9", capsys=capsys)
    with pytest.raises(UsageError, match="probe tasks have no test sets"):
        submit(user, tmp_path / "x.zip", "finetune.data=probe", capsys=capsys)
    user.run("finetune-glue")
    with pytest.raises(InputError, match="RTE was prepared from a subset of GLUE"):
        submit(user, tmp_path / "x.zip", "finetune.subsets=[]", capsys=capsys)
    assert not (tmp_path / "x.zip").exists()
