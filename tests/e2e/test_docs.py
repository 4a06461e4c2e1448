"""The documentation: every block is run or marked, links lead somewhere, the reference is current, the site builds.

A block of commands (sh) or of Python is run, unless a comment above it says why not: <!-- not run: REASON -->. Blocks
of a page are run in order, in a folder with text, tasks, a BERT and a finished project, with tiny models. A block of
TOML is checked as a config, unless <!-- not a config: REASON --> is above it; <!-- file: NAME --> writes it to a file,
<!-- add to NAME --> appends it. Blocks marked as text show output.
"""

import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tomllib
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import pytest

from mapnet_cli.config.loading import resolve
from tests.cli_reference import reference
from tests.conftest import SMALL
from tests.e2e.test_cli import invoke
from tests.finetune_glue.glue_files import write_glue
from tests.huggingface.hf_folders import save_bert
from tests.prepare_corpus.corpora import text_folder

ROOT = Path(__file__).parents[2]
PAGES = {
    str(p.relative_to(ROOT)): p.read_text(encoding="utf-8") for p in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"))
}
ELSEWHERE = ("docs/extend.md", "docs/python.md")
"""Their Python is run by tests/test_extending.py and tests/e2e/test_python.py."""
BLOCK = re.compile(r"(?:^<!-- (.*) -->\n)?^```(.*)\n((?:.*\n)*?)^```$", re.MULTILINE)
TINY = {
    **dict(setting.split("=", 1) for setting in SMALL if not setting.startswith("finetune.subsets")),
    "pretrain.milestones": "[1.0]", "pretrain.device": "cpu", "pretrain.seeds": "[1]", "corpus.validation_every": "3",
    "encoder.max_length": "32",
    "finetune.subsets": '["CoLA","SST-2","MRPC","STS-B","QQP","MNLI","QNLI","RTE"]',
}  # fmt: skip
OF_PAGE = {
    "README.md": {"finetune.data": "glue", "finetune.tasks": '["CoLA"]'},
    "docs/tutorial.md": {"finetune.tasks": '["CoLA"]'},
    "docs/huggingface.md": {"finetune.tasks": '["CoLA","RTE"]'},
}
"""Settings of single pages: fewer tasks, or more than the finished project has."""
PARALLEL = ("run", "prepare-corpus", "pretrain", "minimal-pairs", "finetune-glue")
"""Commands that are run with --workers 0, which is faster for tiny jobs."""
PAIRS = '{"sentence_good": "He goes.", "sentence_bad": "He go."}\n'


class Block(NamedTuple):
    mark: str
    language: str
    text: str


def blocks(page: str) -> list[Block]:
    return [Block(*found) for found in BLOCK.findall(PAGES[page])]


def run_by(page: str) -> list[Block]:
    return [block for block in blocks(page) if block.language == "sh" and not block.mark.startswith("not run: ")]


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_run_or_marked(page: str) -> None:
    assert len(blocks(page)) * 2 == len(re.findall("^ *```", PAGES[page], re.MULTILINE)), "a block isn't recognised"
    for mark, language, text in blocks(page):
        assert language in ("sh", "python", "toml", "text"), text
        if language == "text":
            assert not re.search(r"^(mapnet|make|pip|python) ", text, re.MULTILINE), (
                f"commands marked as output: {text}"
            )
        if language == "sh" and not mark.startswith("not run: "):
            assert all(command[0] == "mapnet" for command in commands(text)), f"neither run nor marked: {text}"


@pytest.mark.parametrize("page", [page for page in PAGES if any(b.language == "toml" for b in blocks(page))])
def test_config_blocks_are_valid(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_bert(Path("path/to/bert-base-uncased"))
    for number, block in enumerate(b for b in blocks(page) if b.language == "toml" and b.mark[:13] != "not a config:"):
        file = Path(f"{number}.toml")
        file.write_text(block.text)
        given = [] if tomllib.loads(block.text).get("base", "") == "" else ["corpus.block_length=16"]
        resolve(None, file, given, {})


def commands(text: str) -> list[list[str]]:
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@pytest.fixture
def folder(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which a reader would be: text, tasks, pairs, a BERT, a config with finished results."""
    for name in ("my-texts", "data/books"):
        text_folder(tmp_path / name, files=9)
    for name in ("glue", "data/glue"):
        write_glue(tmp_path / name)
    save_bert(tmp_path / "path/to/bert-base-uncased")
    for name, file, text in (("blimp", "a.jsonl", PAIRS), ("zorro", "a-b.txt", "He go.\nHe goes.\n")):
        with tarfile.open(tmp_path / f"{name}.tar.xz", "w:xz") as archive:
            entry = tarfile.TarInfo(f"{name}/{file}")
            entry.size = len(text)
            archive.addfile(entry, BytesIO(text.encode()))
    (tmp_path / "mine.tsv").write_text("good\tbad\nHe goes.\tHe go.\n")
    shutil.copy(finished / "mine.toml", tmp_path)
    shutil.copytree(finished / "artifacts", tmp_path / "artifacts")
    shutil.copytree(finished / "artifacts", tmp_path / "art")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if run_by(page)])
def test_commands_run(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    has_base = any(re.search("^base = ", block.text, re.MULTILINE) for block in blocks(page))
    for key, value in (TINY | OF_PAGE.get(page, {})).items():
        if not (has_base and key.startswith(("encoder.", "corpus.vocab"))):
            monkeypatch.setenv("MAPNET_" + key.upper().replace(".", "__"), value)
    if any("--to mine.toml" in block.text for block in run_by(page)):
        (folder / "mine.toml").unlink()
    names: dict[str, object] = {}
    for mark, language, text in blocks(page):
        if found := re.fullmatch(r"(file:|add to) (\S+)", mark):
            with (folder / found[2]).open("a" if found[1] == "add to" else "w") as file:
                file.write(text)
        elif language == "python" and page not in ELSEWHERE:
            exec(text, names)
        elif language == "sh" and not mark.startswith("not run: "):
            for words in commands(text):
                code, _, err = invoke(*words[1:], *(["--workers", "0"] if words[1] in PARALLEL else []))
                assert code == 0, f"{shlex.join(words)}\n{err}"


def anchors(text: str) -> set[str]:
    """Returns the anchors of a page's headings, as GitHub and mkdocs name them."""
    plain = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", plain, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    plain = re.sub(r"^```.*?^```", "", PAGES[page], flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", plain):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), f"{page}: {target}"
        if anchor:
            assert anchor in anchors(path.read_text(encoding="utf-8")), f"{page}: {target}"


def test_the_reference_of_commands_is_current() -> None:
    page = PAGES["docs/cli.md"]
    assert reference() == page, "run: python -m tests.cli_reference > docs/cli.md"


@pytest.mark.slow
def test_the_site_builds_without_warnings(tmp_path: Path) -> None:
    """Every page is in its menu, apart from the tables of results."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not re.search("^WARNING", done.stderr, re.MULTILINE), done.stderr
    assert "not included in the" not in done.stderr
    for name in ("index.html", "tutorial.html", "CHANGELOG.html", "examples/slurm.sh", "results/small.toml"):
        assert (tmp_path / name).exists(), name
