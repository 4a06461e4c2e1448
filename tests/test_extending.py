"""The examples of docs/extend.md work as the page says."""

import re
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
from mapnet_cli.core import Artifacts, CorpusManifest, build_table, to_markdown
from mapnet_cli.masking import importance
from mapnet_cli.masking.context import CorpusFacts
from mapnet_cli.masking.importance import Drawn
from mapnet_cli.masking.sampling import MaskNoise, mask_counts, maskable_positions
from mapnet_cli.masking.strategies import MaskRequest
from mapnet_cli.prepare_corpus.sources import documents
from mapnet_cli.prepare_corpus.sources.reading import Piece, Reading
from mapnet_cli.report import tables
from mapnet_cli.report.scores import Average
from tests.conftest import small_config
from tests.masking.test_sampling import sentence_batch

MakeCorpus = Callable[[Config], CorpusManifest]
PAGE = (Path(__file__).parents[1] / "docs" / "extend.md").read_text(encoding="utf-8")
FILES = re.findall(r"```python\n# mapnet_cli/(\S+)\.py\n(.*?)```", PAGE, re.DOTALL)


def example(file: str, defined: str, **given: Any) -> dict[str, Any]:
    """Runs the code for a file that contains `defined` in a copy of the module's namespace; returns the copy."""
    (code,) = (code for path, code in FILES if path == file and defined in code)
    name = "mapnet_cli." + file.replace("/", ".")
    try:
        module = import_module(name)
    except ModuleNotFoundError:
        module = ModuleType(name)
    names = vars(module) | given
    for table in ("STRATEGIES", "ESTIMATORS", "KINDS", "COSTS"):  # the package's own stay as they are
        if table in names:
            names[table] = names[table].copy()
    exec(code, names)
    return names


def request(counts: float = 0.3) -> MaskRequest:
    tokens_BL = sentence_batch([20, 9, 1], 24)
    noise = MaskNoise.draw(torch.Generator().manual_seed(0), 3, 24)
    maskable_BL = maskable_positions(tokens_BL)
    return MaskRequest(tokens_BL, maskable_BL, mask_counts(maskable_BL, counts, noise.rounding_B), 8, noise.order_BL)


def test_the_block_strategy_masks_a_run_of_neighbours() -> None:
    given = request()
    masks = example("masking/strategies", "def block")["STRATEGIES"]["block"].draw(given)
    for b in range(3):
        chosen = masks.positions_BK[b][masks.valid_BK[b]].tolist()
        assert chosen == list(range(chosen[0], chosen[0] + int(given.counts_B[b])))
        assert all(given.maskable_BL[b, position] for position in chosen)


def test_phrases_begin_at_frequent_tokens(make_corpus: MakeCorpus, artifacts: Artifacts) -> None:
    phrases = example("masking/phrases", "def phrases")["phrases"]
    corpus = CorpusFacts(artifacts, make_corpus(small_config()))
    most_frequent = corpus.token_counts.argsort(descending=True, stable=True)
    starts_BL = phrases(corpus).unit_starts(most_frequent[None])
    assert starts_BL[0, :100].all()
    rarer = corpus.token_counts[most_frequent] < corpus.token_counts[most_frequent[99]]
    assert rarer.any()
    assert not starts_BL[0, rarer].any()
    names = example("masking/strategies", 'STRATEGIES["phrase"]', phrases=phrases)
    assert names["STRATEGIES"]["phrase"].prepare is phrases


def test_the_estimator_weighs_by_square_roots() -> None:
    tempered = example("masking/importance", "def tempered_ratio")["ESTIMATORS"]["tempered-ratio"]
    drawn = Drawn(torch.tensor([[0.5, 0.1]]).log(), torch.tensor([[True, True]]), torch.tensor([4]))
    ratio_BK = importance.ESTIMATORS["position-ratio"](drawn, 9.0).weight_BK
    assert torch.allclose(tempered(drawn, 9.0).weight_BK, ratio_BK.sqrt())


def test_the_source_reads_subtitles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "film.srt"
    file.write_text("1\n00:00:01,000 --> 00:00:02,500\nGood morning.\n\n2\n00:00:03,000 --> 00:00:04,000\nIs it?\n")
    monkeypatch.setattr(documents, "KINDS", example("prepare_corpus/sources/documents", "def subtitles")["KINDS"])
    source = Source.model_construct(kind="subtitles", path=str(file))
    lines = documents.read_piece(Piece(file, 0, 1), "film.srt", source, "repair", Reading())
    assert list(lines) == ["Good morning.", "Is it?", None]


def test_the_column_is_in_the_table() -> None:
    column = example("report/tables", "FLOPs per token")["COSTS"][-1]
    average = Average.__new__(Average)
    average.__dict__.update(flops=3e9, tokens=1e6)
    rows = [tables._Row("bert", "BERT", average=average), tables._Row("untrained", "untrained")]
    shown = to_markdown(build_table("cost", "Cost", [tables.MODEL, column], rows, (), ""))
    assert "| BERT | 3.00e+03 |" in shown
    assert "| untrained | - |" in shown


def test_the_command_prints_the_words(make_corpus: MakeCorpus, artifacts: Artifacts, tmp_path: Path) -> None:
    app = typer.Typer()
    example("cli/commands", "def words", app=app)
    config = tmp_path / "small.toml"
    config.write_text("[corpus]\nvocab_size = 300\nblock_length = 16\n")
    make_corpus(resolve(None, config, (), {}).config)
    shown = CliRunner().invoke(app, ["--config", str(config), "--artifacts", str(artifacts.root)])
    assert shown.output == "900 words\n"


def test_the_page_has_no_other_examples() -> None:
    assert len(FILES) == 7
