"""The report's charts: scores by task, score and loss against cost, training logs, minimal pairs, masks, variances."""

from collections.abc import Callable, Sequence
from typing import Any

from mapnet_cli.core import STEPS, Chart, Spec, axis, named_colours
from mapnet_cli.glue import other_rows
from mapnet_cli.report.health import DIAGNOSTICS, NORMS, phenomena
from mapnet_cli.report.labels import data_suffix, label, time_unit
from mapnet_cli.report.load import Results
from mapnet_cli.report.logs import LOGGED_LOSS, log_points
from mapnet_cli.report.masks import KINDS, rate_points
from mapnet_cli.report.scores import PRIMARY, PRIMARY_NAME, Average, Scores, TaskScore
from mapnet_cli.report.tables import AVERAGE
from mapnet_cli.report.trajectories import CurvePoint, loss_trajectory, score_trajectory, scored_seeds, seeds_with

BAND = "Bands: ± one standard deviation over seeds."
Rows = list[dict[str, Any]]
ROUND = 5


def _names(results: Results) -> list[str]:
    return [label(method) for method in results.config.methods]


def line_panel(title: str, names: Sequence[str], data: str, x: Spec, what: str, y: str = "", band: bool = True) -> Spec:
    """Returns a panel with a line per model through the rows whose field "what" has the given value.

    Rows have the fields value and, with a band, low and high.
    """
    colours = named_colours(names, "Model")
    tooltip = [{"field": field} for field in ("Model", x["field"], "value")]
    value = axis("value", y)
    band_layer = {
        "mark": {"type": "area", "opacity": 0.15, "line": False},
        "encoding": {"x": x, "y": axis("low", y), "y2": {"field": "high"}, "color": colours["color"]},
    }
    line = {
        "mark": {"type": "line", "point": {"filled": True, "size": 42}, "strokeWidth": 1.7},
        "encoding": {"x": x, "y": value, **colours, "tooltip": tooltip},
    }
    thin = {
        "mark": {"type": "line", "strokeWidth": 1.4},
        "encoding": {"x": x, "y": value, "color": colours["color"], "detail": {"field": "seed"}, "tooltip": tooltip},
    }
    return {
        "title": title,
        "data": {"name": data},
        "transform": [{"filter": f"datum.what === {what!r}"}],
        "layer": [band_layer, line] if band else [thin],
    }


def task_chart(results: Results, scores: Scores) -> Chart:
    """Returns Figure 3: the score of each task against the steps, and of their average."""
    names = [column.name for column in scores.columns]
    panels, rows, rules = [], Rows(), Rows()
    for name in [AVERAGE, *names] if len(names) > 1 else names:
        for method in results.config.methods:
            for step in results.config.fine_tuned_steps(method):
                cell: Average | TaskScore = (
                    scores.averages[method, step] if name == AVERAGE else scores.cells[method, step, name]
                )
                if cell.mean is not None:
                    point = _with_band(cell.mean, cell.sd or 0.0)
                    rows.append({"Model": label(method), "what": name, "steps": step, **point})
        for other in [*dict.fromkeys(baseline for baseline, _ in scores.baselines), *other_rows(results.config)]:
            value = _level(scores, other, name)
            if value is not None:
                rules.append({"line": other, "what": name, "level": round(value, 2)})
        panel = line_panel(name, _names(results), "scores", axis("steps", "Steps", labelExpr=STEPS), name)
        lines = {"data": {"name": "baselines"}, "transform": [{"filter": f"datum.what === {name!r}"}], **_RULE}
        panels.append({**panel, "layer": [lines, *panel["layer"]]})
    caption = f"Score (of 100) after pretraining for so many steps. {BAND} Grey lines: encoders and baselines without "
    caption += "this pretraining."
    title = f"Score by task{data_suffix(results)}"
    return Chart("figure3", title, caption, panels if rows else (), {"scores": rows, "baselines": rules})


_RULE: Spec = {
    "mark": {"type": "rule", "color": "#8a8a8a", "strokeWidth": 1.2},
    "encoding": {
        "y": {"field": "level", "type": "quantitative"},
        "strokeDash": {"field": "line", "type": "nominal", "scale": {"range": [[1, 2], [6, 3], [6, 2, 1, 2], [3, 3]]}},
        "tooltip": [{"field": "line"}, {"field": "level"}],
    },
}


def _level(scores: Scores, name: str, column: str) -> float | None:
    if (name, 0) in scores.averages:
        return scores.averages[name, 0].mean if column == AVERAGE else scores.cells[name, 0, column].mean
    return scores.baseline_average(name) if column == AVERAGE else scores.baselines.get((name, column))


def _with_band(value: float, sd: float) -> dict[str, float]:
    return {"value": round(value, 4), "low": round(value - sd, 4), "high": round(value + sd, 4)}


def cost_chart(results: Results, scores: Scores) -> Chart:
    """Returns average score and held-out loss against steps, FLOPs and time."""
    unit, seconds = time_unit(results)
    loss = f"Held-out loss, {PRIMARY_NAME} (nats)"
    found: dict[str, Callable[[str], list[CurvePoint]]] = {
        "Average score": lambda m: score_trajectory(results, scores, m, scored_seeds(results, scores, m)),
        loss: lambda m: loss_trajectory(results, PRIMARY, m, seeds_with(results, PRIMARY, m)),
    }
    rows = [
        {"Model": label(method), "what": what, "steps": p.steps, "flops": p.flops, "time": p.hours * 3600 / seconds}
        | _with_band(p.value, p.sd)
        for what, curve in found.items()
        for method in results.config.methods
        for p in curve(method)
    ]
    costs = {
        "steps": axis("steps", "Steps", labelExpr=STEPS),
        "flops": axis("flops", "FLOPs", format=".1~e"),
        "time": axis("time", f"Time ({unit})"),
    }
    known = [what for what in found if any(row["what"] == what for row in rows)]
    panels = [line_panel(what, _names(results), "cost", x, what) for what in known for x in costs.values()]
    title = f"Score and loss against cost{data_suffix(results)}"
    return Chart("curves", title, f"Each point is a checkpoint. {BAND}", panels, {"cost": rows})


def log_chart(results: Results) -> Chart:
    """Returns losses and proposal diagnostics over training, with one line per run."""
    titles = {"loss": "Training loss (nats)", LOGGED_LOSS: "Held-out loss, bias refitted (nats)", **DIAGNOSTICS}
    rows = log_points(dict(results.logs), titles, label)
    known = dict.fromkeys(row["what"] for row in rows)
    x = axis("step", "Steps", labelExpr=STEPS)
    panels = [line_panel(t, _names(results), "log", x, t, band=False) for t in titles.values() if t in known]
    caption = (
        "Every line of the training logs, one curve per pretraining seed; training losses of methods that choose hard "
        "words are on harder words. An entropy near 0, or weights that are all clipped: a proposal collapsed."
    )
    return Chart("training", "Losses and proposals over training", caption, panels, {"log": rows})


def pairs_chart(results: Results) -> Chart:
    """Returns the accuracy by phenomenon, one panel per data set."""
    rows = [
        {"Model": label(m), "what": row.data, "phenomenon": row.name or "all", "value": round(_mean(s), 2)}
        | {"low": round(_mean(s) - 2 * _error(s), 2), "high": round(_mean(s) + 2 * _error(s), 2)}
        for row in phenomena(results)
        for m, s in row.scores.items()
    ]
    names = [label(m) for m in dict.fromkeys(m for row in phenomena(results) for m in row.scores)]
    panels = [
        _dots(name, names, "pairs", name, "phenomenon", "Accuracy (%)", chance=50)
        for name in dict.fromkeys(row["what"] for row in rows)
    ]
    caption = "Points: mean over pretraining seeds; bars: ± two standard errors over pairs; 50% is chance."
    return Chart("minimal-pairs", "Minimal pairs by phenomenon", caption, panels, {"pairs": rows})


def _mean(scores: Sequence[tuple[float, float]]) -> float:
    return sum(value for value, _ in scores) / len(scores)


def _error(scores: Sequence[tuple[float, float]]) -> float:
    return sum(error**2 for _, error in scores) ** 0.5 / len(scores)


def _dots(title: str, names: Sequence[str], data: str, what: str, group: str, x: str, chance: float | None) -> Spec:
    """Returns a panel with a row per group and a point with an error bar per model."""
    colours, y = named_colours(names, "Model"), {"field": group, "type": "nominal", "title": None, "sort": None}
    offset = {"yOffset": {"field": "Model", "type": "nominal", "scale": {"paddingOuter": 0.3}, "sort": list(names)}}
    place = {"y": y, **offset}
    layers: list[Spec] = [
        {
            "mark": {"type": "rule", "strokeWidth": 1.2},
            "encoding": {"x": axis("low", x), "x2": {"field": "high"}, **place, "color": colours["color"]},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 34, "opacity": 1},
            "encoding": {
                "x": axis("value", x), **place, **colours,
                "tooltip": [{"field": field} for field in ("Model", group, "value")],
            },
        },
    ]  # fmt: skip
    if chance is not None:
        line = {"mark": {"type": "rule", "strokeDash": [3, 3], "color": "#8a8a8a"}, "data": {"values": [{"x": chance}]}}
        layers.insert(0, line | {"encoding": {"x": {"field": "x", "type": "quantitative"}}})
    return {
        "title": title,
        "data": {"name": data},
        "transform": [{"filter": f"datum.what === {what!r}"}],
        "height": {"step": max(5, 7 - len(names) // 3)},
        "layer": layers,
    }


def mask_chart(results: Results) -> Chart:
    """Returns the fraction of masked tokens by frequency, position and kind of word."""
    rows, names = rate_points(results), _names(results)
    panels = []
    for what, title in KINDS.items():
        groups = list(dict.fromkeys(row["group"] for row in rows if row["what"] == what))
        x = axis("group", "", "nominal", labelAngle=0) | {"sort": groups}
        panel = line_panel(title, names, "rates", x, what, band=False)
        [layer] = panel["layer"]
        layer["mark"] = {"type": "line", "point": True, "strokeWidth": 1.4}
        del layer["encoding"]["detail"]
        layer["encoding"] |= {"y": axis("value", "", format="%"), **named_colours(names, "Model")}
        panels += [panel] if groups else []
    caption = "Fraction of the tokens that a method masks at its last checkpoint, in held-out text."
    return Chart("masks", "What is masked", caption, panels, {"rates": rows})


def variance_chart(results: Results) -> Chart:
    """Returns the mask variance relative to uniform masks, one panel per measurement and norm."""
    rows, panels = Rows(), []
    for m in results.variances:
        for norm in m.measured[0].variances:
            what = f"{label(m.method)}, step {m.step:,}: {NORMS.get(norm, norm)}"
            for strategy in m.measured:
                found = strategy.variances[norm].mask_to_uniform
                value, error = found["value"], found["error"] or 0.0
                if value is not None:
                    row = {"Model": strategy.name, "what": what, "group": strategy.name, "value": round(value, ROUND)}
                    rows.append(row | {"low": round(value - error, ROUND), "high": round(value + error, ROUND)})
            names = [strategy.name for strategy in m.measured]
            panels.append(_dots(what, names, "variance", what, "group", "Mask variance / uniform", chance=1))
            panels[-1]["height"] = {"step": 16}
            for layer in panels[-1]["layer"][1:]:
                del layer["encoding"]["yOffset"]
                layer["encoding"]["color"] |= {"legend": None}
            panels[-1]["layer"][-1]["encoding"]["shape"] |= {"legend": None}
    caption = "Variance of the gradient over masks of the same sentence; bars: ± one standard error over sentences."
    return Chart("variance", "Gradient variance", caption, panels, {"variance": rows})
