"""The grid as a flat list of runs: methods x pretraining seeds x checkpoints x tasks x settings x seeds."""

from collections.abc import Iterator
from dataclasses import dataclass

from mapnet_cli.config import Config


@dataclass(frozen=True)
class GridRun:
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
    for method in config.methods:
        for pretrain_seed in config.pretrain.seeds:
            for step in config.pretrain.milestone_steps():
                for task in finetune.tasks:
                    for batch_size in finetune.batch_sizes:
                        for lr in finetune.learning_rates:
                            for seed in finetune.seeds:
                                yield GridRun(method, pretrain_seed, step, task, batch_size, lr, seed)
