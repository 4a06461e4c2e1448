"""The rows that stages leave on disk for each other. A stage writes them, another reads them back."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json")


class SourceCounts(Row):
    """What became of one source. Counts are after de-duplication, validation included."""

    kind: str
    documents: int
    paragraphs: int
    sentences: int
    words: int
    tokens: int
    train_sequences: int
    validation_sequences: int
    dropped: dict[str, int]
    """Paragraphs dropped, by clean-up rule."""
    left_out: dict[str, int]
    """Pages of a dump that are no articles, by reason."""
    markup: dict[str, int]
    """Leftovers of wiki markup that were taken out of lines, by rule."""


class CorpusManifest(Row):
    """What prepare-corpus made. Counts are of the whole corpus, validation included."""

    documents: int
    paragraphs: int
    sentences: int
    words: int
    tokens: int
    unknown_tokens: int
    train_sequences: int
    validation_sequences: int
    dropped: dict[str, int]
    """Paragraphs dropped, by clean-up rule."""
    problem_count: int
    problems: list[str]
    """Inputs that were repaired or skipped, one line each; a long list is cut, the count is exact."""
    vocab_size: int
    block_length: int
    train: list[str]
    """Shards, as paths below the artifact directory without their suffixes."""
    validation: list[str]
    tokenizer: str
    sources: list[SourceCounts] = Field(default_factory=list)
    """In the order of corpus.sources, which is the order of the shards."""
    sentence_lengths: list[int] = Field(default_factory=list)
    """Sentences of 0, 1, 2, ... words; the last number is of all that are as long or longer."""
    examples: dict[str, list[str]] = Field(default_factory=dict)
    """How the first paragraphs that each clean-up rule dropped begin."""


class Checkpoint(Row):
    """A milestone: a trained encoder (and MAP-Net) at one step."""

    method: str
    pretrain_seed: int
    step: int
    path: str
    """Folder below the artifact directory."""
    fingerprint: str
    """SHA-256 of the weights."""
    tokens: int
    """Tokens seen, padding not counted."""
    flops: float
    seconds: float
    """Training time up to here, resumed parts added up."""
    device: str
    validation_loss: float | None
    """Nats a token under the fixed uniform masks; None without an MLM head on the encoder (ELECTRA)."""
    validation: dict[str, float]
    """All held-out figures by name: losses under uniform and spaced masks, raw and with a refitted output bias, and
    shares of right guesses; or ELECTRA's own."""
    health: dict[str, float] = Field(default_factory=dict)
    """Of the proposal, since the log line before: empty where nothing proposes."""


class MaskedWord(Row):
    """One word of a sentence in Figure 2."""

    text: str
    probability: float
    """MAP-Net's probability of its tokens, summed."""
    masked: bool


class ProposedMasks(Row):
    """Figure 2 of one checkpoint: sentences with the masks that its proposal drew. Entropies in nats."""

    sentences: list[list[MaskedWord]]
    collapsed: bool
    proposal_entropy: float
    uniform_entropy: float


class TaskFacts(Row):
    """What fine-tuning knows about one task's data."""

    task: str
    train_examples: int
    dev_examples: int
    official: bool
    """The row counts are GLUE's own."""
    probe: bool
    notes: list[str]


class EpochScores(Row):
    epoch: int
    train_loss: float
    metrics: dict[str, float]
    """By name; for MNLI the mismatched set's carry the suffix "-mm"."""
    halves: list[tuple[dict[str, float], dict[str, float]]] = Field(default_factory=list)
    """The same on the two halves of the dev set, for each of several splits, which all runs of a task share."""


class FinetuneRun(Row):
    """One fine-tuning run: one checkpoint, task, setting and seed."""

    method: str
    pretrain_seed: int
    step: int
    checkpoint: str
    """SHA-256 of the pretrained weights; "" for random ones."""
    task: str
    batch_size: int
    lr: float
    seed: int
    settings: dict[str, Any]
    """The other keys of [finetune] that it depends on; "mnli_start" is the SHA-256 of the encoder after MNLI, if it
    started from there."""
    train_examples: int
    dev_examples: int
    epochs: list[EpochScores]
    failure: str
    """Empty, or why the run ended early; a failed run is shown and counted, never dropped."""
    device: str


class TunedEncoder(Row):
    """An encoder after it was fine-tuned on MNLI, for other tasks to start from."""

    path: str
    """Folder below the artifact directory."""
    fingerprint: str
    """SHA-256 of the weights."""
    checkpoint: str
    """SHA-256 of the weights that its own training started from; "" for random ones."""
    encoder: dict[str, Any]
    """Its [encoder] section."""
    epochs: list[EpochScores]


class Baseline(Row):
    """What a predictor without an encoder scores on a task's dev set."""

    task: str
    name: str
    metrics: dict[str, float]


class Baselines(Row):
    """All baselines of a task."""

    rows: list[Baseline]


class PretrainingTotals(Row):
    """Result of a finished pretraining run."""

    method: str
    seed: int
    steps: int
    tokens: int
    flops: float
    seconds: float


class Imported(Row):
    """An encoder that came from Hugging Face, with its head and tokenizer, under mapnet's names and ids."""

    name: str
    path: str
    """Folder below the artifact directory."""
    encoder: dict[str, int | float]
    """Sizes and dropouts, by the config's names of them."""
    vocab_size: int
    fingerprint: str
    """SHA-256 of the weights."""
    tokenizer: str
    """File below the artifact directory."""
    tokenizer_fingerprint: str
    """SHA-256 of the tokenizer."""

    @property
    def max_length(self) -> int:
        """The longest input, in tokens."""
        return int(self.encoder["max_length"])
