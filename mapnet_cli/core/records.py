"""Rows that stages write to disk and later stages read."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json")


class CorpusCounts(Row):
    """Sizes of a corpus or of a part of it, after de-duplication and including validation."""

    documents: int
    paragraphs: int
    sentences: int
    words: int
    tokens: int
    train_sequences: int
    validation_sequences: int


class SourceCounts(CorpusCounts):
    """Counts for one source."""

    kind: str
    dropped: dict[str, int]  # paragraphs dropped, by clean-up rule
    left_out: dict[str, int]  # pages of a dump that are not articles, by reason
    markup: dict[str, int]  # marks, leftover markup and characters that were removed or replaced, by rule


class CorpusManifest(CorpusCounts):
    """Result of prepare-corpus."""

    unknown_tokens: int
    dropped: dict[str, int]  # paragraphs dropped, by clean-up rule
    problem_count: int
    problems: list[str]
    """Inputs that were repaired or skipped, one line each; a long list is truncated, `problem_count` is exact."""
    vocab_size: int
    block_length: int
    train: list[str]  # shards, as paths below the artifact directory without their suffixes
    validation: list[str]
    tokenizer: str
    sources: list[SourceCounts] = Field(default_factory=list)
    """In the order of corpus.sources, which is also the order of the shards."""
    sentence_lengths: list[int] = Field(default_factory=list)
    """Number of sentences with 0, 1, 2, ... words; the last entry includes all longer sentences."""
    examples: dict[str, list[str]] = Field(default_factory=dict)
    """Beginnings of the first paragraphs that each clean-up rule dropped."""


class Checkpoint(Row):
    """A milestone: a trained encoder (and MAP-Net) at one step."""

    method: str
    pretrain_seed: int
    step: int
    path: str  # folder below the artifact directory
    fingerprint: str  # SHA-256 of the weights
    tokens: int  # tokens processed so far, excluding padding
    flops: float
    seconds: float  # training time so far, summed over resumed runs
    device: str
    validation_loss: float | None
    """Nats per token under the fixed uniform masks; None if the encoder has no MLM head (ELECTRA)."""
    validation: dict[str, float]
    """All held-out metrics by name: losses under uniform and spaced masks, raw and with a refitted output bias, and
    accuracies; for ELECTRA its own metrics."""
    health: dict[str, float] = Field(default_factory=dict)
    """Diagnostics of the proposal since the previous log line; empty without a proposal."""


class MaskedWord(Row):
    """One word of a sentence in Figure 2."""

    text: str
    probability: float  # MAP-Net's masking probability, summed over the word's tokens
    masked: bool
    loss: float | None = None
    """Nats, summed over the word's masked tokens; None if none is masked or the encoder has no MLM head."""


class ProposedMasks(Row):
    """Figure 2 of one checkpoint: sentences with masks drawn from its proposal. Entropies are in nats."""

    sentences: list[list[MaskedWord]]
    collapsed: bool
    proposal_entropy: float
    uniform_entropy: float
    rates: dict[str, dict[str, tuple[int, int]]] = Field(default_factory=dict)
    """Numbers of masked and of all maskable tokens of held-out text: by "decile" of frequency (1: the most frequent),
    "position" (tenths of the sequence), "kind" (function, content or other words) and, if spaCy tagged them, "tag"."""


class TaskFacts(Row):
    """Facts about the data of one fine-tuning task."""

    task: str
    train_examples: int
    dev_examples: int
    official: bool  # whether the row counts are those of official GLUE, or the task isn't GLUE's
    probe: bool
    notes: list[str]
    absent: list[str] = Field(default_factory=list)
    """Dev sets that a subset lacks, such as "dev-mm" for MNLI's mismatched one."""


class EpochScores(Row):
    epoch: int
    train_loss: float
    metrics: dict[str, float]  # by name; for MNLI, metrics on the mismatched set have the suffix "-mm"
    halves: list[tuple[dict[str, float], dict[str, float]]] = Field(default_factory=list)
    """The same metrics on both halves of the dev set, for each of several splits shared by all runs of a task."""


class EncoderRecord(Row):
    """Base class of what was measured on one encoder."""

    method: str  # a method, an import or "untrained"
    pretrain_seed: int
    step: int
    checkpoint: str  # SHA-256 of the weights; "" for random ones


class FinetuneRun(EncoderRecord):
    """One fine-tuning run: one checkpoint, task, setting and seed."""

    task: str
    batch_size: int
    lr: float
    seed: int
    settings: dict[str, Any]
    """Other keys of [finetune] that affect the run; "mnli_start" is the SHA-256 of the MNLI-tuned encoder that it
    started from, if any."""
    train_examples: int
    dev_examples: int
    epochs: list[EpochScores]
    failure: str
    """Why the run ended early, or empty. Failed runs are shown and counted, never dropped."""
    device: str


class Outcome(Row):
    """How a fine-tuning run ended: the part of its record that `status` reads."""

    model_config = ConfigDict(extra="ignore")

    failure: str


class TunedEncoder(Row):
    """A fine-tuned encoder: after MNLI, from which other tasks start, or kept with its head after a task's best run."""

    path: str  # folder below the artifact directory; "" if no run succeeded
    fingerprint: str  # SHA-256 of the weights
    checkpoint: str  # SHA-256 of the weights before fine-tuning; "" for random weights
    encoder: dict[str, Any]  # its [encoder] section
    epochs: list[EpochScores]
    run: str = ""  # setting and seed of a kept encoder's run


class Baseline(Row):
    """Dev-set scores of a predictor without an encoder on one task."""

    task: str
    name: str
    metrics: dict[str, float]


class Baselines(Row):
    """All baselines of a task."""

    rows: list[Baseline]


class ParadigmScore(Row):
    """Outcome of one paradigm of minimal pairs."""

    name: str
    phenomenon: str  # "" if the data doesn't say
    field: str  # field of linguistics; "" if the data doesn't say
    pairs: int
    correct: float
    """Pairs whose acceptable sentence has the higher score; ties and pairs that aren't scored count one half."""
    ties: int
    unscored: dict[str, list[int]]  # numbers of the pairs that aren't scored (in the data, from 0), by reason


class PairScores(EncoderRecord):
    """Scores of one encoder with its MLM head on one set of minimal pairs."""

    data: str  # name of the data set
    settings: dict[str, Any]  # keys of [minimal_pairs] that affect the scores
    accuracy: float  # mean over the paradigms, each the fraction of its pairs that are correct
    standard_error: float  # standard error of the accuracy over pairs: binomial in each paradigm
    unknown_share: float  # fraction of the tokens that are [UNK]
    paradigms: list[ParadigmScore]
    device: str


def mean_accuracy(paradigms: Sequence[ParadigmScore]) -> tuple[float, float]:
    """Returns the mean over paradigms of the fraction of correct pairs, and its standard error over pairs."""
    shares = [paradigm.correct / paradigm.pairs for paradigm in paradigms]
    variance = sum(p * (1 - p) / paradigm.pairs for p, paradigm in zip(shares, paradigms, strict=True))
    return sum(shares) / len(shares), math.sqrt(variance) / len(shares)


class PretrainingTotals(Row):
    """Result of a finished pretraining run."""

    method: str
    seed: int
    steps: int
    tokens: int
    flops: float
    seconds: float


class Imported(Row):
    """An encoder imported from Hugging Face, with head and tokenizer, in mapnet's parameter names and token ids."""

    name: str
    path: str  # folder below the artifact directory
    encoder: dict[str, int | float | str]  # sizes and dropout rates, by config key
    vocab_size: int
    fingerprint: str  # SHA-256 of the weights
    tokenizer: str  # file below the artifact directory
    tokenizer_fingerprint: str  # SHA-256 of the tokenizer

    @property
    def max_length(self) -> int:
        """Maximum input length, in tokens."""
        return int(self.encoder["max_length"])


def log_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the complete lines of a log, a JSON object each, with their rows; none if there is no log."""
    if not path.exists():
        return
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        try:
            row = json.loads(text)
        except json.JSONDecodeError:
            continue
        if text.endswith("\n") and isinstance(row, dict) and isinstance(row.get("step"), int):
            yield text, row
