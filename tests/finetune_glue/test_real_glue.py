"""Tests with the official GLUE files, if available."""

import tarfile
from pathlib import Path

import pytest

from mapnet_cli.core.errors import InputError
from mapnet_cli.finetune_glue.examples import check_count, read_examples, training_and_dev_sets
from mapnet_cli.glue.tasks import TASKS, task_location
from tests.finetune_glue.glue_files import write
from tests.finetune_glue.test_examples import at, labelled


@pytest.fixture(scope="module")
def real_glue(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("glue")
    safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # not in Python 3.11.0 to 3.11.3
    for name in ("glue", "qqp-subset", "glue-more"):
        if not (shared_data / f"{name}.tar.xz").exists():
            pytest.skip(f"no {name}.tar.xz in {shared_data}")
        with tarfile.open(shared_data / f"{name}.tar.xz") as archive:
            archive.extractall(folder, **safely)
    return folder


@pytest.mark.parametrize("name", ["CoLA", "SST-2", "MRPC", "STS-B", "RTE", "WNLI"])
def test_real_files_have_the_official_counts(name: str, real_glue: Path) -> None:
    location = task_location(at(real_glue / "glue"), name)
    for split in labelled(name):
        assert check_count(TASKS[name], split, read_examples(location, TASKS[name], split), subset=False)


def test_real_mrpc_is_the_same_from_microsofts_original_file(real_glue: Path, tmp_path: Path) -> None:
    official = real_glue / "glue" / "MRPC"
    raw = (official / "msr_paraphrase_train.txt").read_bytes()
    (tmp_path / "msr_paraphrase_train.txt").write_bytes(raw)
    with pytest.raises(InputError, match=r"add dev_ids\.tsv \(or dev\.tsv\)"):
        read_examples(tmp_path, TASKS["MRPC"], "dev")
    lines = (official / "dev.tsv").read_text(encoding="utf-8-sig").split("\n")[1:-1]
    write(tmp_path / "dev_ids.tsv", ["\t".join(line.split("\t")[1:3]) for line in lines])
    for split in ("train", "dev"):
        ours, theirs = (read_examples(folder, TASKS["MRPC"], split) for folder in (tmp_path, official))
        assert sorted(zip(ours.texts, ours.labels, strict=True)) == sorted(
            zip(theirs.texts, theirs.labels, strict=True)
        )


@pytest.mark.parametrize(("name", "rows"), [("MNLI", [10_000, 4_908]), ("QNLI", [4_076, 1_387])])
def test_real_subsets_are_read(name: str, rows: list[int], real_glue: Path) -> None:
    """MNLI as JSONL without a mismatched dev set, QNLI as TSV: only as subsets."""
    task = TASKS[name]
    location = task_location(at(real_glue / "glue-more"), name)
    sets = dict(training_and_dev_sets(location, task, subset=True))
    assert {split: len(examples) for split, examples in sets.items()} == dict(zip(("train", "dev"), rows, strict=True))
    assert {label for examples in sets.values() for label in examples.labels} == set(range(len(task.labels)))
    for split, examples in sets.items():
        assert not check_count(task, split, examples, subset=True)
        with pytest.raises(InputError, match=f'add "{name}" to finetune.subsets'):
            check_count(task, split, examples, subset=False)
    if name == "MNLI":
        with pytest.raises(InputError, match=r'has no dev_mismatched\.tsv .*add "MNLI" to finetune\.subsets'):
            list(training_and_dev_sets(location, task, subset=False))


def test_real_qqp_rows_are_read(real_glue: Path) -> None:
    [folder] = {path.parent for path in real_glue.rglob("qqp.*.jsonl")}
    task = TASKS["QQP"]
    assert len(read_examples(folder, task, "train")) == 10_000
    dev = read_examples(folder, task, "dev")
    with pytest.raises(InputError, match=r"qqp\.valid\.jsonl: 20,215 rows, but GLUE's QQP has 40,430"):
        check_count(task, "dev", dev, subset=False)
