"""[encoder], [proposal], [pretrain], [minimal_pairs] and [finetune]: network sizes, training and evaluation."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from mapnet_cli.config.base import (
    Beta,
    Count,
    Ints,
    NonNegative,
    Positive,
    Section,
    Share,
    Shares,
    Strings,
    ZeroOrMore,
    added,
    operational,
)


class Transformer(Section):
    architecture: Literal["bert", "modernbert"] = added("bert")
    """bert: post-LN, learned positions; modernbert: transformers' ModernBERT, pre-LN, rotary positions, GeGLU."""
    layers: Count = 12
    """Number of Transformer layers."""
    hidden: Count = 768
    """Width of the hidden states."""
    heads: Count = 12
    """Number of attention heads."""
    ffn: Count = 3072
    """Hidden size of the feed-forward layers."""
    max_length: Count = 512
    """Maximum input length in tokens."""
    dropout: Share = 0.1
    """Dropout rate of embeddings and of the outputs of attention and feed-forward blocks."""
    attention_dropout: Share = 0.1
    """Dropout rate of the attention weights."""
    init_std: Positive = 0.02
    """Standard deviation of the initial weight matrices; 0.02 is BERT's, narrower models need a larger value."""
    initial_positions: Literal["random", "sinusoidal"] = "random"
    """Initialisation of the learned position embeddings of bert; sinusoidal helps short pretraining runs."""
    local_attention: NonNegative = added(0)
    """Tokens that most layers of modernbert attend to, half of them on either side; 0: all layers attend to all."""
    global_every: Count = added(3)
    """With local_attention, the first of every N layers still attends to all tokens."""
    rope_theta: Positive = added(160_000.0)
    """Base of the rotary positions in layers of modernbert that attend to all tokens."""
    rope_theta_local: Positive = added(10_000.0)
    """The same in layers with local attention."""
    norm_eps: ZeroOrMore = added(0.0)
    """Epsilon of every LayerNorm; 0: 1e-12 for bert, 1e-5 for modernbert. RoBERTa's is 1e-5."""

    @model_validator(mode="after")
    def _check(self) -> "Transformer":
        if self.hidden % self._unit(self.heads):
            even = "" if self.architecture == "bert" else ", and an even one, since rotary positions turn pairs"
            raise ValueError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads}){even}")
        return self

    def _unit(self, heads: int) -> int:
        return heads if self.architecture == "bert" else 2 * heads

    @property
    def layer_norm_eps(self) -> float:
        return self.norm_eps or (1e-12 if self.architecture == "bert" else 1e-5)

    def attention_windows(self) -> list[int]:
        """Returns how many tokens each layer attends to; 0 means all."""
        local = self.local_attention if self.architecture == "modernbert" else 0
        return [local if number % self.global_every else 0 for number in range(self.layers)]

    def narrowed(self, fraction: float) -> "Transformer":
        """Returns sizes with hidden size, heads and feed-forward size scaled by `fraction`, and as many layers.

        The hidden size is rounded to a multiple of the heads, even for modernbert. Raises ValueError if it would be 0.
        """
        heads = max(1, round(fraction * self.heads))
        hidden = self._unit(heads) * round(fraction * self.hidden / self._unit(heads))
        if not hidden:
            raise ValueError(f"{fraction:g} of hidden size {self.hidden} is too small for {heads} heads")
        sizes = {"heads": heads, "hidden": hidden, "ffn": max(1, round(fraction * self.ffn))}
        return Transformer(**self.model_dump() | sizes)


class MapNetSizes(Transformer):
    """MAP-Net: half the encoder's width, as in the paper."""

    hidden: Count = 384
    heads: Count = 6
    ffn: Count = 1536
    """Hidden size of the feed-forward layers."""


class Optimiser(Section):
    adam_betas: Annotated[tuple[Beta, Beta], Field(strict=False)] = (0.9, 0.98)
    """AdamW's decay rates of the first and second moments."""
    adam_eps: Positive = 1e-6
    """Added to the root of AdamW's second moment."""
    weight_decay: ZeroOrMore = 0.01
    """Decoupled weight decay of AdamW; biases and norms don't decay."""
    clip_norm: ZeroOrMore = 0.0
    """Maximum gradient norm; 0: no clipping."""


class Pretrain(Optimiser):
    """[pretrain], with the values of Table 1 as defaults."""

    steps: Count = 1_000_000
    """Number of optimiser steps."""
    batch_size: Count = 256
    """Sequences per step, over all processes."""
    micro_batch_size: NonNegative = operational(0)
    """Sequences per forward pass in a process; gradients accumulate to batch_size. 0: the whole share of a process."""
    visits: Count = 1
    """Number of consecutive steps on the same sentences, each with new masks; applies to every method."""
    peak_lr: Positive = 1e-4
    """Learning rate after the warm-up."""
    warmup_steps: NonNegative = 10_000
    """Steps in which the learning rate rises from 0 to its peak."""
    schedule: Literal["linear", "wsd"] = added("linear")
    """Learning rate after the warm-up. linear: decays to 0 at the last step; wsd: constant, and every milestone is a
    branch that decays to 0 over the last tenth of its steps, as in a training of that length."""
    milestones: Annotated[Shares, Field(min_length=1)] = (0.4, 0.6, 0.8, 1.0)
    """Checkpoints to keep and fine-tune, as fractions of the steps."""
    seeds: Annotated[Ints, Field(min_length=1)] = (1,)
    """Pretraining seeds of all methods that do not set their own."""
    checkpoint_every: NonNegative = operational(5_000)
    """Steps between resume checkpoints; 0: only at milestones."""
    keep_checkpoints: Count = operational(2)
    """Number of resume checkpoints to keep."""
    validate_every: NonNegative = 5_000
    """Steps between validations; 0: only at milestones."""
    validation_sequences: Count = 1_024
    """Number of held-out sequences per validation."""
    log_every: Count = operational(100)
    """Steps between two lines of the log."""
    device: Literal["auto", "cpu", "cuda"] = operational("auto")
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 (autocast) on a GPU or CPU with hardware for it, else float32."""
    compile: bool = operational(False)
    """Use torch.compile, with one shape for all batches. For GPUs; on a CPU it only adds compilation time."""
    processes: Count = operational(1)
    """Processes that train one model together on this machine, one per GPU; same as --processes."""
    runs_per_gpu: Count = operational(1)
    """Pretraining runs of one process that share a GPU, whose memory has to suffice: small encoders don't fill one.
    Their hours and MFU are those of a shared GPU."""
    threads: NonNegative = operational(0)
    """CPU threads per training process; 0: all cores, divided among the processes that run in parallel."""

    def milestone_steps(self, shares: tuple[float, ...] = ()) -> tuple[int, ...]:
        """Returns the steps of the milestones, or of the given shares of `steps`, in ascending order."""
        return tuple(sorted({max(1, round(self.steps * share)) for share in shares or self.milestones}))


class MinimalPairs(Section):
    data: Strings = ()
    """Sets of minimal pairs to score, named after their files: a folder or archive (tar.xz, tar.gz, zip) of BLiMP's
    JSONL or Zorro's text files, or a JSONL, TSV, CSV or Parquet file with columns `good` and `bad`. Empty: the stage
    does nothing."""
    milestones: Shares = ()
    """The pretrain.milestones to score; empty: all."""
    pairs: NonNegative = 0
    """Score at most N pairs per paradigm: a random choice, the same for all encoders. 0: all."""
    whole_words: bool = False
    """Mask each token together with the tokens to its right that belong to the same word, so that rare words that the
    vocabulary splits don't get inflated scores (PLL-word-l2r, Kauf and Ivanova 2023)."""
    untrained: bool = True
    """Also score the encoder and head with the random weights from which pretraining starts, for each pretraining
    seed."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 (autocast) is faster where hardware has it, but rounds the differences that decide a pair."""
    batch_tokens: Count = operational(8192)
    """Tokens per forward pass, each in a masked copy of its sentence."""
    device: Literal["auto", "cpu", "cuda"] = operational("auto")
    threads: Count = operational(1)
    """CPU threads per encoder and data set."""

    @property
    def sets(self) -> dict[str, Path]:
        """Returns the path of each data set by its name: that of its folder or file, without suffixes."""
        paths = [Path(path).absolute() for path in self.data]
        suffixes = re.compile(r"(\.(tar|tgz|gz|bz2|xz|zip|jsonl|tsv|csv|parquet|txt))+$")
        return {suffixes.sub("", path.name): path for path in paths}

    @model_validator(mode="after")
    def _check(self) -> "MinimalPairs":
        if len(self.sets) < len(self.data):
            raise ValueError("data has two sets of the same name: rename a file or folder")
        return self
