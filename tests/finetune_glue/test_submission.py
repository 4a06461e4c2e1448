"""Prediction files: from the recorded models, in the layout that GLUE's server expects."""

import io
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mapnet_cli.core.console import Console
from mapnet_cli.core.errors import InputError, UsageError
from mapnet_cli.core.records import FinetuneRun
from mapnet_cli.finetune_glue.examples import read_examples
from mapnet_cli.finetune_glue.submission import FILES, choose_run, write_submission
from mapnet_cli.glue.grid import TRAINED, GridRun
from mapnet_cli.glue.scoring import score
from mapnet_cli.glue.tasks import TASKS
from mapnet_cli.lineage.milestones import find_row
from tests.finetune_glue.conftest import User
from tests.finetune_glue.glue_files import write

PLACE = ("bert", 1, 10)
EVERYTHING = (
    f"finetune.tasks={list(TRAINED)}".replace("'", '"'), "finetune.seeds=[1,2]", "finetune.epochs=6",
    "finetune.learning_rates=[1e-2]",
    'finetune.subsets=["CoLA","SST-2","MRPC","STS-B","QQP","MNLI","QNLI","RTE","AX"]',
)  # fmt: skip


def submit(user: User, file: Path, *overrides: str, capsys: pytest.CaptureFixture[str]) -> dict[str, list[str]]:
    """Returns the predictions of each file."""
    write_submission(user.lineage(*overrides), Console(quiet=True), 0, False, PLACE, file)
    found = {}
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            header, *lines = io.TextIOWrapper(archive.open(name)).read().splitlines()
            assert header == "index\tprediction"
            numbers, values = zip(*(line.split("\t") for line in lines), strict=True)
            assert list(numbers) == [str(n) for n in range(len(lines))]
            found[name.removesuffix(".tsv")] = list(values)
    return found


def test_eleven_files_from_the_scored_models(user: User, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The tiny test sets have the dev sets' texts, so their predictions must have the recorded scores."""
    lineage = user.run("finetune-glue", *EVERYTHING)
    found = submit(user, tmp_path / "glue.zip", *EVERYTHING, capsys=capsys)
    assert list(found) == ["CoLA", "SST-2", "MRPC", "STS-B", "QQP", "MNLI-m", "MNLI-mm", "QNLI", "RTE", "WNLI", "AX"]
    log = capsys.readouterr().err
    doubts = log.count("predict one class") + log.count("not above the bag of words (")
    assert doubts > 0 and log.count("warning") - doubts == log.count("set is a subset: ") == 10  # WNLI isn't predicted
    for name, (task_name, split) in FILES.items():
        if task_name in ("WNLI", "AX"):
            continue
        task = TASKS[task_name]
        run, epoch = choose_run(lineage, Console(quiet=True), PLACE, task_name)
        recorded = user.artifacts.read(lineage.finetuning(run).key, FinetuneRun).epochs[epoch - 1].metrics
        dev = read_examples(user.folder / "glue" / task_name, task, split.replace("test", "dev"))
        values = [float(v) / 5 if task.regression else task.labels.index(v) for v in found[name]]
        for metric, value in score(task, np.array(values, np.float32), np.array(dev.labels, np.float32)).items():
            assert value == pytest.approx(recorded[metric + split.removeprefix("test")], abs=2e-3), (name, metric)
    assert found["AX"] == found["MNLI-mm"]  # same texts, same model
    assert found["WNLI"] == ["0"] * 146
    again = submit(user, tmp_path / "again.zip", *EVERYTHING, capsys=capsys)
    assert again == found and (tmp_path / "again.zip").read_bytes() == (tmp_path / "glue.zip").read_bytes()


def test_best_epoch_of_the_best_seed_of_the_best_setting_is_chosen(user: User) -> None:
    lineage = user.run("finetune-glue", *EVERYTHING, "finetune.batch_sizes=[8,16]")
    run, epoch = choose_run(lineage, Console(quiet=True), PLACE, "RTE")
    best = {}
    for batch in (8, 16):
        for seed in (1, 2):
            key = lineage.finetuning(GridRun(*PLACE, "RTE", batch, 1e-2, seed)).key
            row = user.artifacts.read(key, FinetuneRun)
            best[batch, seed] = [scored.metrics["accuracy"] for scored in row.epochs]
    means = {batch: max(best[batch, 1]) + max(best[batch, 2]) for batch in (8, 16)}
    assert run.batch_size == max(means, key=lambda batch: means[batch])
    assert max(best[run.batch_size, run.seed]) == max(max(best[run.batch_size, seed]) for seed in (1, 2))
    scores = best[run.batch_size, run.seed]
    assert epoch == scores.index(max(scores)) + 1


def test_files_of_unconfigured_tasks_are_placeholders_with_a_warning(
    user: User, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    user.run("finetune-glue")
    found = submit(user, tmp_path / "glue.zip", capsys=capsys)
    assert len(found) == 11 and len(found["RTE"]) == 8
    assert found["QNLI"] == ["entailment"] * 5463 and found["STS-B"] == ["0.000000"] * 1379
    log = capsys.readouterr().err
    assert log.count("is filled with") == 9 and "QNLI.tsv is filled with 'entailment'" in log
    assert "WNLI" not in log


def test_ax_may_be_added_later_and_a_broken_one_is_an_error(
    user: User, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    glue = tmp_path / "glue"
    shutil.copytree(user.folder / "glue", glue)
    shutil.move(glue / "AX", tmp_path / "AX")
    mnli = (
        f"finetune.data={glue}",
        'finetune.tasks=["MNLI"]',
        'finetune.subsets=["MNLI","AX"]',
        "finetune.pooling=mean",
    )
    user.run("finetune-glue", *mnli)
    without = submit(user, tmp_path / "x.zip", *mnli, capsys=capsys)
    assert without["AX"] == ["entailment"] * 1104
    assert "needs AX.tsv or MNLI's diagnostic.tsv" in capsys.readouterr().err
    shutil.copy(tmp_path / "AX/AX.tsv", glue / "MNLI/diagnostic.tsv")
    assert submit(user, tmp_path / "x.zip", *mnli, capsys=capsys)["AX"] == without["MNLI-mm"]
    text = (glue / "MNLI/diagnostic.tsv").read_text()
    (glue / "MNLI/diagnostic.tsv").write_text(text.replace("sentence1", "premise", 1))
    with pytest.raises(InputError, match=r"diagnostic\.tsv: AX needs the columns"):
        submit(user, tmp_path / "x.zip", *mnli, capsys=capsys)


def test_rows_of_a_test_set_are_known_by_their_ids(
    user: User, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    glue = tmp_path / "glue"
    shutil.copytree(user.folder / "glue", glue)
    user.run("finetune-glue")
    expected = submit(user, tmp_path / "x.zip", capsys=capsys)["RTE"]
    header, *lines = (glue / "RTE/test.tsv").read_text().splitlines()
    write(glue / "RTE/test.tsv", [header, *lines[::-1]])
    assert submit(user, tmp_path / "x.zip", f"finetune.data={glue}", capsys=capsys)["RTE"] == expected
    write(glue / "RTE/test.tsv", [header, *(f"{n}\ta\tb" for n in range(1, 3001))])
    with pytest.raises(InputError, match=r"RTE/test\.tsv: the ids of RTE's test set must be 0 to 2,999"):
        submit(user, tmp_path / "x.zip", f"finetune.data={glue}", capsys=capsys)


def test_warning_about_a_partial_grid(user: User, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    user.run("finetune-glue")
    submit(user, tmp_path / "x.zip", "finetune.seeds=[1,11,12]", capsys=capsys)
    assert "RTE: chosen from 1 of 3 runs; 0 failed" in capsys.readouterr().err


def test_find_row_of_table_3(user: User) -> None:
    lineage = user.lineage("finetune.untrained=true")
    with pytest.raises(UsageError, match=r"choose a row of Table 3.*bert, untrained"):
        find_row(lineage, None, None, None)
    assert find_row(lineage, "untrained", None, None) == ("untrained", 0, 0)
    assert find_row(user.lineage(), None, None, None) == PLACE
    with pytest.raises(UsageError, match="untrained has no pretraining seeds"):
        find_row(lineage, "untrained", 7, None)


def test_a_folder_is_not_overwritten(user: User, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/a.txt").write_text("mine")
    with pytest.raises(UsageError, match="is a folder: name the zip file"):
        submit(user, tmp_path / "mine", capsys=capsys)
    assert (tmp_path / "mine/a.txt").read_text() == "mine"


def test_missing_runs_and_data_are_errors(user: User, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match=r"bert has no finished run of RTE: run `mapnet finetune-glue`"):
        submit(user, tmp_path / "x.zip", "finetune.epochs=9", capsys=capsys)
    with pytest.raises(UsageError, match="probe tasks have no test sets"):
        submit(user, tmp_path / "x.zip", "finetune.data=probe", capsys=capsys)
    with pytest.raises(UsageError, match=r"finetune\.tasks lists no tasks"):
        submit(user, tmp_path / "x.zip", "finetune.tasks=[]", capsys=capsys)
    user.run("finetune-glue")
    with pytest.raises(InputError, match="RTE was prepared from a subset of GLUE"):
        submit(user, tmp_path / "x.zip", "finetune.subsets=[]", capsys=capsys)
    assert not (tmp_path / "x.zip").exists()
