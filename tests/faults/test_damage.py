"""Files that were lost, cut or altered: seen by `verify`, never in a score, and made again by what messages advise."""

import random
import shutil
from pathlib import Path

import pytest

from tests.faults.conftest import Arguments
from tests.faults.trials import TRIALS, Server, contents, copy, differences, lasting

pytestmark = pytest.mark.slow
_random = random.Random(TRIALS)
KINDS = (
    "prepare-corpus/text-*/clean-*.txt", "prepare-corpus/text-*/sentences-*.json",
    "prepare-corpus/corpus-*/train-*.npy", "prepare-corpus/corpus-*/tokenizer.json",
    "prepare-corpus/corpus-*/manifest.json", "pretrain/*.json", "pretrain/*/log.jsonl", "pretrain/*/step4.json",
    "pretrain/*/step10/tensors.safetensors", "pretrain/*/step8/facts.json", "pretrain/*/step6/figure2.json",
    "pretrain/*/resume/*/tensors.safetensors", "finetune-glue/**/batch*.json",
)  # fmt: skip
"""One of each kind of file that an artifact directory contains."""


def alter(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "lost":
        path.unlink()
    elif how == "cut":
        path.write_bytes(data[: _random.randrange(len(data))])
    else:
        data[_random.randrange(len(data))] ^= 1 << _random.randrange(8)
        path.write_bytes(data)


def files_of(kind: str, root: Path) -> list[Path]:
    return sorted(path for path in root.glob(kind) if path.is_file())


WAYS = ("lost", "cut", "flipped")
DAMAGE = [(kind, way) for number, kind in enumerate(KINDS) for way in (WAYS if TRIALS != 1 else [WAYS[number % 3]])]


@pytest.mark.parametrize(("kind", "how"), DAMAGE)
def test_damage_is_seen_and_healed(
    kind: str, how: str, server: Server, arguments: Arguments, finished: dict[str, Path], tmp_path: Path
) -> None:
    root = copy(finished["report"], tmp_path / "artifacts")
    expected = contents(root)
    path = _random.choice(files_of(kind, root))
    alter(path, how)
    where = f"{how}: {path.relative_to(root)}"
    seen = server.run(arguments("verify", root), root)
    if not (how == "lost" and path.suffix == ".json" and seen.code == 0):  # nothing names a lost marker: it is redone
        assert seen.code == 4, f"{where}\n{seen.output}"
        assert path.relative_to(root).as_posix() in seen.output or path.parent.name in seen.output
        healed = server.run(arguments("verify", root, "--heal"), root)
        assert healed.code == 0, healed.output
    again = server.run(arguments("run", root), root)
    assert again.code == 0, f"{where}\n{again.output}"
    assert server.run(arguments("verify", root), root).code == 0
    assert not lasting(differences(contents(root), expected)), where


@pytest.mark.parametrize("what", ["pretrain/*/step6", "pretrain/*/step6.json", "pretrain/*/resume"])
def test_a_lost_milestone_is_trained_again(
    what: str, server: Server, arguments: Arguments, finished: dict[str, Path], tmp_path: Path
) -> None:
    root = copy(finished["report"], tmp_path / "artifacts")
    expected = contents(root)
    [path] = root.glob(what)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    done = server.run(arguments("run", root), root)
    assert done.code == 0, done.output
    assert not lasting(differences(contents(root), expected))
