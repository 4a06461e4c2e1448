"""A tiny finished project: text, a task, a config and its results, made through the Python interface."""

import json
from pathlib import Path
from typing import Any

import pytest

from mapnet_cli.api import load
from tests.conftest import SMALL
from tests.finetune_glue.glue_files import write_glue
from tests.prepare_corpus.corpora import text_folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder with mine.toml and finished results in artifacts. Copy it before you change anything."""
    folder = tmp_path_factory.mktemp("finished")
    text_folder(folder / "books", files=9)
    write_glue(folder / "glue")
    tables: dict[str, dict[str, Any]] = {"finetune": {"data": str(folder / "glue")}, "corpus": {"validation_every": 3}}
    text = 'recipe = "demo"\nmethods = ["bert", "mapnet"]\n'
    text += f"[[corpus.sources]]\npath = {json.dumps(str(folder / 'books'))}\n"
    for setting in (*SMALL, 'finetune.tasks=["CoLA"]', "pretrain.milestones=[1.0]", "encoder.max_length=32"):
        key, value = setting.split("=")
        section, name = key.split(".")
        tables.setdefault(section, {})[name] = value
    for section, values in tables.items():
        text += f"[{section}]\n" + "".join(f"{name} = {toml(value)}\n" for name, value in values.items())
    (folder / "mine.toml").write_text(text)
    load(folder / "mine.toml", artifacts=folder / "artifacts").run()
    return folder


def toml(value: Any) -> str:
    """Returns a value of --set as TOML: bare words are strings."""
    bare = isinstance(value, str) and value[0] not in '[{"0123456789' and value not in ("true", "false")
    return json.dumps(value) if bare or not isinstance(value, str) else value
