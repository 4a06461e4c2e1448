"""Step time of methods relative to the first of them, on a prepared corpus, compared with the same ratio in FLOPs.

Each round trains all methods in turn, from the first step to the last of a shortened run, so that schedules of masks
count with their means. The last line on stdout is one JSON object: of the last method, `ours` is the ratio of step
times, `theirs` that of FLOPs, and `ratio` the first divided by the second (medians over rounds).

    python -m tests.benchmarks.methods --config masks.toml --artifacts art --methods bert,uniform-30,mapnet-kind
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import torch

from mapnet_cli.config.loading import resolve
from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.training.device import device_name
from tests.benchmarks import workload


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--artifacts", type=Path, required=True, help="with the config's corpus")
    parser.add_argument("--methods", required=True, help="names, separated by commas; the first is compared with")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    methods = chosen.methods.split(",")
    settings = [
        f"methods={json.dumps(methods)}", "pretrain.seeds=[1]", f"pretrain.steps={chosen.steps}",
        "pretrain.milestones=[1.0]", "finetune.milestones=[]", "minimal_pairs.milestones=[]",
        "pretrain.schedule='linear'", "pretrain.warmup_steps=20",
        "pretrain.validate_every=0", "pretrain.validation_sequences=8", "pretrain.checkpoint_every=0",
        "pretrain.log_every=10", "pretrain.threads=1", *(f"method.{name}.seeds=[1]" for name in methods),
    ]  # fmt: skip
    config = resolve(None, chosen.config, settings, {}).config
    artifacts = Artifacts(chosen.artifacts)
    ratios: dict[str, list[list[float]]] = {name: [] for name in methods}
    for _ in range(chosen.rounds):
        rows = {}
        for name in methods:
            row = workload.train(config, artifacts, name)
            rows[name] = (row["step_seconds"], row["flops_per_second"] * row["step_seconds"])
        for name, row in rows.items():
            ratios[name].append([a / b for a, b in zip(row, rows[methods[0]], strict=True)])
    for name, found in ratios.items():
        time, flops = (statistics.median(column) for column in zip(*found, strict=True))
        print(f"{name}: {time:.3f} × step time, {flops:.3f} × FLOPs", file=sys.stderr)
    print(
        json.dumps(
            {
                "name": f"{methods[-1]} over {methods[0]}, step time",
                "ours": time,
                "theirs": flops,
                "ratio": time / flops,
                "ratios": ratios,
                "device": device_name(torch.device("cpu")),
            }
        )
    )


if __name__ == "__main__":
    main()
