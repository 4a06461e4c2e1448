"""Time to load a batch, draw its masks and apply them, as a fraction of a bert step (target: at most 2 %).

The last line on stdout is one JSON object: `ours` is the fraction, `theirs` the target.

    python -m tests.benchmarks.loading --size small
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.jobs.distributed import ALONE
from mapnet_cli.masking import sampling
from mapnet_cli.masking.strategies import STRATEGIES, MaskRequest
from mapnet_cli.pretrain.batches import BatchMaker, MicroBatch
from mapnet_cli.pretrain.sampler import ResumableSampler
from mapnet_cli.text.shards import Sequences
from mapnet_cli.training.device import device_name
from tests.benchmarks import workload

TARGET = 0.02


def seconds(work: Callable[[], object], device: torch.device, times: int = 20) -> float:
    """Returns the median time of a call in seconds, including the device's work."""
    durations = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        durations.append(time.perf_counter() - start)
    return statistics.median(durations)


def main() -> None:
    chosen = workload.options(__doc__ or "").parse_args()
    torch.set_num_threads(chosen.threads)
    device = torch.device(chosen.device)
    config = workload.config_for(chosen)
    method, pretrain = config.method["bert"], config.pretrain
    with tempfile.TemporaryDirectory() as name:
        artifacts = Artifacts(Path(name))
        sequences = Sequences(workload.sequences(config, artifacts))
        order = ResumableSampler([len(sequences)], pretrain.batch_size, 1)
        length, pin = config.corpus.block_length, chosen.device == "cuda"
        make = BatchMaker(sequences, order, method, pretrain, 1, ALONE, pin, length, chosen.compile)
        numbers = iter(range(1_000))
        loading = seconds(lambda: make(next(numbers)), device)
        parts = [part.to(device) for part in make(0).parts]

        def mask(part: MicroBatch) -> torch.Tensor:
            request = MaskRequest(
                part.tokens_BL, part.maskable_BL, part.counts_B, sampling.max_mask_count(length, method.mask_rate),
                part.noise.order_BL,
            )  # fmt: skip
            masks = STRATEGIES["uniform"].draw(request)
            return sampling.corrupt(part.tokens_BL, masks, part.noise, workload.VOCAB, 0.8, 0.1)

        masking = seconds(lambda: [mask(part) for part in parts], device)
        row = workload.train(config, artifacts, "bert")
    share = (loading + masking) / row["step_seconds"]
    print(
        f"loading {loading * 1e3:.2f} ms, masking {masking * 1e3:.2f} ms, "
        f"step {row['step_seconds'] * 1e3:.0f} ms, of which {row['data_wait']:.3%} preparing batches",
        file=sys.stderr,
    )
    print(
        json.dumps(
            {
                "name": f"loading and masking, fraction of a step, {chosen.size}",
                "ours": share,
                "theirs": TARGET,
                "ratio": share / TARGET,
                "waited": row["data_wait"],
                "device": device_name(device),
            }
        )
    )


if __name__ == "__main__":
    main()
