"""[corpus]: text sources, clean-up, vocabulary and blocks."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator
from pydantic_core import PydanticKnownError

from mapnet_cli.config.base import Count, NonNegative, Positive, Section, Share, ZeroOrMore, added, operational
from mapnet_cli.core import find_plugin, is_hub, plugin_names

SOURCE_KINDS = ("cpython", "text", "jsonl", "csv", "parquet", "arrow", "wikiextractor", "mediawiki", "dataset")
USE = {
    "column": ("jsonl", "csv", "parquet", "arrow", "wikiextractor", "dataset"), "name": ("dataset",),
    "split": ("dataset",), "documents": ("text",), "paragraphs": ("text",), "hyphens": ("text",),
}  # fmt: skip
"""Keys of a source that only these kinds use, apart from plugins'."""


def source_kinds() -> list[str]:
    """Returns the kinds of sources, with those of plugins."""
    return [*dict.fromkeys((*SOURCE_KINDS, *plugin_names("sources")))]


def _known_kind(kind: str) -> str:
    find_plugin("sources", kind, SOURCE_KINDS)
    if kind not in (known := source_kinds()):
        *others, last = map(repr, known)
        raise PydanticKnownError("literal_error", {"expected": f"{', '.join(others)} or {last}"})
    return kind


class Source(Section):
    kind: Annotated[str, AfterValidator(_known_kind)] = "text"
    """cpython: the docstrings of the running Python; text: plain text; jsonl: JSON objects, one per line or in an
    array; csv: CSV or TSV with a header; parquet and arrow (Feather, IPC): one document per row; wikiextractor: <doc>
    blocks or the output of --json; mediawiki: a pages-articles.xml dump; dataset: saved by `datasets` or on the Hugging
    Face Hub. Files of all kinds but parquet, arrow and dataset may be .gz, .bz2, .xz or .zst compressed."""
    path: str = ""
    """File or folder (searched recursively, in sorted order), or hub:OWNER/NAME[@REVISION]; unused for cpython."""
    encoding: str = added("")
    """Encoding of text files by Python's name, such as cp1252; empty: UTF-8, or UTF-16 or UTF-32 where it is found."""
    column: str = "text"
    """For all kinds with rows: key or column that contains the text, or a path to it (meta.text). Lists are joined."""
    name: str = ""
    """For Hub datasets: configuration name."""
    split: str = "train"
    """For Hub datasets and saved DatasetDicts: split to use."""
    documents: Literal["file", "blank-lines"] = "file"
    """For text: one document per file, or documents separated by blank lines."""
    paragraphs: Literal["line", "blank-lines"] = "line"
    """For text: one paragraph per line, or hard-wrapped paragraphs separated by blank lines."""
    hyphens: Literal["rejoin", "keep"] = added("rejoin")
    """For hard-wrapped paragraphs: rejoin a word divided at the end of a line without its hyphen, where the slice (see
    slice_mb) has the word more often without it; or keep all hyphens."""
    gutenberg: bool = added(True)
    """Leave out Project Gutenberg's header and licence. Unused for Wikipedia and cpython, as is the next key."""
    book_marks: bool = added(True)
    """Remove the marks of typed books: the underscores of _italics_, numbers of notes ([37]) and [Illustration: ...].
    HTML entities are decoded."""
    limit: NonNegative = 0
    """Use only the first N files in sorted order; for cpython and Hub datasets, the first N documents. 0: all."""
    limit_mb: ZeroOrMore = 0.0
    """Use only about the first N megabytes of the files, by size on disk. 0: all."""
    weight: Positive = 1.0
    """Uses of each sequence per pretraining epoch: 2 is twice, 0.5 every other epoch. Changing it keeps the shards."""
    max_lost_share: Share = operational(0.5)
    """Maximum fraction of the rows or bytes that may yield no text; more is an error."""
    licence: str = operational("")
    """Licence of the text, shown on the corpus card and, as the Hub's id such as cc-by-sa-4.0, on model cards."""
    language: str = operational("")
    """Language of the text as the Hub's code, such as en, for model cards."""

    @model_validator(mode="after")
    def _check(self) -> "Source":
        if self.kind != "cpython" and not self.path:
            raise ValueError(f"a source of kind {self.kind!r} needs a path")
        if self.documents == "blank-lines" and self.paragraphs == "blank-lines":
            raise ValueError("documents and paragraphs can't both be separated by blank lines")
        if is_hub(self.path) and self.kind != "dataset":
            raise ValueError(f'{self.path} is a Hub dataset: set kind = "dataset"')
        if self.encoding:
            try:
                "".encode(self.encoding)
            except LookupError:
                raise ValueError(f"{self.encoding!r} is not an encoding that Python knows") from None
            if self.kind in ("cpython", "parquet", "arrow", "dataset"):
                raise ValueError(f"encoding applies only to text files, not to kind {self.kind!r}")
        if self.limit_mb and (self.kind == "cpython" or self.from_hub):
            raise ValueError("limit_mb applies only to files: use limit, a number of documents")
        return self

    def results_view(self) -> dict[str, Any]:
        """Returns the keys that affect results; those that the kind doesn't use have their defaults."""
        unused = {
            key: self.__class__.model_fields[key].default
            for key, kinds in USE.items()
            if self.kind in SOURCE_KINDS and self.kind not in kinds
        }
        return super(Source, self.model_copy(update=unused)).results_view()

    @property
    def from_hub(self) -> bool:
        """Whether the source is a Hub dataset, which is read over the network."""
        return self.kind == "dataset" and is_hub(self.path)


class Cleanup(Section):
    join_lines: bool = True
    """Join a line to the next if it ends in a letter, digit or comma and the next starts with a lower-case letter."""
    min_chars: NonNegative = 50
    """Drop shorter paragraphs. That includes most lines of dialogue (21 of 30 in a novel), see short_paragraphs."""
    max_chars: Count = 1_000_000
    """Drop longer paragraphs; at most 1,000,000, the limit of spaCy."""
    min_letters: NonNegative = 50
    """Drop paragraphs with fewer ASCII letters."""
    min_letter_share: Share = 0.7
    """Drop paragraphs with a smaller fraction of ASCII letters."""
    max_symbol_share: Share = 0.05
    r"""Drop paragraphs with a larger fraction of any one of the characters / \ |."""
    short_paragraphs: Literal["drop", "join"] = added("drop")
    """What to do with paragraphs that break min_chars or min_letters. drop: drop each one; join: join those that follow
    each other (dialogue, verse) and drop them only if they break the rules together."""
    characters: Literal["repair", "moses"] = added("repair")
    """What to do with invisible characters (soft hyphens, zero-width characters), which split words, and with ’.
    repair: remove the former, and write ' for the latter; moses: as Moses' scripts, a space for the former, and for the
    latter " unless it is between two letters."""
    deduplicate: bool = True
    """Drop repeated paragraphs; the first occurrence in the corpus is kept."""

    @model_validator(mode="after")
    def _check(self) -> "Cleanup":
        if self.max_chars > 1_000_000:
            raise ValueError("max_chars can't exceed 1,000,000, the longest text that spaCy accepts")
        return self


class Corpus(Section):
    sources: Annotated[tuple[Source, ...], Field(strict=False)] = ()
    on_bad_utf8: str = "repair"
    """What to do about invalid UTF-8. repair: replace the bytes by U+FFFD; skip: leave out the file (of a large file,
    the affected part); fail: stop with an error; or the name of an encoding, such as cp1252 or latin-1, to read these
    bytes in. Such files are counted and reported."""
    cleanup: Cleanup = Cleanup()
    spacy_pipeline: str = ""
    """Installed spaCy pipeline for sentence splitting; empty: blank("en") with the sentencizer."""
    lowercase: Literal["after-moses", "before-moses", "never"] = "after-moses"
    """When to lower-case text, relative to Moses tokenisation."""
    tokenizer: str = ""
    """Name of an import whose tokenizer to use. It does its own pre-processing: Moses and `lowercase` are skipped."""
    vocab_size: Annotated[int, Field(ge=300)] = 32_678
    """Number of BPE tokens, with the five special ones."""
    bpe_sample_words: Count = 20_000_000
    """Approximate maximum number of words to train BPE on, sampled from the corpus."""
    bpe_word_chars: Count = added(100)
    """Longer words are left out of the training of BPE, whose time grows with the square of their length."""
    blocks: Literal["complete", "full", "sentence"] = "complete"
    """complete: whole sentences, up to block_length; full: every token filled, as the fastest GPU attention kernels
    require (set cross_documents, or each document ends in a padded block); sentence: one sentence per block."""
    block_length: Annotated[int, Field(ge=8)] = 512
    """Maximum tokens per block, including [CLS] and [SEP]."""
    cross_documents: bool = False
    """Allow complete and full blocks to continue into the next document."""
    validation_every: Annotated[int, Field(ge=2)] = 200
    """Hold out every N-th document for validation."""
    slice_mb: Positive = 8.0
    """Approximate input size of a job in megabytes. Large files are split between documents if the format allows."""
    seed: int = 1
    """Seed for sampling the BPE training text."""

    @field_validator("on_bad_utf8")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in ("repair", "skip", "fail"):
            try:
                if len(bytes(range(256)).decode(value, "replace")) != 256:
                    raise LookupError
            except LookupError:
                raise ValueError(f"{value!r} is neither repair, skip nor fail, nor an encoding of one byte") from None
        return value

    @property
    def preparation(self) -> str:
        """Pre-processing: Moses' `lowercase` (and "moses" for its characters), or "none" for an import's tokenizer."""
        if self.tokenizer:
            return "none"
        return self.lowercase if self.cleanup.characters == "repair" else f"{self.lowercase} {self.cleanup.characters}"
