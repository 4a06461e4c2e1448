"""Phase 7: the corpus card, a summary of the corpus and its sources in Markdown and HTML."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from mapnet_cli import core
from mapnet_cli.core import CorpusManifest, SourceCounts, number_cell
from mapnet_cli.jobs import Job, Output, Progress, ProgressCallback
from mapnet_cli.text import CLS, SEP, SPECIALS, load_tokenizer, shard_files

# Array shapes: V entries of the vocabulary.
Counts = npt.NDArray[np.int64]
Rows = Iterator[dict[str, Any]]  # of a table: cells or plain values by column title

SHOWN_TOKENS = 60


@dataclass(frozen=True, kw_only=True)
class WriteCard(Job):
    """Writes the card: KEY.md, KEY.html and KEY.svg."""

    manifest: str  # key of the manifest
    names: tuple[str, ...]  # names of the sources, as shown on the card
    licences: tuple[str, ...]

    def run(self, artifacts: core.Artifacts, progress: ProgressCallback) -> Output:
        artifacts.verify(self.manifest)
        made = artifacts.read(self.manifest, CorpusManifest)
        tokenizer = load_tokenizer(artifacts.path(made.tokenizer))
        shards = [artifacts.path(name) for name in (*made.train, *made.validation)]
        counts_V = token_counts(shards, made.vocab_size, progress)
        signature = f"{self.manifest.rpartition('/')[0]}, {made.vocab_size:,} entries, blocks of {made.block_length}"
        svg = core.image(_chart(made, counts_V), signature, "svg").decode()
        files = [artifacts.path(f"{self.key}.{suffix}") for suffix in ("md", "html", "svg")]
        twice = {name for name in self.names if self.names.count(name) > 1}  # each is the title of a column
        names = [f"{name} ({n})" if name in twice else name for n, name in enumerate(self.names, 1)]
        tables = {
            "sources": ("Sources", _sources(made, names, self.licences)),
            "totals": ("Totals", [{"Quantity": name, "Value": value} for name, value in _totals(made, counts_V)]),
            **{field: (title, _by_source(field, made.sources, names)) for field, title in _BY_SOURCE.items()},
            "examples": ("Examples of dropped paragraphs", _examples(made)),
            "vocabulary": ("Vocabulary", _tokens(tokenizer, counts_V)),
        }
        found = [core.table_of(name, title, rows, (), signature) for name, (title, rows) in tables.items()]
        shown = [table for table in found if table.rows]
        rest = made.problem_count - len(made.problems)
        problems = [*made.problems, *([f"and {rest:,} more"] if rest else [])]
        parts = ["# Corpus card", f"![Sentence lengths and token frequencies]({files[2].name})"]
        parts += [core.to_markdown(table, 2).rstrip() for table in shown]
        parts += ["## Problems", "\n".join(f"- {problem}" for problem in problems) or "None."]
        core.write_text(files[0], "\n\n".join(parts) + "\n")
        page = core.render(
            "mapnet_cli.prepare_corpus", "card.html", picture=svg[svg.index("<svg") :], tables=shown,
            problems=problems, is_text=lambda text: any(char.isalpha() for char in text),
        )  # fmt: skip
        core.write_text(files[1], page)
        core.write_text(files[2], svg)
        return Output(files)


def token_counts(shards: Sequence[Path], vocab_size: int, progress: ProgressCallback) -> Counts:
    """Returns how often each token occurs in the shards, [V]; [CLS] and [SEP] are not counted."""
    counts_V = np.zeros(vocab_size, np.int64)
    for number, shard in enumerate(shards):
        progress(Progress(number, len(shards), "counting tokens"))
        tokens = np.load(shard_files(shard)[0], mmap_mode="r", allow_pickle=False)
        for begin in range(0, len(tokens), 1 << 22):
            counts_V += np.bincount(tokens[begin : begin + (1 << 22)], minlength=vocab_size)
    counts_V[[CLS, SEP]] = 0
    return counts_V


_COUNTS = {name: name.capitalize() for name in ("documents", "paragraphs", "sentences", "words", "tokens")}
_COUNTS |= {"train_sequences": "Training blocks", "validation_sequences": "Held-out blocks"}
_BY_SOURCE = {
    "dropped": "Paragraphs dropped, by rule",
    "left_out": "Pages skipped, by reason",
    "markup": "Marks removed or replaced, by rule",
}
"""Counts by rule for each source: field of SourceCounts, and the title of its table."""


def _sources(made: CorpusManifest, names: Sequence[str], licences: Sequence[str]) -> Rows:
    kinds = [source.kind for source in made.sources]
    sources = [*zip(names, kinds, licences, made.sources, strict=True), ("all", None, "", made)]
    for name, kind, licence, counts in sources:
        shown = {title: number_cell(getattr(counts, count), "{:,}") for count, title in _COUNTS.items()}
        yield {"Source": name, "Kind": kind, "Licence": licence or None, **shown}


def _totals(made: CorpusManifest, counts_V: Counts) -> list[tuple[str, str]]:
    unknown = made.unknown_tokens / max(made.tokens, 1)
    unused = int((counts_V[len(SPECIALS) :] == 0).sum())
    median, p95 = (_quantile(made.sentence_lengths, share) for share in (0.5, 0.95))
    return [
        ("Vocabulary", f"{made.vocab_size:,}"),
        ("Unused vocabulary entries", f"{unused:,}"),
        ("Fertility (tokens per word)", f"{made.tokens / max(made.words, 1):.3f}"),
        ("Unknown tokens", f"{made.unknown_tokens:,} ({unknown:.4%})"),
        ("Words per sentence: mean, median, p95", f"{made.words / max(made.sentences, 1):.1f}, {median}, {p95}"),
        ("Maximum tokens per block", f"{made.block_length:,}"),
    ]


def _quantile(lengths: list[int], share: float) -> str:
    """Returns the length that a share of the sentences does not exceed; the last length includes all longer ones."""
    place = int(np.searchsorted(np.cumsum(lengths), share * sum(lengths)))
    return f"{place}{' or more' if place >= len(lengths) - 1 else ''}"


def _by_source(field: str, sources: list[SourceCounts], names: Sequence[str]) -> Rows:
    counts: list[dict[str, int]] = [getattr(source, field) for source in sources]
    for rule in sorted({rule for of in counts for rule in of}):
        cells = {name: number_cell(of.get(rule, 0), "{:,}") for name, of in zip(names, counts, strict=True)}
        yield {"Rule": rule} | cells


def _examples(made: CorpusManifest) -> Rows:
    for rule, begins in made.examples.items():
        yield from ({"Rule": rule, "Beginning": begin} for begin in begins)


def _tokens(tokenizer: Tokenizer, counts_V: Counts) -> Rows:
    """Yields an excerpt of the vocabulary: the most frequent, middle-ranked and rarest entries that are used."""
    order = [int(token) for token in np.argsort(-counts_V, kind="stable") if counts_V[token]]
    begins = {"most frequent": 0, "middle": len(order) // 2, "rarest": max(0, len(order) - SHOWN_TOKENS)}
    for name, begin in begins.items():
        if part := order[begin : begin + SHOWN_TOKENS]:
            counts = core.Cell(f"{counts_V[part].max():,} to {counts_V[part].min():,}")
            entries = " ".join(str(tokenizer.id_to_token(token)) for token in part)
            yield {"Part": name, "Counts": counts, "Entries": entries}


def _chart(made: CorpusManifest, counts_V: Counts) -> core.Chart:
    lengths = [{"words": n, "sentences": count} for n, count in enumerate(np.trim_zeros(made.sentence_lengths, "b"))]
    ordered = np.sort(counts_V[counts_V > 0])[::-1]
    shown = np.unique(np.geomspace(1, len(ordered), 200).astype(int)) if len(ordered) else np.empty(0, np.int64)
    ranks = [{"rank": int(rank), "count": int(ordered[rank - 1])} for rank in shown]
    panels = core.render("mapnet_cli.prepare_corpus", "card.json", axis=core.axis, colours=core.COLOURS)
    return core.Chart("corpus", "Corpus", "", json.loads(panels), {"lengths": lengths, "ranks": ranks}, 2)
