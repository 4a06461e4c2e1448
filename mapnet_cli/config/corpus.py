"""[corpus]: the text, its clean-up, vocabulary and blocks."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mapnet_cli.config.base import Count, NonNegative, Section, Share, operational

HUB = "hub:"
"""What a path of the hub begins with; hub.py, on the same floor, knows it too."""


class Source(Section):
    kind: Literal["cpython", "text", "jsonl", "parquet", "wikiextractor", "mediawiki", "dataset"] = "text"
    """cpython: the docstrings of the running Python; text: a file or folder; jsonl: an object a line; parquet: a
    document a row; wikiextractor: <doc> blocks; mediawiki: a pages-articles.xml dump; dataset: what `datasets` saved
    to disk, or a data set of the hub. All but parquet and dataset are read through .gz, .bz2, .xz and .zst."""
    path: str = ""
    """File or folder (searched recursively, in sorted order), or hub:OWNER/NAME[@REVISION]; unused for cpython."""
    column: str = "text"
    """jsonl, parquet and dataset only: the key or column that holds the text."""
    name: str = ""
    """hub: only: the data set's configuration."""
    split: str = "train"
    """dataset only: of the hub, and of a saved DatasetDict; a data set that was saved by itself has none."""
    documents: Literal["file", "blank-lines"] = "file"
    """text only: one document a file, or documents separated by blank lines."""
    paragraphs: Literal["line", "blank-lines"] = "line"
    """text only: every line is a paragraph, or hard-wrapped lines run on to the next blank line."""
    limit: NonNegative = 0
    """Take only the first so many files in sorted order, of cpython and the hub so many documents (0: all)."""
    limit_mb: Annotated[float, Field(ge=0)] = 0.0
    """Take only about the first so many megabytes of the files as they lie on disk (0: all)."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """How often pretraining sees its sequences in an epoch: 2 twice, 0.5 every other epoch. Nothing is rewritten."""
    licence: str = operational("")
    """Shown on the corpus card."""

    @model_validator(mode="after")
    def _check(self) -> "Source":
        if self.kind != "cpython" and not self.path:
            raise ValueError(f"a source of kind {self.kind!r} needs a path")
        if self.documents == "blank-lines" and self.paragraphs == "blank-lines":
            raise ValueError("documents and paragraphs can't both be separated by blank lines")
        if self.path.startswith(HUB) and self.kind != "dataset":
            raise ValueError(f'{self.path} is of the hub: kind = "dataset"')
        if self.limit_mb and (self.kind == "cpython" or self.of_hub):
            raise ValueError("limit_mb is of files: use limit, a number of documents")
        return self

    @property
    def of_hub(self) -> bool:
        """Whether it comes over the network."""
        return self.kind == "dataset" and self.path.startswith(HUB)


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
    """repair: replace the bad bytes by U+FFFD; skip: leave the file out, of a large one the share that a job reads;
    both are counted and named."""
    cleanup: Cleanup = Cleanup()
    spacy_pipeline: str = ""
    """An installed spaCy pipeline that sets sentence starts; empty: blank("en") with the sentencizer."""
    lowercase: Literal["after-moses", "before-moses", "never"] = "after-moses"
    tokenizer: str = ""
    """An import's name: its tokenizer, which prepares text its own way (no Moses, no `lowercase`)."""
    vocab_size: Annotated[int, Field(ge=300)] = 32_678
    bpe_sample_words: Count = 20_000_000
    """BPE is trained on at most about so many words, a seeded sample of paragraphs."""
    blocks: Literal["complete", "full", "sentence"] = "complete"
    """complete: whole sentences up to block_length; full: filled to the last token, which GPUs' fastest attention
    kernels ask for (with cross_documents, or each document ends in a padded block); sentence: one sentence a block."""
    block_length: Annotated[int, Field(ge=8)] = 512
    """Tokens, [CLS] and [SEP] counted."""
    cross_documents: bool = False
    """complete and full blocks may run on into the next document."""
    validation_every: Annotated[int, Field(ge=2)] = 200
    """Every so-many-th document is held out for validation."""
    slice_mb: Annotated[float, Field(gt=0)] = 8.0
    """Input is cut into jobs of about so many megabytes, large files between documents where their format allows."""
    seed: int = 1

    @property
    def preparation(self) -> str:
        """What is done to a sentence before the tokenizer: Moses and `lowercase`; "none" for an import's."""
        return "none" if self.tokenizer else self.lowercase
