"""Tasks of the user's own: fine-tuned, reported and predicted like GLUE's; kept models and their predictions."""

import csv
import io
import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mapnet_cli.core.console import Console
from mapnet_cli.core.errors import UsageError
from mapnet_cli.core.records import FinetuneRun, TunedEncoder
from mapnet_cli.finetune_glue.run import KeepBest, TuningJob
from mapnet_cli.finetune_glue.stage import FinetuneGlue
from mapnet_cli.finetune_glue.submission import write_submission
from mapnet_cli.glue.grid import GridRun, metrics_by_task
from mapnet_cli.glue.scoring import score
from mapnet_cli.glue.tasks import get_task
from mapnet_cli.report.stage import build
from tests.conftest import small_config
from tests.finetune_glue.conftest import User

PLACE = ("bert", 1, 10)


@pytest.fixture(scope="module")
def own(user: User) -> tuple[str, ...]:
    """Writes two tasks in a user's formats; returns the settings that describe them."""
    folder = user.folder / "own"
    (folder / "pets").mkdir(parents=True)
    (folder / "stars").mkdir()
    for split in ("train", "dev", "test"):
        with (folder / f"pets/{split}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["id", "premise", "claim", *(["animal"] if split != "test" else [])])
            for n, (name, text) in enumerate([("cat", "It purrs."), ("dog", "It barks."), ("cow", "It moos.")] * 4):
                table.writerow([f"{name}-{n}", f'A pet, "{name}".', text, *([name.title()] if split != "test" else [])])
        rows = [{"review": f"good {'very ' * (n % 4)}", "stars": n % 4 + 1} for n in range(12)]
        (folder / f"stars/{split}.json").write_text(json.dumps(rows))
    path = json.dumps(str(folder))
    return (
        'finetune.tasks=["RTE","pets","stars"]',
        f"finetune.task_data.pets={{path={path}, text=['premise','claim'], label='animal', "
        "labels=['cat','dog','cow']}",
        f"finetune.task_data.stars={{path={path}, text='review', label='stars', range=[1, 5], metric='spearman'}}",
    )


def test_own_tasks_are_columns_of_every_table(user: User, own: tuple[str, ...]) -> None:
    lineage = user.run("finetune-glue", *own, "finetune.metrics.pets=macro_f1")
    row = user.artifacts.read(lineage.finetuning(GridRun(*PLACE, "pets", 16, 1e-3, 1)).key, FinetuneRun)
    assert set(row.epochs[0].metrics) == {"accuracy", "macro_f1", "mcc"}
    result = build(lineage)
    table = result.tables["table3"]
    assert result.value["missing"] == {} and table.columns[-3:] == ("RTE", "pets", "stars")
    assert [line[0].text for line in table.rows] == ["BERT", "majority", "bag of words", "token overlap"]
    assert [cell.text for cell in table.rows[2][-3:]] == ["50.00", "100.00", "100.00"]
    page = result.files["index.html"].read_text(encoding="utf-8")
    assert "average score over 3 columns, 1 of GLUE&#39;s 9 (subset: RTE; not GLUE: pets, stars)" in page
    assert "macro_f1" in result.value["signature"] and "spearman" in result.value["signature"]
    notes = " ".join(result.notes)
    assert "stars: not GLUE's, 12 training and 12 dev rows." in notes


def test_a_mapping_is_part_of_the_fingerprint(user: User, own: tuple[str, ...]) -> None:
    before = user.lineage(*own).task("pets")
    assert user.lineage(*own, "finetune.task_data.pets.metric=mcc").task("pets") == before
    other = "finetune.task_data.pets.labels=['dog','cat','cow']"
    assert user.lineage(*own, other).task("pets") != before
    official = user.lineage().task("RTE")
    assert user.lineage(f"finetune.task_data.RTE={user.folder / 'glue/RTE'}").task("RTE") == official
    assert user.lineage("finetune.task_data.RTE.label=label").task("RTE") != official


def test_own_tasks_are_predicted_alone(
    user: User, own: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    user.run("finetune-glue", *own)
    write_submission(user.lineage(*own), Console(quiet=True), 0, False, PLACE, tmp_path / "glue.zip")
    advice = """predict them with --set 'finetune.tasks=["pets", "stars"]'"""
    assert f"pets, stars can't be part of a submission to GLUE: {advice}" in " ".join(capsys.readouterr().err.split())
    alone = user.lineage(*own, 'finetune.tasks=["pets", "stars"]')
    write_submission(alone, Console(quiet=True), 0, False, PLACE, tmp_path / "own.zip")
    with zipfile.ZipFile(tmp_path / "own.zip") as archive:
        assert archive.namelist() == ["pets.tsv", "stars.tsv"]
        header, *lines = archive.read("pets.tsv").decode().splitlines()
        scores = archive.read("stars.tsv").decode().splitlines()[1:]
    assert header == "index\tprediction" and [line.split("\t")[0] for line in lines][:3] == ["cat-0", "dog-1", "cow-2"]
    assert {line.split("\t")[1] for line in lines} <= {"cat", "dog", "cow"}
    assert all(1 <= float(line.split("\t")[1]) <= 5 for line in scores) and len(scores) == 12


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["own={text='a'}"], r"task_data\.own: there is no task 'own'; a task of your own needs text, and labels or"),
        (["rte={text='a', labels=['x','y']}"], r"task_data\.RTE\.text: RTE has 2 columns with text"),
        (["a.b={text='a', labels=['x','y']}"], "unknown key"),
        (["own={text='a', labels=['x','X ']}"], r"own\.labels: two names are the same but for case"),
        (["own={text='a', labels=['x','y'], range=[0,1]}"], "labels are the names .*, and range is for scores"),
        (["own={text='a', range=[1,1]}"], "range is the smallest and the largest score"),
        (["own={text='a', labels=['x','y'], metric='pearson'}"], r"there is no metric 'pearson' for own"),
        (["RTE.text=a"], r"RTE\.text: RTE has 2 columns with text"),
        (["RTE.labels=['a','b','c']"], r"RTE: RTE has 2 labels, entailment, not_entailment"),
        (["RTE.labels=['entailment','no']"], r"RTE\.labels: RTE has entailment, but not the others"),
        (["RTE.range=[0,1]"], r"RTE: RTE has 2 labels"),
        (["STS-B.labels=['a','b']"], r"STS-B: STS-B has a range, from 0 to 5"),
        (["RTE.lable=a"], r"task_data\.RTE\.lable .*unknown key; did you mean 'label'"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_are_refused(settings: list[str], message: str) -> None:
    tasks = ["own"] if settings[0].startswith("own") else ["RTE"]
    with pytest.raises(UsageError, match=message):
        metrics_by_task(
            small_config(f"finetune.tasks={tasks}", *(f"finetune.task_data.{setting}" for setting in settings))
        )


def test_the_best_model_is_kept_with_its_predictions(
    user: User, own: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = (*own, "finetune.keep=best", "finetune.learning_rates=[1e-3, 1e-2]", "finetune.epochs=3")
    before = set(user.artifacts.root.rglob("best-*.json"))
    lineage = user.run("finetune-glue", *settings)
    assert len(set(user.artifacts.root.rglob("best-*.json")) - before) == 3
    for name in ("RTE", "pets", "stars"):
        task, row = get_task(lineage.config, name), user.artifacts.read(lineage.kept(*PLACE, name).key, TunedEncoder)
        metric, best = metrics_by_task(lineage.config)[name], row.epochs[-1]
        found_run = re.fullmatch(r"batch 16, lr (0\.\d+), seed 1, epoch (\d)", row.run)
        assert found_run is not None and int(found_run[2]) == best.epoch
        runs = {rate: lineage.finetuning(GridRun(*PLACE, name, 16, rate, 1)).key for rate in (1e-3, 1e-2)}
        recorded = {rate: user.artifacts.read(key, FinetuneRun).epochs for rate, key in runs.items()}
        assert recorded[float(found_run[1])][best.epoch - 1] == best
        assert best.metrics[metric] == max(epoch.metrics[metric] for epochs in recorded.values() for epoch in epochs)
        text = (user.artifacts.path(row.path) / "dev.tsv").read_text()
        examples = list(csv.DictReader(io.StringIO(text), delimiter="\t"))
        ids = ["cat-0", "dog-1"] if name == "pets" else ["0", "1"]
        assert [example["index"] for example in examples][:2] == ids
        found = [
            [float(e[key]) if task.regression else task.labels.index(e[key]) for e in examples]
            for key in ("prediction", "label")
        ]
        scores = score(task, *(np.array(values, dtype=np.float32) for values in found))
        assert scores[metric] == pytest.approx(best.metrics[metric], abs=1e-3)
        for example in () if task.regression else examples:
            shares = {label: float(example[f"probability of {label}"]) for label in task.labels}
            assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
            assert max(shares, key=lambda label: shares[label]) == example["prediction"]
    alone = user.lineage(*settings, 'finetune.tasks=["pets"]')
    with monkeypatch.context() as patch:
        patch.setattr(TuningJob, "tune", None)  # the kept model is used instead
        write_submission(alone, Console(quiet=True), 0, False, PLACE, tmp_path / "own.zip")
    with zipfile.ZipFile(tmp_path / "own.zip") as archive:
        lines = archive.read("pets.tsv").decode().splitlines()[1:]
    pets = user.artifacts.path(lineage.kept(*PLACE, "pets").key) / "dev.tsv"  # its test set has the same texts
    with pets.open(newline="") as file:
        assert [line.split("\t")[1] for line in lines] == [
            e["prediction"] for e in csv.DictReader(file, delimiter="\t")
        ]
    *doubts, first, second, last = FinetuneGlue(lineage).summary()
    assert str(user.artifacts.path(row.path)) in last and all("best-" in line for line in (first, second))
    assert doubts and all("predict one class" in line or "the bag of words" in line for line in doubts)


def test_there_is_nothing_to_keep_if_every_run_failed(user: User, capsys: pytest.CaptureFixture[str]) -> None:
    diverging = (
        'finetune.tasks=["STS-B"]',
        "finetune.learning_rates=[1e30]",
        "finetune.epochs=3",
        "finetune.keep=best",
    )
    lineage = user.run("finetune-glue", *diverging)
    assert "every run failed: there is no model to keep" in capsys.readouterr().err
    assert user.artifacts.read(lineage.kept(*PLACE, "STS-B").key, TunedEncoder).path == ""
    assert isinstance(FinetuneGlue(lineage).plan(1)[-1].jobs[0], KeepBest)
