"""`mapnet init`: what it finds in a folder, and that the config that it writes works."""

import csv
import gzip
import json
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from datasets import Dataset, DatasetDict
from jsonschema import Draft7Validator
from pyarrow import feather, parquet

from tests.e2e.test_cli import invoke
from tests.finetune_glue.glue_files import write_glue
from tests.prepare_corpus.corpora import prose, text_folder

PROSE = [prose(number, 3) for number in range(30)]


def write_wiki(folder: Path) -> None:
    for number in range(2):
        pages = "".join(f'<doc id="{n}" url="u" title="T">\nT\n\n{text}\n</doc>\n' for n, text in enumerate(PROSE))
        (folder / f"A{number}").mkdir(parents=True)
        (folder / f"A{number}" / "wiki_00").write_text(pages)


def write_dump(file: Path) -> None:
    page = "<page><title>P</title><ns>0</ns><id>1</id><revision><id>1</id><text>{}</text></revision></page>\n"
    file.write_text(f"<mediawiki>\n{''.join(map(page.format, PROSE))}</mediawiki>\n")


def write_csv(file: Path) -> None:
    with file.open("w") as out:
        csv.writer(out).writerows([["n", "Review"], *enumerate(PROSE)])


def rows(column: str) -> dict[str, list[str]]:
    return {"title": ["short"] * len(PROSE), column: PROSE}


def write_books(folder: Path) -> None:
    folder.mkdir()
    for number in range(3):
        text = "\n\n".join(textwrap.fill(paragraph, 70) for paragraph in PROSE)
        (folder / f"{number}.txt").write_text(text)


def jsonl(column: str) -> str:
    return "".join(json.dumps({"id": n, column: text}) + "\n" for n, text in enumerate(PROSE))


KINDS: dict[str, tuple[Any, dict[str, str]]] = {
    "texts": (lambda path: text_folder(path, files=12), {"kind": "text"}),
    "books": (write_books, {"kind": "text", "paragraphs": "blank-lines"}),
    "a.jsonl": (lambda path: path.write_text(jsonl("body")), {"kind": "jsonl", "column": "body"}),
    "a.jsonl.gz": (lambda path: path.write_bytes(gzip.compress(jsonl("text").encode())), {"kind": "jsonl"}),
    "a.json": (lambda path: path.write_text(json.dumps([{"text": text} for text in PROSE])), {"kind": "jsonl"}),
    "a.csv": (write_csv, {"kind": "csv", "column": "Review"}),
    "a.parquet": (lambda path: parquet.write_table(pyarrow.table(rows("content")), path),
                  {"kind": "parquet", "column": "content"}),
    "a.feather": (lambda path: feather.write_feather(pyarrow.table(rows("text")), path, compression="uncompressed"),
                  {"kind": "arrow"}),
    "saved": (lambda path: Dataset.from_dict(rows("story")).save_to_disk(path), {"kind": "dataset", "column": "story"}),
    "splits": (lambda path: DatasetDict({"all": Dataset.from_dict(rows("text"))}).save_to_disk(path),
               {"kind": "dataset", "split": "all"}),
    "wiki": (write_wiki, {"kind": "wikiextractor"}),
    "dump.xml": (write_dump, {"kind": "mediawiki"}),
}  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(file: str) -> dict[str, Any]:
    return tomllib.loads(Path(file).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_is_found_and_the_config_works(name: str) -> None:
    write, expected = KINDS[name]
    Path("mine").mkdir()
    write(Path("mine") / name)
    code, out, err = invoke("init", "mine")
    assert (code, err) == (0, "")
    assert "mapnet run -c mine.toml --dry-run" in out
    config = written("mine.toml")
    assert config["corpus"]["sources"] == [expected | {"path": config["corpus"]["sources"][0]["path"]}]
    schema = json.loads(Path(".mapnet.schema.json").read_text())
    assert Path("mine.toml").read_text().startswith("#:schema ./.mapnet.schema.json\n")
    assert list(Draft7Validator(schema).iter_errors(config)) == []
    code, out, err = invoke("prepare-corpus", "-c", "mine.toml", "--dry-run")
    assert code == 0, err
    assert "problem" not in out


def test_a_folder_of_everything() -> None:
    """Files of different kinds side by side are separate sources; GLUE tasks and minimal pairs aren't text."""
    for name, (write, _) in KINDS.items():
        if name != "a.jsonl.gz":
            (Path("all") / name).parent.mkdir(exist_ok=True)
            write(Path("all") / name)
    Path("all/more").mkdir()
    Path("all/more/README.md").write_text("Read me.")
    Path("all/photo.jpg").write_bytes(b"\0\1")
    write_glue(Path("all/glue"))
    Path("all/blimp").mkdir()
    Path("all/blimp/a.jsonl").write_text('{"sentence_good": "He goes.", "sentence_bad": "He go."}\n')
    code, out, err = invoke("init", "all", "--json")
    assert code == 0, err
    assert json.loads(out)["unused"] == ["more/README.md", "photo.jpg"]
    assert "not used: more/README.md, photo.jpg" in err
    config = written("all.toml")
    kinds = sorted(source["kind"] for source in config["corpus"]["sources"])
    assert kinds == sorted(expected["kind"] for name, (_, expected) in KINDS.items() if name != "a.jsonl.gz")
    tasks = ["CoLA", "SST-2", "MRPC", "STS-B", "QQP", "MNLI", "QNLI", "RTE"]
    assert config["finetune"] == {"data": "all/glue", "tasks": tasks, "subsets": tasks}
    assert config["minimal_pairs"]["data"] == ["all/blimp"]
    assert invoke("run", "-c", "all.toml", "--dry-run")[0] == 0


def test_tasks_below_the_text_are_not_read_as_text() -> None:
    """A text source reads its whole folder, so a folder with tasks at any depth isn't one."""
    for number in range(3):
        Path(f"mine/books/{number}.txt").parent.mkdir(parents=True, exist_ok=True)
        Path(f"mine/books/{number}.txt").write_text("\n".join(PROSE))
        Path(f"mine/{number}.txt").write_text("\n".join(PROSE))
    write_glue(Path("mine/data/glue"))
    assert invoke("init", "mine")[0] == 0
    paths = [source["path"] for source in written("mine.toml")["corpus"]["sources"]]
    assert paths == ["mine/0.txt", "mine/1.txt", "mine/2.txt", "mine/books"]


def test_the_config_is_not_read_as_text() -> None:
    """In the text's own folder, files are sources one by one, and too many of them must move."""
    for number in range(3):
        Path(f"{number}.txt").write_text("\n".join(PROSE))
    assert invoke("init", "--to", "mine.toml")[0] == 0
    assert [source["path"] for source in written("mine.toml")["corpus"]["sources"]] == ["0.txt", "1.txt", "2.txt"]
    assert written("mine.toml")["corpus"]["validation_every"] == 2
    for number in range(40):
        Path(f"{number}.txt").write_text("\n".join(PROSE))
    code, _, err = invoke("init", "--to", "other.toml")
    assert (code, "move each kind into a folder of its own" in err) == (2, True)


def test_init_overwrites_nothing_and_says_what_is_missing() -> None:
    text_folder(Path("mine"), files=2)
    Path("mine.toml").write_text("mine")
    code, _, err = invoke("init", "mine")
    assert (code, "mine.toml already exists" in err) == (2, True)
    assert Path("mine.toml").read_text() == "mine"
    assert invoke("init", "mine", "--to", "new.toml")[0] == 0
    Path("empty").mkdir()
    code, _, err = invoke("init", "empty")
    assert (code, "empty has no text files" in err) == (3, True)
    assert not Path("empty.toml").exists()
    assert invoke("init", "nowhere")[0] == 2


def test_artifacts_among_the_text_are_left_out() -> None:
    text_folder(Path("mine"), files=4)
    Path("mine/artifacts/prepare-corpus").mkdir(parents=True)
    Path("mine/artifacts/prepare-corpus/a.txt").write_text("Not text.")
    assert invoke("init", "mine")[0] == 0
    assert [source["path"] for source in written("mine.toml")["corpus"]["sources"]] == ["mine"]
