"""Reading GLUE's official files: no row lost, and what is wrong is named with file and line."""

import tarfile
from pathlib import Path

import pytest

from mapnet_cli.errors import InputError
from mapnet_cli.finetune_glue.tasks import TASKS, read_examples
from tests.finetune_glue.glue_files import write, write_glue


@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_task_reads_its_layout(name: str, tmp_path: Path) -> None:
    task = TASKS[name]
    folder = write_glue(tmp_path) / name
    for file in (task.train, *task.dev.values()):
        examples = read_examples(folder, task, file)
        assert len(examples.texts) == len(examples.labels) == (12 if name == "MNLI" else 8)
        assert all(len(row) == len(task.texts) and all(row) for row in examples.texts)
        assert set(examples.labels) == ({1.0, 0.1} if task.regression else set(map(float, range(len(task.labels)))))


def test_quotes_and_na_are_text(tmp_path: Path) -> None:
    folder = write_glue(tmp_path)
    assert read_examples(folder / "CoLA", TASKS["CoLA"], "dev.tsv").texts[0] == ('He said "go.',)
    assert read_examples(folder / "SST-2", TASKS["SST-2"], "dev.tsv").texts[1] == ("dull , NA",)


def test_unicode_line_separators_do_not_end_a_row(tmp_path: Path) -> None:
    write(tmp_path / "dev.tsv", ["sentence\tlabel", "one\u2028two\x0cthree\t1"])
    assert read_examples(tmp_path, TASKS["SST-2"], "dev.tsv").texts == [("one\u2028two\x0cthree",)]


def test_byte_order_mark_and_windows_lines(tmp_path: Path) -> None:
    (tmp_path / "dev.tsv").write_bytes("\ufeffsentence\tlabel\r\ngood\t1\r\n".encode())
    assert read_examples(tmp_path, TASKS["SST-2"], "dev.tsv").texts == [("good",)]


@pytest.mark.parametrize(
    ("task", "lines", "message"),
    [
        ("RTE", ["index\tsentence1\tsentence2\tlabel", "0\ta\tb\tmaybe"], r"dev\.tsv:2: RTE's label .*'maybe'"),
        ("RTE", ["index\tsentence1\tsentence2\tlabel", "0\ta\tb\tentailment", "1\ta"], r"dev\.tsv:3: 2 fields"),
        ("RTE", ["index\tquestion\tsentence\tlabel", "0\ta\tb\tentailment"], "needs the columns sentence1, sentence2"),
        ("QQP", ["index\tsentence1\tsentence2\tscore", "0\ta\tb\t1"], "is it another task's file"),
        ("STS-B", ["sentence1\tsentence2\tscore", "a\tb\t6"], r"dev\.tsv:2: STS-B's score"),
        ("STS-B", ["sentence1\tsentence2\tscore", "a\tb\tnan"], r"dev\.tsv:2: STS-B's score"),
        ("CoLA", ["x\t2\t\tGo."], r"dev\.tsv:1: CoLA's label"),
        ("CoLA", ["sentence\tlabel", "Go.\t1"], r"dev\.tsv:1: 2 fields where the 4"),
        ("RTE", ["index\tsentence1\tsentence2\tlabel"], "has no rows"),
        ("RTE", [""], "line 1 has: nothing"),
    ],
)  # fmt: skip
def test_wrong_files_are_named(task: str, lines: list[str], message: str, tmp_path: Path) -> None:
    write(tmp_path / "dev.tsv", lines)
    with pytest.raises(InputError, match=message):
        read_examples(tmp_path, TASKS[task], "dev.tsv")


def test_missing_file_and_bad_utf8(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"dev\.tsv does not exist.*finetune\.data"):
        read_examples(tmp_path, TASKS["RTE"], "dev.tsv")
    (tmp_path / "dev.tsv").write_bytes(b"sentence\tlabel\nfine\t1\nb\xffd\t0\n")
    with pytest.raises(InputError, match=r"dev\.tsv:3: not UTF-8 \(byte 0xff\)"):
        read_examples(tmp_path, TASKS["SST-2"], "dev.tsv")


def test_qqp_broken_lines_are_counted(tmp_path: Path) -> None:
    header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate"
    write(tmp_path / "train.tsv", [header, "1\t1\t2\ta\tb\t1", "2\t3\t4\tbroken", "3\t5\t6\tc\td\t0"])
    examples = read_examples(tmp_path, TASKS["QQP"], "train.tsv")
    assert (len(examples.texts), examples.broken) == (2, 1)


@pytest.mark.parametrize("name", ["CoLA", "MRPC", "RTE", "STS-B"])
def test_real_files_have_the_official_counts(name: str, shared_data: Path, tmp_path: Path) -> None:
    task = TASKS[name]
    with tarfile.open(shared_data / "glue.tar.xz") as archive:
        wanted = {f"glue/{name}/{file}" for file in task.rows}
        archive.extractall(tmp_path, [m for m in archive.getmembers() if m.name in wanted], filter="data")
    for file, rows in task.rows.items():
        assert len(read_examples(tmp_path / "glue" / name, task, file).texts) == rows
