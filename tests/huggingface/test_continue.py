"""Continuing the pretraining of a Hugging Face folder: `base` and the recipe `continue`."""

import json
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest

from mapnet_cli.config.loading import resolve
from mapnet_cli.core.errors import InputError, UsageError
from tests.e2e.test_cli import invoke
from tests.huggingface.conftest import settings
from tests.huggingface.hf_folders import save_bert

TINY = {"layers": 2, "hidden": 16, "heads": 2, "ffn": 32, "max_length": 24}


@pytest.fixture(scope="module")
def base(folder: Path) -> Path:
    save_bert(folder / "small-bert")
    return folder / "small-bert"


def test_base_sets_encoder_tokenizer_and_start_of_all_methods(base: Path) -> None:
    resolved = resolve("continue", None, [f"base={base}", "corpus.block_length=16", 'methods=["bert", "electra"]'], {})
    config, origins = resolved.config, resolved.origins
    assert {key: getattr(config.encoder, key) for key in TINY} == TINY
    assert (config.imports, config.corpus.tokenizer) == (("small-bert",), "small-bert")
    assert [config.method[name].init_from for name in ("bert", "electra", "mapnet")] == ["small-bert"] * 2 + [""]
    assert origins["encoder.layers"] == str(base / "config.json")
    assert origins["method.bert.init_from"] == "base"
    other = resolve(
        "continue", None, [f"base={base}", "corpus.block_length=16", "method.bert.init_from=another", "imports=[]"], {}
    ).config
    assert (other.method["bert"].init_from, other.imports) == ("another", ())


def test_the_recipe_needs_a_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"recipe continue needs base: set it to the folder of a model"):
        resolve("continue", None, (), {})
    with pytest.raises(InputError, match=r"nowhere is not a folder: pass one written by save_pretrained$"):
        resolve("continue", None, [f"base={tmp_path}/nowhere"], {})
    with pytest.raises(InputError, match="`hf download google/bert --local-dir bert`; then use bert"):
        resolve("continue", None, ["base=google/bert"], {})


@pytest.mark.parametrize(("own", "name"), [("bert", "base-bert"), ("a b é", "a-b"), ("untrained", "base-untrained")])
def test_a_model_may_have_any_folder(own: str, name: str, base: Path, tmp_path: Path) -> None:
    """The name of a method, a reserved one, or one with spaces."""
    shutil.copytree(base, tmp_path / "models" / own)
    config = resolve("continue", None, [f'base="{tmp_path}/models/{own}"', "corpus.block_length=16"], {}).config
    assert config.imports == (name,) and config.method["bert"].init_from == name


def test_one_command_compares_before_and_after(base: Path, folder: Path, tmp_path: Path) -> None:
    own = [text for text in settings(folder, "finetune.seeds=[1,2]") if not text.startswith(("encoder.", "proposal."))]
    words = ("--recipe", "continue", "--artifacts", str(tmp_path / "a"), "--workers", "0", "--quiet")
    given = [word for text in (f"base={base}", *own) for word in ("--set", text)]
    code, _, err = invoke("run", *words, *given, "--dry-run")
    assert code == 2
    advice = re.search(r"dry run imports nothing, .*: first run `mapnet (.*)`", err)
    assert advice, err
    assert invoke(*shlex.split(advice[1]))[0] == 0
    assert invoke("run", *words, *given, "--dry-run")[0] == 0
    code, out, err = invoke("run", *words, *given)
    assert code == 0, err
    assert re.search(r"BERT minus small-bert: average score .* points", out), out
    assert re.search(r"Held-out loss of small-bert: \d\.\d{3} before, \d\.\d{3} after BERT\.", out), out
    page = (tmp_path / "a" / "report" / "latest" / "index.html").read_text()
    assert "Is small-bert better after more pretraining on this text, and at what cost?" in page
    (log,) = (tmp_path / "a" / "pretrain").glob("bert-*/log.jsonl")
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert [row["step"] for row in rows if "validation_loss_single" in row] == [0, 10]
    (marker,) = (tmp_path / "a" / "import").glob("small-bert-*.json")
    before = marker.read_bytes()
    assert invoke("pretrain", *words, *given)[0] == 0
    assert marker.read_bytes() == before

    os.utime(base / "config.json", (1, 1))  # written again, with the same content: imported again under the same name
    code, _, err = invoke("pretrain", *words, *given)
    assert code == 0, err
    assert list((tmp_path / "a" / "import").glob("small-bert-*.json")) == [marker]
    assert marker.stat().st_ctime > (base / "config.json").stat().st_ctime


def test_another_model_in_the_same_folder_is_not_taken_for_the_first(folder: Path, tmp_path: Path) -> None:
    base, other = tmp_path / "model", tmp_path / "other"
    save_bert(base)
    save_bert(other, initializer_range=0.05)
    for file in other.iterdir():
        os.utime(file, (1, 1))  # older than the first one's import
    own = [text for text in settings(folder) if not text.startswith(("encoder.", "proposal."))]
    given = [word for text in (f"base={base}", *own) for word in ("--set", text)]
    words = ("--recipe", "continue", "--artifacts", str(tmp_path / "a"), "--workers", "0", "--quiet")
    assert invoke("prepare-corpus", *words, *given)[0] == 0
    shutil.rmtree(base)
    other.rename(base)
    code, _, err = invoke("pretrain", *words, *given)
    assert (code, "several imports are called 'model'" in err) == (2, True), err


def test_a_killed_run_logs_the_loss_before_training_once(base: Path, folder: Path, tmp_path: Path) -> None:
    """A run that was stopped before its first resume point starts anew, and so does its log."""
    own = [text for text in settings(folder) if not text.startswith(("encoder.", "proposal."))]
    given = [word for text in (f"base={base}", *own) for word in ("--set", text)]
    words = ("--recipe", "continue", "--artifacts", str(tmp_path / "a"), "--workers", "0", "--quiet")
    assert invoke("prepare-corpus", *words, *given)[0] == 0
    assert invoke("pretrain", *words, *given)[0] == 0
    (log,) = (tmp_path / "a" / "pretrain").glob("bert-*/log.jsonl")
    whole = log.read_text().splitlines()
    for path in log.parent.parent.glob("bert-*.json"):
        path.unlink()
    for path in sorted(log.parent.rglob("*"), reverse=True):
        if path != log:
            path.rmdir() if path.is_dir() else path.unlink()
    assert invoke("pretrain", *words, *given)[0] == 0
    again = log.read_text().splitlines()
    assert [json.loads(line)["step"] for line in again] == [json.loads(line)["step"] for line in whole]
    assert again[0] == whole[0]
