"""`mapnet report --compare`: the reports of several artifact directories on one page, from their results.json.

Runs of different directories share no seeds, so there are no paired differences. What can't be compared is left out,
with the reason: scores of other data, epochs or metrics, losses on other text, times on other devices.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mapnet_cli.core import (
    Artifacts,
    Cell,
    Chart,
    Table,
    UsageError,
    axis,
    number_cell,
    read_json,
    short_steps,
    table_of,
    write_text,
)
from mapnet_cli.report.charts import STEPS_AXIS, line_panel
from mapnet_cli.report.files import HELD_OUT, PRETRAINING
from mapnet_cli.report.labels import spread_cell, tokens_cell
from mapnet_cli.report.page import Section, library, page
from mapnet_cli.report.scores import AVERAGE, PRIMARY, mean, mean_or_none

Key = tuple[str, str]
"""Task and metric."""


@dataclass(frozen=True)
class Source:
    """One report. `rows` maps (method, step) to the values of each task and metric, one per pretraining seed."""

    name: str
    value: Mapping[str, Any]
    rows: Mapping[tuple[str, int], Mapping[Key, Sequence[float]]]

    def __getitem__(self, name: str) -> Any:
        return self.value["protocol"][name]

    @property
    def last(self) -> dict[str, int]:
        """The last step of each method with scores."""
        tasks = set(self["metrics"]) | {"MNLI-m", "MNLI-mm"}
        return {m: s for (m, s), found in sorted(self.rows.items()) if any(task in tasks for task, _ in found)}


@dataclass(frozen=True)
class Entry:
    """A row of the comparison: a method of a source at a step."""

    source: Source
    method: str
    step: int
    columns: Sequence[Key]
    """The columns that all sources share."""

    @property
    def shown(self) -> str:
        return f"{self.source.value['methods'].get(self.method, self.method)} ({self.source.name})"

    def values(self, *key: str) -> list[float | None]:
        found = self.source.rows[self.method, self.step]
        if key != (AVERAGE, ""):
            return list(found.get((key[0], key[1]), ()))
        columns = [found.get(column, ()) for column in self.columns]
        return [mean(values) for values in zip(*columns, strict=False)] if all(columns) else []


def load_source(folder: Path) -> Source:
    """Returns the newest report of an artifact directory, or the report in the folder itself; raises UsageError."""
    found = next((path for path in (folder / "report/latest", folder) if (path / "results.json").exists()), None)
    if found is None:
        raise UsageError(f"{folder} has no report (report/latest/results.json): run `mapnet report` there first")
    value = read_json(found / "results.json")
    rows: dict[tuple[str, int], dict[Key, list[float]]] = {}
    for row in value["rows"]:
        if row["step"] is not None:
            place = rows.setdefault((row["method"], row["step"]), {})
            place.setdefault((row["task"], row["metric"]), []).append(row["value"])
    return Source(f"{folder.resolve().name}/{found.resolve().name}", value, rows)


def compare(folders: Sequence[Path], to: Path) -> tuple[Table, list[str], Path]:
    """Writes the page and returns its table, what wasn't compared and why, and the page's path.

    Raises UsageError for fewer than two reports, a folder without one, or nothing to compare.
    """
    sources = [load_source(folder) for folder in folders]
    if len(sources) < 2:
        raise UsageError("--compare: name at least two artifact directories that have reports")
    refused = [f"{one.name} isn't compared: {why}." for one in sources[1:] if (why := _refusal(sources[0], one))]
    sources = [one for one in sources if not _refusal(sources[0], one)]
    if len(sources) < 2:
        raise UsageError(f"--compare: nothing can be compared with {sources[0].name}: {' '.join(refused)}")
    columns, losses, times = _columns(sources, refused), _same(sources, "corpus"), _same(sources, "devices")
    refused += [] if losses else ["Held-out losses are left out: the corpora or vocabularies differ."]
    refused += [] if times else ["Times are left out: the devices differ."]
    entries = [Entry(one, m, step, columns) for one in sources for m, step in one.last.items()]
    signed = " + ".join(one.value["short_signature"] for one in sources)
    table = _table(entries, columns, losses, times, signed)
    charts = [_chart(sources, columns)]
    text = page(
        [Section("cost", "Score against cost", charts=charts)], library(Artifacts(to)), table3=table, title=to.name,
        question=f"How do the encoders of {len(sources)} reports compare?", headline="", answers=(), refresh=0,
        average=f"mean over {', '.join(task for task, _ in columns)}", warnings=refused, missing=(), next_command="",
        notes=["Runs of different reports share no seeds, so differences have no interval; ± is the standard "
               "deviation over pretraining seeds.", *(f"{one.name}: {one.value['signature']}" for one in sources)],
        protocol="see each report", marks={}, signature=signed, short_signature=signed, files={},
    )  # fmt: skip
    write_text(to / "index.html", text)
    return table, refused, to / "index.html"


def _refusal(first: Source, other: Source) -> str:
    """Returns why no score of two reports can be compared, "" if some can."""
    names = {"data": "task data", "epoch": "epoch that counts", "train_rows": "maximum number of training rows"}
    why = [f"{what} {other[k]!r} instead of {first[k]!r}" for k, what in names.items() if other[k] != first[k]]
    return "; ".join(why)


def _columns(sources: Sequence[Source], refused: list[str]) -> list[Key]:
    """Returns the columns that can be compared in all sources, and adds the others to `refused`."""
    columns: list[Key] = []
    for task, metric in sources[0]["metrics"].items():
        different = [
            one.name
            for one in sources[1:]
            if one["metrics"].get(task) != metric or one["examples"].get(task) != sources[0]["examples"].get(task)
        ]
        if different:
            refused.append(f"{task} is left out: other metric, data or no runs in {', '.join(different)}.")
        else:
            columns += [(name, metric) for name in (("MNLI-m", "MNLI-mm") if task == "MNLI" else (task,))]
    if not columns:
        raise UsageError(f"--compare: the reports have no task in common. {' '.join(refused)}")
    return columns


def _same(sources: Sequence[Source], name: str) -> bool:
    return len({json.dumps(one[name]) for one in sources}) == 1


def _table(entries: Sequence[Entry], columns: Sequence[Key], losses: bool, times: bool, signed: str) -> Table:
    def one(entry: Entry, metric: str) -> float | None:
        return mean_or_none(entry.values(PRETRAINING, metric))

    rows = []
    for entry in entries:
        cells = {
            "Model": entry.shown,
            "Steps": Cell(short_steps(entry.step), entry.step) if entry.step else None,
            **{task: spread_cell(entry.values(task, metric), "{:.2f}") for task, metric in columns},
            AVERAGE: spread_cell(entry.values(AVERAGE, ""), "{:.2f}"),
            "Tokens": tokens_cell(one(entry, "tokens")),
            "FLOPs": number_cell(one(entry, "flops"), "{:.2e}"),
        }
        cells |= {"Held-out loss": spread_cell(entry.values(HELD_OUT, PRIMARY), "{:.3f}")} if losses else {}
        cells |= {"Seconds": number_cell(one(entry, "seconds"), "{:,.0f}")} if times else {}
        rows.append(cells)
    return table_of("comparison", "Reports side by side", rows, (), signed)


def _chart(sources: Sequence[Source], columns: Sequence[Key]) -> Chart:
    rows, names = [], dict[str, None]()
    for source in sources:
        for (method, step), found in source.rows.items():
            entry = Entry(source, method, step, columns)
            values = [value for value in entry.values(AVERAGE, "") if value is not None]
            flops = found.get((PRETRAINING, "flops"))
            if step and values and flops:
                names[entry.shown] = None
                point = {"Model": entry.shown, "what": "Average score", "value": round(mean(values), 4)}
                rows.append(point | {"steps": step, "flops": mean(flops)})
    axes = (STEPS_AXIS, axis("flops", "FLOPs", format=".1~e"))
    panels = [line_panel("Average score", list(names), "scores", x, band=False) for x in axes]
    caption = "Mean over the pretraining seeds, in the columns that all reports share."
    return Chart("comparison", "Score against cost", caption, panels if rows else (), {"scores": rows}, 2)
