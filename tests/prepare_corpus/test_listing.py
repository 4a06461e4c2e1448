"""Listing the input: nothing is left out without an error or a problem, and own output is never input."""

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mapnet_cli.config import Source
from mapnet_cli.core import Artifacts, InputError, MapnetError, UsageError
from mapnet_cli.lineage import list_input
from mapnet_cli.prepare_corpus.slices import input_slices
from tests.conftest import unprivileged
from tests.prepare_corpus.corpora import corpus_config, plan, stage, text_folder


def dangling_link(root: Path) -> None:
    (root / "a" / "link.txt").symlink_to("gone.txt")


def dangling_folder(root: Path) -> None:
    (root / "a" / "more").symlink_to("gone/")


def unreadable_folder(root: Path) -> None:
    (root / "a" / "closed").mkdir(mode=0)


def unreadable_file(root: Path) -> None:
    (root / "a" / "closed.txt").write_text("text")
    (root / "a" / "closed.txt").chmod(0)


def link_loop(root: Path) -> None:
    (root / "a" / "loop.txt").symlink_to("loop.txt")


def pipe(root: Path) -> None:
    os.mkfifo(root / "a" / "pipe.txt")


def unix_socket(root: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(root / "a" / "s.txt"))  # paths of sockets have at most 108 bytes


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (dangling_link, r"a/link\.txt: No such file or directory: restore it, .* remove the link"),
        (dangling_folder, r"a/more: No such file or directory"),
        (unreadable_folder, r"a/closed: Permission denied: allow this user to read it"),
        (unreadable_file, r"a/closed\.txt: Permission denied: allow this user to read it"),
        (link_loop, r"a/loop\.txt: Too many levels of symbolic links"),
        (pipe, r"a/pipe\.txt is neither a file nor a folder: remove it"),
        (unix_socket, r"a/s\.txt is neither a file nor a folder: remove it"),
    ],
)
def test_what_cannot_be_read_is_an_error(spoil: Callable[[Path], None], message: str, public_folder: Path) -> None:
    (public_folder / "a").mkdir()
    (public_folder / "a" / "good.txt").write_text("text")
    spoil(public_folder)
    config = corpus_config(Source(path=str(public_folder)))
    with unprivileged(), pytest.raises(InputError, match=rf"^corpus\.sources\.0: .*{message}"):
        plan(config, Artifacts(public_folder / "artifacts"), 1)


def test_a_name_that_vanishes_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text_folder(tmp_path / "text", files=3)
    (tmp_path / "text" / "part0" / "link").symlink_to("00.txt")
    listed = os.scandir

    def scandir(path: str) -> "os._ScandirIterator[str]":  # the file disappears after its folder was listed
        found = listed(path)
        (tmp_path / "text" / "part0" / "00.txt").unlink(missing_ok=True)
        return found

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(InputError, match=r"^corpus\.sources\.0: .*part0/.*: No such file or directory"):
        input_slices(corpus_config(Source(path=str(tmp_path / "text"))))


def notes_of(source: Source) -> tuple[str, ...]:
    return input_slices(corpus_config(source))[0].notes


def test_hidden_files_are_skipped_and_named(tmp_path: Path) -> None:
    text_folder(tmp_path / "text", files=2)
    for name in (".DS_Store", ".git/config"):
        (tmp_path / "text" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "text" / name).write_text("x")
    assert notes_of(Source(path=str(tmp_path / "text"))) == (
        "corpus.sources.0: skipped 2 hidden files and folders: .DS_Store, .git",
    )


@pytest.mark.parametrize("mark", [".lock-prepare-corpus", ".lock-report", "prepare-corpus/", "finetune-glue/"])
def test_artifact_directories_are_no_input(mark: str, tmp_path: Path) -> None:
    text_folder(tmp_path / "text", files=2)
    before = Artifacts(tmp_path / "elsewhere"), corpus_config(Source(path=str(tmp_path / "text")))
    known = stage(before[1], before[0]).lineage.text.fingerprint
    made = tmp_path / "text" / "part0" / "art"
    (made / mark).mkdir(parents=True) if mark.endswith("/") else made.mkdir()
    (made / mark.rstrip("/")).touch()
    (made / "text.txt").write_text("mapnet's own")
    source = Source(path=str(tmp_path / "text"))
    assert [piece.path.name for part in input_slices(corpus_config(source)) for piece in part.pieces] == [
        "00.txt", "01.txt",
    ]  # fmt: skip
    assert notes_of(source) == ("corpus.sources.0: skipped 1 artifact directories of mapnet: part0/art",)
    assert stage(before[1], before[0]).lineage.text.fingerprint == known
    with pytest.raises(InputError, match=r"^corpus\.sources\.0: .*part0/art is an artifact directory of mapnet"):
        plan(corpus_config(Source(path=str(made))), Artifacts(tmp_path / "elsewhere"), 1)


@pytest.mark.parametrize("inside", ["prepare-corpus", "prepare-corpus/text-1", "report/x"])
def test_parts_of_an_artifact_directory_are_no_input(inside: str, tmp_path: Path) -> None:
    text_folder(tmp_path / "text", files=2)
    part = tmp_path / "art" / inside
    part.mkdir(parents=True)
    (tmp_path / "art" / "prepare-corpus").mkdir(exist_ok=True)
    (part / "clean.txt").write_text("mapnet's own")
    (tmp_path / "text" / "more").symlink_to(part)
    assert notes_of(Source(path=str(tmp_path / "text"))) == (
        "corpus.sources.0: skipped 1 artifact directories of mapnet: more",
    )
    with pytest.raises(InputError, match=r"^corpus\.sources\.0: .* is an artifact directory of mapnet"):
        plan(corpus_config(Source(path=str(part))), Artifacts(tmp_path / "elsewhere"), 1)
    (tmp_path / "report").mkdir()
    text_folder(tmp_path / "report", files=2)  # a folder of this name elsewhere is text
    assert len(input_slices(corpus_config(Source(path=str(tmp_path / "report"))))) == 2


def test_links_to_a_parent_folder_are_named(tmp_path: Path) -> None:
    text_folder(tmp_path / "text", files=2)
    (tmp_path / "text" / "part0" / "back").symlink_to("..")
    assert notes_of(Source(path=str(tmp_path / "text"))) == (
        "corpus.sources.0: skipped 1 links to a parent folder: part0/back",
    )


def test_a_result_that_cannot_be_written_is_no_fault_of_the_source(public_folder: Path) -> None:
    text_folder(public_folder / "text", files=2)
    (public_folder / "art").mkdir(mode=0o555)
    config = corpus_config(Source(path=str(public_folder / "text")))
    with unprivileged(), pytest.raises(MapnetError, match=r"^\S*/art/\S*: Permission denied: allow .* write") as caught:
        plan(config, Artifacts(public_folder / "art"), 1)
    assert caught.value.exit_code == 1


def test_an_artifact_directory_among_the_text_is_refused(tmp_path: Path) -> None:
    text = text_folder(tmp_path / "text", files=2)
    (tmp_path / "link").symlink_to(text)
    for root in (text, text / "part0", tmp_path / "link" / "part1"):
        with pytest.raises(UsageError, match=r"is in s \(.*\) and has other files \(.*\): .* choose another folder"):
            Artifacts(root).refuse_text("s", text)
    for root in (tmp_path, text / "new", tmp_path / "gone"):
        Artifacts(root).refuse_text("s", text)
    (text / "made").mkdir()
    Artifacts(text / "made").refuse_text("s", text)
    with Artifacts(text / "made").lock("pretrain"):
        pass
    Artifacts(text / "made").refuse_text("s", text)
    Artifacts(text).refuse_text("s", text / "part0" / "00.txt")


def test_listing_takes_time_linear_in_the_files(tmp_path: Path) -> None:
    """Counted in Python function calls, which don't depend on the machine."""

    def calls(files: int) -> int:
        root = tmp_path / str(files)
        for number in range(files):
            (root / f"{number % 7}").mkdir(parents=True, exist_ok=True)
            (root / f"{number % 7}" / f"{number}.txt").write_text("text")
        config, count = corpus_config(Source(path=str(root)), slice_mb=8.0), 0

        def counted(frame: object, event: str, argument: object) -> None:
            nonlocal count
            count += event in ("call", "c_call")

        made = stage(config, Artifacts(tmp_path / "artifacts"))
        assert made.lineage.text.fingerprint  # hashes the files
        made = stage(config, Artifacts(tmp_path / "artifacts"))
        sys.setprofile(counted)
        try:
            made.plan(1)
            made.progress()
        finally:
            sys.setprofile(None)
        return count

    first, second = calls(500), calls(1000)
    assert second - first < 90 * 500
    assert len(list_input(tmp_path / "1000").files) == 1000
