"""Errors of the operating system: which path, why, and what to do; exit code 3 for input, 1 for output."""

import errno
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors import SafetensorError

from mapnet_cli.core import ArtifactId, Artifacts, InputError, MapnetError, publishing, reading_input, system_error
from mapnet_cli.jobs import Job, Output, ProgressCallback
from mapnet_cli.jobs.engine import attempt
from tests.conftest import NOBODY, unprivileged


def locked_file(folder: Path) -> None:
    file = folder / "a"
    file.write_text("text")
    file.chmod(0)
    file.read_bytes()


def locked_folder(folder: Path) -> None:
    (folder / "a").mkdir(mode=0)
    list((folder / "a").iterdir())


def file_in_a_locked_folder(folder: Path) -> None:
    (folder / "a").mkdir()
    (folder / "a" / "b").write_text("text")
    (folder / "a").chmod(0)
    (folder / "a" / "b").read_bytes()


def link_to_itself(folder: Path) -> None:
    (folder / "a").symlink_to(folder / "a")
    (folder / "a").read_bytes()


def file_as_folder(folder: Path) -> None:
    (folder / "a").write_text("text")
    (folder / "a" / "b").read_bytes()


def read_only_file(folder: Path) -> None:
    (folder / "a").write_text("text")
    (folder / "a").chmod(0o444)
    (folder / "a").write_text("more")


def read_only_folder(folder: Path) -> None:
    (folder / "a").mkdir(mode=0o555)
    (folder / "a" / "b").write_text("text")


def lock_in_a_read_only_folder(folder: Path) -> None:
    (folder / "a").mkdir(mode=0o555)
    with Artifacts(folder / "a").lock("pretrain"):
        pass


def full_disk(folder: Path) -> None:
    Path("/dev/full").write_bytes(b"text")


READS: list[tuple[Callable[[Path], object], str]] = [
    (locked_file, "a: Permission denied: allow this user to read it"),
    (locked_folder, "a: Permission denied: allow this user to read it"),
    (file_in_a_locked_folder, "b: Permission denied: allow this user to read it"),
    (lambda folder: folder.read_bytes(), "Is a directory: a file is expected here"),
    (lambda folder: (folder / "gone").read_bytes(), "gone: No such file or directory: restore it"),
    (link_to_itself, "a: Too many levels of symbolic links: remove the link"),
    (file_as_folder, "b: Not a directory: a folder is expected here"),
    (lambda folder: (folder / ("x" * 300)).read_bytes(), "x: File name too long: use a shorter path"),
]
WRITES: list[tuple[Callable[[Path], object], str]] = [
    (read_only_file, "a: Permission denied: allow this user to write it"),
    (read_only_folder, "b: Permission denied: allow this user to write it"),
    (lock_in_a_read_only_folder, ".lock-pretrain: Permission denied: allow this user to write it"),
]
if Path("/dev/full").exists():
    WRITES.append((full_disk, "make room on the disk, or choose another --artifacts folder"))


def failure(act: Callable[[Path], object], folder: Path) -> OSError:
    if os.getuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
    with unprivileged(), pytest.raises(OSError) as caught:
        act(folder)
    return caught.value


@pytest.mark.parametrize(("act", "message"), READS)
def test_input_that_cannot_be_read(act: Callable[[Path], object], message: str, public_folder: Path) -> None:
    error = failure(act, public_folder)
    with unprivileged():
        found = system_error(error, public_folder / "artifacts", "corpus.sources.0")
        inside = system_error(error, public_folder)
    assert (type(found), found.exit_code) == (InputError, 3)
    assert str(found).startswith(f"corpus.sources.0: {public_folder}")
    assert message in str(found)
    assert (type(inside), message in str(inside)) == (MapnetError, True), "a file of mapnet's own"


@pytest.mark.parametrize(("act", "message"), WRITES)
def test_output_that_cannot_be_written(act: Callable[[Path], object], message: str, public_folder: Path) -> None:
    error = failure(act, public_folder)
    with unprivileged():
        found = system_error(error)
    assert (type(found), found.exit_code) == (MapnetError, 1)
    assert message in str(found)


def test_an_error_names_its_input_once() -> None:
    for error, message in (
        (FileNotFoundError(errno.ENOENT, "", "/a/b"), "s: /a/b: No such file or directory"),
        (OSError("of a library"), "s: of a library"),
        (InputError("s: wrong"), "s: wrong"),
        (InputError("wrong"), "s: wrong"),
    ):
        with pytest.raises(InputError) as caught, reading_input("s"):
            raise error
        assert str(caught.value).startswith(message)


@dataclass(frozen=True, kw_only=True)
class Fill(Job):
    """A job that writes to a full disk."""

    def run(self, artifacts: Artifacts, progress: ProgressCallback) -> Output:
        with Path("/dev/full").open("wb") as handle:
            handle.write(b"text")
        return Output()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        Exception("No space left on device (os error 28)"),  # of tokenizers
        OSError("1000 requested and 480 written"),  # of NumPy
    ],
)
def test_a_full_disk_as_libraries_report_it(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught, publishing(tmp_path / "a", 5_000_000) as temporary:
        temporary.write_bytes(b"half")
        raise error
    assert re.match(
        rf"{tmp_path}/a: No space left on device: 5.0 MB needed: .+ free: make", str(system_error(caught.value))
    )
    assert not list(tmp_path.iterdir()), "nothing half-written"


# Only this device fails with a real ENOSPC without filling a disk; macOS has none. CI runs on Linux.
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_job_on_a_full_disk(tmp_path: Path) -> None:
    found = attempt(Fill(artifact=ArtifactId("a/b", "")), Artifacts(tmp_path), lambda progress: None)
    advice = "make room on the disk, or choose another --artifacts folder"
    assert re.fullmatch(rf"a/b: No space left on device: [\d.]+ .?B free: {advice}", str(found))


def test_an_error_without_a_path_names_the_artifact_directory(tmp_path: Path) -> None:
    """A full disk: Python knows the path only when it opens a file."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert str(system_error(full, tmp_path)).startswith(f"in {tmp_path}: No space left on device: ")
    assert str(system_error(full, tmp_path, "pretrain/x")).startswith("pretrain/x: No space left on device: ")
