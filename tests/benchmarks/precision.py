"""Speed-up of a bert step by bfloat16 over float32 on a CPU with bfloat16 instructions.

The variants alternate in one process. A third one also uses torch's bfloat16 attention kernel, whose backward
pass is slow, so attention runs in float32 on CPUs. The last line on stdout is one JSON object, in tokens per second.

    python -m tests.benchmarks.precision --size small --steps 8 --warm 2
"""

import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from mapnet_cli.config import Transformer
from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.model.bert import Attention
from mapnet_cli.training.device import device_name
from tests.benchmarks import workload


def main() -> None:
    chosen = workload.options(__doc__ or "").parse_args()
    torch.set_num_threads(chosen.threads)
    sides = {"float32": "float32", "bfloat16": "bfloat16", "bfloat16, attention too": "bfloat16"}
    speed: dict[str, list[float]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as name:
        artifacts = Artifacts(Path(name))
        for _ in range(chosen.rounds):
            for side, precision in sides.items():
                config = workload.config_for(chosen, f"pretrain.precision={precision}")
                workload.make_corpus(config, artifacts)
                with attention_in_bfloat16(side.endswith("too")):
                    speed[side].append(workload.train(config, artifacts, "bert")["tokens_per_second"])
    for side, rates in speed.items():
        print(f"{side}: {statistics.median(rates):,.0f} tokens/s", file=sys.stderr)
    ratios = [a / b for a, b in zip(speed["bfloat16"], speed["float32"], strict=True)]
    print(
        json.dumps(
            {
                "name": f"bert step, bfloat16 over float32, {chosen.size}",
                "ours": statistics.median(speed["bfloat16"]),
                "theirs": statistics.median(speed["float32"]),
                "ratio": statistics.median(ratios),
                "ratios": ratios,
                "attention_too": statistics.median(speed["bfloat16, attention too"]),
                "device": device_name(torch.device(chosen.device)),
            }
        )
    )


@contextmanager
def attention_in_bfloat16(on: bool) -> Iterator[None]:
    """If `on`, models built within the context run attention in bfloat16 on CPUs."""
    original = Attention.__init__

    def init(self: Attention, config: Transformer) -> None:
        original(self, config)
        self.float32_on_cpu = not on

    Attention.__init__ = init
    try:
        yield
    finally:
        Attention.__init__ = original


if __name__ == "__main__":
    main()
