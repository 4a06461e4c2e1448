"""How much of a GPU a fine-tuning run takes, against a model that is really built."""

import pytest

from mapnet_cli.artifacts import Artifacts
from mapnet_cli.config import Transformer
from mapnet_cli.finetune_glue.demands import CONTEXT, run_bytes, run_demands
from mapnet_cli.finetune_glue.loop import Classifier
from mapnet_cli.lineage import Lineage
from tests.conftest import small_config


@pytest.mark.parametrize("sizes", [{}, {"layers": 2, "hidden": 16, "heads": 2, "ffn": 40, "max_length": 9}])
def test_weights_are_counted_as_the_model_has_them(sizes: dict[str, int]) -> None:
    encoder = Transformer(**sizes)
    weights = sum(parameter.numel() for parameter in Classifier(encoder, 1_001, 3, 0.1).parameters())
    kept = 8 * encoder.max_length * encoder.layers * (9 * encoder.hidden + 2 * encoder.ffn) * 4
    estimated = (run_bytes(encoder, 1_001, 8) - CONTEXT - kept) / 16
    assert estimated == pytest.approx(weights, rel=0.02)


def test_it_grows_with_what_it_depends_on() -> None:
    base = run_bytes(Transformer(), 32_678, 16)
    assert base < run_bytes(Transformer(), 32_678, 32) < 2 * base
    assert base < run_bytes(Transformer(), 50_000, 16)
    assert 5e9 < run_bytes(Transformer(), 32_678, 32) < 20e9, "BERT-base, Table 2's larger batch"


def test_the_config_has_its_say(artifacts: Artifacts) -> None:
    config = small_config("finetune.threads=3", "finetune.runs_per_gpu=4", "finetune.batch_sizes=[4,16]")
    found = run_demands(config, Lineage(config, artifacts))
    assert found == {"threads": 3, "gpu_bytes": run_bytes(config.encoder, 300, 16), "jobs_per_gpu": 4}
    config = small_config('finetune.device="cpu"')
    assert run_demands(config, Lineage(config, artifacts))["gpu_bytes"] == 0
