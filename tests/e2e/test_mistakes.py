"""Mistakes of a new user: what each one prints, and that the advice works. The table is mistakes.txt.

A block is a command, its exit code and what it prints on stderr; "as advised" is a command that follows the advice and
must succeed. `python -m tests.e2e.test_mistakes` writes the present messages into the table.
"""

import json
import os
import re
import shlex
import tempfile
from contextlib import chdir
from pathlib import Path
from unittest.mock import patch

import pytest
from typer.testing import CliRunner

from mapnet_cli.cli.commands import app
from mapnet_cli.core.artifacts import Artifacts
from tests.prepare_corpus.corpora import text_folder

TABLE = Path(__file__).with_name("mistakes.txt")
ADVISED = "as advised: "
SIZES = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings",
)  # fmt: skip
PAIRS = "index\tquestion\tsentence\tlabel\n0\tWho?\tHe.\tentailment\n"
FILES = {
    "mine.toml": 'recipe = "demo"\n',
    "mine.yaml": "pretrain:\n  steps: 5\n",
    "unquoted.toml": "[pretrain]\ndevice = cpu\n",
    "quoted.toml": '[pretrain]\ndevice = "cpu"\n',
    "typo.toml": 'recipe = "demo"\n\n[pretrian]\nsteps = 7\n',
    "glue/SST-2/train.tsv": "sentence\tlabel\na fine film\t1\n",
    "glue/SST-2/dev.tsv": "sentence\tlabel\na dull film\t0\n",
    "glue/RTE/train.tsv": PAIRS,
    "glue/RTE/dev.tsv": PAIRS,
    "glue/CoLA/train.tsv": "gj04\t1\t\tIt rained.\ngj04\tyes\t\tIt snowed.\n",
    "pickled/config.json": json.dumps({"model_type": "bert", "vocab_size": 5, **dict.fromkeys(SIZES, 2)}),
    "pickled/vocab.txt": "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n",
    "pickled/pytorch_model.bin": "",
    "gpt/config.json": '{"model_type": "gpt2"}',
    "pointer/config.json": "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    "full/notes.txt": "mine",
}


def workspace(folder: Path) -> Path:
    """Returns a folder with text, task data, models and configs of a new user."""
    text_folder(folder / "books", files=2)
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    (folder / "damaged").mkdir()
    (folder / "damaged" / "inputs.json").write_text("{")
    (folder / "damaged" / "prepare-corpus").mkdir()
    return folder


def run(line: str, folder: Path) -> tuple[int, str]:
    """Returns the exit code of a command line in the folder, and what it prints on stderr."""
    words = shlex.split(line)
    settings = dict(word.split("=", 1) for word in words[: words.index("mapnet")])
    with chdir(folder), patch.dict(os.environ, settings), Artifacts(folder / "busy").lock("pretrain"):
        done = CliRunner().invoke(app, words[words.index("mapnet") + 1 :])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    shown = done.stderr.replace(f"{folder.resolve()}/", "").replace(str(folder.resolve()), ".")
    return done.exit_code, re.sub(r"-[0-9a-f]{8}\b", "-DIGITS", shown).rstrip()


def blocks(text: str) -> list[str]:
    """Returns the blocks that have a command."""
    return [block for block in re.split(r"\n\n+", text.strip()) if block.startswith("$ ")]


def written(block: str, folder: Path) -> str:
    """Returns the block with the exit code and the messages that its command gives now."""
    command = block.splitlines()[0].removeprefix("$ ")
    code, shown = run(command, folder)
    shown = re.sub(r"process \d+ on \S+ \(`.*`, since [^)]*\)", "process 1 on machine (`mapnet`, since then)", shown)
    advised = [line for line in block.splitlines() if line.startswith(ADVISED)]
    return "\n".join([f"$ {command}", f"exit code {code}", shown, *advised])


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return workspace(tmp_path_factory.mktemp("mistakes"))


@pytest.mark.parametrize(
    "block", blocks(TABLE.read_text(encoding="utf-8")), ids=lambda block: block.splitlines()[0][9:]
)
def test_mistake(block: str, user: Path) -> None:
    assert written(block, user) == block
    for line in block.splitlines():
        if line.startswith(ADVISED):
            assert run(line.removeprefix(ADVISED), user) == (0, "")


def test_the_table_has_the_mistakes_of_a_new_user() -> None:
    found = blocks(TABLE.read_text(encoding="utf-8"))
    assert len(found) >= 35
    assert all("Traceback" not in block and "Errno" not in block and "Input should" not in block for block in found)


if __name__ == "__main__":
    table = TABLE.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as name:
        folder = workspace(Path(name))
        for block in blocks(table):
            table = table.replace(block + "\n", written(block, folder) + "\n")
    TABLE.write_text(table, encoding="utf-8")
