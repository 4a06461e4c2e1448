"""The report's charts: their data. The Vega-Lite specifications of their panels are in templates/*.json."""

import json
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from mapnet_cli.core import ACROSS, Chart, Spec, axis, named_colours, render
from mapnet_cli.glue import other_rows
from mapnet_cli.report.health import phenomena
from mapnet_cli.report.labels import TEXTS, data_suffix, label, time_unit
from mapnet_cli.report.load import Results
from mapnet_cli.report.masks import rate_points
from mapnet_cli.report.scores import LOSS, SCORE, Scores
from mapnet_cli.report.trajectories import trajectory

Rows = list[dict[str, Any]]
STEPS_AXIS = axis("steps", "Steps", format=",d", tickMinStep=1)


def line_panel(title: str, names: Sequence[str], x: Spec, **options: Any) -> Spec:
    """Returns a panel with a line per model through the rows whose field "what" is the title.

    Rows have Model, value, the field of `x` and, with a band, low and high. `runs` draws a line per seed, `rules` names
    the horizontal lines of the data set "rules".
    """
    values = {"band": True, "runs": False, "rules": (), "value": axis("value", ""), "y": axis("low", "")} | options
    return _panel("line.json", title=title, x=x, **values, **named_colours(names, "Model"))


def dot_panel(title: str, names: Sequence[str], x: str, chance: float | None, step: int, **options: Any) -> Spec:
    """Returns a panel with a row per group and a point with an error bar per model, `step` pixels apart."""
    low, value = (axis(field, x, **options) for field in ("low", "value"))
    places = {"low": low, "value": value, "chance": chance, "step": step, "names": names}
    return _panel("dots.json", title=title, **places, **named_colours(names, "Model"))


def _panel(template: str, **values: Any) -> Spec:
    spec: Spec = json.loads(render("mapnet_cli.report", template, **values))
    return spec


def shown(rows: Rows) -> list[str]:
    """Returns the values of the field "what", each of which has panels of its own."""
    return list(dict.fromkeys(row["what"] for row in rows))


def small_multiples(
    name: str, title: str, rows: Rows, panels: Sequence[Spec], columns: int = ACROSS, **more: Rows
) -> Chart:
    """Returns a chart of the rows; `more` is other data."""
    return Chart(name, title, TEXTS["charts"][name], panels, {"rows": rows, **more}, columns)


def _point(method: str, what: str, value: float, sd: float | None, **more: Any) -> dict[str, Any]:
    numbers = {"value": value, "low": value - (sd or 0.0), "high": value + (sd or 0.0)}
    return {"Model": label(method), "what": what, **more} | {name: round(n, 5) for name, n in numbers.items()}


def _names(results: Results) -> list[str]:
    return [label(method) for method in results.config.methods]


def task_chart(results: Results, scores: Scores) -> Chart:
    """Returns Figure 3: the score of each task against the steps, and of their average."""
    config, rows, rules = results.config, Rows(), Rows()
    places = [(method, step) for method in config.methods for step in config.fine_tuned_steps(method)]
    for name in scores.titles:
        cells = ((method, step, scores.cells[method, step, name]) for method, step in places)
        rows += [_point(m, name, cell.mean, cell.sd, steps=step) for m, step, cell in cells if cell.mean is not None]
        levels: dict[str, float | None] = {other: scores.cells[other, 0, name].mean for other in other_rows(config)}
        levels |= {other: scores.baseline(other, name) for other, _ in scores.baselines}
        rules += [{"line": k, "what": name, "value": round(v, 2)} for k, v in levels.items() if v is not None]

    lines = list(dict.fromkeys(row["line"] for row in rules))
    panels = [line_panel(what, _names(results), STEPS_AXIS, rules=lines) for what in shown(rows)]
    return small_multiples("figure3", f"Score by task{data_suffix(results)}", rows, panels, rules=rules)


def cost_chart(results: Results, scores: Scores) -> Chart:
    """Returns average score and held-out loss against steps, FLOPs and time."""
    (unit, seconds), rows = time_unit(results), Rows()
    for what, measure in {"Average score": SCORE, "Held-out loss": LOSS}.items():
        for method in results.config.methods:
            for p in trajectory(results, scores, method, measure):
                costs = {"steps": p.steps, "flops": p.flops, "time": round(p.seconds / seconds, 4)}
                rows.append(_point(method, what, p.value, p.sd, **costs))
    axes = (STEPS_AXIS, axis("flops", "FLOPs", format=".1~e"), axis("time", f"Time ({unit})"))
    panels = [line_panel(what, _names(results), x) for what in shown(rows) for x in axes]
    return small_multiples("curves", f"Score and loss against cost{data_suffix(results)}", rows, panels, len(axes))


def log_chart(results: Results) -> Chart:
    """Returns losses and proposal diagnostics over training, with one line per run."""
    rows: Rows = [
        {"Model": label(method), "seed": seed, "steps": step, "what": title, "value": value}
        for name, title in (TEXTS["logged"] | TEXTS["diagnostics"]).items()
        for (method, seed), log in results.logs.items()
        for step, value in log.get(name, ())
    ]
    panels = [line_panel(what, _names(results), STEPS_AXIS, band=False, runs=True) for what in shown(rows)]
    return small_multiples("training", "Losses and proposals over training", rows, panels)


def pairs_chart(results: Results) -> Chart:
    """Returns the accuracy by phenomenon, one panel per data set."""
    rows, methods = Rows(), dict[str, None]()
    for (data, name), one in phenomena(results).items():
        for method, found in one.scores.items():
            methods[label(method)] = None
            error = 2 * sum(error**2 for _, error in found) ** 0.5 / len(found)
            rows.append(_point(method, data, fmean(accuracy for accuracy, _ in found), error, group=name))
    step = max(5, 8 - len(methods))
    panels = [dot_panel(what, list(methods), "Accuracy (%)", 50, step) for what in shown(rows)]
    return small_multiples("minimal-pairs", "Minimal pairs by phenomenon", rows, panels, 2)


def mask_chart(results: Results) -> Chart:
    """Returns the fraction of masked tokens by frequency, position and part of speech or, without it, kind of word."""
    rows, rates = rate_points(results), TEXTS["rates"]
    if any(row["what"] == rates["tag"] for row in rows):
        rows = [row for row in rows if row["what"] != rates["kind"]]
    x, value, panels = axis("group", "", "nominal", labelAngle=0), axis("value", "", zero=True, format="%"), []
    for what in shown(rows):
        if what in (rates["kind"], rates["tag"]):
            panels.append(dot_panel(what, _names(results), "Masked", None, 6, format="%"))
        else:
            groups = list(dict.fromkeys(row["group"] for row in rows if row["what"] == what))
            panels.append(line_panel(what, _names(results), x | {"sort": groups}, band=False, value=value))
    return small_multiples("masks", "What is masked", rows, panels, 3)


def variance_chart(results: Results) -> Chart:
    """Returns the mask variance relative to uniform masks, one panel per measurement and norm."""
    rows = Rows()
    for m in results.variances:
        for strategy in m.measured:
            for norm, found in strategy.variances.items():
                what = f"{label(m.method)}, step {m.step:,}: {TEXTS['norms'].get(norm, norm)}"
                value, error = found["mask_to_uniform"]["value"], found["mask_to_uniform"]["error"]
                rows += [] if value is None else [_point("Mask variance", what, value, error, group=strategy.name)]
    panels = [dot_panel(what, ["Mask variance"], "Mask variance / uniform", 1, 18) for what in shown(rows)]
    return small_multiples("variance", "Gradient variance", rows, panels, 3)
