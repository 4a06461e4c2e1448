"""Artifacts: atomic publication, detection of damaged files, and stage locks."""

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from mapnet_cli.core.artifacts import Artifacts, Marker, publishing, write_json, write_text
from mapnet_cli.core.errors import DamagedError, LockedError, MissingResultError
from mapnet_cli.core.integrity import verify
from mapnet_cli.core.records import Row


def test_files_are_published_only_when_complete(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"

    def write(text: str, fail: bool) -> None:
        with publishing(path) as temporary:
            temporary.write_text(text)
            assert not path.exists() or path.read_text() == "old"
            if fail:
                raise RuntimeError

    with pytest.raises(RuntimeError):
        write("old", fail=True)
    assert list(path.parent.iterdir()) == []
    write("old", fail=False)
    with pytest.raises(RuntimeError):
        write("new", fail=True)
    assert path.read_text() == "old"
    write("new", fail=False)
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_folders_are_published_and_replaced_as_a_whole(tmp_path: Path) -> None:
    for text in ("one", "two"):
        with publishing(tmp_path / "folder") as temporary:
            temporary.mkdir()
            (temporary / text).write_text(text)
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["two"]


def test_markers_round_trip_and_detect_changes(artifacts: Artifacts) -> None:
    artifacts.publish(Marker("a/b", "f00", {"score": 81.48}))
    marker = artifacts.marker("a/b")
    assert marker is not None
    assert marker.result == {"score": 81.48}
    assert artifacts.marker("a/c") is None
    path = artifacts.path("a/b.json")
    path.write_text(path.read_text().replace("81.48", "91.48"))
    with pytest.raises(DamagedError, match="checksum"):
        artifacts.marker("a/b")
    path.write_text(path.read_text()[:40])
    with pytest.raises(DamagedError, match="damaged"):
        artifacts.marker("a/b")


def test_every_altered_byte_of_a_marker_is_detected(artifacts: Artifacts) -> None:
    written = Marker("a/b", "f00", {"score": 81.48, "of": ["caf\u00e9", "\udcff"]}, {"a/file": "00"}, 1.5, {"x": "1"})
    artifacts.publish(written)
    assert artifacts.marker("a/b") == written
    path = artifacts.path("a/b.json")
    data = path.read_bytes()
    for at in range(len(data) - 3):  # the last ones are the braces and white space after the checksum
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(DamagedError, match=r"a/b\.json is damaged"):
            artifacts.marker("a/b")


def test_verify_detects_truncated_and_missing_files(artifacts: Artifacts) -> None:
    path = artifacts.path("a/file")
    write_text(path, "content")
    artifacts.publish(Marker("a/b", "f00", {}, artifacts.checksums([path])))
    artifacts.verify("a/b")
    path.write_text("conten")
    with pytest.raises(DamagedError, match="damaged"):
        artifacts.verify("a/b")
    path.unlink()
    with pytest.raises(DamagedError, match="missing"):
        artifacts.verify("a/b")
    with pytest.raises(MissingResultError, match="does not exist yet"):
        artifacts.verify("a/c")


def test_the_walk_sees_every_flipped_bit_of_a_result(artifacts: Artifacts) -> None:
    file, marker = artifacts.path("pretrain/a/file"), artifacts.path("pretrain/a.json")
    write_text(file, "content")
    artifacts.publish(Marker("pretrain/a", "f00", {"score": 1.5}, artifacts.checksums([file])))
    data = marker.read_bytes()
    assert not verify(artifacts).damaged
    for at, bit in product(range(len(data)), range(8)):
        marker.write_bytes(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])
        assert [damage.path for damage in verify(artifacts).damaged] == ["pretrain/a.json"]


def test_verify_checks_only_the_given_file(artifacts: Artifacts) -> None:
    paths = [artifacts.path("a/one"), artifacts.path("a/two")]
    for path in paths:
        write_text(path, path.name)
    artifacts.publish(Marker("a/b", "f00", {}, artifacts.checksums(paths)))
    paths[0].write_text("other")
    artifacts.verify("a/b", only="a/two")
    with pytest.raises(DamagedError, match="one is damaged"):
        artifacts.verify("a/b", only="a/one")


class Score(Row):
    score: float


class Name(Row):
    name: str


def test_results_are_read_as_typed_rows(artifacts: Artifacts) -> None:
    artifacts.publish(Marker("pretrain/b", "f00", Score(score=81.48).to_json()))
    assert artifacts.read("pretrain/b", Score) == artifacts.find("pretrain/b", Score) == Score(score=81.48)
    assert artifacts.require("pretrain/b").row(Score) == Score(score=81.48)
    with pytest.raises(DamagedError, match=r"pretrain/b\.json is not a valid Name in this version of mapnet"):
        artifacts.find("pretrain/b", Name)


def test_missing_results_name_the_command_to_run(artifacts: Artifacts) -> None:
    assert artifacts.find("pretrain/c", Score) is None
    with pytest.raises(MissingResultError, match=r"pretrain/c does not exist yet: run `mapnet pretrain` with the same"):
        artifacts.read("pretrain/c", Score)
    with pytest.raises(MissingResultError, match="run `mapnet import-hf`"):
        artifacts.require("import/c")


def test_a_stage_is_locked_by_one_process(artifacts: Artifacts) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom mapnet_cli.core.artifacts import Artifacts\n"
        f"with Artifacts(Path({str(artifacts.root)!r})).lock('pretrain'):\n"
        "    print('held', flush=True)\n    sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(LockedError, match="is running pretrain"), artifacts.lock("pretrain"):
            pass
        with artifacts.lock("finetune-glue"):
            pass
        other.kill()
    with artifacts.lock("pretrain"):  # a killed process releases its lock
        pass


def test_locking_removes_files_left_by_a_killed_process(artifacts: Artifacts) -> None:
    left = artifacts.path("pretrain/x/.tmp-1234-step")
    left.mkdir(parents=True)
    (left / "half").write_text("half")
    other = artifacts.path("finetune-glue/.tmp-1234-run.json")
    write_text(other.parent / "keep", "")
    other.write_text("{")
    first, second = (artifacts.path(f"{folder}.tmp-1234-x.json") for folder in ("", "configs/"))
    for path in (first, second):
        write_text(path, "{")
    with artifacts.lock("pretrain"):
        assert not left.exists()
        assert other.exists() and first.exists() and second.exists()
    for path in (first, second):
        os.utime(path, (1, 1))
    with artifacts.lock("pretrain"):
        assert not first.exists() and not second.exists()


def test_json_files_contain_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []
    write_json(tmp_path / "x.json", {"text": "é"})
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == {"text": "é"}
