"""A slice of each benchmark runs and ends with a complete JSON object. The numbers are not checked."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mapnet_cli.config.loading import resolve
from mapnet_cli.core.artifacts import Artifacts
from tests.benchmarks import gpu, methods, workload

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


@pytest.mark.slow
def test_the_benchmark_of_methods(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.txt").write_text("x\n")
    config = tmp_path / "mine.toml"
    source = f'[[corpus.sources]]\nkind = "text"\npath = "{tmp_path / "text.txt"}"\n'
    config.write_text(f'recipe = "demo"\n{source}[corpus]\nvocab_size = {workload.VOCAB}\n')
    workload.make_corpus(resolve(None, config, (), {}).config, Artifacts(tmp_path / "art"))
    words = f"--config {config} --artifacts {tmp_path / 'art'} --methods bert,uniform-30 --steps 30 --rounds 1"
    monkeypatch.setattr(sys, "argv", ["methods", *words.split()])
    methods.main()
    result = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert result["ratio"] == pytest.approx(result["ours"] / result["theirs"]) and result["theirs"] > 1


MISSING = ["spacy", "datasets", "sacremoses", "snowballstemmer", "zstandard", "jinja2", "ray"]
"""What a machine with a GPU may lack; of the dependencies, the benchmarks there need what torch and transformers do."""


@pytest.mark.slow
def test_the_gpu_benchmark_can_be_rehearsed(tmp_path: Path) -> None:
    """All its parts except compilation, without most dependencies. A tight budget leaves parts out, which it says."""
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({MISSING}))\n")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])])}
    command = [sys.executable, "-m", "tests.benchmarks.gpu", "--rehearse", "--out", str(tmp_path / "gpu.jsonl")]
    most = ("compiled", "runs", "length", "against", "loading")
    without = [word for name in most for word in ("--without", name)]
    done = subprocess.run([*command, *without], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert list(result["parts"]) == ["checks", "bert", "mapnet", "fine-tuning, 1 run"]
    assert result["ours"] > 0 and result["mfu"].keys() == {"bert", "mapnet"}
    assert max(result["parts"]["checks"]["distances"].values()) < 0.1
    lines = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["part"] for line in lines] == list(result["parts"]) and all(line["took"] > 0 for line in lines)
    done = subprocess.run([*command, "--budget", "0.5"], env=environment, capture_output=True, text=True)
    result = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, list(result["parts"])) == (1, ["checks"])
    assert "killed" in result["parts"]["checks"]["error"] and "bert" in done.stderr.split("left out: ")[1]


def test_parts_of_the_gpu_benchmark_fit_its_budget() -> None:
    """At least those that its targets are about: steps, and fine-tuning with one and with several runs."""
    assert sum(part.seconds for part in gpu.parts(rehearse=False)[:9]) <= gpu.BUDGET <= 480
