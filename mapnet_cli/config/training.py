"""[encoder], [proposal], [pretrain] and [finetune]: sizes of the networks, and how they are trained."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mapnet_cli.config.base import Count, Floats, Ints, NonNegative, Section, Share, Strings, operational


class Transformer(Section):
    layers: Count = 12
    hidden: Count = 768
    heads: Count = 12
    ffn: Count = 3072
    max_length: Count = 512
    dropout: Share = 0.1
    attention_dropout: Share = 0.1
    init_std: Annotated[float, Field(gt=0)] = 0.02
    """Standard deviation of the layers' initial matrices; BERT's suits a width of 768, a narrow model wants more."""
    initial_positions: Literal["random", "sinusoidal"] = "random"
    """How the learned positions start; sinusoids spare a short training the learning of what a neighbour is."""

    @model_validator(mode="after")
    def _check(self) -> "Transformer":
        if self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads})")
        return self

    def narrowed(self, fraction: float) -> "Transformer":
        """Returns a network with this fraction of hidden size, heads and feed-forward, and as many layers.

        The hidden size is rounded to a multiple of the heads. Raises ValueError if nothing is left of it.
        """
        heads = max(1, round(fraction * self.heads))
        hidden = heads * round(fraction * self.hidden / heads)
        if not hidden:
            raise ValueError(f"{fraction:g} of a hidden size of {self.hidden} leaves nothing for {heads} heads")
        sizes = {"heads": heads, "hidden": hidden, "ffn": max(1, round(fraction * self.ffn))}
        return Transformer(**self.model_dump() | sizes)


class MapNetSizes(Transformer):
    """MAP-Net: half the encoder's width, as in the paper."""

    hidden: Count = 384
    heads: Count = 6
    ffn: Count = 1536


class Optimiser(Section):
    adam_betas: Annotated[tuple[float, float], Field(strict=False)] = (0.9, 0.98)
    adam_eps: Annotated[float, Field(gt=0)] = 1e-6
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip_norm: Annotated[float, Field(ge=0)] = 0.0
    """Largest gradient norm; 0: no clipping."""


class Pretrain(Optimiser):
    """Table 1."""

    steps: Count = 1_000_000
    batch_size: Count = 256
    """Sequences a step, of all processes together."""
    micro_batch_size: NonNegative = operational(0)
    """Sequences of a forward pass in one process; gradients accumulate to batch_size. 0: a process's whole share."""
    visits: Count = 1
    """Consecutive steps on the same sentences, with fresh masks each, for every method alike."""
    peak_lr: Annotated[float, Field(gt=0)] = 1e-4
    warmup_steps: NonNegative = 10_000
    milestones: Floats = (0.4, 0.6, 0.8, 1.0)
    """Checkpoints that are kept and fine-tuned, as shares of the steps."""
    seeds: Ints = (1,)
    checkpoint_every: NonNegative = operational(5_000)
    """Steps between checkpoints to resume from; 0: only at milestones."""
    keep_checkpoints: Count = operational(2)
    validate_every: NonNegative = 5_000
    validation_sequences: Count = 1_024
    log_every: Count = operational(100)
    device: Literal["auto", "cpu", "cuda"] = operational("auto")
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 autocast on a GPU that has it, float32 elsewhere; a CPU with bfloat16 units gains by it too."""
    compile: bool = operational(False)
    """torch.compile the networks, with one shape for all batches. For GPUs: on a CPU it costs and gains nothing."""
    processes: Count = operational(1)
    """Processes that train one model together on this machine, one a GPU; --processes says the same."""
    threads: NonNegative = operational(0)
    """CPU threads a training process uses; 0: all cores, shared by the processes that run side by side."""

    @model_validator(mode="after")
    def _check(self) -> "Pretrain":
        if not self.milestones or any(not 0 < share <= 1 for share in self.milestones):
            raise ValueError("milestones are shares of the steps: at least one, each above 0 and at most 1")
        if self.milestones != tuple(sorted(set(self.milestones))):
            raise ValueError("milestones must ascend")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds: at least one, all different")
        return self

    def milestone_steps(self, shares: tuple[float, ...] = ()) -> tuple[int, ...]:
        """Returns the steps of the milestones, or of `shares` of them, ascending, the last at most `steps`."""
        return tuple(sorted({max(1, round(self.steps * share)) for share in shares or self.milestones}))


class Finetune(Optimiser):
    """Table 2 and section 4.1.2."""

    data: str = "glue"
    """Where the tasks are: a folder with a folder or official zip file for each, TSV or JSONL or saved by `datasets`;
    "hub:ID" for a data set of the Hugging Face hub; or "probe" for the built-in probe tasks."""
    task_data: dict[str, str] = Field(default_factory=dict)
    """Where a single task is, in place of `data`: {QQP = "elsewhere/qqp"}."""
    subsets: Strings = ()
    """Tasks whose row counts may differ from GLUE's own; every table says so."""
    tasks: Strings = ("CoLA", "SST-2", "MRPC", "STS-B", "QQP", "MNLI", "QNLI", "RTE")
    milestones: Floats = ()
    """Which of pretrain.milestones are fine-tuned; empty: all."""
    batch_sizes: Ints = (16, 32)
    learning_rates: Floats = (1e-5, 2e-5, 3e-5, 4e-5, 5e-5, 6e-5, 7e-5, 8e-5)
    seeds: Ints = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
    epochs: Count = 10
    warmup_ratio: Share = 0.06
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    dropout: Share = 0.1
    """Of the classification head; the encoder keeps its own."""
    batching: Literal["random", "by-length"] = "random"
    """by-length: batches of examples of like length, in random order; a little faster, other examples meet."""
    metrics: dict[str, str] = Field(default_factory=dict)
    """Score of a task where it isn't the default, for instance {MRPC = "f1"}."""
    epoch: Literal["best", "last"] = "best"
    """Which epoch's score a run counts with; both are recorded."""
    max_train_examples: NonNegative = 0
    """Use only the first so many training rows of each task (0: all); every table says so."""
    from_mnli: Strings = ()
    """Tasks that start from the encoder after it was fine-tuned on MNLI, as RoBERTa does for RTE, MRPC and STS-B."""
    mnli_batch_size: Count = 32
    mnli_learning_rate: Annotated[float, Field(gt=0)] = 3e-5
    """Of that training on MNLI, one for each encoder, with the first of `seeds`."""
    untrained: bool = False
    """Also fine-tune the encoder with random weights: what pretraining is worth."""
    baselines: bool = True
    """Also score the majority class and a bag of words, for the per-task table."""
    device: Literal["auto", "cpu", "cuda"] = operational("auto")
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 autocast on a GPU that has it, float32 elsewhere."""
    threads: Count = operational(1)
    """CPU threads of one fine-tuning run."""
    runs_per_gpu: NonNegative = operational(0)
    """Runs that share a GPU; 0: as many as its memory holds, by an estimate that is rather too large."""
    seed: int = 1
    """Of the probe tasks' making."""

    @model_validator(mode="after")
    def _check(self) -> "Finetune":
        for name in ("tasks", "batch_sizes", "learning_rates", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise ValueError(f"{name}: at least one, all different")
        if self.milestones != tuple(sorted(set(self.milestones))):
            raise ValueError("milestones must ascend")
        return self
