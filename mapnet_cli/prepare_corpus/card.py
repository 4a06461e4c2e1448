"""Phase 7: the corpus card, a summary of the corpus and its sources in Markdown and HTML."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mapnet_cli.core import (
    COLOURS,
    Artifacts,
    Cell,
    Chart,
    Column,
    CorpusManifest,
    SourceCounts,
    Spec,
    Table,
    axis,
    build_table,
    each,
    images,
    number_cell,
    render,
    to_markdown,
    write_text,
)
from mapnet_cli.jobs import Job, Output, Progress, ProgressCallback
from mapnet_cli.text import CLS, SEP, SPECIALS, load_tokenizer, shard_files

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Array shapes: V entries of the vocabulary.
Counts = npt.NDArray[np.int64]

SHOWN_TOKENS = 60


@dataclass(frozen=True, kw_only=True)
class WriteCard(Job):
    """Writes the card: KEY.md, KEY.html and KEY.svg."""

    manifest: str
    """Key of the manifest."""
    names: tuple[str, ...]
    """Names of the sources, as shown on the card."""
    licences: tuple[str, ...]

    def run(self, artifacts: Artifacts, progress: ProgressCallback) -> Output:
        artifacts.verify(self.manifest)
        made = artifacts.read(self.manifest, CorpusManifest)
        tokenizer = load_tokenizer(artifacts.path(made.tokenizer))
        shards = [artifacts.path(name) for name in (*made.train, *made.validation)]
        counts_V = token_counts(shards, made.vocab_size, progress)
        signature = f"{self.manifest.rpartition('/')[0]}, {made.vocab_size:,} entries, blocks of {made.block_length}"
        svg = images(_chart(made, counts_V), signature, ("svg",))["svg"].decode()
        files = [artifacts.path(f"{self.key}.{suffix}") for suffix in ("md", "html", "svg")]
        names = self.names
        tables = [
            _sources(made, names, self.licences, signature),
            _totals(made, counts_V, signature),
            _by_source("dropped", "Paragraphs dropped, by rule", "dropped", made.sources, names, signature),
            _by_source("left_out", "Pages skipped, by reason", "left_out", made.sources, names, signature),
            _by_source("markup", "Marks removed or replaced, by rule", "markup", made.sources, names, signature),
            _examples(made, signature),
            _tokens(tokenizer, counts_V, signature),
        ]
        shown = [table for table in tables if table.rows]
        write_text(files[0], _markdown(made, shown, files[2].name))
        write_text(files[1], _html(made, shown, svg))
        write_text(files[2], svg)
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


@dataclass(frozen=True)
class _Source:
    """Counts of one source, or of all sources together (without kind and licence)."""

    name: str
    counts: SourceCounts | CorpusManifest
    kind: str | None = None
    licence: str | None = None


_SOURCES: list[Column[_Source]] = [
    Column("Source", lambda row: row.name),
    Column("Kind", lambda row: row.kind),
    Column("Licence", lambda row: row.licence or None),
    Column("Documents", lambda row: number_cell(row.counts.documents, "{:,}")),
    Column("Paragraphs", lambda row: number_cell(row.counts.paragraphs, "{:,}")),
    Column("Sentences", lambda row: number_cell(row.counts.sentences, "{:,}")),
    Column("Words", lambda row: number_cell(row.counts.words, "{:,}")),
    Column("Tokens", lambda row: number_cell(row.counts.tokens, "{:,}")),
    Column("Training blocks", lambda row: number_cell(row.counts.train_sequences, "{:,}")),
    Column("Held-out blocks", lambda row: number_cell(row.counts.validation_sequences, "{:,}")),
]


def _sources(made: CorpusManifest, names: Sequence[str], licences: Sequence[str], signature: str) -> Table:
    found = zip(names, made.sources, licences, strict=True)
    rows = [_Source(name, source, source.kind, licence) for name, source, licence in found]
    return build_table("sources", "Sources", _SOURCES, [*rows, _Source("all", made)], (), signature)


def _totals(made: CorpusManifest, counts_V: Counts, signature: str) -> Table:
    unknown = made.unknown_tokens / max(made.tokens, 1)
    unused = int((counts_V[len(SPECIALS) :] == 0).sum())
    median, p95 = (_quantile(made.sentence_lengths, share) for share in (0.5, 0.95))
    values = {
        "Vocabulary": f"{made.vocab_size:,}",
        "Unused vocabulary entries": f"{unused:,}",
        "Fertility (tokens per word)": f"{made.tokens / max(made.words, 1):.3f}",
        "Unknown tokens": f"{made.unknown_tokens:,} ({unknown:.4%})",
        "Words per sentence: mean, median, p95": f"{made.words / max(made.sentences, 1):.1f}, {median}, {p95}",
        "Maximum tokens per block": f"{made.block_length:,}",
    }
    return build_table("totals", "Totals", _pair("Quantity", "Value"), values.items(), (), signature)


def _pair(first: str, second: str) -> list[Column[tuple[str, str]]]:
    return [Column(first, lambda row: row[0]), Column(second, lambda row: row[1])]


def _quantile(lengths: list[int], share: float) -> str:
    """Returns the length that a share of the sentences does not exceed; the last length includes all longer ones."""
    place = int(np.searchsorted(np.cumsum(lengths), share * sum(lengths)))
    return f"{place}{' or more' if place >= len(lengths) - 1 else ''}"


def _by_source(
    name: str, title: str, field: str, sources: list[SourceCounts], names: Sequence[str], signature: str
) -> Table:
    counts: list[dict[str, int]] = [getattr(source, field) for source in sources]
    columns: list[Column[str]] = [Column("Rule", lambda rule: rule)]
    columns += each(dict(enumerate(names)), lambda rule, source: number_cell(counts[source].get(rule, 0), "{:,}"))
    return build_table(name, title, columns, sorted({rule for count in counts for rule in count}), (), signature)


def _examples(made: CorpusManifest, signature: str) -> Table:
    rows = [(rule, begin) for rule, begins in made.examples.items() for begin in begins]
    return build_table("examples", "Examples of dropped paragraphs", _pair("Rule", "Beginning"), rows, (), signature)


def _tokens(tokenizer: "Tokenizer", counts_V: Counts, signature: str) -> Table:
    """Returns an excerpt of the vocabulary: the most frequent, middle-ranked and rarest entries that are used."""
    order = [int(token) for token in np.argsort(-counts_V, kind="stable") if counts_V[token]]
    half = len(order) // 2
    parts = {
        "most frequent": order[:SHOWN_TOKENS],
        "middle": order[half : half + SHOWN_TOKENS],
        "rarest": order[-SHOWN_TOKENS:],
    }
    columns: list[Column[str]] = [
        Column("Part", lambda part: part),
        Column("Counts", lambda part: Cell(f"{counts_V[parts[part]].max():,} to {counts_V[parts[part]].min():,}")),
        Column("Entries", lambda part: " ".join(str(tokenizer.id_to_token(token)) for token in parts[part])),
    ]
    return build_table("vocabulary", "Vocabulary", columns, parts if order else (), (), signature)


def _chart(made: CorpusManifest, counts_V: Counts) -> Chart:
    lengths = [{"words": n, "sentences": count} for n, count in enumerate(np.trim_zeros(made.sentence_lengths, "b"))]
    ordered = np.sort(counts_V[counts_V > 0])[::-1]
    shown = np.unique(np.geomspace(1, len(ordered), 200).astype(int)) if len(ordered) else np.empty(0, np.int64)
    ranks = [{"rank": int(rank), "count": int(ordered[rank - 1])} for rank in shown]
    bars: Spec = {
        "title": "Sentence lengths",
        "data": {"name": "lengths"},
        "mark": {"type": "bar", "color": COLOURS[0]},
        "encoding": {"x": axis("words", "Words per sentence (last bar: that many or more)"),
                     "y": axis("sentences", "Sentences", zero=True)},
    }  # fmt: skip
    logarithmic = {"scale": {"type": "log"}}
    curve: Spec = {
        "title": "Token frequencies",
        "data": {"name": "ranks"},
        "mark": {"type": "line", "color": COLOURS[1]},
        "encoding": {"x": axis("rank", "Rank of the token") | logarithmic,
                     "y": axis("count", "Occurrences") | logarithmic},
    }  # fmt: skip
    panels = [bars | {"width": 300, "height": 200}, curve | {"width": 300, "height": 200}]
    return Chart("corpus", "Corpus", "", panels, {"lengths": lengths, "ranks": ranks}, 2)


def _markdown(made: CorpusManifest, tables: Sequence[Table], figure: str) -> str:
    parts = ["# Corpus card", f"![Sentence lengths and token frequencies]({figure})"]
    parts += [to_markdown(table, 2).rstrip() for table in tables]
    return "\n\n".join([*parts, "## Problems", _problem_list(made)]) + "\n"


def _problem_list(made: CorpusManifest) -> str:
    return "\n".join(f"- {problem}" for problem in _problems(made)) or "None."


def _problems(made: CorpusManifest) -> list[str]:
    rest = made.problem_count - len(made.problems)
    return [*made.problems, *([f"and {rest:,} more"] if rest else [])]


def _html(made: CorpusManifest, tables: Sequence[Table], svg: str) -> str:
    """Returns one self-contained page."""
    picture = svg[svg.index("<svg") :]
    return render(
        "mapnet_cli.prepare_corpus", "card.html", picture=picture, tables=tables, problems=_problems(made),
        is_text=lambda text: any(char.isalpha() for char in text),
    )  # fmt: skip
