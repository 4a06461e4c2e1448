"""The report's charts: their data. The Vega-Lite specifications of their panels are in templates/*.json."""

import json
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from mapnet_cli.core import Chart, Spec, axis, named_colours, render
from mapnet_cli.glue import other_rows
from mapnet_cli.report.health import phenomena
from mapnet_cli.report.labels import TEXTS, data_suffix, label, time_unit
from mapnet_cli.report.load import Results
from mapnet_cli.report.masks import rate_points
from mapnet_cli.report.scores import LOSS, SCORE, Scores
from mapnet_cli.report.trajectories import trajectory

CAPTIONS, RATES = TEXTS["charts"], TEXTS["rates"]
Rows = list[dict[str, Any]]
STEPS_AXIS = axis("steps", "Steps", format=",d", tickMinStep=1)


def line_panel(title: str, names: Sequence[str], data: str, x: Spec, **options: Any) -> Spec:
    """Returns a panel with a line per model through the rows of a data set whose field "what" is the title.

    Rows have Model, value, the field of `x` and, with a band, low and high. `runs` draws a line per seed, `rules` names
    a data set of horizontal lines.
    """
    values = {"band": True, "runs": False, "rules": "", "value": axis("value", ""), "y": axis("low", "")} | options
    return _panel("line.json", title=title, data=data, x=x, **values, **named_colours(names, "Model"))


def dot_panel(
    title: str, names: Sequence[str], data: str, x: str, chance: float | None, step: int, **options: Any
) -> Spec:
    """Returns a panel with a row per group and a point with an error bar per model, `step` pixels apart."""
    low, value = (axis(field, x, **options) for field in ("low", "value"))
    places = {"low": low, "value": value, "chance": chance, "step": step, "names": names}
    return _panel("dots.json", title=title, data=data, **places, **named_colours(names, "Model"))


def _panel(template: str, **values: Any) -> Spec:
    spec: Spec = json.loads(render("mapnet_cli.report", template, **values))
    return spec


def _point(method: str, what: str, value: float, sd: float | None, **more: Any) -> dict[str, Any]:
    low, high = value - (sd or 0.0), value + (sd or 0.0)
    return {"Model": label(method), "what": what, **more} | {
        name: round(number, 5) for name, number in (("value", value), ("low", low), ("high", high))
    }


def _names(results: Results) -> list[str]:
    return [label(method) for method in results.config.methods]


def task_chart(results: Results, scores: Scores) -> Chart:
    """Returns Figure 3: the score of each task against the steps, and of their average."""
    config, rows, rules = results.config, Rows(), Rows()
    places = [(method, step) for method in config.methods for step in config.fine_tuned_steps(method)]
    for name in scores.titles:
        for method, step in places:
            cell = scores.cells[method, step, name]
            if cell.mean is not None:
                rows.append(_point(method, name, cell.mean, cell.sd, steps=step))
        levels: dict[str, float | None] = {other: scores.cells[other, 0, name].mean for other in other_rows(config)}
        levels |= {other: scores.baseline(other, name) for other, _ in scores.baselines}
        rules += [{"line": k, "what": name, "value": round(v, 2)} for k, v in levels.items() if v is not None]
    known = {row["what"] for row in rows}
    panels = [
        line_panel(name, _names(results), "scores", STEPS_AXIS, rules="baselines" if rules else "")
        for name in scores.titles
        if name in known
    ]
    title = f"Score by task{data_suffix(results)}"
    return Chart("figure3", title, CAPTIONS["figure3"], panels, {"scores": rows, "baselines": rules})


def cost_chart(results: Results, scores: Scores) -> Chart:
    """Returns average score and held-out loss against steps, FLOPs and time."""
    unit, seconds = time_unit(results)
    rows, titles = Rows(), {"Average score": SCORE, "Held-out loss": LOSS}
    for method in results.config.methods:
        for title, measure in titles.items():
            for p in trajectory(results, scores, method, measure):
                costs = {"steps": p.steps, "flops": p.flops, "time": round(p.seconds / seconds, 4)}
                rows.append(_point(method, title, p.value, p.sd, **costs))
    axes = (STEPS_AXIS, axis("flops", "FLOPs", format=".1~e"), axis("time", f"Time ({unit})"))
    known = [title for title in titles if any(row["what"] == title for row in rows)]
    panels = [line_panel(what, _names(results), "cost", x) for what in known for x in axes]
    title = f"Score and loss against cost{data_suffix(results)}"
    return Chart("curves", title, CAPTIONS["curves"], panels, {"cost": rows}, len(axes))


def log_chart(results: Results) -> Chart:
    """Returns losses and proposal diagnostics over training, with one line per run."""
    titles = TEXTS["logged"] | TEXTS["diagnostics"]
    rows: Rows = [
        {"Model": label(method), "seed": seed, "steps": step, "what": title, "value": value}
        for (method, seed), log in results.logs.items()
        for name, title in titles.items()
        for step, value in log.get(name, ())
    ]
    known = dict.fromkeys(row["what"] for row in rows)
    panels = [line_panel(t, _names(results), "log", STEPS_AXIS, band=False, runs=True) for t in known]
    return Chart("training", "Losses and proposals over training", CAPTIONS["training"], panels, {"log": rows})


def pairs_chart(results: Results) -> Chart:
    """Returns the accuracy by phenomenon, one panel per data set."""
    rows, methods = Rows(), dict[str, None]()
    for (data, name), one in phenomena(results).items():
        for method, found in one.scores.items():
            methods[label(method)] = None
            error = 2 * sum(error**2 for _, error in found) ** 0.5 / len(found)
            rows.append(_point(method, data, fmean(accuracy for accuracy, _ in found), error, group=name))
    step, sets = max(5, 8 - len(methods)), dict.fromkeys(row["what"] for row in rows)
    panels = [dot_panel(name, list(methods), "pairs", "Accuracy (%)", 50, step) for name in sets]
    return Chart("minimal-pairs", "Minimal pairs by phenomenon", CAPTIONS["minimal-pairs"], panels, {"pairs": rows}, 2)


def mask_chart(results: Results) -> Chart:
    """Returns the fraction of masked tokens by frequency, position and part of speech or, without it, kind of word."""
    rows, panels, names = rate_points(results), list[Spec](), _names(results)
    known = dict.fromkeys(row["what"] for row in rows)
    for title in known:
        groups = list(dict.fromkeys(row["group"] for row in rows if row["what"] == title))
        if title in (RATES["decile"], RATES["position"]):
            x = axis("group", "", "nominal", labelAngle=0) | {"sort": groups}
            value = axis("value", "", zero=True, format="%")
            panels.append(line_panel(title, names, "rates", x, band=False, value=value))
        elif title == RATES["tag"] or RATES["tag"] not in known:
            panels.append(dot_panel(title, names, "rates", "Masked", None, 6, format="%"))
    return Chart("masks", "What is masked", CAPTIONS["masks"], panels, {"rates": rows}, 3)


def variance_chart(results: Results) -> Chart:
    """Returns the mask variance relative to uniform masks, one panel per measurement and norm."""
    rows, panels = Rows(), []
    for m in results.variances:
        for norm in m.measured[0].variances:
            what = f"{label(m.method)}, step {m.step:,}: {TEXTS['norms'].get(norm, norm)}"
            for strategy in m.measured:
                found = strategy.variances[norm]["mask_to_uniform"]
                if (value := found["value"]) is not None:
                    rows.append(_point("Mask variance", what, value, found["error"], group=strategy.name))
            panels.append(dot_panel(what, ["Mask variance"], "variance", "Mask variance / uniform", 1, 18))
    return Chart("variance", "Gradient variance", CAPTIONS["variance"], panels, {"variance": rows}, 3)
