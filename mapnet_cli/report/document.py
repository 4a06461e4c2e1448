"""report.md: everything in one document, with how to read it and what is missing."""

from collections.abc import Sequence

from mapnet_cli.core.records import CorpusManifest
from mapnet_cli.core.tables import Table, to_markdown
from mapnet_cli.glue.grid import GLUE_COLUMNS
from mapnet_cli.report.load import Results, missing, next_command
from mapnet_cli.report.notes import PROBE, is_probe
from mapnet_cli.report.scores import Scores

HOW_TO_READ = """\
- Compare methods down a column: same data, same order, and the same number of steps unless a note says otherwise.
  The row of paired differences says by how much, with a 95 % interval; an interval that holds 0 shows no difference.
- Steps aren't the only cost: a method with a proposal network spends more on each. The table of cost has the
  tokens, FLOPs and hours, and the first method's score at equal FLOPs and equal hours.
- The best setting is chosen on the dev set that it is scored on, as in the paper, so scores are a little high, the
  more so the larger the grid. By how much, the table "Chosen on one half of the dev set" shows.
- A score is comparable with another one where their signatures agree."""


def document(results: Results, scores: Scores, tables: Sequence[Table]) -> str:
    """Returns the report in Markdown. Its links are relative, to files beside it."""
    by_name = {table.name: to_markdown(table, 2) for table in tables}
    parts = [
        f"# Report: {results.config.recipe or 'custom config'}{f' ({PROBE})' if is_probe(results.config) else ''}\n",
        _status(results, scores),
        f"## How to read it\n\n{HOW_TO_READ}\n",
        by_name["summary"],
        by_name["table3"],
        "## Figure 3: learning curves\n\n![Score by pretraining steps](figure3.png)\n\n[As SVG](figure3.svg)\n",
        "## Gain and cost\n\n![Score and held-out loss by cost](curves.png)\n\n[As SVG](curves.svg)\n",
        by_name["cost"],
        by_name["target"],
        by_name["heldout"],
        by_name["tasks"],
        by_name["seeds"],
        by_name["selection"],
        f"## Figure 2: which words are masked\n\n{_figure2(results)}\n",
        by_name["health"],
        by_name["methods"],
        by_name["table1"],
        by_name["table2"],
        f"## Corpus\n\n{_corpus(results.manifest)}\n",
    ]
    return "\n".join(parts)


def _status(results: Results, scores: Scores) -> str:
    lines = []
    if is_probe(results.config):
        lines.append(
            f"Scores are of {PROBE}: small tasks with labels known by construction, good for seeing the pipeline work"
            " and for comparing methods with each other, not for comparing with the paper."
        )
    elif len(scores.columns) < GLUE_COLUMNS:
        lines.append(f"The average is over {len(scores.columns)} of GLUE's {GLUE_COLUMNS} columns.")
    absent = missing(results)
    if absent:
        lines.append("**Partial.** Missing:")
        lines.append("\n".join(f"- {line}" for line in absent))
        lines.append(f"Next: `{next_command(results)}`, with the same options as this report.")
    else:
        lines.append(f"Complete: {len(results.checkpoints):,} checkpoints, {len(results.runs):,} fine-tuning runs.")
    if failed := [run for run in results.runs if run.failure or not run.epochs]:
        reasons = sorted({run.failure or "no epoch recorded" for run in failed})
        lines.append(f"{len(failed):,} fine-tuning runs failed and are counted as failed: {'; '.join(reasons[:5])}.")
    return "\n\n".join(lines) + "\n"


def _figure2(results: Results) -> str:
    link = "[The sentences, with masked words in bold, coloured by probability](figure2.html)."
    collapsed = sorted({f"{method} at step {step:,}" for (method, _, step), m in results.masks.items() if m.collapsed})
    return f"{link} Collapsed proposals: {', '.join(collapsed)}." if collapsed else link


def _corpus(manifest: CorpusManifest | None) -> str:
    if manifest is None:
        return "Not prepared yet: run `mapnet prepare-corpus`."
    counts = {
        "Documents": manifest.documents,
        "Paragraphs": manifest.paragraphs,
        "Sentences": manifest.sentences,
        "Words": manifest.words,
        "Tokens": manifest.tokens,
        "Unknown tokens": manifest.unknown_tokens,
        "Training sequences": manifest.train_sequences,
        "Validation sequences": manifest.validation_sequences,
        "Vocabulary": manifest.vocab_size,
        "Tokens of a sequence, at most": manifest.block_length,
        **{f"Paragraphs dropped: {rule}": number for rule, number in manifest.dropped.items()},
    }
    lines = ["| What | Count |", "| --- | ---: |", *(f"| {name} | {number:,} |" for name, number in counts.items())]
    lines += [""] * bool(manifest.problems) + [f"- {problem}" for problem in manifest.problems]
    return "\n".join(lines)
