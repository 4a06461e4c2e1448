"""`mapnet report`: one page and the files beside it, from the records on disk.

Only reads records, without importing torch or spaCy. Several configs may share an artifact directory: a report is in
`report/NAME`, named after `report.name`, the config file or the recipe, and `report/latest` points to the newest one.
A report of other settings or inputs is never overwritten; the newer one's folder ends in its fingerprint.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from mapnet_cli import core
from mapnet_cli.lineage import Lineage
from mapnet_cli.report import charts, health, tables, trajectories
from mapnet_cli.report.differences import Differences, find_differences
from mapnet_cli.report.files import latex, record_lines, results_value, to_csv_text, to_json_text
from mapnet_cli.report.flags import find_flags, run_table, warnings
from mapnet_cli.report.labels import TEXTS, average_name, label, notes
from mapnet_cli.report.load import Results, load_results
from mapnet_cli.report.masks import figure2
from mapnet_cli.report.page import Section, answers, config_table, fingerprint_table, headline, page, question
from mapnet_cli.report.scores import Scores, score
from mapnet_cli.report.selection import selection_table

RECORDS, RESULTS, PAGE, LATEX, LATEST = "records.jsonl", "results.json", "index.html", "table3.tex", "latest"


@dataclass(frozen=True)
class ReportResult:
    """The written files and what is in them."""

    folder: Path
    tables: Mapping[str, core.Table]  # by name; the first one is Table 3
    summary: tuple[str, ...]  # the short answer, and one sentence per method
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    value: Mapping[str, Any]  # the content of results.json
    files: Mapping[str, Path]  # keyed by file name
    next_command: str  # the command that makes the first missing records, "" if nothing is missing


def build(lineage: Lineage, name: str = "", origins: Mapping[str, str] | None = None, refresh: int = 0) -> ReportResult:
    """Writes the report of all finished records, each file atomically, and returns it.

    `name` is that of the config file, `origins` says where each config value is from. The page of a partial report
    reloads itself every `refresh` seconds, unless that is 0. Missing and damaged records are left out and named. Raises
    UsageError for an unknown task or metric, and InputError if the config's input data is missing and was never hashed.
    """
    outputs = lineage.artifacts.outputs
    outputs.mkdir(parents=True, exist_ok=True)
    # lines of records.jsonl, whose first one is known only when all runs are read
    with TemporaryFile(dir=outputs) as runs:
        results = load_results(lineage, runs)
        folder = _folder(lineage, name, results.fingerprint)
        built, contents = _contents(folder, results, origins or {}, refresh)
        # results.json, which says whose folder it is, comes first
        for file_name, content in sorted(contents.items(), key=lambda file: file[0] != RESULTS):
            core.write_bytes(folder / file_name, content)
        with core.publishing(folder / RECORDS) as temporary, temporary.open("wb") as file:
            file.writelines(record_lines(results, built.value["signature"]))
            runs.seek(0)
            shutil.copyfileobj(runs, file)
    link = folder.with_name(f"{core.TEMPORARY}{LATEST}")
    try:
        link.unlink(missing_ok=True)
        link.symlink_to(folder.name, target_is_directory=True)
        link.replace(folder.with_name(LATEST))
    except OSError:  # links aren't allowed everywhere
        link.unlink(missing_ok=True)
    return built


def _folder(lineage: Lineage, name: str, fingerprint: str) -> Path:
    """Returns the report's folder, which has no report of another config."""
    config = lineage.config
    folder = lineage.artifacts.outputs / f"report/{config.report.name or name or config.recipe or 'custom'}"
    try:
        own = core.read_json(folder / RESULTS)["fingerprint"] == fingerprint
    except FileNotFoundError:
        own = not folder.exists() or not any(folder.iterdir())
    except (core.DamagedError, KeyError, TypeError):
        own = False
    return folder if own else folder.with_name(f"{folder.name}-{fingerprint[:8]}")


def _sections(results: Results, scores: Scores, differences: Differences, rows: list[tables.Row]) -> list[Section]:
    """Returns the parts of the page after Table 3, in order."""
    reading = " ".join(trajectories.reading(results, scores, differences))
    comparisons = tables.comparison_table(results, scores, differences)
    return [
        Section("tasks", "Score by task", "", [charts.task_chart(results, scores)]),
        Section("cost", "Score and loss against cost", reading, [charts.cost_chart(results, scores)],
                [tables.loss_cost_table(results, differences), tables.cost_table(results, scores, rows)]),
        Section("comparisons", "Differences and noise", tables.counted(differences),
                folded=[comparisons, selection_table(results, scores)]),
        Section("heldout", "Held-out text", tables=[health.held_out_table(results)]),
        Section("pairs", "Minimal pairs", "", [charts.pairs_chart(results)], [],
                [health.pairs_table(results)]),
        Section("training", "Training", "", [charts.log_chart(results)], [health.health_table(results)]),
        Section("variance", "Gradient variance", "", [charts.variance_chart(results)], [],
                [health.variance_table(results)]),
        Section("masking", "What is masked", TEXTS["charts"]["figure2"], [charts.mask_chart(results)],
                masks=figure2(results)),
        Section("runs", "Failed, constant and missing runs", tables=[run_table(results)]),
    ]  # fmt: skip


def _contents(
    folder: Path, results: Results, origins: Mapping[str, str], refresh: int
) -> tuple[ReportResult, dict[str, bytes]]:
    """Returns the report and the contents of all files but records.jsonl, by name."""
    scores = score(results)
    differences, flags = find_differences(results, scores), find_flags(results, scores)
    rows = tables.table3_rows(results, scores, flags)
    first = tables.table3(results, scores, rows, differences)
    sections = _sections(results, scores, differences, rows)
    settings = [config_table(results, origins), fingerprint_table(results)]
    sections.append(Section("settings", "Settings and fingerprints", folded=settings))
    every = {table.name: table for one in sections for table in (first, *one.tables, *one.folded)}
    value, said = results_value(results, scores, differences), notes(results, scores)
    answer, sentences = headline(results.config, differences), answers(results, differences)
    alarms, missing = warnings(results, scores, flags), value["missing"]
    next_command = next(iter(missing.values()), "")
    text = "".join((*answer, *(cell.text for row in first.rows for cell in row)))
    common = {
        "title": folder.name,
        "question": question([label(name) for name in results.config.methods], "".join(results.before)),
        "headline": answer, "answers": sentences, "missing": list(missing),
        "average": average_name(results, scores) if scores.columns else "",
        "next_command": next_command, "warnings": alarms, "notes": said,
        "protocol": tables.protocol(results), "signature": value["signature"], "short_signature": results.signed,
        "marks": {mark: meaning for mark, meaning in TEXTS["marks"].items() if mark in text},
        "files": {name: what for name, what in TEXTS["files"].items() if scores.columns or name != LATEX},
        "refresh": refresh if missing else 0,
    }  # fmt: skip
    short = [core.to_markdown(table, 2) for table in (first, every["loss-cost"], every["cost"]) if table.rows]
    contents = {
        PAGE: page(first, sections, **common).encode(),
        RESULTS: to_json_text(value),
        "results.csv": to_csv_text(value["rows"]),
        **({LATEX: latex(results, scores, said[:1])} if scores.columns else {}),
        "report.md": core.render("mapnet_cli.report", "report.md", tables=short, **common).encode(),
    }
    for chart in (chart for section in sections[:2] for chart in section.charts if chart.panels):
        contents[f"{chart.name}.png"] = core.image(chart, results.signed, "png")
        contents[f"{chart.name}.svg"] = core.image(chart, results.signed, "svg")
    files = {name: folder / name for name in (*contents, RECORDS)}
    built = ReportResult(folder, every, (*answer, *sentences), tuple(said), tuple(alarms), value, files, next_command)
    return built, contents
