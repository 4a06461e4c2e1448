"""`run`, which ends with a report, and the commands that show how far it is and what came out."""

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from mapnet_cli.cli.options import LOOKING, TRAINING, Invocation, command
from mapnet_cli.cli.running import advise, run_or_plan

group = typer.Typer()
SUMMARY_COLUMNS, MOST_COLUMNS = 7, 10
"""Columns of Table 3 without the tasks, to which the terminal's is cut if it has more than MOST_COLUMNS."""


@command(group, "run", TRAINING)
def run(invocation: Invocation) -> None:
    """Run prepare-corpus, pretrain, minimal-pairs, finetune-glue and report in order, skipping finished work."""
    from mapnet_cli.cli.stages import STAGES
    from mapnet_cli.core import DamagedError

    run_or_plan(tuple(STAGES), invocation)
    if not invocation.dry_run and (command := _report(invocation)):
        raise DamagedError(f"the report is partial: results can't be read; see the warnings, then {command}")


@command(group, "status", LOOKING)
def status(
    invocation: Invocation,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again and again until all work is done.")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks with --watch.")] = 2,
) -> None:
    """Show what is done, running and missing."""
    from mapnet_cli.cli import watch as shown
    from mapnet_cli.cli.stages import status

    advise(invocation)
    if watch and not invocation.console.as_json:
        shown.watch(invocation.console, lambda: invocation.lineage, every)
        return
    rows = status(invocation.lineage)
    invocation.console.result([row for row, _ in rows], *shown.status_lines(rows))


@command(group, "report", LOOKING)
def report(
    invocation: Invocation,
    folders: Annotated[
        list[Path] | None, typer.Argument(help="With --compare: artifact directories (or reports) to put side by side.")
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Compare the reports of several directories.")] = False,
    to: Annotated[Path, typer.Option(help="Folder of the comparison's page.")] = Path("comparison"),
    watch: Annotated[bool, typer.Option("--watch", help="Rebuild the page until no run is missing.")] = False,
    every: Annotated[float, typer.Option(min=1, help="Seconds between two builds with --watch.")] = 30,
) -> None:
    """Write the report of all finished runs: one HTML page, and tables and figures for papers."""
    from mapnet_cli.core import UsageError

    if compare:
        _compare(invocation, folders or [], to)
        return
    if folders:
        raise UsageError(f"{folders[0]}: folders are for --compare; the artifact directory is --artifacts {folders[0]}")
    advise(invocation)
    while _report(invocation, math.ceil(every) if watch else 0) and watch:
        time.sleep(every)


def _report(invocation: Invocation, refresh: int = 0) -> str:
    """Writes and prints the report; returns the command that makes what is missing, "" if nothing is."""
    from mapnet_cli.core import to_rich
    from mapnet_cli.report.stage import build

    console, resolved, artifacts = invocation.console, invocation.resolved, invocation.artifacts
    own = artifacts.outputs == artifacts.root or not artifacts.recognised
    if not own:
        console.warn(f"{artifacts.root} can't be written to: the report's files go to {artifacts.outputs}")
    with artifacts.lock("report") if own else nullcontext():
        built = build(invocation.lineage, invocation.name, resolved.origins, refresh)
    record = {"folder": built.folder.name, "files": sorted(built.files), **built.value}
    table = built.tables["table3"]
    most = len(table.columns) if len(table.columns) <= MOST_COLUMNS else SUMMARY_COLUMNS
    console.result(record, to_rich(table, False, most), *built.summary)
    if console.as_json:
        return built.next_command
    for warning in built.warnings:
        console.warn(warning)
    console.data(f"Report: {built.files['index.html']}")
    if built.next_command:
        console.data(f"Missing: {'; '.join(built.value['missing'])}")
        console.warn(f"the report is partial; next: {built.next_command}")
    return built.next_command


def _compare(invocation: Invocation, folders: Sequence[Path], to: Path) -> None:
    from mapnet_cli.core import to_json, to_rich
    from mapnet_cli.report.together import compare

    table, refused, page = compare(folders, to)
    record = {"page": str(page), "not compared": refused, "table": to_json(table)}
    invocation.console.result(record, to_rich(table, notes=False))
    if not invocation.console.as_json:
        for reason in refused:
            invocation.console.warn(reason)
        invocation.console.data(f"Comparison: {page}")
