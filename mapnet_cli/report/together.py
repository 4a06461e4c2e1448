"""`mapnet report --compare`: the reports of several artifact directories on one page, from their results.json.

Runs of different directories share no seeds, so there are no paired differences. What can't be compared is left out,
with the reason: scores of other data, epochs or metrics, losses on other text, times on other devices.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from mapnet_cli import core
from mapnet_cli.report.charts import STEPS_AXIS, line_panel, small_multiples
from mapnet_cli.report.files import HELD_OUT, PRETRAINING
from mapnet_cli.report.labels import spread_cell, tokens_cell
from mapnet_cli.report.page import Section, page
from mapnet_cli.report.scores import AVERAGE, COSTS, mean_or_none

Key = tuple[str, str]  # task and metric


@dataclass(frozen=True)
class Source:
    """One report. `rows` maps (method, step) to the values of each task and metric, one per pretraining seed."""

    name: str
    value: Mapping[str, Any]
    rows: Mapping[tuple[str, int], Mapping[Key, Sequence[float]]]

    def __getitem__(self, name: str) -> Any:
        return self.value["protocol"].get(name)

    def label(self, method: str) -> str:
        return f"{self.value['methods'].get(method, method)} ({self.name})"

    def average(self, place: tuple[str, int], columns: Sequence[Key]) -> list[float]:
        """Returns the average over the columns by pretraining seed, [] if a column has no scores."""
        found = [self.rows[place].get(key, ()) for key in columns]
        return [fmean(values) for values in zip(*found, strict=False)] if all(found) else []


def load_source(folder: Path) -> Source:
    """Returns the newest report of an artifact directory, or the report in the folder itself; raises UsageError."""
    found = next((path for path in (folder / "report/latest", folder) if (path / "results.json").exists()), None)
    if found is None:
        raise core.UsageError(f"{folder} has no report (report/latest/results.json): run `mapnet report` there first")
    value = core.read_json(found / "results.json")
    rows: dict[tuple[str, int], dict[Key, list[float]]] = {}
    for row in value["rows"]:
        if row["step"] is not None:
            place = rows.setdefault((row["method"], row["step"]), {})
            place.setdefault((row["task"], row["metric"]), []).append(row["value"])
    return Source(f"{folder.resolve().name}/{found.resolve().name}", value, rows)


def compare(folders: Sequence[Path], to: Path) -> tuple[core.Table, list[str], Path]:
    """Writes the page and returns its table, what wasn't compared and why, and the page's path.

    Raises UsageError for fewer than two reports, a folder without one, or nothing to compare.
    """
    every = [load_source(folder) for folder in folders]
    if len(every) < 2:
        raise core.UsageError("--compare: name at least two artifact directories that have reports")
    refused = [f"{one.name} isn't compared: {why}." for one in every[1:] if (why := _refusal(every[0], one))]
    sources = [one for one in every if not _refusal(every[0], one)]
    columns = _columns(sources, refused)
    if len(sources) < 2 or not columns:
        raise core.UsageError(f"--compare: nothing can be compared with {sources[0].name}: {' '.join(refused)}")
    same = {what: all(one[what] == sources[0][what] for one in sources) for what in ("corpus", "loss", "devices")}
    same["corpus"] &= same["loss"]
    refused += ["Held-out losses are left out: the corpora, vocabularies or masks differ."] * (not same["corpus"])
    refused += ["Times are left out: the devices differ."] * (not same["devices"])
    signed = " + ".join(one.value["short_signature"] for one in sources)
    table = _table(sources, columns, same, signed)
    text = page(
        table, [Section("cost", "Score against cost", charts=[_chart(sources, columns)])], title=to.name,
        question=f"How do the encoders of {len(sources)} reports compare?", headline=(), answers=(), refresh=0,
        average=f"mean over {', '.join(task for task, _ in columns)}", warnings=refused, missing=(), next_command="",
        protocol="see each report", marks={}, files={}, signature=signed, short_signature=signed,
        notes=["Runs of different reports share no seeds, so differences have no interval; ± is the standard "
               "deviation over pretraining seeds.", *(f"{one.name}: {one.value['signature']}" for one in sources)],
    )  # fmt: skip
    core.write_text(to / "index.html", text)
    return table, refused, to / "index.html"


def _refusal(first: Source, other: Source) -> str:
    """Returns why no score of two reports can be compared, "" if some can."""
    names = {"data": "task data", "epoch": "epoch that counts", "train_rows": "maximum number of training rows"}
    why = [f"{what} {other[k]!r} instead of {first[k]!r}" for k, what in names.items() if other[k] != first[k]]
    return "; ".join(why)


def _columns(sources: Sequence[Source], refused: list[str]) -> list[Key]:
    """Returns the columns that can be compared in all sources, and adds the others to `refused`."""
    columns, first = list[Key](), sources[0]
    for task, metric in first["metrics"].items():
        same = (first["examples"].get(task), metric)
        others = [one.name for one in sources if (one["examples"].get(task), one["metrics"].get(task)) != same]
        if others:
            refused.append(f"{task} is left out: other metric, data or no runs in {', '.join(others)}.")
        else:
            columns += [(name, metric) for name in (("MNLI-m", "MNLI-mm") if task == "MNLI" else (task,))]
    return columns


def _table(sources: Sequence[Source], columns: Sequence[Key], same: Mapping[str, bool], signed: str) -> core.Table:
    rows = []
    for source in sources:
        last: dict[str, int] = {}
        for (method, step), found in source.rows.items():
            if found.keys() & {*columns}:
                last[method] = max(step, last.get(method, 0))
        for method, step in last.items():
            found = source.rows[method, step]
            costs = {name: mean_or_none(found.get((PRETRAINING, name), ())) for name in COSTS}
            cells = {
                "Model": source.label(method),
                "Steps": core.number_cell(step or None, "{:,}"),
                **{key[0]: spread_cell(found.get(key, ()), "{:.2f}") for key in columns},
                AVERAGE: spread_cell(source.average((method, step), columns), "{:.2f}"),
                "Tokens": tokens_cell(costs["tokens"]),
                "FLOPs": core.number_cell(costs["flops"], "{:.2e}"),
            }
            if same["corpus"]:
                cells["Held-out loss"] = spread_cell(found.get((HELD_OUT, source["loss"]), ()), "{:.3f}")
            if same["devices"]:
                cells["Seconds"] = core.number_cell(costs["seconds"], "{:,.0f}")
            rows.append(cells)
    return core.table_of("comparison", "Reports side by side", rows, (), signed)


def _chart(sources: Sequence[Source], columns: Sequence[Key]) -> core.Chart:
    rows = [
        {"Model": source.label(method), "what": "Average score", "value": round(fmean(values), 4)}
        | {"steps": step, "flops": fmean(flops)}
        for source in sources
        for (method, step), found in source.rows.items()
        if (values := source.average((method, step), columns)) and (flops := found.get((PRETRAINING, "flops")))
    ]
    names = list(dict.fromkeys(str(row["Model"]) for row in rows))
    axes = (STEPS_AXIS, core.axis("flops", "FLOPs", format=".1~e"))
    panels = [line_panel("Average score", names, x, band=False) for x in axes if rows]
    return small_multiples("comparison", "Score against cost", rows, panels, 2)
