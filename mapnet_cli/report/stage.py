"""`mapnet report`: one page and the files beside it, from the records on disk.

Only reads records, without importing torch or spaCy. Several configs may share an artifact directory: a report is in
`report/NAME`, named after `report.name`, the config file or the recipe, and `report/latest` points to the newest one.
A report of other settings or inputs is never overwritten; the newer one's folder ends in its fingerprint.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from mapnet_cli.core import (
    DamagedError,
    Table,
    images,
    publishing,
    read_json,
    render,
    to_json,
    to_markdown,
    write_bytes,
    write_text,
)
from mapnet_cli.lineage import Lineage
from mapnet_cli.report.charts import cost_chart, log_chart, mask_chart, pairs_chart, task_chart, variance_chart
from mapnet_cli.report.differences import Differences, find_differences
from mapnet_cli.report.files import latex, results_value, to_csv_text, to_json_text
from mapnet_cli.report.flags import find_flags, run_table, warnings
from mapnet_cli.report.health import health_table, held_out_table, pairs_table, variance_table
from mapnet_cli.report.labels import TEXTS, average_name, label, notes
from mapnet_cli.report.load import Results, load_results
from mapnet_cli.report.page import (
    Section,
    answers,
    config_table,
    fingerprint_table,
    headline,
    library,
    mask_section,
    page,
    question,
)
from mapnet_cli.report.provenance import missing, next_command, record_lines, short_signature, signature
from mapnet_cli.report.scores import Scores, score
from mapnet_cli.report.selection import selection_table
from mapnet_cli.report.tables import Row, comparison_table, cost_table, counted, protocol, table3, table3_rows
from mapnet_cli.report.trajectories import reading

RECORDS, RESULTS, PAGE, LATEST = "records.jsonl", "results.json", "index.html", "latest"


@dataclass(frozen=True)
class ReportResult:
    """The written files and their tables. `next_command` is "" if nothing is missing."""

    folder: Path
    table3: Table
    tables: Mapping[str, Table]
    """By name, including Table 3."""
    summary: tuple[str, ...]
    """The short answer, and one sentence per method."""
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    signature: str
    missing: tuple[str, ...]
    next_command: str
    files: Mapping[str, Path] = field(default_factory=dict)
    """Keyed by file name."""

    @property
    def page(self) -> Path:
        return self.folder / PAGE

    def to_json(self) -> dict[str, Any]:
        """Returns all tables, the missing records, and the file paths relative to the report's folder."""
        return {
            "signature": self.signature,
            "folder": self.folder.name,
            "missing": list(self.missing),
            "next_command": self.next_command,
            "warnings": list(self.warnings),
            "files": sorted(self.files),
            "tables": {name: to_json(table) for name, table in self.tables.items()},
        }


def build(lineage: Lineage, name: str = "", origins: Mapping[str, str] | None = None, refresh: int = 0) -> ReportResult:
    """Writes the report of all finished records, each file atomically, and returns it.

    `name` is that of the config file, `origins` says where each config value is from. The page of a partial report
    reloads itself every `refresh` seconds, unless that is 0. Missing and damaged records are
    left out and named. Raises UsageError for an unknown task or metric, and InputError if the config's input data is
    missing and was never hashed.
    """
    root = lineage.artifacts.root
    root.mkdir(parents=True, exist_ok=True)
    # lines of records.jsonl, whose first one is known only when all runs are read
    with TemporaryFile(dir=root) as runs:
        results = load_results(lineage, runs)
        folder = _folder(lineage, name, results.fingerprint)
        scores = score(results)
        built, contents = _contents(lineage, folder, results, scores, origins or {}, refresh)
        for file_name, content in contents.items():
            path = folder / file_name
            write_text(path, content) if isinstance(content, str) else write_bytes(path, content)
        with publishing(folder / RECORDS) as temporary, temporary.open("wb") as file:
            file.writelines(record_lines(results, built.signature))
            runs.seek(0)
            shutil.copyfileobj(runs, file)
    _point_to(folder)
    files = {file: folder / file for file in (*contents, RECORDS)}
    return ReportResult(**{**vars(built), "files": files})


def _folder(lineage: Lineage, name: str, fingerprint: str) -> Path:
    """Returns the report's folder, which has no report of another config."""
    config = lineage.config
    folder = lineage.artifacts.path(f"report/{config.report.name or name or config.recipe or 'custom'}")
    try:
        own = read_json(folder / RESULTS)["fingerprint"] == fingerprint
    except FileNotFoundError:
        own = not folder.exists() or not any(folder.iterdir())
    except (DamagedError, KeyError, TypeError):
        own = False
    return folder if own else folder.with_name(f"{folder.name}-{fingerprint[:8]}")


def _point_to(folder: Path) -> None:
    """Makes report/latest a link to the folder; leaves it as it is where links aren't allowed."""
    latest, link = folder.with_name(LATEST), folder.with_name(f".tmp-{LATEST}")
    try:
        link.unlink(missing_ok=True)
        link.symlink_to(folder.name, target_is_directory=True)
        link.replace(latest)
    except OSError:
        link.unlink(missing_ok=True)


def _sections(
    results: Results, scores: Scores, differences: Differences, rows: list[Row], origins: Mapping[str, str], signed: str
) -> list[Section]:
    """Returns the parts of the page after Table 3, in order."""
    flags_table, config = run_table(results, signed), config_table(results, origins, signed)
    return [
        Section("tasks", "Score by task", charts=[task_chart(results, scores)]),
        Section(
            "cost", "Score and loss against cost", charts=[cost_chart(results, scores)],
            text=" ".join(reading(results, scores, differences)), tables=[cost_table(results, scores, rows, signed)],
        ),
        Section(
            "comparisons", "Differences and noise", counted(differences),
            folded=[comparison_table(differences, scores, signed), selection_table(results, scores, signed)],
        ),
        Section("heldout", "Held-out text", tables=[held_out_table(results, signed)]),
        Section("pairs", "Minimal pairs", charts=[pairs_chart(results)], folded=[pairs_table(results, signed)]),
        Section("training", "Training", charts=[log_chart(results)], tables=[health_table(results, signed)]),
        Section("variance", "Gradient variance", charts=[variance_chart(results)],
                folded=[variance_table(results, signed)]),
        mask_section(results, [mask_chart(results)]),
        Section("runs", "Failed, constant and missing runs", tables=[flags_table]),
        Section("settings", "Settings and fingerprints", folded=[config, fingerprint_table(results, signed)]),
    ]  # fmt: skip


def _contents(
    lineage: Lineage, folder: Path, results: Results, scores: Scores, origins: Mapping[str, str], refresh: int
) -> tuple[ReportResult, dict[str, str | bytes]]:
    """Returns the report and the contents of all files but records.jsonl, by name."""
    differences, signed = find_differences(results, scores), short_signature(results)
    flags = find_flags(results, scores)
    rows = table3_rows(results, scores, flags)
    first = table3(results, scores, rows, differences, signed)
    sections = _sections(results, scores, differences, rows, origins, signed)
    tables = {table.name: table for table in (first, *(t for s in sections for t in (*s.tables, *s.folded)))}
    said, alarms = notes(results, scores), warnings(results, scores, flags)
    short_answer, long_answers = headline(results.config, differences), answers(results, differences)
    built = ReportResult(
        folder=folder, table3=first, tables=tables, summary=tuple(filter(None, (short_answer, *long_answers))),
        notes=tuple(said), warnings=tuple(alarms),
        signature=signature(results, scores.metrics), missing=tuple(missing(results)),
        next_command=next_command(results),
    )  # fmt: skip
    value = results_value(results, scores, differences)
    common = {
        "title": folder.name, "question": question([label(name) for name in results.config.methods]),
        "headline": short_answer, "answers": long_answers,
        "average": average_name(results, scores), "missing": built.missing, "next_command": built.next_command,
        "warnings": alarms, "notes": said, "protocol": protocol(results), "signature": built.signature,
        "short_signature": signed, "marks": TEXTS["marks"], "files": TEXTS["files"],
        "refresh": refresh if built.missing else 0,
    }  # fmt: skip
    short = [to_markdown(table, 2) for table in (first, tables["cost"])]
    contents: dict[str, str | bytes] = {
        PAGE: page(sections, library(lineage.artifacts), table3=first, **common),
        RESULTS: to_json_text(value),
        "results.csv": to_csv_text(value["rows"]),
        "table3.tex": latex(results, scores, f"The {average_name(results, scores)}.", said[:1]),
        "report.md": render("mapnet_cli.report", "report.md", tables=short, **common),
    }
    for chart in (chart for section in sections[:2] for chart in section.charts if chart.panels):
        contents |= {f"{chart.name}.{kind}": image for kind, image in images(chart, signed).items()}
    return built, contents
