"""Kernel launches and bytes moved outside matrix products in one training step, counted without a GPU.

The step runs on tensors without data, with the operations that a GPU would execute: fused attention, bfloat16 autocast.
A launch is an operation that is neither a view nor an allocation (what an operation launches internally is not
counted). Its bytes are those of the tensors that it reads and writes; look-ups read only what they return. Products,
and attention, are launches too, but their bytes are not counted: they are limited by arithmetic. torch.compile fuses
most of the rest; it is not part of the count.

    python -m tests.benchmarks.launches
"""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mapnet_cli.config import Config, Finetune
from mapnet_cli.config.loading import resolve
from mapnet_cli.finetune_glue.classifier import Classifier, make_inputs
from mapnet_cli.finetune_glue.loop import training_step
from mapnet_cli.finetune_glue.tokenised import Tokenised
from mapnet_cli.glue.tasks import TASKS
from mapnet_cli.masking.schedule import ProposalWork, StepPlan
from mapnet_cli.model import as_on_gpu, build_model
from mapnet_cli.pretrain.batches import sample_batch
from mapnet_cli.pretrain.electra import build_losses
from mapnet_cli.pretrain.step import Algorithm1
from mapnet_cli.training.optim import build_adamw, gradient_norm

CPU = torch.device("cpu")
VOCAB = 32_678
PRODUCTS = (
    "mm", "addmm", "addmm_", "bmm", "baddbmm", "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention_for_cpu_backward",
)  # fmt: skip
LOOK_UPS = "embedding", "index_select", "index", "gather"
NOTHING = "empty", "empty_like", "new_empty", "empty_strided", "detach", "alias", "lift_fresh", "scalar_tensor"
"""Operations that launch nothing, besides views."""


class Launches(TorchDispatchMode):
    """Counts launches by operation, and the bytes that they move outside products."""

    def __init__(self) -> None:
        super().__init__()
        self.launches: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if func.namespace != "aten" or func.is_view or name in NOTHING:
            return out
        written, read = _tensors(out), _tensors((args, kwargs))
        if name == "_to_copy" and written[0].dtype == read[0].dtype:
            return out  # to another device, of which there is none here
        # the norms of all gradients are one operation on a GPU
        self.launches[name] = 1 if name == "linalg_vector_norm" else self.launches[name] + 1
        if name in LOOK_UPS:
            read = [*written, *read[1:]]
        if name not in PRODUCTS:
            self.bytes[name] += sum({id(t): t.numel() * t.element_size() for t in (*written, *read)}.values())
        return out

    def result(self) -> dict[str, float]:
        return {"launches": self.launches.total(), "gigabytes": round(self.bytes.total() / 1e9, 2)}


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def count(step: Callable[[], object]) -> Launches:
    with Launches() as counted:
        step()
    return counted


def paper(*settings: str) -> Config:
    """Returns the paper's sizes, with fused attention: on a CPU, torch has none with dropout."""
    off = [f"{part}.attention_dropout=0.0" for part in ("encoder", "proposal")]
    return resolve("paper", None, [*off, *settings], {}).config


def pretraining_step(method: str, size: int = 128, length: int = 512, passes: int = 1) -> Launches:
    """Returns the count of a step of BERT-base on `passes` micro-batches of `size` x `length`, full blocks."""
    config = paper()
    batch = sample_batch(size, length, config.method[method].highest_rate)
    batch.parts[:] = batch.parts * passes
    with FakeTensorMode(allow_non_fake_inputs=True), as_on_gpu():
        model = build_model(config, method, VOCAB).train()
        optimizer = build_adamw(model, config.pretrain)
        work = ProposalWork.LEARN if model.proposal else ProposalWork.REST
        algorithm1 = Algorithm1(build_losses(model, config.method[method], CPU, "bfloat16"), CPU)

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            algorithm1(batch, StepPlan(0, 0, True, work, batch_rate(config, method)))
            gradient_norm(model, config.pretrain.clip_norm)
            optimizer.step()

        step()  # allocates Adam's state
        return count(step)


def batch_rate(config: Config, method: str) -> float:
    return config.method[method].highest_rate


def fine_tuning_step(batch: int = 16, length: int = 64) -> Launches:
    """Returns the count of a step of BERT-base on `batch` examples, one of them shorter than `length` tokens."""
    config = Finetune(precision="bfloat16")
    lengths = np.array([length - 7, *[length] * (batch - 1)])
    data = Tokenised(
        np.full(lengths.sum(), 7, np.uint32), np.cumsum([0, *lengths]), np.zeros(batch, np.float32), lengths
    )
    with FakeTensorMode(allow_non_fake_inputs=True), as_on_gpu():
        model = Classifier(paper().encoder, VOCAB, 2, config).train()
        optimizer = build_adamw(model, config)
        with unset_fake_temporarily():
            inputs = make_inputs(model, data, np.arange(batch), CPU)

        def step() -> None:
            training_step(model, optimizer, TASKS["RTE"], inputs, config.clip_norm)

        step()
        return count(step)


def main() -> None:
    counts = {
        "bert, 128 x 512": pretraining_step("bert"),
        "mapnet, 128 x 512": pretraining_step("mapnet"),
        "bert, 2 x 128 x 512": pretraining_step("bert", passes=2),
        "fine-tuning, 16 x 64": fine_tuning_step(),
    }
    for name, counted in counts.items():
        print(f"{name}: {counted.result()}")
        for kind, launches in counted.launches.most_common(12):
            print(f"    {kind:40} {launches:5} launches {counted.bytes[kind] / 1e9:8.2f} GB")
    print(json.dumps({name: counted.result() for name, counted in counts.items()}))


if __name__ == "__main__":
    main()
