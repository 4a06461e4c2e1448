"""All GPU benchmarks in one command: python -m tests.benchmarks.gpu

BERT-base and MAP-Net with batches of 256 x 512 tokens in bfloat16. Checks that a step never synchronises with the
device, then measures step times with and without torch.compile, loading and masking and, if transformers is
installed, its Trainer, and fine-tuning with one to eight parallel runs against run_glue.py's loop. The last line on
stdout is one JSON object: `ours` is the compiled joint step in milliseconds, `theirs` the target on an H100.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.masking.sampling import MaskNoise
from mapnet_cli.masking.schedule import ProposalWork, StepPlan
from mapnet_cli.model.masked_lm import PretrainingModel
from mapnet_cli.pretrain.batches import split_batch
from mapnet_cli.pretrain.step import Algorithm1, JointLosses
from mapnet_cli.training.device import device_name, peak_flops
from mapnet_cli.training.optim import build_adamw, gradient_norm
from tests.benchmarks import workload

TARGET_MS = 245.0
"""Time of a joint step at half of an H100's measured bfloat16 FLOP rate."""
PARALLEL_RUNS = (1, 2, 4, 8)
"""Numbers of fine-tuning runs that share the GPU."""


def check_no_sync(chosen: argparse.Namespace) -> None:
    """Runs steps with torch's sync debug mode, which raises an error where the host would wait for the GPU."""
    config = workload.config_for(chosen)
    device, method = torch.device("cuda", 0), config.method["mapnet"]
    model = PretrainingModel(config.encoder, workload.VOCAB, config.proposal).to(device).train()
    optimizer = build_adamw(model, config.pretrain)
    algorithm1 = Algorithm1(JointLosses(model, method, device, "auto"), device)
    tokens_BL = torch.randint(5, workload.VOCAB, (8, config.corpus.block_length))
    noise = MaskNoise.draw(torch.Generator().manual_seed(0), *tokens_BL.shape)
    batch = split_batch(0, tokens_BL, noise, method.mask_rate, 8)
    batch.parts[:] = [part.map(torch.Tensor.pin_memory) for part in batch.parts]
    for step in range(4):
        if step == 2:  # the first steps compile kernels and allocate Adam's state
            torch.cuda.set_sync_debug_mode("error")
        optimizer.zero_grad(set_to_none=True)
        algorithm1(batch, StepPlan(1, step, bool(step % 2), ProposalWork.LEARN, method.mask_rate))
        gradient_norm(model, 1.0)
        optimizer.step()
    torch.cuda.set_sync_debug_mode("default")
    print("no device synchronisation in a step", file=sys.stderr)


def step_times(chosen: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Returns the measurements of each method's step, with and without torch.compile."""
    results = {}
    for compiled in (False, True):
        chosen.compile = compiled
        config = workload.config_for(chosen)
        with tempfile.TemporaryDirectory() as name:
            artifacts = Artifacts(Path(name))
            workload.make_corpus(config, artifacts)
            for method in ("bert", "mapnet"):
                row = workload.train(config, artifacts, method)
                names = ("step_seconds", "tokens_per_second", "mfu", "peak_memory_mb", "data_wait")
                results[f"{method}{', compiled' if compiled else ''}"] = {name: row[name] for name in names}
                print(f"{method}, compiled {compiled}: {results[list(results)[-1]]}", file=sys.stderr)
    return results


def run(module: str, *more: str) -> dict[str, Any]:
    """Runs another benchmark in a subprocess and returns its JSON result."""
    command = [sys.executable, "-m", f"tests.benchmarks.{module}", "--device", "cuda", *more]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    line: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{module}: {line}", file=sys.stderr)
    return line


def main() -> None:
    parser = workload.options(__doc__ or "")
    parser.set_defaults(size="paper", device="cuda", micro=128, steps=20, warm=5, rounds=2)
    chosen = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no GPU: torch.cuda.is_available() is False, see `mapnet doctor`")
    peak, source = peak_flops(torch.device("cuda", 0), "auto")
    check_no_sync(chosen)
    times = step_times(chosen)
    sizes = ("--size", chosen.size, "--micro", str(chosen.micro), "--rounds", str(chosen.rounds))
    others = {"loading": run("loading", *sizes)}
    if find_spec("transformers") and find_spec("accelerate"):
        others |= {"trainer": run("pretrain", *sizes), "trainer, compiled": run("pretrain", *sizes, "--compile")}
    for size in ("small", "base") if find_spec("transformers") else ():
        for runs in PARALLEL_RUNS:
            others[f"fine-tuning, {size}, parallel runs: {runs}"] = run(
                "finetune", "--size", size, "--examples", "2048", "--batch", "32", "--parallel", str(runs)
            )
    joint = times["mapnet, compiled"]["step_seconds"] * 1e3
    print(
        json.dumps(
            {
                "name": "joint step, BERT-base and MAP-Net, 256 x 512, ms",
                "ours": joint,
                "theirs": TARGET_MS,
                "ratio": joint / TARGET_MS,
                "steps": times,
                "others": others,
                "device": device_name(torch.device("cuda", 0)),
                "peak_flops": peak,
                "peak_source": source,
                "torch": torch.__version__,
            }
        )
    )


if __name__ == "__main__":
    main()
