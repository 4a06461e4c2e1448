"""The door of `mapnet report`: all tables and figures of a config, from the records on disk.

Reads records only; loads neither torch nor spaCy. Several configs may share an artifact directory,
so the files stand below `report/RECIPE` (or `report.name`); the path stays the same when a setting changes,
and each file carries its signature.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mapnet_cli.config import Config
from mapnet_cli.core.artifacts import Artifacts, publishing, write_text
from mapnet_cli.core.tables import Table, to_csv, to_json, to_markdown
from mapnet_cli.report.compare import compare
from mapnet_cli.report.curves import curves
from mapnet_cli.report.document import document
from mapnet_cli.report.figure2 import figure2
from mapnet_cli.report.figure3 import figure3
from mapnet_cli.report.heldout import held_out_tables
from mapnet_cli.report.load import gather, missing, next_command, signature
from mapnet_cli.report.raw import records
from mapnet_cli.report.scores import score
from mapnet_cli.report.seeds import seed_tables
from mapnet_cli.report.settings import settings_tables
from mapnet_cli.report.steps_to_target import target_table
from mapnet_cli.report.summary import summary_table
from mapnet_cli.report.tables import result_tables


@dataclass(frozen=True)
class ReportResult:
    """What was written, and the tables for a terminal. `next_command` is "" where nothing is missing."""

    folder: Path
    summary: Table
    """A row a method."""
    table3: Table
    cost: Table
    target: Table
    """What each method needs to reach the first one's last value."""
    tasks: Table
    spread: tuple[Table, ...]
    """Over seeds, and of choosing on half of the dev set."""
    held_out: tuple[Table, ...]
    settings: tuple[Table, ...]
    signature: str
    missing: tuple[str, ...]
    next_command: str
    files: Mapping[str, Path] = field(default_factory=dict)
    """By file name."""

    @property
    def tables(self) -> tuple[Table, ...]:
        return (
            self.summary,
            self.table3,
            self.cost,
            self.target,
            self.tasks,
            *self.spread,
            *self.held_out,
            *self.settings,
        )

    def to_json(self) -> dict[str, Any]:
        """Returns all tables, what is missing, and the files' paths below the report's folder."""
        return {
            "signature": self.signature,
            "missing": list(self.missing),
            "next_command": self.next_command,
            "files": sorted(self.files),
            "tables": {table.name: to_json(table) for table in self.tables},
        }


def build(config: Config, artifacts: Artifacts) -> ReportResult:
    """Writes the report of whatever is there, each file atomically, and returns it.

    Raises UsageError for an unknown task or metric, DamagedError for a damaged record, InputError
    where the config's input data is gone and was never hashed.
    """
    results = gather(config, artifacts)
    scores = score(results)
    comparisons = compare(config, scores)
    table3, cost, tasks = result_tables(results, scores, comparisons)
    signed = signature(results, scores.metrics)
    built = ReportResult(
        folder=artifacts.path(f"report/{config.report.name or config.recipe or 'custom'}"),
        summary=summary_table(results, scores, comparisons),
        table3=table3,
        cost=cost,
        target=target_table(results, scores),
        tasks=tasks,
        spread=seed_tables(results, scores),
        held_out=held_out_tables(results, signed),
        settings=settings_tables(results, scores),
        signature=signed,
        missing=tuple(missing(results)),
        next_command=next_command(results),
    )

    contents: dict[str, str | bytes] = {}
    for table in built.tables:
        contents[f"{table.name}.md"] = to_markdown(table)
        contents[f"{table.name}.csv"] = to_csv(table)
        contents[f"{table.name}.json"] = (
            json.dumps(to_json(table), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        )
    contents |= {f"figure3.{kind}": image for kind, image in figure3(results, scores).items()}
    contents |= {f"curves.{kind}": image for kind, image in curves(results, scores).items()}
    contents["figure2.html"] = figure2(results, scores)
    contents["report.md"] = document(results, scores, built.tables)
    contents["records.jsonl"] = records(results, signed)
    for name, content in contents.items():
        if isinstance(content, str):
            write_text(built.folder / name, content)
        else:
            with publishing(built.folder / name) as temporary:
                temporary.write_bytes(content)
    return replace(built, files={name: built.folder / name for name in contents})
