"""Every format gives the same examples or the same error."""

import csv
import io
import json
import re
import shutil
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mapnet_cli.core.errors import InputError
from mapnet_cli.finetune_glue.examples import read_examples
from mapnet_cli.glue.tasks import get_task, task_location
from tests.conftest import small_config

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """A peculiarity: the rows of RTE's (or another task's) dev set, and what reading them gives."""

    rows: Rows
    expected: list[tuple[Any, ...]] | str
    """Texts and label of each example, or a regular expression of the error after the file's name."""
    task: str = "RTE"
    settings: tuple[str, ...] = ()
    classes: Sequence[str] = ()
    """Class names in a Parquet file or saved data set, whose labels are then numbers."""
    bom: bool = False
    end: str = "\n"
    after: str = ""
    """What follows the last line."""
    notes: tuple[str, ...] = ()


def text(case: Case, content: str) -> bytes:
    return (("\ufeff" if case.bom else "") + content.replace("\n", case.end) + case.after).encode()


def tsv(folder: Path, case: Case) -> None:
    lines = ["\t".join(case.rows[0]), *("\t".join(map(str, row.values())) for row in case.rows)]
    (folder / "dev.tsv").write_bytes(text(case, "\n".join(lines) + "\n"))


def comma(folder: Path, case: Case) -> None:
    out = io.StringIO()
    writer = csv.DictWriter(out, case.rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(case.rows)
    (folder / "validation.csv").write_bytes(text(case, out.getvalue()))


def jsonl(folder: Path, case: Case) -> None:
    (folder / "val.jsonl").write_bytes(text(case, "".join(f"{json.dumps(row)}\n" for row in case.rows)))


def array(folder: Path, case: Case) -> None:
    (folder / "valid.json").write_bytes(text(case, json.dumps(case.rows, indent=1) + "\n"))


def dataset(case: Case) -> Any:
    import datasets

    rows = datasets.Dataset.from_list(case.rows)
    if not case.classes:
        return rows
    column = list(case.rows[0])[-1]
    features = rows.features | {column: datasets.ClassLabel(names=list(case.classes))}
    return datasets.Dataset.from_list(case.rows, datasets.Features(features))


def parquet(folder: Path, case: Case) -> None:
    dataset(case).to_parquet(str(folder / "validation-00000-of-00001.parquet"))


def saved(folder: Path, case: Case) -> None:
    import datasets

    datasets.DatasetDict({"validation": dataset(case)}).save_to_disk(str(folder))


def zipped(folder: Path, case: Case) -> None:
    """Replaces the task's folder by a zip file."""
    parquet(folder, case)
    with zipfile.ZipFile(folder.with_name(f"{case.task}.zip"), "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"{case.task}/{file.name}")
    shutil.rmtree(folder)


FORMATS: list[Callable[[Path, Case], None]] = [tsv, comma, jsonl, array, parquet, saved, zipped]
YES, NO = "entailment", "not_entailment"


def pairs(*labels: Any, first: str = "sentence1", second: str = "sentence2", label: str = "label") -> Rows:
    return [{first: f"It rained {n}.", second: "It was wet.", label: value} for n, value in enumerate(labels)]


def read(*labels: float) -> list[tuple[Any, ...]]:
    return [((f"It rained {n}.", "It was wet."), label) for n, label in enumerate(labels)]


def reviews(*texts: str) -> Rows:
    return [{"sentence": text, "label": "1"} for text in texts]


def own(*settings: str, text: str = "review") -> tuple[str, ...]:
    return tuple(f"finetune.task_data.own.{setting}" for setting in (f"text='{text}'", *settings))


NUMBERED = (
    "classes are numbered, read as 0 = entailment, 1 = not_entailment "
    "(finetune.task_data.RTE.labels sets another order)"
)
CASES = {
    "names": Case(pairs(YES, NO), read(0, 1)),
    "class names": Case(pairs(YES, NO), read(0, 1), classes=[YES, NO]),
    "class names in another order": Case(pairs(YES, NO), read(0, 1), classes=[NO, YES]),
    "class names of the Hub": Case(
        pairs("duplicate", "not_duplicate"), read(1, 0), "QQP", classes=["duplicate", "not_duplicate"]
    ),
    "unknown class names": Case(
        pairs("yes", "no"),
        r": RTE's label must be one of entailment, not_entailment, 0, 1 \(.*\), not 'yes'$",
        classes=["no", "yes"],
    ),
    "names with spaces": Case(
        pairs("Entailment", "not entailment "), read(0, 1), classes=["Entailment", "not entailment "]
    ),
    "numbers": Case(pairs(0, 1), read(0, 1), notes=(NUMBERED,)),
    "numbers with a fraction": Case(pairs(0.0, 1.0), read(0, 1), notes=(NUMBERED,)),
    "numbers of classes in another order": Case(
        pairs(0, 1), read(1, 0), settings=(f"finetune.task_data.RTE.labels=['{NO}','{YES}']",)
    ),
    "own names": Case(pairs("ja", "nein"), read(0, 1), settings=("finetune.task_data.RTE.labels=['ja','nein']",)),
    "own numbers": Case(pairs(1, 2), read(0, 1), "MRPC", ("finetune.task_data.MRPC.labels=[1, 2]",)),
    "own numbers, and another": Case(
        pairs(1, 0),
        ": MRPC's label must be one of 1, 2 .*, not '?0'?$",
        "MRPC",
        ("finetune.task_data.MRPC.labels=[1, 2]",),
    ),
    "true and false": Case(pairs(True, False), read(1, 0), "QQP"),
    "a number without a class": Case(pairs(0, 2), ": RTE's label must be .* not '?2'?$", notes=(NUMBERED,)),
    "quotes": Case(
        reviews('He said "go.', '"Go," he said.', "'", '""'),
        [(('He said "go.',), 1), (('"Go," he said.',), 1), (("'",), 1), (('""',), 1)],
        "SST-2",
    ),
    "byte-order mark": Case(pairs(YES), read(0), bom=True),
    "Windows line ends": Case(pairs(YES, NO), read(0, 1), end="\r\n"),
    "blank lines at the end": Case(pairs(YES, NO), read(0, 1), after="\n \n"),
    "NA": Case(reviews("NA", "null", "nan"), [(("NA",), 1), (("null",), 1), (("nan",), 1)], "SST-2"),
    "NA as a label": Case(pairs("NA"), ": RTE's label must be .* not 'NA'$"),
    "empty text": Case(
        reviews("fine", ""), [(("fine",), 1), (("",), 1)], "SST-2", notes=("1 rows with an empty text",)
    ),
    "Unicode line separators": Case(reviews("one\u2028two\x0cthree"), [(("one\u2028two\x0cthree",), 1)], "SST-2"),
    "text1 and text2": Case(pairs(YES, NO, first="text1", second="text2"), read(0, 1)),
    "premise and hypothesis": Case(pairs(YES, first="Premise", second="Hypothesis", label="Label"), read(0)),
    "text": Case([{"text": "a", "label_text": "negative", "label": 1}], [(("a",), 1)], "SST-2"),
    "columns of another task": Case(
        pairs(YES, first="question", second="sentence"), r" needs the columns sentence1, .*a file of QNLI\?"
    ),
    "unknown columns": Case(
        pairs(YES, first="a", second="b"),
        r" needs the columns .*found: a, b, label .*finetune\.task_data\.RTE\.text and",
    ),
    "semicolons": Case(
        [{"sentence1;sentence2;label": "a;b;entailment"}], r"columns must be separated by tabs in \.tsv, by commas"
    ),
    "own columns": Case(
        pairs(YES, first="a", second="b", label="y"),
        read(0),
        settings=("finetune.task_data.RTE={text=['a','b'],label='y'}",),
    ),
    "own columns, not there": Case(
        pairs(YES),
        " needs the columns a, b, label, but found: sentence1, sentence2, label",
        settings=("finetune.task_data.RTE.text=['a','b']",),
    ),
    "scores": Case(pairs(5, 2.5, 0), read(1, 0.5, 0), "STS-B"),
    "scores as text": Case(pairs("5.000", "2.5"), read(1, 0.5), "STS-B"),
    "a score out of range": Case(pairs(5.5, 1), r": STS-B's score must be a number from 0 to 5, not '?5.5'?$", "STS-B"),
    "scores from 0 to 1": Case(
        pairs(1.0, 0.5), r": no score is above 1, .*set finetune\.task_data\.STS-B\.range = \[0, 1\]", "STS-B"
    ),
    "scores from 0 to 1, as the config says": Case(
        pairs(1.0, 0.5), read(1, 0.5), "STS-B", ("finetune.task_data.STS-B.range=[0, 1]",)
    ),
    "own task": Case(
        [{"review": "a", "stars": 3}, {"review": "b", "stars": 1}],
        [(("a",), 2), (("b",), 0)],
        "own",
        own("label='stars'", "labels=[1, 2, 3]"),
    ),
    "own regression": Case(
        [{"review": "a", "score": -1}, {"review": "b", "score": 0.5}],
        [(("a",), 0), (("b",), 0.75)],
        "own",
        own("range=[-1, 1]"),
    ),
    "own names by number": Case(
        [{"review": "a", "label": 2}], [(("a",), 2)], "own", own("labels=['bad', 'fair', 'good']"), classes=()
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_every_format_gives_the_same(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    for write in FORMATS:
        folder = tmp_path / write.__name__ / case.task
        folder.mkdir(parents=True)
        write(folder, case)
        config = small_config(f"finetune.data={folder.parent}", *case.settings)
        location, task = task_location(config, case.task), get_task(config, case.task)
        if isinstance(case.expected, str):
            with pytest.raises(InputError, match=rf"^{re.escape(str(folder))}.*{case.expected}"):
                read_examples(location, task, "dev")
            continue
        found = read_examples(location, task, "dev")
        assert list(zip(found.texts, found.labels, strict=True)) == case.expected, write.__name__
        assert found.notes == case.notes, write.__name__
