"""The finetune-glue stage end to end: reruns, records, status and errors."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from mapnet_cli.cli.stages import run_stages, status
from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.core.console import Console
from mapnet_cli.core.errors import AbsentError, DamagedError, InputError, UsageError
from mapnet_cli.core.records import Checkpoint, FinetuneRun, TunedEncoder
from mapnet_cli.finetune_glue import prepare
from mapnet_cli.finetune_glue.classifier import encoder_weights
from mapnet_cli.finetune_glue.examples import training_and_dev_sets
from mapnet_cli.finetune_glue.forecast import Rate, TaskSize
from mapnet_cli.finetune_glue.stage import FinetuneGlue
from mapnet_cli.glue.grid import GridRun, grid_runs
from mapnet_cli.glue.tasks import TASKS
from mapnet_cli.lineage.graph import Lineage
from mapnet_cli.report.stage import build
from mapnet_cli.training import device
from tests.finetune_glue.conftest import User
from tests.finetune_glue.glue_files import write_glue


def record(user: User, run: GridRun, *overrides: str) -> FinetuneRun:
    return user.artifacts.read(user.lineage(*overrides).finetuning(run).key, FinetuneRun)


def matrix(lineage: Lineage) -> list[dict[str, Any]]:
    """Returns the grid's matrix from the `status` command."""
    rows: list[dict[str, Any]] = FinetuneGlue(lineage).progress().facts["matrix"]
    return rows


def test_added_seeds_and_tasks_run_only_new_jobs(user: User) -> None:
    user.run("finetune-glue")
    first = {p: p.stat().st_mtime_ns for p in user.artifacts.path("finetune-glue").rglob("batch*.json")}
    more = ("finetune.seeds=[1,2]", 'finetune.tasks=["RTE","CoLA"]', "finetune.untrained=true")
    lineage = user.run("finetune-glue", *more)
    after = {p: p.stat().st_mtime_ns for p in user.artifacts.path("finetune-glue").rglob("batch*.json")}
    assert first and {p: after[p] for p in first} == first
    runs = list(grid_runs(lineage.config))
    assert len(runs) == 2 * 2 * 2
    assert all(user.artifacts.marker(lineage.finetuning(run).key) for run in runs)


def test_force_looks_for_the_tasks_before_it_discards_trainings(user: User) -> None:
    user.run("finetune-glue")
    before = {path: path.stat().st_mtime_ns for path in user.artifacts.path("pretrain").rglob("*.json")}
    gone = (user.folder / "glue").rename(user.folder / "gone")
    try:
        run_stages(["pretrain", "finetune-glue"], user.lineage(), Console(quiet=True), workers=0, force=False)
        with pytest.raises(AbsentError, match="does not exist"):
            run_stages(["pretrain", "finetune-glue"], user.lineage(), Console(quiet=True), workers=0, force=True)
    finally:
        gone.rename(user.folder / "glue")
    assert before and {path: path.stat().st_mtime_ns for path in before if path.exists()} == before


def test_record_contains_its_settings_and_checkpoint(user: User) -> None:
    user.run("finetune-glue", "finetune.dropout=0.2")
    row = record(user, GridRun("bert", 1, 10, "RTE", 16, 1e-3, 1), "finetune.dropout=0.2")
    assert row.settings == {
        "adam_betas": [0.9, 0.98], "adam_eps": 1e-6, "weight_decay": 0.1, "clip_norm": 0.0, "epochs": 1,
        "warmup_ratio": 0.06, "dropout": 0.2, "batching": "random",
        "precision": "float32",
    }  # fmt: skip
    checkpoint = user.artifacts.read(f"{user.lineage().pretraining('bert', 1).key}/step10", Checkpoint)
    assert row.checkpoint == checkpoint.fingerprint
    assert set(row.epochs[0].metrics) == {"accuracy", "f1", "mcc"}


def test_untrained_encoder_is_a_row_of_every_table(user: User) -> None:
    lineage = user.run("finetune-glue", "finetune.untrained=true")
    row = record(user, GridRun("untrained", 0, 0, "RTE", 16, 1e-3, 1), "finetune.untrained=true")
    assert row.checkpoint == "" and row.epochs
    result = build(lineage)
    for name in ("table3", "selection"):
        assert "untrained" in [line[0].text for line in result.tables[name].rows], name
    assert any(note.startswith("untrained: the same encoder with random weights") for note in result.notes)
    assert result.value["missing"] == {}


MNLI_METRICS = {"accuracy", "macro_f1", "mcc"}


def test_tasks_start_from_mnli_if_configured(user: User) -> None:
    plain = user.run("finetune-glue", 'finetune.tasks=["RTE","MRPC"]')
    start = 'finetune.from_mnli=["RTE"]'
    lineage = user.run("finetune-glue", start, 'finetune.tasks=["RTE","MRPC"]')
    encoder = user.artifacts.read(lineage.mnli_start("bert", 1, 10).key, TunedEncoder)
    assert encoder.epochs[0].metrics.keys() == MNLI_METRICS | {f"{name}-mm" for name in MNLI_METRICS}
    rte, mrpc = (GridRun("bert", 1, 10, task, 16, 1e-3, 1) for task in ("RTE", "MRPC"))
    tuned = record(user, rte, start)
    assert tuned.settings["mnli_start"] == encoder.fingerprint
    assert tuned.checkpoint == encoder.checkpoint == record(user, rte).checkpoint
    assert tuned.epochs != record(user, rte).epochs
    assert lineage.finetuning(mrpc) == plain.finetuning(mrpc)
    result = build(lineage)
    assert result.value["missing"] == {}
    assert "|from-mnli:RTE|" in result.value["signature"]
    notes = " ".join(result.notes)
    assert "Subsets of the official GLUE data: RTE, MRPC, MNLI." in notes
    assert "RTE: started from each encoder after one fine-tuning run on MNLI (batch 32, lr 3e-05, seed 1)." in notes
    assert "weights other than" not in notes
    lines = FinetuneGlue(user.lineage(start, "finetune.seeds=[5]")).forecast(1)
    assert any(line.startswith("MNLI: 1 runs") for line in lines)
    with pytest.raises(UsageError, match="MNLI itself"):
        user.run("finetune-glue", 'finetune.from_mnli=["MNLI"]', 'finetune.tasks=["MNLI"]')


def test_mnli_without_a_mismatched_dev_set(user: User, tmp_path: Path) -> None:
    """As a subset only: its column is left out everywhere, and every table of scores says so."""
    glue = tmp_path / "glue"
    shutil.copytree(user.folder / "glue", glue)
    (glue / "MNLI" / "dev_mismatched.tsv").unlink()
    settings = (f"finetune.data={glue}", 'finetune.tasks=["MNLI","RTE"]', 'finetune.from_mnli=["RTE"]')
    with pytest.raises(AbsentError, match=r'has no dev_mismatched\.tsv .*add "MNLI" to finetune\.subsets'):
        list(training_and_dev_sets(glue / "MNLI", TASKS["MNLI"], subset=False))
    assert (
        FinetuneGlue(user.lineage(*settings))
        .forecast(1)[0]
        .startswith("MNLI: 2 runs of 1 epochs, 12 training and 12 dev")
    )
    lineage = user.run("finetune-glue", *settings)
    row = user.artifacts.read(lineage.finetuning(GridRun("bert", 1, 10, "MNLI", 16, 1e-3, 1)).key, FinetuneRun)
    assert row.epochs[0].metrics.keys() == MNLI_METRICS and row.dev_examples == 12
    result = build(lineage)
    table = result.tables["table3"]
    assert result.value["missing"] == {} and table.columns[-2:] == ("MNLI-m", "RTE")
    page = result.files["index.html"].read_text(encoding="utf-8")
    assert "average score over 2 of 9 GLUE columns (subset: MNLI, RTE)" in page
    assert [line[0].text for line in table.rows] == ["BERT", "majority", "bag of words", "token overlap"]
    assert "MNLI has no mismatched dev set here, so the column MNLI-mm is left out." in result.notes
    for split in ("train", "dev_matched"):
        file = glue / "MNLI" / f"{split}.tsv"
        text = file.read_text()
        file.unlink()
        with pytest.raises(AbsentError, match=f"has no {split}"):
            user.run("finetune-glue", *settings, "finetune.seeds=[2]")
        file.write_text(text)


@pytest.mark.parametrize("tuned", [False, True])
def test_the_advice_for_a_damaged_encoder_works(tuned: bool, user: User) -> None:
    """A pretrained encoder and one tuned on MNLI; tests/huggingface/test_use.py has imports."""
    settings = ("finetune.seeds=[8]", *(['finetune.from_mnli=["RTE"]'] if tuned else []))
    lineage = user.run("finetune-glue", *settings)
    key = lineage.mnli_start("bert", 1, 10).key if tuned else f"{lineage.pretraining('bert', 1).key}/step10"
    file = user.artifacts.path(key) / "tensors.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    encoder_weights.cache_clear()
    again = ("finetune.learning_rates=[2e-3]", *settings)
    advice = "delete it and run `mapnet finetune-glue` again" if tuned else "run `mapnet pretrain --force`"
    with pytest.raises(DamagedError, match=f"is damaged .*: {advice} with the same options"):
        user.run("finetune-glue", *again)
    if tuned:
        shutil.rmtree(file.parent)
    else:
        run_stages(["pretrain"], user.lineage(*again), Console(quiet=True), workers=0, force=True)
    user.run("finetune-glue", *again)
    assert file.read_bytes() == whole


def test_status_shows_the_progress_of_the_matrix(user: User) -> None:
    lineage = user.lineage("finetune.seeds=[1,7]", 'finetune.tasks=["RTE","QNLI"]', "finetune.epochs=2")
    assert matrix(lineage) == [
        {"method": "bert", "seed": 1, "step": 10, "tasks": {
            "RTE": {"done": 0, "failed": 0, "total": 2}, "QNLI": {"done": 0, "failed": 0, "total": 2}}},
    ]  # fmt: skip
    user.run("finetune-glue", "finetune.seeds=[1]", "finetune.epochs=2")
    [row] = matrix(lineage)
    assert row["tasks"]["RTE"]["done"] == 1 and row["tasks"]["QNLI"]["done"] == 0
    diverging = ('finetune.tasks=["STS-B"]', "finetune.learning_rates=[1e30]", "finetune.epochs=2")
    progress = FinetuneGlue(user.run("finetune-glue", *diverging)).progress()
    assert progress.facts["matrix"][0]["tasks"]["STS-B"] == {"done": 1, "failed": 1, "total": 1}
    assert progress.table is not None
    assert "1/1, 1 failed" in [cell.text for cell in progress.table.rows[0]]


def test_altered_tokenised_data_is_detected(user: User) -> None:
    lineage = user.run("finetune-glue", 'finetune.tasks=["QNLI"]')
    labels = user.artifacts.path(f"{lineage.task('QNLI').key}/train/labels.npy")
    data = bytearray(labels.read_bytes())
    data[-1] ^= 1
    labels.write_bytes(data)
    prepare._verify.cache_clear()
    with pytest.raises(DamagedError, match=r"train/labels\.npy is damaged"):
        user.run("finetune-glue", 'finetune.tasks=["QNLI"]', "finetune.seeds=[9]")
    data[-1] ^= 1
    labels.write_bytes(data)


def test_results_remain_valid_without_the_data(user: User, tmp_path: Path) -> None:
    folder = write_glue(tmp_path / "glue")
    data = (f"finetune.data={folder}", 'finetune.tasks=["RTE","CoLA"]')
    user.run("finetune-glue", *data)
    for gone in (folder / "RTE", folder):
        gone.rename(tmp_path / "elsewhere" if gone == folder else tmp_path / "RTE")
        assert build(user.lineage(*data)).value["missing"] == {}
        assert matrix(user.lineage(*data))[0]["tasks"]["RTE"]["done"] == 1
    other = (data[0], 'finetune.tasks=["MRPC"]')
    with pytest.raises(AbsentError, match=r"finetune\.data: .*glue does not exist"):
        FinetuneGlue(user.lineage(*other)).plan(1)
    rows = [row for row, _ in status(user.lineage(*other))]
    assert [row["stage"] for row in rows].count("pretrain") == 1 and "glue does not exist" in rows[-1]["error"]


def test_the_dry_run_counts_runs_and_sequences(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_measured", lambda *_: 1.0)
    settings = ("finetune.epochs=3", "finetune.seeds=[1,2]", 'finetune.tasks=["RTE","CoLA"]')
    lineage = user.lineage(*settings, "finetune.precision=bfloat16")
    lines = FinetuneGlue(lineage).forecast(2)
    assert lines[0].startswith("RTE: 2 runs of 3 epochs, 8 training and 8 dev sequences, about ")
    assert lines[-2].endswith("finetune.precision=float32 is faster here")
    assert lines[-1].startswith("4 runs, 192 sequences: about ")  # 2 tasks x 2 seeds x 3 epochs x (8 + 8)


def test_forecast_of_a_run_by_hand() -> None:
    size = TaskSize(train=100, train_tokens=1000.0, dev=30, dev_tokens=600.0)
    assert Rate(fixed=0.5, token=0.01).seconds(size, 32, 3) == pytest.approx(
        3 * (4 * 0.5 + 1000 * 0.01 + 600 * 0.01 / 3)
    )


def test_incomplete_files_are_errors_and_subsets_are_noted(user: User, tmp_path: Path) -> None:
    folder = write_glue(tmp_path / "glue")
    (folder / "RTE/dev.tsv").write_text((folder / "RTE/dev.tsv").read_text().replace("wet", "moist"))
    data = f"finetune.data={folder}"
    with pytest.raises(InputError, match=r"RTE/train\.tsv: 8 rows, but .*2,490.*finetune\.subsets"):
        user.run("finetune-glue", data, "finetune.subsets=[]")
    result = build(user.run("finetune-glue", data))
    assert "Subsets of the official GLUE data: RTE." in result.notes
    with pytest.raises(InputError, match="RTE was prepared from a subset of GLUE"):
        user.run("finetune-glue", data, "finetune.subsets=[]")


def test_a_new_test_set_does_not_invalidate_results(user: User, tmp_path: Path) -> None:
    folder = write_glue(tmp_path / "glue")
    before = user.lineage(f"finetune.data={folder}").task("RTE")
    shutil.copy(user.folder / "glue/RTE/test.tsv", folder / "RTE/test.tsv")
    assert user.lineage(f"finetune.data={folder}").task("RTE") == before
    (folder / "RTE/dev.tsv").write_text((folder / "RTE/dev.tsv").read_text().replace("wet", "damp"))
    assert user.lineage(f"finetune.data={folder}").task("RTE") != before


def test_tiny_data_with_one_class_runs(user: User, tmp_path: Path) -> None:
    folder = write_glue(tmp_path / "glue")
    header, first, *_ = (folder / "STS-B/dev.tsv").read_text().splitlines()
    (folder / "STS-B/dev.tsv").write_text(f"{header}\n{first}\n")
    data = (f"finetune.data={folder}", 'finetune.tasks=["STS-B","RTE"]', "finetune.max_train_examples=1")
    assert build(user.run("finetune-glue", *data)).value["missing"] == {}


def test_names_are_checked_before_anything_runs(user: User) -> None:
    for override, message in {
        'finetune.subsets=["RTEE"]': r"finetune\.subsets: there is no task 'RTEE'; did you mean 'RTE'",
        "finetune.task_data.QPP=x": r"finetune\.task_data\.QPP: .*did you mean 'QQP'",
        "finetune.data=probe": r"finetune\.task_data describes .*set it to the folder with GLUE",
        'finetune.from_mnli=["rtf"]': r"finetune\.from_mnli: there is no task 'rtf'; did you mean 'RTE'",
    }.items():
        with pytest.raises(UsageError, match=message):
            user.run("finetune-glue", override, *(["finetune.task_data.RTE=x"] if "probe" in override else []))


def test_runs_do_not_depend_on_each_other(user: User, tmp_path: Path) -> None:
    """A run's record doesn't depend on earlier runs in the same process."""
    alone = User(user.folder)
    alone.artifacts = Artifacts(tmp_path / "artifacts")
    for name in ("prepare-corpus", "pretrain"):
        shutil.copytree(user.artifacts.path(name), alone.artifacts.path(name))
    shutil.copy(user.artifacts.path("inputs.json"), alone.artifacts.path("inputs.json"))
    user.run("finetune-glue", "finetune.seeds=[3,4]", "finetune.epochs=2")
    alone.run("finetune-glue", "finetune.seeds=[4]", "finetune.epochs=2")
    run = GridRun("bert", 1, 10, "RTE", 16, 1e-3, 4)
    assert record(user, run, "finetune.epochs=2") == record(alone, run, "finetune.epochs=2")
    names = [p.name for p in alone.artifacts.path("finetune-glue").rglob("batch*.json")]
    assert len(names) == 1 and re.match(r"batch16-lr0\.001-seed4-", names[0])
