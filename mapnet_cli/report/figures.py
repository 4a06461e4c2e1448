"""Line plots: the learning curves of Figure 3, and score and held-out loss vs. pretraining cost."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mapnet_cli.core import FAINT, frame, images, panels, short_steps, style
from mapnet_cli.report.load import Results, missing, signature
from mapnet_cli.report.notes import data_suffix, label
from mapnet_cli.report.scores import PRIMARY, PRIMARY_NAME, Average, Scores, TaskScore
from mapnet_cli.report.trajectories import (
    CurvePoint,
    loss_trajectory,
    score_trajectory,
    scored_seeds,
    seeds_with,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

BASELINE_STYLES: Mapping[str, Any] = {
    "majority": {"color": FAINT, "linewidth": 1, "linestyle": (0, (1, 1.5))},
    "bag of words": {"color": FAINT, "linewidth": 1, "linestyle": (0, (5, 2))},
    "token overlap": {"color": FAINT, "linewidth": 1, "linestyle": (0, (4, 1.5, 1, 1.5))},
}
COSTS = {"steps": "Pretraining steps", "flops": "Pretraining FLOPs", "hours": "Pretraining hours"}
CURVES_CAPTION = "Points: checkpoints; error bars: ± one standard deviation over seeds. Losses are in nats."


def figure3(results: Results, scores: Scores) -> dict[str, bytes]:
    """Returns Figure 3 as {"png": ..., "svg": ...}; the bytes are the same for the same records."""
    title, signed = f"Score vs. pretraining steps{data_suffix(results)}", signature(results, scores.metrics)
    return images(lambda figure: draw_figure3(figure, title, results, scores), title, signed, ("png", "svg"))


def draw_figure3(figure: "Figure", title: str, results: Results, scores: Scores) -> None:
    """Draws one panel per column and, if there are several columns, one for their average."""
    names = [column.name for column in scores.columns]
    names = ["Average", *names] if len(names) > 1 else names
    across = min(len(names), 5 if len(names) > 8 else 4 if len(names) > 6 else 3)
    grid = panels(figure, math.ceil(len(names) / across), across, (max(3.0, 6.4 / across), 2.35))
    axes = [ax for row in grid for ax in row]
    for ax, name in zip(axes, names, strict=False):
        _score_panel(ax, results, scores, name)
    for row in grid:
        row[0].set_ylabel("Score (points of 100)")
    for ax in axes[len(names) - across : len(names)]:
        ax.set_xlabel("Pretraining steps")
    for ax in axes[len(names) :]:
        ax.set_axis_off()
    drawn = {str(line.get_label()) for ax in axes for line in ax.get_lines()}
    shown = {name: options for name, options in BASELINE_STYLES.items() if name in drawn}
    absent = f" Partial: missing {'; '.join(missing(results))}." if missing(results) else ""
    caption = f"Bands: ± one standard deviation over seeds.{absent}"
    frame(figure, title, _handles(results.config.methods, shown), caption, signature(results, scores.metrics))


def _score_panel(ax: "Axes", results: Results, scores: Scores, name: str) -> None:
    config = results.config
    ticks = config.fine_tuned_steps()
    extent: list[float] = []
    for number, method in enumerate(config.methods):
        steps = config.fine_tuned_steps(method)
        points: list[Average | TaskScore] = [
            scores.averages[method, step] if name == "Average" else scores.cells[method, step, name] for step in steps
        ]
        middle = [math.nan if point.mean is None else point.mean for point in points]
        low = [m - (point.sd or 0.0) for m, point in zip(middle, points, strict=True)]
        high = [m + (point.sd or 0.0) for m, point in zip(middle, points, strict=True)]
        ax.fill_between(steps, low, high, alpha=0.16, linewidth=0, color=style(number)["color"], zorder=2)
        ax.plot(steps, middle, zorder=3 + number, **style(number))
        extent += [value for value in (*low, *high) if math.isfinite(value)]
    metric = next((c.metric.removesuffix("-mm") for c in scores.columns if c.name == name), "")
    ax.set_title(name, loc="left", fontsize=9.5, fontweight="bold", pad=5)
    ax.set_title(metric, loc="right", fontsize=8, color=FAINT, pad=5)
    ax.set_xticks(ticks, [short_steps(step) for step in ticks])
    every = {*ticks, *(step for method in config.methods for step in config.fine_tuned_steps(method))}
    margin = 0.06 * (max(every) - min(every)) or 1.0
    ax.set_xlim(min(every) - margin, max(every) + margin)
    ax.grid(axis="y", color="#E6E6E6", linewidth=0.8, zorder=0)
    if extent:
        _baselines(ax, scores, name, min(extent), max(extent))
    else:
        ax.set_yticks([])
        ax.text(0.5, 0.5, "no runs yet", transform=ax.transAxes, ha="center", va="center", color=FAINT)


def _baselines(ax: "Axes", scores: Scores, name: str, low: float, high: float) -> None:
    """Draws the baselines that are near the curves and lists the others, which would compress the scale, as text."""
    span = max(high - low, 2.0)
    near, far = [low, high], []
    for baseline, options in BASELINE_STYLES.items():
        value = scores.baseline_average(baseline) if name == "Average" else scores.baselines.get((baseline, name))
        if value is None:
            continue
        if low - span <= value <= high + span:
            ax.axhline(value, label=baseline, zorder=2, **options)
            near.append(value)
        else:
            far.append(f"{baseline} {value:.1f}")
    room = 0.1 * (max(near) - min(near)) or 1.0
    ax.set_ylim(min(near) - room * (2.2 if far else 1), max(near) + room)
    if far:
        text = f"off scale: {', '.join(far)}"
        ax.text(0.98, 0.03, text, transform=ax.transAxes, ha="right", va="bottom", fontsize=6.5, color=FAINT)


def _handles(methods: tuple[str, ...], extra: Mapping[str, Any]) -> "list[Line2D]":
    """Returns the legend entries: the methods, and extra lines with the given styles."""
    from matplotlib.lines import Line2D

    styles = [(label(name), style(number)) for number, name in enumerate(methods)]
    return [Line2D([], [], label=name, **options) for name, options in [*styles, *extra.items()]]


def curves(results: Results, scores: Scores) -> dict[str, bytes]:
    """Returns score and held-out loss vs. steps, FLOPs and hours as {"png": ..., "svg": ...}."""
    methods = results.config.methods
    rows = {
        "Average score": [score_trajectory(results, scores, m, scored_seeds(results, scores, m)) for m in methods],
        f"Held-out loss, {PRIMARY_NAME}": [
            loss_trajectory(results, PRIMARY, m, seeds_with(results, PRIMARY, m)) for m in methods
        ],
    }
    title, signed = f"Score and held-out loss vs. cost{data_suffix(results)}", signature(results, scores.metrics)
    return images(lambda figure: draw_curves(figure, title, methods, rows), title, signed, ("png", "svg"))


def draw_curves(
    figure: "Figure", title: str, methods: tuple[str, ...], rows: dict[str, list[list[CurvePoint]]]
) -> None:
    """Draws one row of panels per value; `rows` maps the name of the value to one list of points per method."""
    grid = panels(figure, len(rows), len(COSTS), (3.05, 2.3), sharey="row", sharex="col")
    for axes, (value, curves_by_method) in zip(grid, rows.items(), strict=True):
        axes[0].set_ylabel(value)
        for ax, cost in zip(axes, COSTS, strict=True):
            _cost_panel(ax, curves_by_method, cost)
    for ax, name in zip(grid[-1], COSTS.values(), strict=True):
        ax.set_xlabel(name)
    frame(figure, title, _handles(methods, {}), CURVES_CAPTION)


def _cost_panel(ax: "Axes", curves_by_method: list[list[CurvePoint]], cost: str) -> None:
    for number, points in enumerate(curves_by_method):
        if points:
            costs = [getattr(point, cost) for point in points]
            values, bars = [point.value for point in points], [point.sd for point in points]
            ax.errorbar(costs, values, bars, elinewidth=0.9, zorder=3 + number, **style(number))
    ax.grid(axis="y", color="#E6E6E6", linewidth=0.8, zorder=0)
    ax.margins(x=0.06)
