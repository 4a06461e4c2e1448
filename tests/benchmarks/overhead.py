"""Overhead of MAP-Net: step time of mapnet relative to bert, compared with the same ratio in FLOPs.

Also measures the settings that reduce it. The last line on stdout is one JSON object: `ours` is the ratio of
times, `theirs` the ratio of FLOPs, and `ratio` the first divided by the second (target: at most 1.10).

    python -m tests.benchmarks.overhead --size small
    python -m tests.benchmarks.overhead --size paper --device cuda --micro 128 --compile
"""

import json
import statistics
import sys
import tempfile
from pathlib import Path

import torch

from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.training.device import device_name
from tests.benchmarks import workload

COMMON = ("method.mapnet.explore_start=0.5", "method.mapnet.explore_end=0.5")
"""Half the steps use uniform masks: close to the mean of the paper's schedule from 1 to 1/3."""
VARIANTS = {
    "paper's settings": (),
    "learn_every=2": ("method.mapnet.proposal.learn_every=2",),
    "learn_on_uniform_steps=false": ("method.mapnet.proposal.learn_on_uniform_steps=false",),
    "visits=4, propose_every=4": ("pretrain.visits=4", "method.mapnet.proposal.propose_every=4"),
    "proposal.layers=2": ("proposal.layers=2",),
}


def main() -> None:
    parser = workload.options(__doc__ or "")
    parser.add_argument("--variants", type=int, default=len(VARIANTS), help="measure only the first N variants")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    results = {}
    with tempfile.TemporaryDirectory() as name:
        artifacts = Artifacts(Path(name))
        for title, settings in list(VARIANTS.items())[: chosen.variants]:
            config = workload.config_for(chosen, *COMMON, *settings)
            workload.make_corpus(config, artifacts)
            times, work = [], 0.0
            for _ in range(chosen.rounds):
                bert, mapnet = (workload.train(config, artifacts, method) for method in ("bert", "mapnet"))
                times.append(mapnet["step_seconds"] / bert["step_seconds"])
                # FLOPs of the timed steps only
                flops = [row["flops_per_second"] * row["step_seconds"] for row in (bert, mapnet)]
                work = flops[1] / flops[0]
            results[title] = (statistics.median(times), work, times)
            print(
                f"{title}: {results[title][0]:.3f} × bert's step time, {work:.3f} × its FLOPs "
                f"({mapnet['step_seconds']:.3f} s vs. {bert['step_seconds']:.3f} s per step)",
                file=sys.stderr,
            )
    time_ratio, work, times = results["paper's settings"]
    print(
        json.dumps(
            {
                "name": f"mapnet step over bert step, {chosen.size}",
                "ours": time_ratio,
                "theirs": work,
                "ratio": time_ratio / work,
                "ratios": [t / work for t in times],
                "variants": {title: {"time": t, "flops": f} for title, (t, f, _) in results.items()},
                "device": device_name(torch.device(chosen.device)),
            }
        )
    )


if __name__ == "__main__":
    main()
