"""`mapnet runs`, `mapnet clean`, and the lines that say why work is done again."""

import json
import shutil
from pathlib import Path

import pytest

from mapnet_cli.core import FOLDERS, Artifacts
from tests.e2e.test_cli import content, invoke

SHORTER = ["--set", "pretrain.steps=5"]


@pytest.fixture
def project(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished project that the test may change; the text stays where it is."""
    shutil.copytree(finished / "artifacts", tmp_path / "artifacts")
    shutil.copy(finished / "mine.toml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_runs_lists_everything(project: Path) -> None:
    assert invoke("report", "-c", "mine.toml")[0] == 0
    unfinished = project / "artifacts/pretrain/bert-seed1-0123abcd"
    unfinished.mkdir()
    (unfinished / "log.jsonl").write_text('{"step": 7, "loss": 2.5}\n')
    damaged = next((project / "artifacts/pretrain").glob("mapnet-*.json"))
    damaged.write_text("{}")
    before = content(project)
    code, out, _ = invoke("runs", "--json")
    assert (code, content(project)) == (0, before)
    rows = {row["result"]: row for row in json.loads(out)}
    on_disk = {
        f"{path.parent.name}/{path.name.removesuffix('.json')}"
        for folder in (*FOLDERS, "report")
        for path in (project / "artifacts" / folder).glob("*")
        if path.name != "latest"
    }
    assert rows.keys() == on_disk
    states = {row["result"].rsplit("-", 1)[0]: row["state"] for row in rows.values()}
    assert states["prepare-corpus/corpus"].endswith("tokens, vocabulary 300")
    assert states["pretrain/mapnet-seed1"] == "damaged: mapnet verify"
    assert rows["pretrain/bert-seed1-0123abcd"]["state"] == "unfinished at step 7, loss 2.500"
    assert rows["report/mine"]["state"].startswith("bert 0.00, mapnet 0.00")
    shown = {row["result"].rsplit("-", 1)[0]: row["report"] for row in rows.values()}
    assert (shown["prepare-corpus/corpus"], shown["report/mine"]) == ("mine", "mine")
    reported = [row for row in rows.values() if row["result"].startswith("pretrain/bert") and row["report"] == "mine"]
    assert [row["state"].split(",")[0] for row in reported] == ["10 steps"]
    sizes = sum(row["bytes"] for row in rows.values())
    others = sum(file.stat().st_size for file in (project / "artifacts").glob("[!.]*.json"))
    assert sizes + others == sum(map(len, content(project / "artifacts").values())) - locks(project)
    assert "report/mine" in invoke("runs")[1]
    assert invoke("runs", "--artifacts", "nowhere")[0] == 2


def locks(project: Path) -> int:
    """Returns the bytes of the locks and of the settings of earlier runs, which are no results."""
    artifacts = project / "artifacts"
    return sum(file.stat().st_size for file in (*artifacts.glob(".lock-*"), *artifacts.glob("configs/*")))


def test_clean_removes_only_what_finished_results_replace(project: Path) -> None:
    artifacts = project / "artifacts"
    before = content(artifacts)
    assert "nothing to delete" in invoke("clean", "-c", "mine.toml", "--yes")[1]
    assert {k: v for k, v in content(artifacts).items() if "lock" not in k} == {
        k: v for k, v in before.items() if "lock" not in k
    }
    assert invoke("run", "-c", "mine.toml", "--workers", "0", *SHORTER)[0] == 0
    both = content(artifacts)

    code, out, _ = invoke("clean", "-c", "mine.toml", *SHORTER)
    assert (code, content(artifacts)) == (0, both), "dry without --yes"
    assert "nothing is deleted without --yes" in out
    assert "pretrain/bert-seed1-" in out
    Path("other.toml").write_text(Path("mine.toml").read_text())
    assert "nothing to delete" in invoke("clean", "-c", "mine.toml", *SHORTER, "other.toml")[1]

    with Artifacts(artifacts).lock("finetune-glue"):
        code, _, err = invoke("clean", "-c", "mine.toml", *SHORTER, "--yes")
    assert (code, "is running finetune-glue" in err) == (5, True)

    found = json.loads(invoke("clean", "-c", "mine.toml", *SHORTER, "--json")[1])
    assert invoke("clean", "-c", "mine.toml", *SHORTER, "--yes")[0] == 0
    gone = both.keys() - content(artifacts).keys()
    assert gone == {name for name in both if any(name.startswith((f"{key}/", f"{key}.json")) for key in found["bytes"])}
    assert sum(len(both[name]) for name in gone) == sum(found["bytes"].values())
    assert not any(name.startswith(("report/", "prepare-corpus/", "configs/")) for name in gone)
    rows = json.loads(invoke("status", "--json", "-c", "mine.toml", *SHORTER)[1])
    assert all(row["done"] == row["total"] for row in rows), "what the config uses is still there"
    assert invoke("verify")[0] == 0


def test_clean_waits_for_the_results_that_replace_others(project: Path) -> None:
    code, _, err = invoke("clean", "-c", "mine.toml", *SHORTER, "--yes")
    assert (code, "pretrain, finetune-glue of the config isn't finished" in err) == (2, True)
    out = invoke("clean", "-c", "mine.toml", *SHORTER, "--unfinished")[1]
    assert "pretrain/bert-seed1-" in out
    code, _, err = invoke("clean", "--yes")
    assert (code, "say whose results to keep" in err) == (2, True)


def test_reasons_for_work(project: Path, finished: Path) -> None:
    """A changed setting is named once, by the first stage that it affects; a changed file by the corpus."""
    code, _, err = invoke("run", "-c", "mine.toml", "--dry-run")
    assert (code, err) == (0, ""), "nothing to do, so nothing to say"
    before = content(project)
    for arguments in (SHORTER, ["--set", "finetune.seeds=[1,2]"]):
        _, _, err = invoke("run", "-c", "mine.toml", "--dry-run", *arguments)
        line = "pretrain: pretrain.steps is 5, was 10" if arguments is SHORTER else "finetune.seeds is [1, 2], was [1]"
        assert err.count(line) == 1
        assert ("earlier trainings are kept" in err) == (arguments is SHORTER)
    assert content(project) == before, "a dry run remembers nothing"

    shutil.copy("artifacts/configs/mine.json", "mine.json")
    for damage in ("{", "[1]", '{"pretrain": 3}'):
        Path("artifacts/configs/mine.json").write_text(damage)
        assert invoke("run", "-c", "mine.toml", "--dry-run", *SHORTER)[0::2] == (0, "")
    shutil.copy("mine.json", "artifacts/configs/mine.json")

    shutil.copytree(finished / "books", "books")
    text = Path("mine.toml").read_text().replace(str(finished / "books"), "books")
    Path("mine.toml").write_text(text)
    assert invoke("prepare-corpus", "-c", "mine.toml", "--workers", "0")[0] == 0
    Path("books/notes.txt").write_text("A new text. It has two sentences, and they are not long.\n")
    Path("books/part0/00.txt").unlink()
    _, _, err = invoke("prepare-corpus", "-c", "mine.toml", "--dry-run")
    assert "prepare-corpus: books: notes.txt is new and 1 more changes" in err
    _, _, err = invoke("prepare-corpus", "-c", "mine.toml", "--workers", "0")
    assert "prepare-corpus: books: notes.txt is new and 1 more changes" in err
    assert "Done: artifacts/prepare-corpus; next, with the same options: mapnet pretrain" in err
    _, _, err = invoke("prepare-corpus", "-c", "mine.toml", "--workers", "0")
    assert "is new" not in err
