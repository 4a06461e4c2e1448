"""Hand-written records of a tiny config that replace those of the other stages."""

from pathlib import Path
from typing import Any

from mapnet_cli.config import Config, Finetune, Method, Pretrain
from mapnet_cli.core.artifacts import Artifacts, Marker, write_json
from mapnet_cli.glue.grid import GridRun
from mapnet_cli.lineage.graph import Lineage

METHODS = {"bert": Method(), "mapnet": Method(strategy="mapnet")}
VERSIONS = {"mapnet": "0.1.0", "torch": "2.13.0", "tokenizers": "0.23.0", "python": "3.11.9"}
BINARY = {"accuracy": 0.5, "f1": 0.5, "mcc": 0.5}


def config(methods: tuple[str, ...] = ("bert", "mapnet"), recipe: str = "", **finetune: Any) -> Config:
    """Returns a config with one task, one setting, two seeds and two checkpoints (steps 4 and 10) by default."""
    pretrain_seeds, own_seeds = finetune.pop("pretrain_seeds", (1,)), finetune.pop("own_seeds", {})
    own_steps = finetune.pop("own_steps", {})
    settings = {"data": "probe", "tasks": ("RTE",), "batch_sizes": (16,), "learning_rates": (1e-5,), "seeds": (1, 2)}
    settings |= {"baselines": False} | finetune
    pretrain = Pretrain(steps=10, milestones=(0.4, 1.0), seeds=pretrain_seeds, warmup_steps=1)
    method = {
        name: m.model_copy(update={"seeds": own_seeds.get(name, ()), "steps": own_steps.get(name, 0)})
        for name, m in METHODS.items()
    }
    return Config(recipe=recipe, methods=methods, method=method, pretrain=pretrain, finetune=Finetune(**settings))


class Records:
    """Writes markers like the other stages."""

    def __init__(self, root: Path, config: Config) -> None:
        self.artifacts = Artifacts(root)
        self.config = config
        self.lineage = Lineage(config, self.artifacts)

    def mark(self, key: str, result: dict[str, Any]) -> None:
        self.artifacts.publish(Marker(key, "0" * 64, result, versions=VERSIONS))

    def manifest(self) -> None:
        names = ("documents", "paragraphs", "sentences", "words", "tokens", "unknown_tokens", "train_sequences")
        counts = {name: 10 * n for n, name in enumerate(names, 1)} | {"validation_sequences": 3}
        lists = {
            "problem_count": 1,
            "problems": ["a.txt: 2 bad bytes"],
            "train": [],
            "validation": [],
            "dropped": {"too short": 7},
        }
        other = {"vocab_size": 500, "block_length": 64, "tokenizer": "t.json"}
        self.mark(self.lineage.manifest, counts | lists | other)

    def checkpoint(self, method: str, seed: int, step: int, **changes: Any) -> None:
        key = f"{self.lineage.pretraining(method, seed).key}/step{step}"
        row = {
            "method": method, "pretrain_seed": seed, "step": step, "path": key, "fingerprint": "f",
            "tokens": 1000 * step, "flops": 1e9 * step, "seconds": 360.0 * step, "device": "cpu",
            "validation_loss": 5.0,
            "validation": {"validation_loss": 5.0, "accuracy": 0.25},
            "health": {"proposal_entropy": 1.0, "kl_to_uniform": 2.0} if method == "mapnet" else {},
        }  # fmt: skip
        self.mark(key, row | changes)

    def masks(
        self, method: str, seed: int, step: int, sentences: list[list[tuple[str, float, bool]]], **changes: Any
    ) -> None:
        key = f"{self.lineage.pretraining(method, seed).key}/step{step}"
        rows = [[{"text": t, "probability": p, "masked": m} for t, p, m in words] for words in sentences]
        value = {"sentences": rows, "collapsed": False, "proposal_entropy": 2.0, "uniform_entropy": 3.0}
        write_json(self.artifacts.path(f"{key}/figure2.json"), value | changes)

    def task(self, task: str, **changes: Any) -> None:
        probe = self.config.finetune.data == "probe"
        row = {"task": task, "train_examples": 400, "dev_examples": 100, "official": False, "probe": probe, "notes": []}
        self.mark(self.lineage.task(task).key, row | changes)

    def baseline(self, task: str, **by_name: dict[str, float]) -> None:
        rows = [{"task": task, "name": name.replace("_", " "), "metrics": m} for name, m in by_name.items()]
        self.mark(self.lineage.baseline(task).key, {"rows": rows})

    def run(
        self, method: str, step: int, seed: int, *epochs: float | dict[str, float], task: str = "RTE", batch: int = 16,
        lr: float = 1e-5, pretrain_seed: int = 1, failure: str = "", checkpoint: str = "f", halves: Any = (),
    ) -> None:  # fmt: skip
        """Writes a run; each epoch is a dict of metrics, or one number for all metrics."""
        artifact = self.lineage.finetuning(GridRun(method, pretrain_seed, step, task, batch, lr, seed))
        scored = [metrics if isinstance(metrics, dict) else dict.fromkeys(BINARY, metrics) for metrics in epochs]
        row = {
            "method": method, "pretrain_seed": pretrain_seed, "step": step, "checkpoint": checkpoint, "task": task,
            "batch_size": batch, "lr": lr, "seed": seed, "settings": {}, "train_examples": 400, "dev_examples": 100,
            "epochs": [
                {"epoch": n, "train_loss": 0.5, "metrics": m, "halves": halves[n - 1] if halves else []}
                for n, m in enumerate(scored, 1)
            ],
            "failure": failure, "device": "cpu",
        }  # fmt: skip
        self.mark(artifact.key, row)
