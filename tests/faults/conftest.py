"""A tiny run for the fault campaigns: its command lines, and its artifact directory after each stage."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import SMALL
from tests.faults.trials import STAGES, Server, copy
from tests.finetune_glue.glue_files import write_glue
from tests.prepare_corpus.corpora import text_folder

SETTINGS = (*SMALL, "pretrain.threads=1", 'methods=["bert"]', 'finetune.tasks=["RTE"]', "finetune.milestones=[1.0]")
CONFIG = """
recipe = "demo"
corpus.validation_every = 3
corpus.cleanup.min_chars = 10
corpus.cleanup.min_letters = 10
finetune.data = {glue}

[[corpus.sources]]
kind = "text"
path = {books}
paragraphs = "line"
"""
Arguments = Callable[..., list[str]]
Finished = Callable[[str], tuple[Path, int]]
"""Returns the artifact directory after a stage, and the number of operations on files that the stage made."""


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    compiler = shutil.which("cc") or pytest.skip("the shim needs a C compiler")
    source, shim = Path(__file__).with_name("shim.c"), folder / "shim.so"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", shim, source, "-ldl", "-lpthread"], check=True)
    server = Server(shim, folder)
    yield server
    server.close()


@pytest.fixture(scope="session")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> Arguments:
    """Returns a function that makes the command line of a command in an artifact directory."""
    folder = tmp_path_factory.mktemp("user")
    text_folder(folder / "books", files=4)
    write_glue(folder / "glue", repeat=2)
    text = CONFIG.format(books=json.dumps(str(folder / "books")), glue=json.dumps(str(folder / "glue")))
    (folder / "mine.toml").write_text(text)
    settings = [part for setting in SETTINGS for part in ("--set", setting)]

    def make(command: str, root: Path, *more: str) -> list[str]:
        workers = ["--workers", "0"] if command in (*STAGES[:3], "run") else []
        return [command, "--config", str(folder / "mine.toml"), "--artifacts", str(root), *workers, *settings, *more]

    return make


@pytest.fixture(scope="session")
def finished(server: Server, arguments: Arguments, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Returns a function that makes the undisturbed artifact directory after a stage, "" for none, and counts."""
    folder = tmp_path_factory.mktemp("finished")

    @cache
    def make(stage: str) -> tuple[Path, int]:
        root = folder / f"after-{stage}"
        if not stage:
            root.mkdir()
            return root, 0
        done = server.run(arguments(stage, copy(make(previous(stage))[0], root)), root)
        assert done.code == 0, done.output
        return root, done.operations

    return make


def previous(stage: str) -> str:
    """Returns the stage before a stage, "" before the first."""
    return ("", *STAGES)[STAGES.index(stage)]
