"""`mapnet report`: all tables and figures of a config, from the records on disk.

Only reads records, without importing torch or spaCy. Several configs may share an artifact directory, so
files are written to `report/RECIPE` (or `report/NAME` with `report.name`). The path doesn't depend on other
settings; each file includes the signature of its scores.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from mapnet_cli.core import CorpusManifest, Table, publishing, to_csv, to_json, to_markdown, write_bytes, write_text
from mapnet_cli.lineage import Lineage
from mapnet_cli.report.compare import compare
from mapnet_cli.report.figure2 import figure2
from mapnet_cli.report.figures import curves, figure3
from mapnet_cli.report.heldout import held_out_tables
from mapnet_cli.report.load import Results, json_line, load_results, missing, next_command, record_line, signature
from mapnet_cli.report.notes import PROBE, average_name, data_suffix, is_probe
from mapnet_cli.report.pairs import pair_tables
from mapnet_cli.report.scores import Scores, score
from mapnet_cli.report.seeds import selection_table, spread_table
from mapnet_cli.report.settings import settings_tables
from mapnet_cli.report.tables import cost_table, summary_table, table3, task_table
from mapnet_cli.report.trajectories import target_table

RECORDS = "records.jsonl"
"""The raw records: one JSON object per line, "record" is the name of its class in core/records.py."""
HOW_TO_READ = """\
- Compare methods within a column: they use the same data in the same order and, unless a note says otherwise, the
  same number of steps. Paired differences have a 95% confidence interval; if it contains 0, no difference is shown.
- Steps are not the only cost: a method with a proposal network needs more compute per step. The table "Score and
  cost" lists tokens, FLOPs and hours, and the first method's score at equal FLOPs and equal hours.
- As in the paper, the best setting is chosen on the dev set that is reported, so scores are slightly too high, more so
  for larger grids. The table "Selection on one half of the dev set, scores on the other" estimates this bias.
- Scores from different reports are comparable if their signatures are equal."""


@dataclass(frozen=True)
class ReportResult:
    """The written files and their tables. `next_command` is "" if nothing is missing."""

    folder: Path
    summary: Table
    """One row per method."""
    table3: Table
    cost: Table
    target: Table
    """Cost at which each method reaches the first method's final value."""
    tasks: Table
    spread: tuple[Table, ...]
    """Spread over seeds, and selection on half of the dev set."""
    held_out: tuple[Table, ...]
    minimal_pairs: tuple[Table, ...]
    """By data set and by phenomenon; empty without minimal pairs."""
    settings: tuple[Table, ...]
    signature: str
    missing: tuple[str, ...]
    next_command: str
    files: Mapping[str, Path] = field(default_factory=dict)
    """Keyed by file name."""

    @property
    def tables(self) -> tuple[Table, ...]:
        scored = (self.summary, self.table3, self.cost, self.target, self.tasks)
        return (*scored, *self.spread, *self.held_out, *self.minimal_pairs, *self.settings)

    def to_json(self) -> dict[str, Any]:
        """Returns all tables, the missing records, and the file paths relative to the report's folder."""
        return {
            "signature": self.signature,
            "missing": list(self.missing),
            "next_command": self.next_command,
            "files": sorted(self.files),
            "tables": {table.name: to_json(table) for table in self.tables},
        }


def build(lineage: Lineage) -> ReportResult:
    """Writes the report of all finished records, each file atomically, and returns it.

    Raises UsageError for an unknown task or metric, DamagedError for a damaged record, InputError
    if the config's input data is missing and was never hashed.
    """
    config = lineage.config
    folder = lineage.artifacts.outputs / f"report/{config.report.name or config.recipe or 'custom'}"
    lineage.artifacts.root.mkdir(parents=True, exist_ok=True)
    # lines of records.jsonl, whose first one is known only when all runs are read
    with TemporaryFile(dir=lineage.artifacts.outputs) as runs:
        results = load_results(lineage, runs)
        scores = score(results)
        built = _tables(folder, results, scores)
        contents = _contents(built, results, scores)
        for name, content in contents.items():
            write_text(folder / name, content) if isinstance(content, str) else write_bytes(folder / name, content)
        with publishing(folder / RECORDS) as temporary, temporary.open("wb") as file:
            file.writelines(record_lines(results, built.signature))
            runs.seek(0)
            shutil.copyfileobj(runs, file)
    return replace(built, files={name: folder / name for name in (*contents, RECORDS)})


def _tables(folder: Path, results: Results, scores: Scores) -> ReportResult:
    comparisons = compare(results.config, scores)
    signed = signature(results, scores.metrics)
    return ReportResult(
        folder=folder,
        summary=summary_table(results, scores, comparisons),
        table3=table3(results, scores, comparisons),
        cost=cost_table(results, scores, comparisons),
        target=target_table(results, scores),
        tasks=task_table(results, scores),
        spread=(spread_table(results, scores), selection_table(results, scores)),
        held_out=held_out_tables(results, signed),
        minimal_pairs=pair_tables(results, signed),
        settings=settings_tables(results, scores),
        signature=signed,
        missing=tuple(missing(results)),
        next_command=next_command(results),
    )


def _contents(built: ReportResult, results: Results, scores: Scores) -> dict[str, str | bytes]:
    """Returns the contents of all files but records.jsonl, by name."""
    contents: dict[str, str | bytes] = {}
    for table in built.tables:
        contents[f"{table.name}.md"] = to_markdown(table)
        contents[f"{table.name}.csv"] = to_csv(table)
        as_json = json.dumps(to_json(table), indent=1, ensure_ascii=False, allow_nan=False)
        contents[f"{table.name}.json"] = f"{as_json}\n"
    contents |= {f"figure3.{kind}": image for kind, image in figure3(results, scores).items()}
    contents |= {f"curves.{kind}": image for kind, image in curves(results, scores).items()}
    contents["figure2.html"] = figure2(results, scores)
    contents["report.md"] = _document(results, scores, built.tables)
    return contents


def record_lines(results: Results, signed: str) -> list[bytes]:
    """Returns the lines of records.jsonl up to the fine-tuning runs: the signature, then one line per record."""
    scores = f"GLUE's dev sets{data_suffix(results)}" if not is_probe(results.config) else PROBE
    first = {"record": "signature", "signature": signed, "scores": scores}
    # without the quotes from dropped paragraphs: a report may be published where the text may not
    corpus = [results.manifest.model_copy(update={"examples": {}})] if results.manifest else []
    trained = (*results.imports, *results.checkpoints.values())
    rows = (*corpus, *trained, *results.pair_scores, *results.tasks.values(), *results.baselines)
    return [json_line(first), *map(record_line, rows)]


def _document(results: Results, scores: Scores, tables: Sequence[Table]) -> str:
    """Returns report.md: all tables and figures, how to read them, and what is missing.

    Links are relative to the report's folder.
    """
    by_name = {table.name: to_markdown(table, 2) for table in tables}
    pairs = [name for name in ("minimal-pairs", "phenomena") if name in by_name]
    parts = [
        f"# Report: {results.config.recipe or 'custom config'}{f' ({PROBE})' if is_probe(results.config) else ''}\n",
        _status(results, scores),
        f"## How to read it\n\n{HOW_TO_READ}\n",
        *(by_name[name] for name in ("summary", "table3")),
        "## Figure 3: learning curves\n\n![Score vs. pretraining steps](figure3.png)\n\n[As SVG](figure3.svg)\n",
        "## Score and held-out loss vs. cost\n\n![Score and loss vs. cost](curves.png)\n\n[As SVG](curves.svg)\n",
        *(by_name[name] for name in ("cost", "target", "heldout", *pairs, "tasks", "seeds", "selection")),
        f"## Figure 2: which words are masked\n\n{_figure2(results)}\n",
        *(by_name[name] for name in ("health", "methods", "table1", "table2")),
        f"## Corpus\n\n{_corpus(results.manifest)}\n",
    ]
    return "\n".join(parts)


def _status(results: Results, scores: Scores) -> str:
    lines = []
    if is_probe(results.config):
        lines.append(
            f"Scores are on {PROBE}: small tasks with labels known by construction. They show that the pipeline works"
            " and allow comparing methods with each other, but not with the paper."
        )
    else:
        lines.append(f"Methods are compared by the {average_name(results, scores)}.")
    absent = missing(results)
    if absent:
        lines.append("**Partial report.** Missing:")
        lines.append("\n".join(f"- {line}" for line in absent))
        lines.append(f"Next: `{next_command(results)}`, with the same options as this report.")
    else:
        lines.append(f"Complete: {len(results.checkpoints):,} checkpoints, {len(results.runs):,} fine-tuning runs.")
    if failed := [run for run in results.runs if run.failure or not run.epochs]:
        reasons = sorted({run.failure or "no epoch recorded" for run in failed})
        lines.append(f"Failed fine-tuning runs: {len(failed):,} ({'; '.join(reasons[:5])}).")
    return "\n\n".join(lines) + "\n"


def _figure2(results: Results) -> str:
    link = "[Held-out sentences with masked words in bold, coloured by masking probability](figure2.html)."
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
        "Vocabulary size": manifest.vocab_size,
        "Maximum tokens per sequence": manifest.block_length,
        **{f"Paragraphs dropped: {rule}": number for rule, number in manifest.dropped.items()},
    }
    lines = ["| Quantity | Count |", "| --- | ---: |", *(f"| {name} | {number:,} |" for name, number in counts.items())]
    lines += [""] * bool(manifest.problems) + [f"- {problem}" for problem in manifest.problems]
    return "\n".join(lines)
