"""Minimal pairs are read from every format and container, and no invalid row is dropped."""

import json
import tarfile
import zipfile
from pathlib import Path

import pytest

from mapnet_cli.core.errors import InputError
from mapnet_cli.minimal_pairs.readers import Paradigm, read_paradigms

BLIMP = [
    {"sentence_good": f"Good {n}.", "sentence_bad": f"Bad {n}.", "UID": "gaps", "linguistics_term": "islands",
     "field": "syntax"} for n in range(5)
]  # fmt: skip
ZORRO = "a bad one .\na good one .\nbad two .\ngood two .\n"
PAIRS = {n: (f"Good {n}.", f"Bad {n}.") for n in range(5)}


def write(folder: Path) -> Path:
    """Writes a folder with a paradigm of each kind, and files that have no pairs."""
    (folder / "deep").mkdir(parents=True)
    (folder / "gaps.jsonl").write_text("\ufeff" + "".join(f"{json.dumps(row)}\n" for row in BLIMP), encoding="utf-8")
    (folder / "deep" / "filler-gap-wh_question.txt").write_text(ZORRO)
    (folder / "mine.tsv").write_text('good\tbad\r\nIt "is" so.\tIt "are" so.\r\n')
    for name in ("README.txt", "LICENSE", ".hidden.txt", "notes.md"):
        (folder / name).write_text("one line\n")
    return folder


EXPECTED = [
    Paradigm(
        "filler-gap-wh_question", "filler-gap", "", {0: ("a good one .", "a bad one ."), 1: ("good two .", "bad two .")}
    ),
    Paradigm("gaps", "islands", "syntax", PAIRS),
    Paradigm("mine", "", "", {0: ('It "is" so.', 'It "are" so.')}),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["folder", "tar.xz", "tar.gz", "zip"])
def test_a_folder_and_an_archive_of_it_have_the_same_pairs(kind: str, tmp_path: Path) -> None:
    path = folder = write(tmp_path / "data")
    if kind == "zip":
        path = tmp_path / "data.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in folder.rglob("*"):
                archive.write(file, file.relative_to(tmp_path))
    elif kind != "folder":
        path = tmp_path / f"data.{kind}"
        with tarfile.open(path, f"w:{kind[-2:]}") as tar:
            tar.add(folder, "./data")
    assert read_paradigms(path) == EXPECTED


def test_a_single_file(tmp_path: Path) -> None:
    write(tmp_path / "data")
    assert read_paradigms(tmp_path / "data" / "mine.tsv") == EXPECTED[2:]
    assert read_paradigms(tmp_path / "data" / "gaps.jsonl") == EXPECTED[1:2]
    (tmp_path / "mine.csv").write_text('good,bad\n"It ""is"" so.","It ""are"" so."\n')
    assert read_paradigms(tmp_path / "mine.csv") == EXPECTED[2:]


def test_a_subset_is_always_the_same_and_keeps_the_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "data") / "gaps.jsonl"
    (chosen,) = read_paradigms(path, 3)
    assert read_paradigms(path, 3) == [chosen]
    assert len(chosen.pairs) == 3 and chosen.pairs.items() <= PAIRS.items()
    assert list(chosen.pairs) != [0, 1, 2], "not just the first ones"
    assert read_paradigms(path, 9)[0].pairs == PAIRS


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"sentence_good": "x"}\n', r"a\.jsonl:1: 'sentence_bad' or 'bad' is missing"),
        ("a.jsonl", b'{"good": "x", "bad": "y"}\n{"good": 1, "bad": "y"}', r"a\.jsonl:2: "),
        ("a.jsonl", b'{"good": "x", "bad": " "}', "must be a sentence, not ' '"),
        ("a.jsonl", b"{\n", r"a\.jsonl:1: not JSON"),
        ("a.jsonl", b"[1]\n", r"a\.jsonl:1: not a JSON object"),
        ("a.tsv", b"good\tbad\nx\n", r"a\.tsv:2: 1 fields, but there are 2 columns"),
        ("a.csv", b"good,bad\n", r"a\.csv has no minimal pairs$"),
        ("a.tsv", b"x\ty\nx\ty\n", "'sentence_good' or 'good' is missing; there are x, y"),
        ("a.txt", b"one\ntwo\nthree\n", "3 lines, but pairs take an even number"),
        ("a.txt", b"\xff\xfe\n", r"a\.txt:1: not UTF-8"),
        ("a.tar.xz", b"\xfd7zXZ\x00 cut off", r"a\.tar\.xz can't be read"),
        ("a.doc", b"text", r"a\.doc is neither an archive nor one of \.txt, "),
    ],
)  # fmt: skip
def test_invalid_data_is_refused_with_its_location(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_paradigms(tmp_path / name)


def test_a_folder_without_pairs_and_a_truncated_archive_are_refused(tmp_path: Path) -> None:
    (tmp_path / "README.txt").write_text("nothing")
    with pytest.raises(InputError, match=r"no minimal pairs: expected \.txt"):
        read_paradigms(tmp_path)
    write(tmp_path / "data")
    with tarfile.open(tmp_path / "data.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "data", "data")
    (tmp_path / "cut.tar.gz").write_bytes((tmp_path / "data.tar.gz").read_bytes()[:-60])
    with pytest.raises(InputError, match="can't be read"):
        read_paradigms(tmp_path / "cut.tar.gz")


def test_real_blimp_and_zorro(shared_data: Path) -> None:
    blimp, zorro = (read_paradigms(shared_data / f"{name}.tar.xz") for name in ("blimp", "zorro"))
    assert {len(paradigm.pairs) for paradigm in blimp} == {1_000} and len(blimp) == 67
    assert {len(paradigm.pairs) for paradigm in zorro} == {2_000} and len(zorro) == 23
    assert len({paradigm.phenomenon for paradigm in blimp}) == 13  # the paper's 12, and s-selection
    assert {"filler-gap", "island-effects", "irregular"} < {paradigm.phenomenon for paradigm in zorro}
    by_name = {paradigm.name: paradigm for paradigm in (*blimp, *zorro)}
    assert by_name["anaphor_gender_agreement"].pairs[0] == (
        "Katherine can't help herself.",
        "Katherine can't help himself.",
    )
    assert by_name["case-subjective_pronoun"].pairs[0][0] == "i brought the wolf my hill ."
