"""What a GPU makes of mapnet, in one command of at most eight minutes: python -m tests.benchmarks.gpu

Each part runs in a process of its own, the most important first: results on the GPU against the CPU's, and no wait for
the device in a step; steps of BERT-base and MAP-Net on batches of 256 x 512 tokens with and without torch.compile;
fine-tuning against run_glue.py's loop with one to eight runs that share the GPU; pretraining against transformers; and
loading. A part that no longer fits into the budget is left out. The results so far are in the file given by `--out`,
one JSON object a line, also if the command is killed. The last line on stdout is one JSON object: `ours` is the faster
joint step in milliseconds, `theirs` the target on an H100 or H200.

    python -m tests.benchmarks.gpu --out $OUT/gpu.jsonl
    python -m tests.benchmarks.gpu --rehearse             # on a CPU, at less than a hundredth of the size
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mapnet_cli.config import Finetune
from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.finetune_glue import loop
from mapnet_cli.finetune_glue.classifier import Start, build, make_inputs
from mapnet_cli.glue.tasks import TASKS
from mapnet_cli.masking.sampling import MaskNoise
from mapnet_cli.masking.schedule import ProposalWork, StepPlan
from mapnet_cli.model.kernels import as_on_gpu
from mapnet_cli.model.masked_lm import PretrainingModel
from mapnet_cli.pretrain.batches import split_batch
from mapnet_cli.pretrain.step import Algorithm1, JointLosses
from mapnet_cli.training.device import device_name, peak_flops
from mapnet_cli.training.optim import build_adamw, gradient_norm
from tests.benchmarks import finetune, workload

BUDGET = 460.0
"""Seconds for all parts."""
TARGET_MS, TARGET_MFU = 245.0, 0.5
"""Of a joint step on an H100 or H200: half of its bfloat16 FLOP rate."""
TOLERANCE = {"float32": 0.01, "bfloat16": 0.1}
"""Of losses and gradients, relative to the CPU's in float32; a GPU may use TF32."""


@dataclass(frozen=True)
class Part:
    """A measurement, about how many seconds it takes on an H100, and the module and its arguments."""

    name: str
    seconds: float
    module: str
    arguments: Sequence[str]


def parts(rehearse: bool) -> list[Part]:
    """Returns all parts, the most important first."""
    device = "cpu" if rehearse else "cuda"
    train = ("--size", "tiny", "--micro", "4", "--steps", "1", "--warm", "1", "--rounds", "1")
    tune, runs = ("--size", "tiny", "--examples", "8", "--batch", "4", "--rounds", "1"), (1, 2)
    if not rehearse:
        train = ("--size", "paper", "--micro", "128", "--steps", "10", "--warm", "5", "--rounds", "2")
        tune, runs = ("--size", "base", "--examples", "512", "--batch", "32", "--rounds", "3"), (1, 8, 4, 2)
    train, tune = (*train, "--device", device), (*tune, "--device", device)

    def steps(method: str, *more: str) -> tuple[str, tuple[str, ...]]:
        return "gpu", ("--part", method, *train, *more)

    sides = ("--only", "mapnet, auto, random", "--only", "transformers, bfloat16, random sdpa")
    sorted_sides = ("--only", "mapnet, auto, by-length", "--only", "transformers, bfloat16, by-length sdpa")
    peer = ("--only", "mapnet, auto", "--only", "transformers, bfloat16, masked sdpa")
    found = [
        Part("checks", 30, "gpu", ("--part", "checks", *train)),
        Part("bert", 30, *steps("bert")),
        Part("mapnet", 35, *steps("mapnet")),
        Part("bert, compiled", 60, *steps("bert", "--compile")),
        Part("mapnet, compiled", 75, *steps("mapnet", "--compile")),
        Part("fine-tuning, 1 run", 30, "finetune", (*tune, *sides)),
        *(Part(f"fine-tuning, {n} runs", 40, "finetune", (*tune, *sides, "--parallel", str(n))) for n in runs[1:]),
        Part("fine-tuning, 1 run, by length", 30, "finetune", (*tune, *sides, *sorted_sides)),
        Part("fine-tuning, 1 run, compiled", 75, "finetune", (*tune, *sides, "--compile")),
        Part("pretraining against transformers", 60, "pretrain", (*train, *peer)),
        Part("pretraining against transformers, compiled", 90, "pretrain", (*train, *peer, "--compile")),
        Part("loading", 40, "loading", train),
    ]
    return [part for part in found if find_spec("transformers") or part.module in ("gpu", "loading")]


def run(part: Part, timeout: float) -> dict[str, Any]:
    """Returns the JSON object that a part prints last, or {"error": ...}. Kills all its processes at the timeout."""
    command = [sys.executable, "-m", f"tests.benchmarks.{part.module}", *part.arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        out, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return {"error": f"killed after {timeout:.0f} s"}
    lines = out.splitlines()
    if process.returncode or not lines:
        return {"error": f"exit code {process.returncode}"}
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def steps(chosen: argparse.Namespace, method: str) -> dict[str, float]:
    """Returns the measurements of a method's steps under `mapnet pretrain`."""
    config = workload.config_for(chosen)
    with tempfile.TemporaryDirectory() as name:
        artifacts = Artifacts(Path(name))
        workload.make_corpus(config, artifacts)
        return workload.train(config, artifacts, method)


def check(chosen: argparse.Namespace) -> dict[str, Any]:
    """Returns how far results are from the CPU's. Raises an error if they are too far, or where the host waits."""
    device = torch.device(chosen.device)
    distances = {precision: _distance(chosen, device, precision) for precision in TOLERANCE}
    for precision, distance in distances.items():
        assert distance < TOLERANCE[precision], f"{precision}: results differ from the CPU's by {distance:.3g}"
    _pretrain_without_waiting(chosen, device)
    _finetune_without_waiting(device)
    peak, source = peak_flops(device, "bfloat16")
    facts = {"device": device_name(device), "torch": torch.__version__, "peak_flops": peak, "peak_source": source}
    return {"distances": distances, **facts}


def _model(chosen: argparse.Namespace, *more: str) -> tuple[PretrainingModel, Any]:
    """Returns a small model with MAP-Net, and the method."""
    sizes = argparse.Namespace(**vars(chosen) | {"size": "tiny"})
    config = workload.config_for(sizes, *more)
    model = PretrainingModel(config.encoder, workload.VOCAB, config.proposal)
    model.init_weights(1)
    return model.train(), config


def _batch(length: int, pin: bool) -> Any:
    tokens_BL = torch.randint(5, workload.VOCAB, (8, length), generator=torch.Generator().manual_seed(1))
    tokens_BL[0, length // 2 :] = 0
    batch = split_batch(tokens_BL, MaskNoise.draw(torch.Generator().manual_seed(0), 8, length), 0.15, 8)
    if pin:
        batch.parts[:] = [part.map(torch.Tensor.pin_memory) for part in batch.parts]
    return batch


def _distance(chosen: argparse.Namespace, device: torch.device, precision: str) -> float:
    """Returns the largest difference of a tensor's gradients from the CPU's in float32, without dropout."""
    off = [f"{part}.{key}=0.0" for part in ("encoder", "proposal") for key in ("dropout", "attention_dropout")]
    found = []
    for where, how in ((torch.device("cpu"), "float32"), (device, precision)):
        model, config = _model(chosen, *off)
        model.to(where)
        losses = JointLosses(model, config.method["mapnet"], where, how)
        plan = StepPlan(1, 0, True, ProposalWork.LEARN, 0.15)
        with as_on_gpu() if found else nullcontext():
            Algorithm1(losses, where)(_batch(config.corpus.block_length, False), plan)
        found.append([p.grad.cpu() for p in model.parameters() if p.grad is not None])
    plain, ours = found
    scale = sum(float(gradient.norm()) for gradient in plain) / len(plain)
    return max(float((a - b).norm()) / (float(b.norm()) + 0.1 * scale) for a, b in zip(ours, plain, strict=True))


def _pretrain_without_waiting(chosen: argparse.Namespace, device: torch.device) -> None:
    model, config = _model(chosen)
    method = config.method["mapnet"]
    optimizer = build_adamw(model.to(device), config.pretrain)
    algorithm1 = Algorithm1(JointLosses(model, method, device, "bfloat16"), device)
    batch = _batch(config.corpus.block_length, device.type == "cuda")
    for step in range(4):
        _raise_on_wait(device, step >= 2)  # the first steps compile kernels and allocate Adam's state
        optimizer.zero_grad(set_to_none=True)
        algorithm1(batch, StepPlan(1, step, bool(step % 2), ProposalWork.LEARN, method.mask_rate))
        gradient_norm(model, 1.0)
        optimizer.step()
    _raise_on_wait(device, False)


def _finetune_without_waiting(device: torch.device) -> None:
    chosen = argparse.Namespace(median=24, max_length=128, examples=64, size="tiny")
    data, config = finetune.examples(chosen), Finetune(precision="bfloat16")
    model = build(TASKS["RTE"], Start(finetune.sizes(chosen), finetune.VOCAB), config, 1).to(device).train()
    optimizer = build_adamw(model, config)
    for step in range(4):
        _raise_on_wait(device, step >= 2)
        inputs = make_inputs(model, data, np.arange(16) + 16 * (step % 2), device)
        loop.training_step(model, optimizer, TASKS["RTE"], inputs, 1.0)
    _raise_on_wait(device, False)


def _raise_on_wait(device: torch.device, on: bool) -> None:
    """Makes torch raise an error where the host would wait for the GPU."""
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error" if on else "default")


def main() -> None:
    parser = workload.options(__doc__ or "")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "."), "gpu.jsonl"))
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds for all parts")
    parser.add_argument("--rehearse", action="store_true", help="on a CPU, with tiny models, without time estimates")
    parser.add_argument("--without", action="append", default=[], help="words in names of parts to leave out")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.part:
        print(json.dumps(check(chosen) if chosen.part == "checks" else steps(chosen, chosen.part)))
        return
    if not chosen.rehearse and not torch.cuda.is_available():
        sys.exit("no GPU: torch.cuda.is_available() is False, see `mapnet doctor`; --rehearse needs none")
    end, done, left_out = time.monotonic() + chosen.budget, dict[str, dict[str, Any]](), list[str]()
    with chosen.out.open("a", encoding="utf-8") as file:
        for part in parts(chosen.rehearse):
            left = end - time.monotonic()
            needed = 0.0 if chosen.rehearse else part.seconds
            if left < needed or left <= 0 or any(word in part.name for word in chosen.without):
                left_out.append(part.name)
                continue
            start = time.monotonic()
            done[part.name] = run(part, left)
            line = {"part": part.name, "took": round(time.monotonic() - start, 1), **done[part.name]}
            print(json.dumps(line), file=file, flush=True)
            print(line, file=sys.stderr)
    if left_out:
        print(f"left out: {', '.join(left_out)}", file=sys.stderr)
    times = [
        done[name]["step_seconds"] for name in ("mapnet", "mapnet, compiled") if "step_seconds" in done.get(name, {})
    ]
    mfu = {name: result["mfu"] for name, result in done.items() if "mfu" in result}
    ours = min(times) * 1e3 if times else None
    print(
        json.dumps(
            {
                "name": "joint step, BERT-base and MAP-Net, 256 x 512, ms", "ours": ours, "theirs": TARGET_MS,
                "ratio": ours and ours / TARGET_MS, "mfu": mfu, "target_mfu": TARGET_MFU, "left_out": left_out,
                "rehearsal": chosen.rehearse, "parts": done,
            }
        )
    )  # fmt: skip
    sys.exit(any("error" in result for result in done.values()))


if __name__ == "__main__":
    main()
