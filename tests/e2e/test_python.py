"""The Python interface: docs/python.md and examples/explore.py as they are, results, encoders and masks."""

import re
import runpy
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from mapnet_cli.api import MapnetError, Project, load
from mapnet_cli.masking import STRATEGIES
from tests.e2e.test_cli import invoke

ROOT = Path(__file__).parents[2]
SENTENCE = "Bacoden fugar hijo kel lumon nep or pi ras sto tuve."


@pytest.fixture
def project(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(finished)
    return load("mine.toml")


def test_the_notebook_runs(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "examples/explore.py"))
    out = capsys.readouterr().out
    assert re.search(r"^bert +seed 1 +step +10 +\d+\.\d\d$", out, re.MULTILINE)
    for strategy in ("uniform", "spaced", "whole-word", "mapnet"):
        assert re.search(rf"^{strategy} .*_", out, re.MULTILINE)


def test_the_examples_of_the_page_run(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/python.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 4
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)


def test_results_are_those_of_the_report(project: Project) -> None:
    """Reading them writes nothing; status says that all is done."""
    before = sorted(project.artifacts.root.rglob("*"))
    rows = project.results()
    assert {(row["method"], row["task"]) for row in rows} >= {("bert", "CoLA"), ("mapnet", "held-out text")}
    assert project.frame().to_dict("records")[0]["method"] == rows[0]["method"]
    assert all(row["done"] == row["total"] for row in project.status())
    assert sorted(project.artifacts.root.rglob("*")) == before


def test_settings_are_those_of_the_command_line(finished: Path) -> None:
    settings = {
        "pretrain.steps": 20,
        "pretrain.device": "cpu",
        "corpus.cross_documents": True,
        "pretrain.seeds": [1, 2],
    }
    found = load(finished / "mine.toml", settings=settings)
    assert (found.name, found.config.pretrain.steps, found.config.pretrain.seeds) == ("mine", 20, (1, 2))
    assert found.config.corpus.cross_documents
    assert load().config.recipe == "demo"
    with pytest.raises(MapnetError, match="did you mean 'steps'"):
        load(settings={"pretrain.step": 5})
    with pytest.raises(MapnetError, match="did you mean 'pretrain'"):
        load().run("pretrian")


def test_the_encoder_is_the_exported_one(project: Project, tmp_path: Path) -> None:
    """Hidden states equal those of transformers for the exported checkpoint, with padding."""
    texts = ["Bacoden fugar, hijo!", SENTENCE]
    encoder = project.encoder("bert")
    assert (encoder.record.method, encoder.record.step, encoder.training) == ("bert", 10, False)
    code, _, err = invoke("export", str(tmp_path / "bert"), "--method", "bert", "--config", "mine.toml")
    assert code == 0, err
    reference = AutoModel.from_pretrained(tmp_path / "bert").eval()
    inputs = AutoTokenizer.from_pretrained(tmp_path / "bert")(texts, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        hidden, mask = encoder(texts)
        expected = reference(**inputs).last_hidden_state
        vectors = encoder.vectors(texts)
    assert torch.equal(mask, inputs["attention_mask"].bool())
    assert torch.allclose(hidden[mask], expected[mask], atol=1e-5)
    assert torch.allclose(vectors[0], hidden[0][mask[0]].mean(dim=0), atol=1e-6)
    assert torch.allclose(vectors[0], encoder.vectors(texts[:1])[0], atol=1e-5), "padding has no effect"


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "table"] + ["uniform-30"])
def test_masks_of_every_strategy(strategy: str, project: Project) -> None:
    drawn = project.draw_masks(SENTENCE, strategy, draws=4)
    assert drawn == project.draw_masks(SENTENCE, strategy, draws=4)
    assert len(drawn.tokens) == len(drawn.probability) == len(drawn.masked[0])
    assert not {"[CLS]", "[SEP]"} & set(drawn.tokens)
    assert sum(drawn.probability) == pytest.approx(1, abs=1e-5)
    rate = 0.3 if strategy == "uniform-30" else 0.15
    for row in drawn.masked:
        assert abs(sum(row) - rate * len(row)) < 1
    if strategy == "disjoint":
        assert max(map(sum, zip(*drawn.masked, strict=True))) == 1, "visits of one sentence don't overlap"
    else:
        assert len(set(map(tuple, drawn.masked))) > 1


def test_masks_that_cannot_be_drawn(project: Project) -> None:
    with pytest.raises(MapnetError, match="did you mean 'spaced'"):
        project.draw_masks(SENTENCE, "spacd")
    with pytest.raises(MapnetError, match="table"):
        project.draw_masks(SENTENCE, "table")
