"""The grid as a flat list of runs: encoders (methods x pretraining seeds x milestones) x tasks x settings x seeds."""

from collections.abc import Iterator
from dataclasses import dataclass

from mapnet_cli.config import Config
from mapnet_cli.glue import fine_tuned


@dataclass(frozen=True)
class GridRun:
    """An import is its own method, of pretraining seed 0 and step 0."""

    method: str
    pretrain_seed: int
    step: int
    task: str
    batch_size: int
    lr: float
    seed: int


def grid(config: Config) -> Iterator[GridRun]:
    """Yields every run of the config, a checkpoint's runs together, so that workers load it once."""
    finetune = config.finetune
    for method, pretrain_seed, step in fine_tuned(config):
        for task in finetune.tasks:
            for batch_size in finetune.batch_sizes:
                for lr in finetune.learning_rates:
                    for seed in finetune.seeds:
                        yield GridRun(method, pretrain_seed, step, task, batch_size, lr, seed)
