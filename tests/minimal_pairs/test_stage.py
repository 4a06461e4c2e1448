"""The minimal-pairs stage end to end: records, reruns, kills, lineage, damage and the report's tables."""

import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mapnet_cli.cli.commands import app
from mapnet_cli.cli.stages import dry_run, status
from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.core.errors import DamagedError, InputError, UsageError
from mapnet_cli.core.records import Checkpoint, PairScores
from mapnet_cli.lineage.graph import Lineage, PairsRun
from mapnet_cli.minimal_pairs.stage import MinimalPairs
from mapnet_cli.report.stage import build
from tests.huggingface.conftest import run
from tests.minimal_pairs.conftest import SENTENCES, User, write_pairs


def records(lineage: Lineage) -> dict[PairsRun, PairScores]:
    found = {run: lineage.artifacts.find(artifact.key, PairScores) for _, run, artifact in lineage.pair_scores()}
    return {run: row for run, row in found.items() if row}


def written(lineage: Lineage) -> dict[Path, int]:
    paths = [lineage.artifacts.path(f"{artifact.key}.json") for _, _, artifact in lineage.pair_scores()]
    return {path: path.stat().st_mtime_ns for path in paths if path.exists()}


def test_every_encoder_with_a_head_has_a_record(user: User) -> None:
    lineage = user.score('imports=["tiny"]', "pretrain.seeds=[1, 2]")
    found = records(lineage)
    places = {(run.method, run.pretrain_seed, run.step) for run in found}
    steps = [5, 10]  # seed 2 is not pretrained: its untrained encoder is scored anyway
    assert places == {(m, 1, s) for m in ("bert", "mapnet") for s in steps} | {
        ("tiny", 0, 0), ("untrained", 1, 0), ("untrained", 2, 0),
    }  # fmt: skip
    for (method, seed, step), row in zip(places, map(found.get, [PairsRun(*p, "mine") for p in places]), strict=True):
        assert row is not None and asdict(PairsRun(method, seed, step, "mine")).items() <= row.model_dump().items()
        (paradigm,) = row.paradigms
        assert (paradigm.name, paradigm.pairs) == ("mine", len(SENTENCES) // 2)
        assert row.accuracy == paradigm.correct / paradigm.pairs
        assert row.settings == {"pairs": 0, "whole_words": False, "precision": "float32"}
    trained = user.artifacts.read(f"{lineage.pretraining('bert', 1).key}/step10", Checkpoint)
    assert found[PairsRun("bert", 1, 10, "mine")].checkpoint == trained.fingerprint
    assert found[PairsRun("tiny", 0, 0, "mine")].checkpoint == lineage.imported("tiny").fingerprint
    assert found[PairsRun("untrained", 1, 0, "mine")].checkpoint == ""


def test_only_new_records_are_made(user: User) -> None:
    before = written(user.score())
    other = write_pairs(user.folder / "other.tsv", [("ba co.", "co ba."), ("fu den", "den fu")])
    both = f'minimal_pairs.data=["{user.folder}/mine.tsv", "{other}"]'
    after = written(user.score(both))
    assert before and before.items() < after.items()
    assert len(after) == 2 * len(before)
    assert written(user.score(both)) == after


AFFECTS = {
    "minimal_pairs.pairs=3": True, "minimal_pairs.whole_words=true": True, "minimal_pairs.precision=bfloat16": True,
    "minimal_pairs.untrained=false": False, "minimal_pairs.milestones=[1.0]": False,
    "minimal_pairs.batch_tokens=64": False, "minimal_pairs.device=cpu": False,
    "minimal_pairs.threads=2": False, "finetune.epochs=7": False, "pretrain.peak_lr=1e-3": True,
    "corpus.lowercase=never": True, "encoder.init_std=0.3": True,
}  # fmt: skip


@pytest.mark.parametrize(("setting", "changes"), AFFECTS.items())
def test_a_record_depends_on_settings_that_affect_it(setting: str, changes: bool, user: User) -> None:
    before, after = (
        {run: artifact for _, run, artifact in user.lineage(*more).pair_scores()} for more in ((), (setting,))
    )
    shared = before.keys() & after.keys()
    assert shared
    for at in shared:
        affected = changes and not (at.method == "untrained" and setting.startswith("pretrain"))
        assert (before[at] != after[at]) == affected, at


def test_every_key_is_covered_by_the_test_above(user: User) -> None:
    named = {setting.split("=")[0].removeprefix("minimal_pairs.") for setting in AFFECTS}
    assert set(type(user.lineage().config.minimal_pairs).model_fields) - named == {"data"}


def test_only_chosen_milestones_are_scored(user: User) -> None:
    runs = [run for _, run, _ in user.lineage("minimal_pairs.milestones=[1.0]").pair_scores()]
    assert {run.step for run in runs if run.method == "bert"} == {10}
    with pytest.raises(UsageError, match=r"minimal_pairs.milestones .--set.: 0.7 is not one of pretrain.milestones"):
        user.lineage("minimal_pairs.milestones=[0.7]")


def test_changed_data_is_scored_again_and_deleted_data_is_remembered(user: User) -> None:
    path = write_pairs(user.folder / "changing.tsv", [("ba co.", "co ba.")])
    data = f'minimal_pairs.data=["{path}"]'
    first = written(user.score(data))
    write_pairs(path, [("ba co den.", "den co ba.")])
    assert not first.keys() & written(user.score(data)).keys()
    path.unlink()
    assert len(written(user.score(data))) == len(first)
    with pytest.raises(InputError, match=r"nowhere\.zip does not exist"):
        user.score('minimal_pairs.data=["nowhere.zip"]')


def test_sets_of_the_same_name_are_refused(user: User) -> None:
    with pytest.raises(UsageError, match="two sets of the same name"):
        user.lineage('minimal_pairs.data=["a/blimp.tar.xz", "b/blimp"]')


def test_a_damaged_checkpoint_is_an_error(user: User, tmp_path: Path) -> None:
    copy = shutil.copytree(user.artifacts.root, tmp_path / "artifacts")
    lineage = Lineage(user.lineage("minimal_pairs.whole_words=true").config, Artifacts(copy))
    weights = lineage.artifacts.path(f"{lineage.pretraining('bert', 1).key}/step10/tensors.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(DamagedError, match="is damaged"):
        run(lineage, "minimal-pairs")
    assert {run.step for run in records(lineage)} == {5}, "records before the failure are kept"


def test_bfloat16_scores_are_close(user: User) -> None:
    exact, rounded = (records(user.score(f"minimal_pairs.precision={p}")) for p in ("float32", "bfloat16"))
    assert all(abs(row.accuracy - rounded[run].accuracy) <= 3 / 9 for run, row in exact.items())


def test_without_data_the_stage_is_not_mentioned(user: User, tmp_path: Path) -> None:
    lineage = user.lineage("minimal_pairs.data=[]")
    assert MinimalPairs(lineage).plan(1) == []
    assert "minimal-pairs" not in {row["stage"] for row, _ in status(lineage)}
    assert dry_run(["minimal-pairs"], lineage, 1) == []
    result = build(lineage)
    assert not result.tables["minimal-pairs"].rows
    assert not any("minimal" in line for line in result.value["missing"])
    done = CliRunner().invoke(app, ["minimal-pairs", "--artifacts", str(tmp_path)])
    assert (done.exit_code, "minimal_pairs.data lists no data" in done.stderr) == (2, True)
    done = CliRunner().invoke(app, ["finetune-glue", "--artifacts", str(tmp_path), "--set", "finetune.tasks=[]"])
    assert (done.exit_code, "finetune.tasks lists no tasks" in done.stderr) == (2, True)


@pytest.mark.parametrize(("more", "command"), [(["minimal_pairs.data=[]"], "report"), ([], "minimal-pairs")])
def test_after_pretraining_no_command_without_work_is_named(more: list[str], command: str, user: User) -> None:
    words = [word for one in user.settings("finetune.tasks=[]", *more) for word in ("--set", one)]
    done = CliRunner().invoke(app, ["pretrain", "--artifacts", str(user.artifacts.root), "--workers", "0", *words])
    assert done.exit_code == 0, done.stderr
    assert done.stderr.endswith(f"next, with the same options: mapnet {command}\n")


def test_dry_run_and_status_list_the_records(user: User) -> None:
    lineage = user.lineage("minimal_pairs.pairs=4")
    (row,) = dry_run(["minimal-pairs"], lineage, 1)
    assert (row["done"], row["total"]) == (0, 5)
    assert row["estimate"][0].startswith("mine: 4 pairs in 1 paradigms, 5 encoders: about")
    run(lineage, "minimal-pairs")
    (shown,) = [row for row, _ in status(lineage) if row["stage"] == "minimal-pairs"]
    assert (shown["done"], shown["total"]) == (5, 5)
    assert dry_run(["minimal-pairs"], lineage, 1)[0]["estimate"] == []


@pytest.mark.slow
def test_a_killed_stage_resumes_without_repeating_records(user: User, tmp_path: Path) -> None:
    uninterrupted = records(user.score())
    copy = shutil.copytree(user.artifacts.root, tmp_path / "artifacts", ignore=shutil.ignore_patterns("minimal-pairs"))
    lineage = Lineage(user.lineage().config, Artifacts(copy))
    shared = [part for text in user.settings() for part in ("--set", text)]
    options = ["--recipe", "demo", "--artifacts", str(copy), "--workers", "1", "-q"]
    call = [sys.executable, "-m", "mapnet_cli", "minimal-pairs", *options, *shared]
    process = subprocess.Popen(call)
    while process.poll() is None and not written(lineage):
        pass
    process.kill()
    process.wait()
    before = written(lineage)
    assert before
    assert subprocess.run(call, check=False).returncode == 0
    assert before.items() <= written(lineage).items()
    assert records(lineage) == uninterrupted
    assert not list(copy.glob("minimal-pairs/**/.tmp-*"))
