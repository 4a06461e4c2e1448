"""torch.compile: the same results as without it, and no recompilation once training has started."""

from collections.abc import Callable
from contextlib import ExitStack

import pytest
import torch

from mapnet_cli.config import Config
from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.jobs.job import Progress, run_job
from mapnet_cli.lineage.graph import Lineage
from mapnet_cli.pretrain import loop
from mapnet_cli.pretrain.stage import Pretrain
from mapnet_cli.training.checkpoint import load_checkpoint
from tests.conftest import small_config

pytestmark = pytest.mark.slow

# MAP-Net learns, only proposes, or rests; batches with and without padding; two micro-batches
SETTINGS = (
    "pretrain.micro_batch_size=2",
    "method.mapnet.proposal.learn_every=2",
    "method.mapnet.explore_start=0.5",
    "encoder.dropout=0.0",
    "proposal.dropout=0.0",
    'methods=["mapnet", "electra"]',
)


def train(config: Config, artifacts: Artifacts, method: str) -> tuple[dict[str, torch.Tensor], list[str]]:
    warnings: list[str] = []

    def report(progress: Progress) -> None:
        warnings.append(progress.warning)

    lineage = Lineage(config, artifacts)
    key = lineage.pretraining(method, 1).key
    run_job(next(j for j in Pretrain(lineage).plan(1)[0].jobs if j.key == key), artifacts, report)
    weights, _ = load_checkpoint(artifacts.path(f"{key}/step10"))
    artifacts.discard(key)
    return weights, warnings


@pytest.mark.parametrize("method", ["mapnet", "electra"])
@pytest.mark.filterwarnings("ignore")  # from inductor, on a CPU
def test_compiled_run_matches_eager_run_and_never_recompiles(
    method: str,
    make_corpus: Callable[[Config], object],
    artifacts: Artifacts,
    monkeypatch: pytest.MonkeyPatch,
    compiler: None,
) -> None:
    plain, compiled = small_config(*SETTINGS), small_config(*SETTINGS, "pretrain.compile=true")
    make_corpus(plain)
    reference, _ = train(plain, artifacts, method)
    warmed = ExitStack()
    entered: list[object] = []
    real = loop.compile_ahead

    def compile_ahead(*arguments: object) -> None:
        real(*arguments)
        # from now on, recompilation is an error
        entered.append(warmed.enter_context(torch._dynamo.config.patch(error_on_recompile=True)))

    monkeypatch.setattr(loop, "compile_ahead", compile_ahead)
    torch._dynamo.reset()
    with warmed:
        weights, warnings = train(compiled, artifacts, method)
    assert len(entered) == 1
    assert any("compile" in warning for warning in warnings)  # it is slow on a CPU
    for name, tensor in reference.items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-3, atol=1e-5, msg=name)
