"""Reading GLUE from all supported formats: no row is lost, and errors name file and line."""

import gzip
import json
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from mapnet_cli.config import Config
from mapnet_cli.core import table_files, user_files
from mapnet_cli.core.errors import InputError
from mapnet_cli.finetune_glue.examples import check_count, read_examples
from mapnet_cli.glue.grid import TRAINED
from mapnet_cli.glue.tasks import TASKS, is_test_file, task_location
from tests.conftest import small_config
from tests.finetune_glue.glue_files import write, write_glue

RTE = "index\tsentence1\tsentence2\tlabel"


def labelled(name: str) -> list[str]:
    return [split for split in TASKS[name].splits if not split.startswith("test")]


def at(folder: Path, *more: str) -> Config:
    return small_config(f"finetune.data={folder}", *more)


@pytest.mark.parametrize("name", TRAINED)
def test_every_task_reads_its_layout(name: str, tmp_path: Path) -> None:
    task = TASKS[name]
    folder = write_glue(tmp_path) / name
    for split in labelled(name):
        examples = read_examples(folder, task, split)
        assert len(examples.texts) == len(examples.labels) == (12 if name == "MNLI" else 8)
        assert all(len(row) == len(task.texts) and all(row) for row in examples.texts)
        assert set(examples.labels) == ({1.0, 0.1} if task.regression else set(map(float, range(len(task.labels)))))


@pytest.mark.parametrize("name", TRAINED)
def test_zip_jsonl_and_saved_data_sets_give_the_rows_of_the_official_folder(name: str, tmp_path: Path) -> None:
    import datasets

    task = TASKS[name]
    folder = write_glue(tmp_path / "glue") / name
    archive = {"QNLI": "QNLIv2", "QQP": "QQP-clean"}.get(name, name)
    (tmp_path / "zips").mkdir()
    with zipfile.ZipFile(tmp_path / "zips" / f"{archive}.zip", "w") as out:
        out.writestr(f"{archive}/original/train.tsv", "not this one")
        for file in folder.iterdir():
            out.write(file, f"{archive}/{file.name}")
    saved = {}
    for split in labelled(name):
        examples = read_examples(folder, task, split)
        names = (
            [None if task.regression else task.labels[int(label)] for label in examples.labels]
            if split == "dev"
            else [int(label) for label in examples.labels]  # ids are in the Hub's order
        )
        values = [5 * label for label in examples.labels] if task.regression else names
        rows = [
            dict(zip(task.hub_texts, texts, strict=True)) | {"label": value, "idx": number}
            for number, (texts, value) in enumerate(zip(examples.texts, values, strict=True))
        ]
        file = f"{task.hub}.{task.splits[split].names[-1]}.jsonl"
        write(tmp_path / "jsonl" / file, [json.dumps(row) for row in rows])
        table = datasets.Dataset.from_list([{k: v for k, v in row.items() if k != "label"} for row in rows])
        if task.regression:
            saved[task.splits[split].hub] = table.add_column("label", values)
        else:
            ids = [task.labels[::-1].index(task.labels[int(label)]) for label in examples.labels]
            saved[task.splits[split].hub] = table.add_column("label", ids).cast_column(
                "label", datasets.ClassLabel(names=list(task.labels[::-1]))
            )  # class ids may be in any order if the data set names its classes
    datasets.DatasetDict(saved).save_to_disk(str(tmp_path / "saved" / task.hub))
    for split in labelled(name):
        official = read_examples(folder, task, split)
        for place in ("zips", "jsonl", "saved"):
            found = read_examples(task_location(at(tmp_path / place), name), task, split)
            assert (found.texts, found.labels) == (official.texts, official.labels), place


def test_all_parts_of_a_downloaded_hub_repository_are_read(tmp_path: Path) -> None:
    import datasets

    rows = [{"sentence1": f"a {n}", "sentence2": "b", "label": n % 2, "idx": n} for n in range(4)]
    (tmp_path / "rte").mkdir()
    for part in (0, 1):
        table = datasets.Dataset.from_list(rows[2 * part : 2 * part + 2])
        table.to_parquet(str(tmp_path / f"rte/validation-0000{part}-of-00002.parquet"))
    found = read_examples(task_location(at(tmp_path), "RTE"), TASKS["RTE"], "dev")
    assert [texts[0] for texts in found.texts] == ["a 0", "a 1", "a 2", "a 3"]
    assert found.labels == [0.0, 1.0, 0.0, 1.0]
    (tmp_path / "rte/validation-00001-of-00002.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(InputError, match=r"00001-of-00002\.parquet is not a readable Parquet file"):
        read_examples(tmp_path / "rte", TASKS["RTE"], "dev")


def test_zip_of_several_tasks_is_an_error(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "RTE.zip", "w") as out:
        for name in ("RTE", "STS-B"):
            out.writestr(f"{name}/dev.tsv", f"{RTE}\n0\ta\tb\tentailment\n")
    with pytest.raises(InputError, match="contains several tasks"):
        read_examples(tmp_path / "RTE.zip", TASKS["RTE"], "dev")


def test_one_task_may_lie_elsewhere(tmp_path: Path) -> None:
    write_glue(tmp_path / "glue")
    (tmp_path / "glue" / "RTE").rename(tmp_path / "other")
    config = at(tmp_path / "glue", f"finetune.task_data.RTE={tmp_path / 'other'}")
    assert task_location(config, "RTE") == tmp_path / "other"
    assert task_location(config, "CoLA") == tmp_path / "glue" / "CoLA"
    with pytest.raises(InputError, match=r"has no folder or zip file for RTE; .*task_data\.RTE"):
        task_location(at(tmp_path / "glue"), "RTE")
    with pytest.raises(InputError, match=r"finetune\.task_data\.RTE: .*nowhere does not exist"):
        task_location(at(tmp_path / "glue", f"finetune.task_data.RTE={tmp_path / 'nowhere'}"), "RTE")
    (tmp_path / "glue" / "cola").mkdir()
    with pytest.raises(InputError, match="has CoLA twice, CoLA and cola"):
        task_location(config, "CoLA")


def test_cola_test_file_has_a_header_unlike_train_and_dev(tmp_path: Path) -> None:
    write(tmp_path / "test.tsv", ["index\tsentence", "0\tGo."])
    assert read_examples(tmp_path, TASKS["CoLA"], "test", labelled=False).texts == [("Go.",)]


@pytest.mark.parametrize(
    ("task", "lines", "message"),
    [
        ("RTE", [RTE, "0\ta\tb\tmaybe"], r"dev\.tsv:2: RTE's label .*'maybe'"),
        ("RTE", [RTE, "0\ta\tb\tentailment", "1\ta"], r"dev\.tsv:3: 2 fields"),
        ("RTE", [RTE, "0\ta\tb\tentailment", "", "1\ta\tb\tentailment"], r"dev\.tsv:3: a blank line before"),
        ("RTE", ["sentence1\tsentence2\tlabel\tlabel", "a\tb\tentailment\t1"], r"dev\.tsv:1: two columns have"),
        ("QQP", ["index\tsentence1\tsentence2\tscore", "0\ta\tb\t1"], r"dev\.tsv: QQP needs .*a file of STS-B"),
        ("QQP", ["a\tb", "c\td"], "is this another task's file"),
        ("STS-B", ["sentence1\tsentence2\tscore", "a\tb\tnan"], r"dev\.tsv:2: STS-B's score"),
        ("CoLA", ["x\t2\t\tGo."], r"dev\.tsv:1: CoLA's label"),
        ("CoLA", ["x\t1"], r"dev\.tsv:1: 2 fields, but there are 4 columns"),
        ("RTE", [RTE], "has no rows"),
        ("RTE", [""], "has no rows"),
    ],
)  # fmt: skip
def test_errors_in_tsv_files_name_file_and_line(task: str, lines: list[str], message: str, tmp_path: Path) -> None:
    write(tmp_path / "dev.tsv", lines)
    with pytest.raises(InputError, match=message):
        read_examples(tmp_path, TASKS[task], "dev")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"sentence1": "a", "sentence2": "b", "label": true}', r"dev\.jsonl:2: RTE's label .* not True"),
        ('{"sentence1": "a", "sentence2": "b"}', r"dev\.jsonl:2: RTE's label .* not None"),
        ('{"sentence1": "a", "sentence2": null, "label": 1}', r"dev\.jsonl:2: 'sentence2' must be a string, not None"),
        ('{"sentence1": "a"', r"dev\.jsonl:2: not JSON"),
        ("[1]", r"dev\.jsonl:2: not a JSON object"),
        ('\n{"sentence1": "a"}', r"dev\.jsonl:2: a blank line before the last row"),
    ],
)  # fmt: skip
def test_errors_in_json_lines_name_file_and_line(line: str, message: str, tmp_path: Path) -> None:
    write(tmp_path / "dev.jsonl", ['{"sentence1": "a", "sentence2": "b", "label": "entailment"}', line])
    with pytest.raises(InputError, match=message):
        read_examples(tmp_path, TASKS["RTE"], "dev")


def test_missing_duplicate_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no dev\.tsv or validation\.tsv .*for RTE"):
        read_examples(tmp_path, TASKS["RTE"], "dev")
    write(tmp_path / "dev.txt", ["notes"])
    with pytest.raises(InputError, match=r"for RTE$"):
        read_examples(tmp_path, TASKS["RTE"], "dev")
    packed = gzip.compress(b"sentence\tlabel\nfine\t1\n")
    (tmp_path / "dev.tsv.gz").write_bytes(packed)
    with pytest.raises(InputError, match=r"for RTE: unpack .*dev\.tsv\.gz$"):
        read_examples(tmp_path, TASKS["RTE"], "dev")
    (tmp_path / "dev.tsv").write_bytes(packed)
    with pytest.raises(InputError, match=r"dev\.tsv:1: not UTF-8 \(byte 0x8b\): it is compressed: unpack it$"):
        read_examples(tmp_path, TASKS["SST-2"], "dev")
    (tmp_path / "dev.tsv").write_bytes(b"sentence\tlabel\nBZh\xff\t1\n")
    with pytest.raises(InputError, match=r"dev\.tsv:2: not UTF-8 \(byte 0xff\): save it as UTF-8$"):
        read_examples(tmp_path, TASKS["SST-2"], "dev")
    (tmp_path / "dev.tsv").write_bytes(b"BZh\xff\tlabel\n")
    with pytest.raises(InputError, match=r"dev\.tsv:1: .*save it as UTF-8$"):
        read_examples(tmp_path, TASKS["SST-2"], "dev")
    (tmp_path / "dev.tsv").write_bytes(b"sentence\tlabel\nfine\t1\nb\xffd\t0\n")
    with pytest.raises(InputError, match=r"dev\.tsv:3: not UTF-8 \(byte 0xff\): save it as UTF-8"):
        read_examples(tmp_path, TASKS["SST-2"], "dev")
    write(tmp_path / "sst2.valid.jsonl", ["{}"])
    with pytest.raises(InputError, match=r"has dev\.tsv and sst2\.valid\.jsonl for SST-2's dev set"):
        read_examples(tmp_path, TASKS["SST-2"], "dev")
    (tmp_path / "RTE.zip").write_bytes(b"PK no zip")
    with pytest.raises(InputError, match=r"RTE\.zip is neither a folder nor a readable zip file"):
        read_examples(tmp_path / "RTE.zip", TASKS["RTE"], "dev")


def test_a_flipped_bit_in_a_zip_is_an_error(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "RTE.zip", "w") as out:
        out.writestr("RTE/dev.tsv", f"{RTE}\n0\ta\tb\tentailment\n")
    data = bytearray((tmp_path / "RTE.zip").read_bytes())
    data[data.index(b"sentence1")] ^= 1
    (tmp_path / "RTE.zip").write_bytes(data)
    with pytest.raises(InputError, match=r"RTE\.zip/RTE/dev\.tsv can't be read: Bad CRC"):
        read_examples(tmp_path / "RTE.zip", TASKS["RTE"], "dev")


def test_malformed_qqp_lines_are_counted(tmp_path: Path) -> None:
    header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate"
    write(tmp_path / "train.tsv", [header, "1\t1\t2\ta\tb\t1", "2\t3\t4\tbroken", "3\t5\t6\tc\td\t0"])
    examples = read_examples(tmp_path, TASKS["QQP"], "train")
    assert len(examples) == 2
    assert examples.notes == ("1 malformed lines skipped, the first is 3",)
    (tmp_path / "train.tsv").rename(tmp_path / "test.tsv")
    with pytest.raises(InputError, match=r"test\.tsv:3: 4 fields, but there are 6 columns"):
        read_examples(tmp_path, TASKS["QQP"], "test", labelled=False)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["index\tsentence", "1\tb", "0\ta"], ["1", "0"]),
        (["sentence", "a", "b"], ["0", "1"]),
        (["index\tsentence", "0\ta", "0\tb"], r"test\.tsv:3: 'index' is 0, as in .*test\.tsv:2; the ids of a test set"),
        (["index\tsentence", "q1\ta"], r"test\.tsv:2: 'index' must be a whole number, not 'q1'"),
        (["sentence", "a", "", "b"], r"test\.tsv:3: a blank line before the last row"),
    ],
)  # fmt: skip
def test_ids_of_a_test_set_are_those_of_its_file(lines: list[str], expected: Any, tmp_path: Path) -> None:
    write(tmp_path / "test.tsv", lines)
    if isinstance(expected, list):
        assert read_examples(tmp_path, TASKS["SST-2"], "test", labelled=False).ids == expected
        return
    with pytest.raises(InputError, match=expected):
        read_examples(tmp_path, TASKS["SST-2"], "test", labelled=False)


def test_ids_of_a_dev_set_are_kept_if_they_differ(tmp_path: Path) -> None:
    for ids, expected in ((("q7", "q3"), ["q7", "q3"]), (("q7", "q7"), ["0", "1"])):
        write(tmp_path / "dev.tsv", ["id\tsentence\tlabel", f"{ids[0]}\ta\t1", f"{ids[1]}\tb\t0"])
        assert read_examples(tmp_path, TASKS["SST-2"], "dev").ids == expected


def test_files_of_other_formats_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content, message in (
        ("dev.csv", 'sentence,label\n"a,1\n', r"dev\.csv:2: not CSV \(unexpected end of data\)"),
        ("dev.csv", "sentence,label\na,b,1\n", r"dev\.csv:2: 3 fields, but there are 2 columns"),
        ("dev.json", '[{"sentence": "a", "label": 1},\n', r"dev\.json row 2: not JSON \(it ends too early"),
        ("dev.json", "[1]", r"dev\.json row 1: not a JSON object"),
        ("dev.tsv", "sentence\tlabel\n" + "a" * 99, r"dev\.tsv:2: the line is longer than"),
    ):
        (tmp_path / name).write_text(content)
        with monkeypatch.context() as patch, pytest.raises(InputError, match=message):
            for module in (table_files, user_files):
                patch.setattr(module, "LONGEST", 50)
            read_examples(tmp_path, TASKS["SST-2"], "dev")
        (tmp_path / name).unlink()


def test_unofficial_row_counts_are_errors_unless_the_config_allows_them(tmp_path: Path) -> None:
    rows = [f"{n}\ta\tb\tentailment" for n in range(277)]
    write(tmp_path / "train.tsv", [RTE, *rows])
    task, examples = TASKS["RTE"], read_examples(tmp_path, TASKS["RTE"], "train")
    with pytest.raises(InputError, match=r"277 rows, but .*2,490 .*this is the size of RTE's dev set: are files"):
        check_count(task, "train", examples, subset=False)
    with pytest.raises(InputError, match="are files swapped"):
        check_count(task, "train", examples, subset=True)
    assert not check_count(task, "train", examples.first(276), subset=True)
    assert check_count(task, "dev", examples, subset=False)
    with pytest.raises(InputError, match=r'276 rows.*is the file truncated.*add "RTE" to finetune\.subsets'):
        check_count(task, "dev", examples.first(276), subset=False)


def test_test_files_are_recognised() -> None:
    for name in ("test.tsv", "test_matched.tsv", "qqp.test.jsonl", "diagnostic.tsv", "AX.tsv"):
        assert is_test_file(name), name
    for name in ("train.tsv", "dev_matched.tsv", "latest.tsv", "msr_paraphrase_train.txt"):
        assert not is_test_file(name), name


def test_unreachable_hub_is_reported_within_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(InputError, match=r"hub:some/glue: the Hub can't be reached.*save_to_disk\(FOLDER\)"):
        read_examples("hub:some/glue", TASKS["RTE"], "dev")
    assert time.monotonic() - start < 20  # the default of `datasets` is half a minute
    for wrong in ("hub:", "hub:glue", "hub:a/b/c"):
        with pytest.raises(InputError, match="is specified as hub:OWNER/NAME"):
            read_examples(wrong, TASKS["RTE"], "dev")
