"""No command uses the network, loads a pickle, or opens a file outside of its folders for writing (an audit hook)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import SMALL
from tests.huggingface.hf_folders import save_bert
from tests.prepare_corpus.corpora import text_folder

AUDITED = """
import json, os, sys
found, root = [], sys.argv[1]
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT

def audit(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "pickle.find_class"):
        found.append(f"{event} {args[1:]}")
    elif event == "open" and isinstance(args[0], str) and args[2] & WRITING and not args[0].startswith((root, "/dev/")):
        found.append(f"{event} {args[0]}")

sys.addaudithook(audit)
from mapnet_cli.cli.commands import app
for arguments in json.loads(sys.argv[2]):
    before = len(found)
    assert not app(arguments, standalone_mode=False), arguments  # an exit code
    found[before:] = [f"{arguments[0]}: {text}" for text in found[before:]]
assert not found, found
"""


@pytest.mark.slow
def test_no_command_touches_anything_but_its_files(tmp_path: Path) -> None:
    text_folder(tmp_path / "books")
    save_bert(tmp_path / "model")
    (tmp_path / "pairs.tsv").write_text("good\tbad\nThe cat sleeps.\tThe cat sleep.\n")
    settings = [
        *SMALL, f"corpus.sources=[{{path='{tmp_path}/books'}}]", "corpus.validation_every=3",
        "corpus.cleanup.min_letters=10", 'methods=["bert", "mapnet"]', f'minimal_pairs.data=["{tmp_path}/pairs.tsv"]',
        'imports=["tiny"]',
    ]  # fmt: skip
    root = str(tmp_path / "artifacts")
    artifacts = ["--artifacts", root]
    config = [*artifacts, "--recipe", "demo", *(word for setting in settings for word in ("--set", setting))]
    commands = [
        ["import-hf", str(tmp_path / "model"), "--name", "tiny", *artifacts],
        ["run", *config, "--dry-run"],
        ["run", *config, "--workers", "0"],
        ["minimal-pairs", *config, "--workers", "0"],
        ["variance", *config, "--checkpoint", "mapnet", "--sentences", "4", "--masks", "12"],
        ["export", str(tmp_path / "exported"), "--method", "mapnet", *config],
        *([name, *config] for name in ("report", "status", "clean")),
        *([name, *artifacts] for name in ("runs", "verify", "doctor")),
        ["init", str(tmp_path / "books"), "--to", str(tmp_path / "mine.toml")],
        ["config", "show", *config],
        *(["config", name] for name in ("keys", "schema")),
    ]
    script = [sys.executable, "-B", "-c", AUDITED, str(tmp_path), json.dumps(commands)]
    done = subprocess.run(script, capture_output=True, text=True, cwd=tmp_path,
                          env=os.environ | {"TMPDIR": str(tmp_path)})  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert {"exported", "mine.toml", "artifacts"} <= {path.name for path in tmp_path.iterdir()}
