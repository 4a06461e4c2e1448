"""A slice of each benchmark runs and ends with a complete JSON object. The numbers are not checked."""

import importlib
import json
import sys

import pytest

SLICES = {
    "pretrain": "--size tiny --steps 1 --rounds 2 --only mapnet,auto --only bfloat16,masked,eager",
    "finetune": "--size tiny --examples 16 --rounds 1 --only mapnet,auto --only bfloat16,random,eager",
    "overhead": "--size tiny --steps 2 --warm 1 --rounds 1 --variants 2",
    "loading": "--size tiny --steps 2 --warm 1 --rounds 1",
    "engine": "--jobs 12",
}


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", SLICES)
def test_benchmark(name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    words = [word.replace(",", " ") for word in SLICES[name].split()]
    monkeypatch.setattr(sys, "argv", [name, *words])
    importlib.import_module(f"tests.benchmarks.{name}").main()
    out, err = capfd.readouterr()
    result = json.loads(out.splitlines()[-1])
    assert result["name"] and result["ours"] > 0 and result["theirs"] > 0
    assert result["ratio"] == pytest.approx(result["ours"] / result["theirs"], rel=0.5)
    if name in ("pretrain", "finetune"):
        assert result["least"] <= result["ratio"] <= result["most"]
        assert result["against"].startswith("transformers") and result["against"] in err
