"""The last phase: the corpus card, what the corpus is and what became of its sources, in Markdown and HTML."""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mapnet_cli.core.artifacts import Artifacts, write_text
from mapnet_cli.core.plotting import COLOURS, images
from mapnet_cli.core.records import CorpusManifest, SourceCounts
from mapnet_cli.core.tables import Cell, Table, plain, to_markdown
from mapnet_cli.jobs.job import Output, Progress, ProgressCallback
from mapnet_cli.prepare_corpus.slices import finished
from mapnet_cli.text import bpe
from mapnet_cli.text.shards import shard_files
from mapnet_cli.text.special_tokens import CLS, SEP, SPECIALS

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from tokenizers import Tokenizer

# Array shapes: V entries of the vocabulary.
Counts = npt.NDArray[np.int64]

SHOWN_TOKENS = 60
STYLE = """body { font: 15px/1.5 sans-serif; max-width: 68em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: .6em 0 } th, td { padding: .2em .7em; border-bottom: 1px solid #ddd }
td + td, th + th { text-align: right } td.text { text-align: left } svg { max-width: 100%; height: auto }
h1, h2 { line-height: 1.2 } small { color: #767676 }"""


def write_card(
    artifacts: Artifacts, progress: ProgressCallback, *, manifest: str, card: str, names: list[str], licences: list[str]
) -> Output:
    """Writes CARD.md, CARD.html and CARD.svg; `names` and `licences` are of the sources, `manifest` is a key."""
    made = CorpusManifest(**finished(artifacts, manifest).result)
    tokenizer = bpe.load(artifacts.path(made.tokenizer))
    counts_V = token_counts(
        [artifacts.path(name) for name in (*made.train, *made.validation)], made.vocab_size, progress
    )
    said = f"{manifest.rpartition('/')[0]}, {made.vocab_size:,} entries, blocks of {made.block_length}"
    svg = images(lambda figure: _draw(figure, made, counts_V), "Corpus", said, ("svg",))["svg"].decode()
    files = [artifacts.path(f"{card}.{suffix}") for suffix in ("md", "html", "svg")]
    tables = [
        _sources(made, names, licences, said),
        _totals(made, counts_V, said),
        _by_source("dropped", "Paragraphs dropped, by rule", "dropped", made.sources, names, said),
        _by_source("left_out", "Pages left out, by reason", "left_out", made.sources, names, said),
        _by_source("markup", "Leftovers of wiki markup taken out, by rule", "markup", made.sources, names, said),
        _examples(made, said),
        _tokens(tokenizer, counts_V, said),
    ]
    shown = [table for table in tables if table.rows]
    write_text(files[0], _markdown(made, shown, files[2].name))
    write_text(files[1], _html(made, shown, svg))
    write_text(files[2], svg)
    return Output(files)


def token_counts(shards: Sequence[Path], vocab_size: int, progress: ProgressCallback) -> Counts:
    """Returns how often each token stands in the shards, [V]; [CLS] and [SEP] are of blocks, and not counted."""
    counts_V = np.zeros(vocab_size, np.int64)
    for number, shard in enumerate(shards):
        progress(Progress(number, len(shards), "counting tokens"))
        tokens = np.load(shard_files(shard)[0], mmap_mode="r", allow_pickle=False)
        for begin in range(0, len(tokens), 1 << 22):
            counts_V += np.bincount(tokens[begin : begin + (1 << 22)], minlength=vocab_size)
    counts_V[[CLS, SEP]] = 0
    return counts_V


def _number(value: int) -> Cell:
    return Cell(f"{value:,}", value)


def _sources(made: CorpusManifest, names: list[str], licences: list[str], said: str) -> Table:
    columns = ("documents", "paragraphs", "sentences", "words", "tokens", "train_sequences", "validation_sequences")
    rows = [
        (plain(name), plain(source.kind), plain(licence or None), *(_number(getattr(source, c)) for c in columns))
        for name, licence, source in zip(names, licences, made.sources, strict=True)
    ]
    rows.append((plain("all"), plain(None), plain(None), *(_number(getattr(made, c)) for c in columns)))
    titles = ("Documents", "Paragraphs", "Sentences", "Words", "Tokens", "Training blocks", "Held-out blocks")
    return Table("sources", "Sources", ("Source", "Kind", "Licence", *titles), tuple(rows), (), said)


def _totals(made: CorpusManifest, counts_V: Counts, said: str) -> Table:
    unknown = made.unknown_tokens / max(made.tokens, 1)
    unused = int((counts_V[len(SPECIALS) :] == 0).sum())
    middle, most = (_quantile(made.sentence_lengths, share) for share in (0.5, 0.95))
    rows = [
        ("Vocabulary", f"{made.vocab_size:,}"),
        ("Entries that the text doesn't use", f"{unused:,}"),
        ("Fertility (tokens a word)", f"{made.tokens / max(made.words, 1):.3f}"),
        ("Unknown tokens", f"{made.unknown_tokens:,} ({unknown:.4%})"),
        ("Words a sentence: mean, median, 95 %", f"{made.words / max(made.sentences, 1):.1f}, {middle}, {most}"),
        ("Tokens of a block, at most", f"{made.block_length:,}"),
    ]
    return Table("totals", "The whole", ("What", "Value"), tuple((plain(a), plain(b)) for a, b in rows), (), said)


def _quantile(lengths: list[int], share: float) -> str:
    """Returns the length below or at which a share of the sentences are; the last length stands for longer ones."""
    place = int(np.searchsorted(np.cumsum(lengths), share * sum(lengths)))
    return f"{place}{' or more' if place >= len(lengths) - 1 else ''}"


def _by_source(name: str, title: str, field: str, sources: list[SourceCounts], names: list[str], said: str) -> Table:
    counts: list[dict[str, int]] = [getattr(source, field) for source in sources]
    rules = sorted({rule for count in counts for rule in count})
    rows = tuple((plain(rule), *(_number(count.get(rule, 0)) for count in counts)) for rule in rules)
    return Table(name, title, ("Rule", *names), rows, (), said)


def _examples(made: CorpusManifest, said: str) -> Table:
    rows = tuple((plain(rule), plain(begin)) for rule, begins in made.examples.items() for begin in begins)
    return Table("examples", "How dropped paragraphs begin", ("Rule", "Paragraph"), rows, (), said)


def _tokens(tokenizer: "Tokenizer", counts_V: Counts, said: str) -> Table:
    """An excerpt of the vocabulary: the most frequent entries, some from the middle, and the rarest that are used."""
    order = [int(token) for token in np.argsort(-counts_V, kind="stable") if counts_V[token]]
    half = len(order) // 2
    parts = {
        "most frequent": order[:SHOWN_TOKENS],
        "middle": order[half : half + SHOWN_TOKENS],
        "rarest": order[-SHOWN_TOKENS:],
    }
    rows = tuple(
        (
            plain(name),
            Cell(f"{counts_V[tokens].max():,} to {counts_V[tokens].min():,}"),
            plain(" ".join(str(tokenizer.id_to_token(token)) for token in tokens)),
        )
        for name, tokens in parts.items()
        if tokens
    )
    return Table("vocabulary", "Vocabulary", ("Part", "Counts", "Entries"), rows, (), said)


def _draw(figure: "Figure", made: CorpusManifest, counts_V: Counts) -> None:
    figure.set_size_inches(8.4, 3.0)
    lengths, ranks = figure.subplots(1, 2)
    most = max((n for n, count in enumerate(made.sentence_lengths) if count), default=1)
    lengths.bar(range(most + 1), made.sentence_lengths[: most + 1], 1.0, color=COLOURS[0])
    lengths.set(xlabel="Words a sentence (the last bar: that or more)", ylabel="Sentences")
    ordered = np.sort(counts_V[counts_V > 0])[::-1]
    ranks.loglog(np.arange(1, len(ordered) + 1), ordered, color=COLOURS[1])
    ranks.set(xlabel="Rank of the token", ylabel="Times in the corpus")
    for ax, title in ((lengths, "Sentence lengths"), (ranks, "Token frequencies")):
        ax.spines[["top", "right"]].set_visible(False)
        ax.set_title(title, loc="left", fontsize=9.5, fontweight="bold")
    figure.subplots_adjust(0.1, 0.17, 0.98, 0.9, wspace=0.28)


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
    problems = "".join(f"<li>{html.escape(problem)}</li>" for problem in _problems(made)) or "<li>None.</li>"
    body = "\n".join([picture, *map(_html_table, tables), f"<h2>Problems</h2><ul>{problems}</ul>"])
    head = f'<meta charset="utf-8"><title>Corpus card</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body><h1>Corpus card</h1>\n{body}\n</body></html>\n'


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(column)}</th>" for column in table.columns)
    rows = "\n".join(f"<tr>{''.join(_html_cell(cell.text) for cell in row)}</tr>" for row in table.rows)
    return f"<h2>{html.escape(table.title)}</h2><table><tr>{head}</tr>\n{rows}</table><small>{table.signature}</small>"


def _html_cell(text: str) -> str:
    return f"<td{' class=text' if any(char.isalpha() for char in text) else ''}>{html.escape(text)}</td>"
