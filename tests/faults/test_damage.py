"""Files that were lost, cut or altered: seen by `verify`, never in a score, and made again by what messages advise."""

import random
import re
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from mapnet_cli.core import Artifacts
from tests.faults.conftest import Arguments, Finished
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
DAMAGE = [(kind, way) for kind in KINDS for way in WAYS][4::5] if TRIALS == 1 else [*product(KINDS, WAYS)]
LOST = ("pretrain/*/step6", "pretrain/*/step6.json", "pretrain/*/resume")[: 1 if TRIALS == 1 else 3]


@pytest.mark.parametrize(("kind", "how"), DAMAGE)
def test_damage_is_seen_and_healed(
    kind: str, how: str, server: Server, arguments: Arguments, finished: Finished, tmp_path: Path
) -> None:
    """What `verify` says is done; the result is that of an undisturbed run."""
    done, _ = finished("finetune-glue")
    expected = contents(done)
    for _ in range(max(1, TRIALS)):
        root = copy(done, tmp_path / "artifacts")
        path = _random.choice(files_of(kind, root))
        alter(path, how)
        name = path.relative_to(root).as_posix()
        seen = server.run(arguments("verify", root), root)
        commands = re.findall(r"made again by mapnet (\S+)", seen.output)
        if how == "lost" and path.suffix == ".json" and not commands:  # nothing names a lost marker: it is made again
            commands = [name.partition("/")[0]]
        else:
            assert seen.code == 4, f"{how}: {name}\n{seen.output}"
            assert name in seen.output or path.parent.name in seen.output
            healed = server.run(arguments("verify", root, "--heal"), root)
            assert healed.code == 0, healed.output
        for command in dict.fromkeys(commands):
            again = server.run(arguments(command, root), root)
            assert again.code == 0, f"{how}: {name}\n{again.output}"
        assert server.run(arguments("verify", root), root).code == 0
        assert not lasting(differences(contents(root), expected)), f"{how}: {name}"


@pytest.mark.parametrize("what", LOST)
def test_a_lost_milestone_is_trained_again(
    what: str, server: Server, arguments: Arguments, finished: Finished, tmp_path: Path
) -> None:
    done, _ = finished("pretrain")
    root = copy(done, tmp_path / "artifacts")
    [path] = root.glob(what)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    again = server.run(arguments("pretrain", root), root)
    assert again.code == 0, again.output
    assert not lasting(differences(contents(root), contents(done)))


@pytest.mark.parametrize("what", ["a record of another version", "sentences of Figure 2"])
def test_run_does_not_succeed_with_a_partial_report(
    what: str, server: Server, arguments: Arguments, finished: Finished, tmp_path: Path
) -> None:
    """Neither makes a stage run again: the record has its fingerprint, and only reports read the sentences."""
    done, _ = finished("finetune-glue")
    root = copy(done, tmp_path / "artifacts")
    [path] = root.glob("pretrain/*/step10.json")
    if what == "sentences of Figure 2":
        (path.with_suffix("") / "figure2.json").write_text("{}")
        expected = "error: the report is partial"
    else:
        artifacts = Artifacts(root)
        marker = artifacts.require(path.relative_to(root).with_suffix("").as_posix())
        artifacts.publish(replace(marker, result={"unknown": 1}))
        expected = "step10.json is not a valid Checkpoint in this version of mapnet"
    run = server.run(arguments("run", root), root)
    assert run.code == 4 and expected in run.output, run.output
    forced = server.run(arguments("pretrain", root, "--force"), root)
    assert forced.code == 0, forced.output
    # `run` also noted the settings of a stage that `done` hasn't run
    assert lasting(differences(contents(root), contents(done))) in ([], ["configs/mine.json"])
