"""The model of a fine-tuning run, what it starts from, and its batches.

On a CPU batches have no padding, since every token costs time; on a GPU they do, since every kernel launch does.

Shapes: B examples, L positions, T tokens of a batch without padding, C outputs (classes, or 1 for regression).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mapnet_cli import core
from mapnet_cli.config import Config, Finetune, Transformer
from mapnet_cli.finetune_glue.tokenised import Tokenised
from mapnet_cli.glue import GlueTask
from mapnet_cli.model import ClassificationHead, Encoder, Packing, attention_mask, initialise, on_cpu
from mapnet_cli.text import PAD
from mapnet_cli.training import SEGMENT, choose_device, load_checkpoint

EncoderRow = core.Checkpoint | core.Imported | core.TunedEncoder | core.CorpusManifest
_SOURCES: dict[str, tuple[type[EncoderRow], str]] = {
    "prepare-corpus": (core.CorpusManifest, ""),
    "pretrain": (core.Checkpoint, "run `mapnet pretrain --force` with the same options"),
    "import": (core.Imported, "run `mapnet import-hf` again on the folder that it came from"),
    "finetune-glue": (core.TunedEncoder, "delete it and run `mapnet finetune-glue` again with the same options"),
}
"""By the key's folder, the record of an encoder (a corpus: random weights), and how to make a damaged one again."""
LENGTH_MULTIPLE = 32
"""Attention pads batches to a multiple of this length, at which softmax is up to three times as fast on a CPU.

Besides, every new shape costs milliseconds.
"""
Forward = Callable[[Tensor, Packing | Tensor | None, Tensor | None], Tensor]
"""`Classifier.forward`, maybe compiled."""


class Classifier(nn.Module):
    """The pretrained encoder with a newly initialised classification head."""

    def __init__(
        self, encoder: Transformer, vocab_size: int, outputs: int, config: Finetune, segment_H: Tensor | None = None
    ) -> None:
        super().__init__()
        self.precision = config.precision
        self.mean = config.pooling == "mean"
        self.encoder = Encoder(encoder, vocab_size)
        self.head = ClassificationHead(encoder.hidden, outputs, config.dropout)
        self.segment = None if segment_H is None else nn.Parameter(segment_H.clone())
        """Vector that an imported BERT adds to the embeddings of the second text."""

    def forward(self, tokens: Tensor, packing: Packing | Tensor | None, second: Tensor | None) -> Tensor:
        """Returns outputs [B, C]; for `packing` see `Encoder.pooled`.

        `second` is True for tokens of the second text, None without `segment`.
        """
        added = None if self.segment is None or second is None else second[..., None] * self.segment
        out_BC: Tensor = self.head(self.encoder.pooled(tokens, packing, added, self.mean))
        return out_BC


@dataclass(frozen=True)
class Inputs:
    """A batch on the device that computes it. See `Encoder.pooled` for `packing`."""

    tokens: Tensor
    packing: Packing | Tensor | None
    second: Tensor | None
    labels_B: Tensor


@dataclass(frozen=True)
class Start:
    """A run's initial encoder. Without `state`, its weights are random and depend on the run's seed."""

    encoder: Transformer
    vocab_size: int
    state: dict[str, Tensor] | None = None
    segment_H: Tensor | None = None
    """Second minus first segment embedding, for an import that has segment embeddings."""
    checkpoint: str = ""  # SHA-256 of the pretrained weights; "" for random ones
    after_mnli: str = ""  # SHA-256 of the weights after MNLI; "" if the run doesn't start from them


@lru_cache(maxsize=2)
def encoder_weights(folder: Path) -> tuple[int, dict[str, Tensor], Tensor | None]:
    """Returns vocab_size, state and segment_H of a checkpoint's `Start`, cached for the next run in this process."""
    tensors, facts = load_checkpoint(folder)
    weights = {n.removeprefix("encoder."): t for n, t in tensors.items() if n.startswith("encoder.")}
    return int(facts["vocab_size"]), weights, tensors.get(SEGMENT)


def load_start(artifacts: core.Artifacts, key: str, config: Config) -> Start:
    """Returns the initial state of a run. Raises DamagedError if the encoder doesn't match its record."""
    kind, again = _SOURCES[key.partition("/")[0]]
    row = artifacts.read(key, kind)
    if isinstance(row, core.CorpusManifest):
        return Start(config.encoder, row.vocab_size)
    path = artifacts.path(row.path)
    try:
        weights = encoder_weights(path)
        if core.read_json(path / "facts.json")["sha256"] != row.fingerprint:
            raise core.DamagedError(f"{row.path} doesn't match its record")
    except core.DamagedError as error:
        raise core.DamagedError(f"{error}: {again}") from None
    encoder = config.encoder if isinstance(row, core.Checkpoint) else Transformer.model_validate(row.encoder)
    if isinstance(row, core.TunedEncoder):
        return Start(encoder, *weights, checkpoint=row.checkpoint, after_mnli=row.fingerprint)
    return Start(encoder, *weights, checkpoint=row.fingerprint)


def build(task: GlueTask, start: Start, config: Finetune, seed: int) -> Classifier:
    """Returns the model at the start of a run."""
    model = Classifier(start.encoder, start.vocab_size, max(len(task.labels), 1), config, start.segment_H)
    if start.state is not None:
        model.encoder.load_state_dict(start.state)
    random = {} if start.state else {"untrained encoder": model.encoder}
    for name, part in (random | {"head": model.head}).items():
        initialise(part, start.encoder, torch.Generator().manual_seed(core.derive_seed(seed, name, task.name)))
    return model


def load_kept(artifacts: core.Artifacts, key: str, task: GlueTask, config: Config) -> Classifier:
    """Returns a model that `KeepBest` saved. Raises DamagedError if a file was altered."""
    torch.set_num_threads(config.finetune.threads)
    row = artifacts.read(key, core.TunedEncoder)
    artifacts.verify(key)
    tensors, facts = load_checkpoint(artifacts.path(row.path))
    encoder, outputs = Transformer.model_validate(row.encoder), max(len(task.labels), 1)
    model = Classifier(encoder, facts["vocab_size"], outputs, config.finetune, tensors.get(SEGMENT))
    model.load_state_dict(tensors)
    return model.to(choose_device(config.finetune.device))


def make_inputs(
    model: Classifier, data: Tokenised, indices: npt.NDArray[np.int64], device: torch.device, fixed: bool = False
) -> Inputs:
    """Returns the batch of some examples; its copies to a GPU are asynchronous. `fixed`: one of few shapes."""

    def moved(tensor: Tensor) -> Tensor:
        return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor

    tokens_BL = torch.from_numpy(data.batch(indices))
    length = tokens_BL.shape[1]
    wanted = max(LENGTH_MULTIPLE, 1 << (length - 1).bit_length()) if fixed else length + -length % LENGTH_MULTIPLE
    longest = max(length, model.encoder.config.max_length)
    tokens_BL = F.pad(tokens_BL, (0, min(wanted, longest) - length), value=PAD)
    labels_B, second_BL = moved(torch.from_numpy(data.labels[indices])), None
    if model.segment is not None:
        second_BL = torch.arange(tokens_BL.shape[1]) >= torch.from_numpy(data.second[indices])[:, None]
    if fixed or not on_cpu(device):
        mask_BL = tokens_BL != PAD if fixed else attention_mask(tokens_BL, PAD)
        second_BL = None if second_BL is None else moved(second_BL)
        return Inputs(moved(tokens_BL), None if mask_BL is None else moved(mask_BL), second_BL, labels_B)
    packing = Packing.of(tokens_BL != PAD)
    second_T = None if second_BL is None else second_BL.flatten()[packing.place_T]
    return Inputs(tokens_BL.flatten()[packing.place_T], packing, second_T, labels_B)
