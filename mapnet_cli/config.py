"""The shared config: typed sections, whose defaults are the paper's values (Tables 1 and 2).

`layers.py` puts one together from recipe, file, environment and command line.
"""

import difflib
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

# TOML has lists where the config has tuples.
Ints = Annotated[tuple[int, ...], Field(strict=False)]
Floats = Annotated[tuple[float, ...], Field(strict=False)]
Strings = Annotated[tuple[str, ...], Field(strict=False)]

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]


def operational(default: Any) -> Any:
    """A key that decides how the work is done, left out of fingerprints.

    What comes out is the same up to rounding, and up to the dropout draws for micro_batch_size.
    """
    return Field(default, json_schema_extra={"operational": True})


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)

    def results_view(self) -> dict[str, Any]:
        """Returns the keys that the results depend on, as plain JSON values."""
        skip = {
            name
            for name, field in type(self).model_fields.items()
            if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("operational")
        }
        return self.model_dump(mode="json", exclude=skip)


class Source(Section):
    kind: Literal["cpython", "text", "wikiextractor", "dataset"] = "text"
    """cpython: the docstrings of the running Python; text: a file or folder; wikiextractor: <doc> blocks;
    dataset: what `datasets` saved to disk, one document a row."""
    path: str = ""
    """File or folder (searched recursively, in sorted order); unused for cpython."""
    column: str = "text"
    """dataset only: the column that holds the text."""
    documents: Literal["file", "blank-lines"] = "file"
    """text only: one document a file, or documents separated by blank lines."""
    paragraphs: Literal["line", "blank-lines"] = "line"
    """text only: every line is a paragraph, or hard-wrapped lines run on to the next blank line."""
    limit: NonNegative = 0
    """Take only the first so many files in sorted order, of cpython so many documents (0: all)."""

    @model_validator(mode="after")
    def _check(self) -> "Source":
        if self.kind != "cpython" and not self.path:
            raise ValueError(f"a source of kind {self.kind!r} needs a path")
        if self.documents == "blank-lines" and self.paragraphs == "blank-lines":
            raise ValueError("documents and paragraphs can't both be separated by blank lines")
        return self


class Cleanup(Section):
    join_lines: bool = True
    """Join a line to the next where it ends in a letter, digit or comma and the next starts lower-case."""
    min_chars: NonNegative = 50
    max_chars: Count = 1_000_000
    """At most spaCy's own limit of 1,000,000 characters."""
    min_letters: NonNegative = 50
    """ASCII letters."""
    min_letter_share: Share = 0.7
    max_symbol_share: Share = 0.05
    r"""For each of / \ |."""
    deduplicate: bool = True
    """Drop every paragraph that stood before, anywhere in the corpus."""

    @model_validator(mode="after")
    def _check(self) -> "Cleanup":
        if self.max_chars > 1_000_000:
            raise ValueError("max_chars can't exceed 1,000,000, the longest text that spaCy accepts")
        return self


class Corpus(Section):
    sources: Annotated[tuple[Source, ...], Field(strict=False)] = ()
    on_bad_utf8: Literal["repair", "skip", "fail"] = "repair"
    """repair: replace the bad bytes by U+FFFD; skip: leave the file out; both are counted and named."""
    cleanup: Cleanup = Cleanup()
    spacy_pipeline: str = ""
    """An installed spaCy pipeline that sets sentence starts; empty: blank("en") with the sentencizer."""
    lowercase: Literal["after-moses", "before-moses", "never"] = "after-moses"
    tokenizer: str = ""
    """An import's name: its tokenizer, which prepares text its own way (no Moses, no `lowercase`)."""
    vocab_size: Annotated[int, Field(ge=300)] = 32_678
    bpe_sample_words: Count = 20_000_000
    """BPE is trained on at most about so many words, a seeded sample of paragraphs."""
    blocks: Literal["complete", "sentence"] = "complete"
    """complete: whole sentences up to block_length; sentence: one sentence a block."""
    block_length: Annotated[int, Field(ge=8)] = 512
    """Tokens, [CLS] and [SEP] counted."""
    cross_documents: bool = False
    """complete blocks may run on into the next document."""
    validation_every: Annotated[int, Field(ge=2)] = 200
    """Every so-many-th document is held out for validation."""
    slice_mb: Annotated[float, Field(gt=0)] = 8.0
    """Input is cut into jobs of about so many megabytes, at file boundaries."""
    seed: int = 1

    @property
    def preparation(self) -> str:
        """What is done to a sentence before the tokenizer: Moses and `lowercase`; "none" for an import's."""
        return "none" if self.tokenizer else self.lowercase


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


class Proposal(Transformer):
    hidden: Count = 384
    heads: Count = 6
    ffn: Count = 1536


class Method(Section):
    """What is compared: masking and objective. Any number of `[method.NAME]` tables."""

    start: str = ""
    """An import's name: training starts from its encoder and head in place of random weights."""
    strategy: str = "uniform"
    """Where masks come from when the step is not an exploration step."""
    mask_rate: Annotated[float, Field(gt=0, lt=1)] = 0.15
    replace_mask: Share = 0.8
    """Share of the chosen positions that become [MASK]."""
    replace_random: Share = 0.1
    """Share that becomes a random ordinary token; the rest stays as it is."""
    estimator: str = "none"
    """Importance weight of a sequence's loss."""
    ratio_clip: Annotated[float, Field(gt=0)] = 0.2
    """epsilon of CLIP(r, 1 - eps, 1 + eps)."""
    objective: str = "none"
    """What MAP-Net is trained on."""
    loss_weight: Annotated[float, Field(gt=0)] = 0.01
    """The paper's lambda."""
    loss_weight_on: Literal["mapnet", "encoder"] = "mapnet"
    """Which of the two losses lambda multiplies; the paper says both."""
    explore_start: Share = 1.0
    explore_end: Share = 1 / 3
    """Probability of a uniform step at the first and the last step, linear between."""
    learn_on_uniform_steps: bool = True
    """MAP-Net also learns from the losses of uniform steps."""

    @model_validator(mode="after")
    def _check(self) -> "Method":
        if self.replace_mask + self.replace_random > 1 + 1e-9:
            raise ValueError("replace_mask + replace_random can't exceed 1")
        return self


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
    """Sequences a step."""
    micro_batch_size: NonNegative = operational(0)
    """Sequences a forward pass; gradients accumulate to batch_size. 0: batch_size."""
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
    """auto: bfloat16 autocast on a GPU that has it, float32 elsewhere."""
    threads: NonNegative = operational(0)
    """CPU threads a training process uses; 0: all cores, shared by the pretrainings that run side by side."""

    @model_validator(mode="after")
    def _check(self) -> "Pretrain":
        if not self.milestones or any(not 0 < share <= 1 for share in self.milestones):
            raise ValueError("milestones are shares of the steps: at least one, each above 0 and at most 1")
        if self.milestones != tuple(sorted(set(self.milestones))):
            raise ValueError("milestones must ascend")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds: at least one, all different")
        return self

    def milestone_steps(self) -> tuple[int, ...]:
        """Returns the steps of the milestones, ascending, the last at most `steps`."""
        return tuple(sorted({max(1, round(self.steps * share)) for share in self.milestones}))


class Finetune(Optimiser):
    """Table 2 and section 4.1.2."""

    data: str = "glue"
    """Folder in GLUE's official layout (CoLA/train.tsv, ...), or "probe" for the built-in probe tasks."""
    tasks: Strings = ("CoLA", "SST-2", "MRPC", "STS-B", "QQP", "MNLI", "QNLI", "RTE")
    batch_sizes: Ints = (16, 32)
    learning_rates: Floats = (1e-5, 2e-5, 3e-5, 4e-5, 5e-5, 6e-5, 7e-5, 8e-5)
    seeds: Ints = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
    epochs: Count = 10
    warmup_ratio: Share = 0.06
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    dropout: Share = 0.1
    """Of the classification head; the encoder keeps its own."""
    metrics: dict[str, str] = Field(default_factory=dict)
    """Score of a task where it isn't the default, for instance {MRPC = "f1"}."""
    epoch: Literal["best", "last"] = "best"
    """Which epoch's score a run counts with; both are recorded."""
    max_train_examples: NonNegative = 0
    """Use only the first so many training rows of each task (0: all); every table says so."""
    baselines: bool = True
    """Also score the majority class and a bag of words, for the per-task table."""
    device: Literal["auto", "cpu", "cuda"] = operational("auto")
    threads: Count = operational(1)
    """CPU threads of one fine-tuning run."""
    seed: int = 1
    """Of the probe tasks' making."""

    @model_validator(mode="after")
    def _check(self) -> "Finetune":
        for name in ("tasks", "batch_sizes", "learning_rates", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise ValueError(f"{name}: at least one, all different")
        return self


class Report(Section):
    """Nothing here changes a result, only how it is shown."""

    figure2_sentences: Count = operational(6)


class Config(Section):
    recipe: str = ""
    methods: Strings = ("bert", "mapnet")
    """The methods to train and compare, each a `[method.NAME]` table."""
    imports: Strings = ()
    """Imported encoders that are fine-tuned beside them, each with its own tokenizer."""
    corpus: Corpus = Corpus()
    encoder: Transformer = Transformer()
    proposal: Proposal = Proposal()
    method: dict[str, Method] = Field(default_factory=dict)
    pretrain: Pretrain = Pretrain()
    finetune: Finetune = Finetune()
    report: Report = Report()

    @model_validator(mode="after")
    def _check(self) -> "Config":
        for name in self.methods:
            if name not in self.method:
                near = difflib.get_close_matches(name, self.method, 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"methods names {name!r}, but there is no [method.{name}]{hint}")
        if not self.methods + self.imports or any(len(set(r)) != len(r) for r in (self.methods, self.imports)):
            raise ValueError("methods and imports: at least one, all different")
        if taken := set(self.imports) & set(self.method):
            raise ValueError(f"imports: {', '.join(sorted(taken))} is a method's name; import it under another --name")
        for name, model in (("encoder", self.encoder), ("proposal", self.proposal)):
            if self.corpus.block_length > model.max_length:
                raise ValueError(
                    f"corpus.block_length ({self.corpus.block_length}) exceeds {name}.max_length ({model.max_length})"
                )
        return self
