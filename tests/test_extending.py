"""The examples of docs/extend.md work as the page says."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

from mapnet_cli.config import Config, Source
from mapnet_cli.config.loading import resolve
from mapnet_cli.core import Artifacts, Checkpoint, CorpusManifest
from mapnet_cli.jobs.job import ignore_progress
from mapnet_cli.masking import importance
from mapnet_cli.masking.context import CorpusFacts
from mapnet_cli.masking.importance import Drawn
from mapnet_cli.masking.sampling import MaskNoise, mask_counts, maskable_positions
from mapnet_cli.masking.strategies import MaskRequest
from mapnet_cli.prepare_corpus.paragraphs import read_slice
from mapnet_cli.prepare_corpus.slices import input_slices
from mapnet_cli.prepare_corpus.sources import documents
from mapnet_cli.prepare_corpus.sources.reading import Reading
from mapnet_cli.report import tables
from mapnet_cli.report.load import Results
from tests.conftest import small_config
from tests.masking.test_sampling import sentence_batch

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extend.md").read_text(encoding="utf-8")
FILES = re.findall(r"```python\n# mapnet_cli/(\S+)\.py\n(.*?)```", PAGE, re.DOTALL)


def example(file: str, defined: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Runs the code for a file that contains `defined` in a copy of the module's namespace; returns the copy.

    A module that doesn't exist yet is added to `sys.modules` until the test ends.
    """
    (code,) = (code for path, code in FILES if path == file and defined in code)
    name = "mapnet_cli." + file.replace("/", ".")
    try:
        names = dict(vars(import_module(name)))
    except ModuleNotFoundError:
        module = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        names = vars(module)
    for table in ("STRATEGIES", "ESTIMATORS", "KINDS"):  # the package's own stay as they are
        if table in names:
            names[table] = names[table].copy()
    if "app" in names:
        names["app"] = typer.Typer()
    exec(code, names)
    return names


def request(counts: float = 0.3) -> MaskRequest:
    tokens_BL = sentence_batch([20, 9, 1], 24)
    noise = MaskNoise.draw(torch.Generator().manual_seed(0), 3, 24)
    maskable_BL = maskable_positions(tokens_BL)
    return MaskRequest(tokens_BL, maskable_BL, mask_counts(maskable_BL, counts, noise.rounding_B), 8, noise.order_BL)


def test_the_block_strategy_masks_a_run_of_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    given = request()
    names = example("masking/strategies", "def block", monkeypatch)
    masks = names["STRATEGIES"]["block"].draw(given)
    for b in range(3):
        chosen = masks.positions_BK[b][masks.valid_BK[b]].tolist()
        assert chosen == list(range(chosen[0], chosen[0] + int(given.counts_B[b])))
        assert all(given.maskable_BL[b, position] for position in chosen)


def test_phrases_begin_at_frequent_tokens(
    make_corpus: Callable[[Config], CorpusManifest], artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    phrases = example("masking/phrases", "def phrases", monkeypatch)["phrases"]
    strategy = example("masking/strategies", "import phrases", monkeypatch)["STRATEGIES"]["phrase"]
    assert strategy.prepare is phrases
    corpus = CorpusFacts(artifacts, make_corpus(small_config()))
    most_frequent = corpus.token_counts.argsort(descending=True, stable=True)
    starts_L = strategy.prepare(corpus).unit_starts(most_frequent[None])[0]
    assert starts_L[:100].all()
    rarer = corpus.token_counts[most_frequent] < corpus.token_counts[most_frequent[99]]
    assert rarer.any()
    assert not starts_L[rarer].any()


def test_the_estimator_weighs_by_square_roots(monkeypatch: pytest.MonkeyPatch) -> None:
    tempered = example("masking/importance", "def tempered_ratio", monkeypatch)["ESTIMATORS"]["tempered-ratio"]
    assert tempered.clips
    drawn = Drawn(torch.tensor([[0.5, 0.1]]).log(), torch.tensor([[True, True]]), torch.tensor([4]))
    ratio_BK = importance.ESTIMATORS["position-ratio"](drawn, 9.0).weight_BK
    assert torch.allclose(tempered(drawn, 9.0).weight_BK, ratio_BK.sqrt())


def test_the_source_reads_subtitles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "film.srt").write_text(
        "1\n00:00:01,000 --> 00:00:02,500\nGood\nmorning.\n\n2\n00:00:03,000 --> 00:00:04,000\nIs it?\n"
    )
    (tmp_path / "readme.txt").write_text("not a film\n")
    kinds = example("prepare_corpus/sources/documents", "def subtitles", monkeypatch)["KINDS"]
    monkeypatch.setattr(documents, "KINDS", kinds)
    source = Source.model_construct(kind="subtitles", path=str(tmp_path))
    config = small_config()
    config = config.model_copy(update={"corpus": config.corpus.model_copy(update={"sources": (source,)})})
    (part,) = input_slices(config)
    lines = read_slice(part, "repair", reading := Reading(), ignore_progress)
    assert list(lines) == ["Good morning. Is it?", None]
    assert "readme.txt" in reading.problems.lines[0]


def test_the_column_is_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    flops_per_token = example("report/tables", "def flops_per_token", monkeypatch)["flops_per_token"]
    checkpoint = Checkpoint(
        method="bert", pretrain_seed=1, step=10, path="", fingerprint="", tokens=1_000_000, flops=3e9, seconds=1.0,
        device="cpu", validation_loss=None, validation={},
    )  # fmt: skip
    results = Results(config=small_config(), fingerprint="", checkpoints={("bert", 1, 10): checkpoint})
    cells = [flops_per_token(results, tables.Row(name, step, {})) for name, step in (("bert", 10), ("untrained", 0))]
    assert [cell.text for cell in cells] == ["3.00e+03", "-"]


@pytest.mark.parametrize(("option", "output"), [([], "900 words\n"), (["--json"], "900\n")])
def test_the_command_prints_the_words(
    option: list[str],
    output: str,
    make_corpus: Callable[[Config], CorpusManifest],
    artifacts: Artifacts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = example("cli/commands", "def words", monkeypatch)["app"]
    config = tmp_path / "small.toml"
    config.write_text("[corpus]\nvocab_size = 300\nblock_length = 16\n")
    make_corpus(resolve(None, config, (), {}).config)
    shown = CliRunner().invoke(app, ["--config", str(config), "--artifacts", str(artifacts.root), *option])
    assert shown.output == output


def test_the_key_is_in_the_fingerprint_where_it_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    section = example("config/training", "label_smoothing", monkeypatch)["Smoothing"]
    assert section().results_view() == {}
    assert section(label_smoothing=0.1).results_view() == {"label_smoothing": 0.1}


@pytest.mark.slow
def test_the_examples_have_correct_types(tmp_path: Path) -> None:
    package = tmp_path / "mapnet_cli"
    shutil.copytree(ROOT / "mapnet_cli", package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for file, code in FILES:
        with (package / f"{file}.py").open("a") as out:
            out.write(f"\n\n{code}")
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_python_block_names_its_file() -> None:
    assert len(FILES) == PAGE.count("```python")
