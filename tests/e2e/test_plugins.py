"""Strategies, estimators, sources and tasks of another package: examples/plugin, installed by pip, and broken ones."""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mapnet_cli.config.loading import resolve
from mapnet_cli.core import Artifacts, PluginError, UsageError, plugins
from mapnet_cli.glue import metrics_by_task
from mapnet_cli.lineage import Lineage
from mapnet_cli.masking import ESTIMATORS, STRATEGIES, validate_method
from mapnet_cli.prepare_corpus.sources.documents import KINDS
from tests.conftest import SMALL
from tests.e2e.conftest import toml
from tests.prepare_corpus.corpora import text_folder

ROOT = Path(__file__).parents[2]
WITHOUT = ('methods=["bert"]', 'corpus.sources=[{path = "books"}]', "finetune.data=probe", 'finetune.tasks=["RTE"]')
"""Settings that use no plugin."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("plugin"))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(tmp_path_factory.mktemp("project"))


def install(folder: Path) -> Path:
    """Returns a folder into which pip has installed the example."""
    shutil.copytree(ROOT / "examples/plugin", folder / "source")  # the build writes into it
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    here = [str(folder / "source"), "--target", str(folder / "site")]
    subprocess.run([*pip, "--disable-pip-version-check", "--no-compile", *here], check=True)
    return folder / "site"


def write_project(folder: Path) -> Path:
    """Writes subtitles, books, and mine.toml, which uses all plugins; returns the folder."""
    text_folder(folder / "books", files=9)
    (folder / "films").mkdir()
    rng = random.Random(0)
    for number, book in enumerate(sorted((folder / "books").rglob("*.txt"))):
        words = book.read_text().split()
        lines = (" ".join(rng.choices(words, k=8)) for _ in range(30))
        text = "".join(f"{n}\n00:00:{n:02},000 --> 00:00:{n:02},900\n{line}.\n\n" for n, line in enumerate(lines, 1))
        (folder / "films" / f"{number}.srt").write_text(text)
    tables: dict[str, dict[str, Any]] = {"corpus": {"validation_every": 3}}
    own = ("pretrain.milestones=[1.0]", "encoder.max_length=32", "finetune.data=glue", 'finetune.tasks=["agreement"]')
    for setting in (*SMALL, *own):
        key, value = setting.split("=")
        section, name = key.split(".")
        tables.setdefault(section, {})[name] = value
    text = 'recipe = "demo"\nmethods = ["bert", "blocks", "temper"]\n'
    text += f'[[corpus.sources]]\nkind = "subtitles"\npath = "{folder}/films"\n[method.blocks]\nstrategy = "block"\n'
    text += '[method.temper]\nstrategy = "frequency"\nproposal = {estimator = "tempered-ratio", ratio_clip = 9.0}\n'
    for section, values in tables.items():
        text += f"[{section}]\n" + "".join(f"{name} = {toml(value)}\n" for name, value in values.items())
    (folder / "mine.toml").write_text(text)
    return folder


@pytest.fixture
def installed(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The example in this process, in a copy that a test may edit."""
    copy = shutil.copytree(site, tmp_path / "site")
    yield from visible(copy, monkeypatch)


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder whose packages this process finds."""
    (tmp_path / "other").mkdir()
    yield from visible(tmp_path / "other", monkeypatch)


def visible(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(folder))
    for forget in (plugins._IMPORTED.clear, plugins._installed.cache_clear):
        forget()
    yield folder
    for forget in (plugins._IMPORTED.clear, plugins._installed.cache_clear):
        forget()
    for name in ("mapnet_example", "broken"):
        sys.modules.pop(name, None)


def add(folder: Path, code: str, kind: str, name: str, package: str = "some-package") -> None:
    """Writes an installed package with one entry point, an object called `it` of the module `broken`."""
    info = folder / f"{package.replace('-', '_')}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[mapnet.{kind}]\n{name} = broken:it\n")
    (folder / "broken.py").write_text(code)


def mapnet(project: Path, site: Path, *arguments: str) -> str:
    """Runs the command line in its own process; returns what it prints."""
    environ = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    command = [sys.executable, "-W", "error", "-m", "mapnet_cli", *arguments]
    done = subprocess.run(command, cwd=project, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_every_kind_runs_in_worker_processes_and_new_code_makes_new_results(project: Path, site: Path) -> None:
    site = shutil.copytree(site, project / "site")
    out = mapnet(project, site, "run", "-c", "mine.toml", "--workers", "2")
    assert "agreement" in out and "9 documents" in out
    table = (project / "artifacts/report/mine/table3.tex").read_text()
    assert all(word in table for word in ("agreement", "blocks", "temper"))
    first = sorted(path.name for path in (project / "artifacts/pretrain").glob("*.json"))
    assert mapnet(project, site, "run", "-c", "mine.toml", "--dry-run").count(" 0 ") >= 11  # all is done
    with (site / "mapnet_example.py").open("a") as code:
        code.write("# another version\n")
    out = mapnet(project, site, "run", "-c", "mine.toml", "--workers", "2")
    assert "prepare-corpus: the code of mapnet_example has changed" in out
    second = sorted(path.name for path in (project / "artifacts/pretrain").glob("*.json"))
    assert len(second) == 2 * len(first) == 6


@pytest.mark.slow
@pytest.mark.parametrize("how", [("--workers", "0"), ("--processes", "2")], ids=" ".join)
def test_other_engines(how: tuple[str, ...], project: Path, site: Path, tmp_path: Path) -> None:
    where = ("-c", "mine.toml", "--artifacts", str(tmp_path))
    mapnet(project, site, "prepare-corpus", "--workers", "0", *where)
    out = mapnet(project, site, "pretrain", *how, *where)
    assert "blocks seed 1: held-out loss" in out and "temper seed 1: held-out loss" in out


def test_help_imports_neither_plugins_nor_torch(site: Path) -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from mapnet_cli.cli.commands import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "assert CliRunner().invoke(app, ['run', '--help']).exit_code == 0\n"
        "assert not {'torch', 'mapnet_example', 'huggingface_hub'} & {*sys.modules}"
    )
    environ = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    subprocess.run([sys.executable, "-c", code], env=environ, check=True)


def lineage(project: Path, artifacts: Artifacts, *settings: str) -> Lineage:
    plugins._IMPORTED.clear()
    return Lineage(resolve(None, project / "mine.toml", settings, {}).config, artifacts)


def test_code_is_in_the_fingerprints_of_what_uses_it(
    project: Path, installed: Path, artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    books = ('corpus.sources=[{path = "books"}]',)

    def fingerprints() -> dict[str, str]:
        with_books, all_plugins = lineage(project, artifacts, *books), lineage(project, artifacts)
        without = lineage(project, artifacts, *WITHOUT)
        return {
            "source": all_plugins.text.fingerprint,
            "task": with_books.task("agreement").fingerprint,
            "strategy": with_books.pretraining("blocks", 1).fingerprint,
            "estimator": with_books.pretraining("temper", 1).fingerprint,
            "bert": with_books.pretraining("bert", 1).fingerprint,
            "unused": without.pretraining("bert", 1).fingerprint + without.task("RTE").fingerprint,
        }

    before = fingerprints()
    assert fingerprints() == before
    with (installed / "mapnet_example.py").open("a") as code:
        code.write("# another version\n")
    after = fingerprints()
    assert {name for name in before if before[name] != after[name]} == {"source", "task", "strategy", "estimator"}
    shutil.rmtree(next(installed.glob("*.dist-info")))
    plugins._installed.cache_clear()
    without = lineage(project, artifacts, *WITHOUT[1:], 'methods=["bert"]')
    assert without.pretraining("bert", 1).fingerprint in after["unused"]


def test_code_that_changes_during_a_run_is_an_error(project: Path, installed: Path, artifacts: Artifacts) -> None:
    found = lineage(project, artifacts)
    assert found.pretraining("blocks", 1)
    (installed / "mapnet_example.py").write_text("")
    with pytest.raises(PluginError, match=r"mapnet-example 0\.1.: its code has changed"):
        Lineage(found.config, artifacts).pretraining("blocks", 1)


def test_names_are_listed_where_a_name_is_unknown(project: Path, installed: Path) -> None:
    for setting, expected in (
        ("corpus.sources=[{kind = 'films', path = 'films'}]", "'dataset' or 'subtitles', but got 'films'"),
        ("method.blocks.strategy=blok", "frequency, block; did you mean 'block'?"),
        ("method.temper.proposal.estimator=tempered", "tempered-ratio; did you mean 'tempered-ratio'?"),
        ("finetune.tasks=['nothing']", "RTE, agreement"),
    ):
        with pytest.raises(UsageError) as error:
            config = resolve(None, project / "mine.toml", [setting], {}).config
            for name in config.methods:
                validate_method(name, config.method[name])
            metrics_by_task(config)
        assert expected in str(error.value)
    assert "block" in [*STRATEGIES] and len(STRATEGIES) == len([*STRATEGIES]) == len(STRATEGIES.data) + 1


@pytest.mark.parametrize(
    ("code", "kind", "name", "message"),
    [
        ("import nothing_like_this", "strategies", "new", r"can't be imported: ModuleNotFoundError: No module named"),
        ("1 / 0", "sources", "new", r"can't be imported: ZeroDivisionError: division by zero"),
        ("that = 1", "estimators", "new", r"can't be imported: AttributeError: .*'it'"),
        ("def it(): pass", "strategies", "new", r"broken:it is a function, but must be a mapnet_cli.*Strategy"),
        ("from mapnet_cli.prepare_corpus.sources.documents import Kind\nit = Kind()", "sources", "new", "no function"),
        ("it = 1", "strategies", "uniform", r"has the name of one of mapnet's own strategies"),
        ("it = 1", "estimators", "none", r"has the name of one of mapnet's own estimators"),
        ("it = 1", "sources", "jsonl", r"has the name of one of mapnet's own sources"),
    ],
)
def test_a_plugin_that_cannot_be_used(code: str, kind: str, name: str, message: str, other: Path) -> None:
    add(other, code, kind, name)
    place = rf"plugin '{name}' \(mapnet\.{kind} of some-package 1\.2\):? "
    with pytest.raises(PluginError, match=place + ".*" + message):
        {"strategies": STRATEGIES, "estimators": ESTIMATORS, "sources": KINDS}[kind][name]


@pytest.mark.parametrize(
    ("code", "name", "tasks", "message"),
    [
        ("it = 1", "sst2", "SST-2", "has the name of one of mapnet's own tasks"),
        ("from mapnet_cli.glue import OwnTask\nit = OwnTask(text='a', rows=print)", "new", "new", "text, and labels"),
    ],
)
def test_a_task_that_cannot_be_used(code: str, name: str, tasks: str, message: str, other: Path) -> None:
    add(other, code, "tasks", name)
    config = resolve("demo", None, ["finetune.data=glue", f"finetune.tasks=['{tasks}']"], {}).config
    with pytest.raises(PluginError, match=rf"{name}' \(mapnet.tasks of some-package 1.2\)[\s\S]*{message}"):
        metrics_by_task(config)


def test_two_packages_with_the_same_name(other: Path) -> None:
    add(other, "it = 1", "strategies", "new")
    add(other, "it = 1", "strategies", "new", "other-package")
    with pytest.raises(PluginError, match=r"of (some|other)-package 1.2\) and .* have the same name"):
        STRATEGIES["new"]


def test_an_unused_broken_plugin_disturbs_nothing(other: Path, project: Path, artifacts: Artifacts) -> None:
    add(other, "1 / 0", "strategies", "uniform2")
    config = resolve(None, project / "mine.toml", WITHOUT, {}).config
    validate_method("bert", config.method["bert"])
    assert "uniform2" in STRATEGIES and STRATEGIES["uniform"]
