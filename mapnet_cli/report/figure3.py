"""Figure 3: learning curves, a panel for the average and for each task column."""

import math
import re
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mapnet_cli.core.plotting import FAINT, images, legend_shape, style
from mapnet_cli.report.load import Results, missing, signature
from mapnet_cli.report.notes import label, on_what, short_steps
from mapnet_cli.report.scores import Average, Scores, TaskScore
from mapnet_cli.report.tables import baseline_average

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

BASELINE_DASHES: Mapping[str, Any] = {"majority": (0, (1, 1.5)), "bag of words": (0, (5, 2))}
PANEL_INCHES = (2.9, 2.35)


def figure3(results: Results, scores: Scores) -> dict[str, bytes]:
    """Returns Figure 3 as {"png": ..., "svg": ...}; both have the same bytes for the same records."""
    said = signature(results, scores.metrics)
    return images(lambda figure: draw_figure3(figure, results, scores), _title(results), said, ("png", "svg"))


def draw_figure3(figure: "Figure", results: Results, scores: Scores) -> None:
    """Draws a panel for the average, where there are several columns, and for each column."""
    names = [column.name for column in scores.columns]
    names = ["Average", *names] if len(names) > 1 else names
    across = min(len(names), 5 if len(names) > 8 else 4 if len(names) > 6 else 3)
    down = math.ceil(len(names) / across)
    width = max(across * PANEL_INCHES[0], 6.4)
    small = _small_print(results, scores, int(15.5 * width))
    entries = [*map(label, results.config.methods), *BASELINE_DASHES]
    columns, deep = legend_shape(entries, width - 0.8)
    head, foot = 0.8 + 0.18 * deep, 0.62 + 0.135 * len(small)
    height = down * PANEL_INCHES[1] + head + foot - 0.4
    figure.set_size_inches(width, height)
    axes = list(figure.subplots(down, across, squeeze=False).flat)
    for number, (ax, name) in enumerate(zip(axes, names, strict=False)):
        _panel(ax, results, scores, name)
        if number % across == 0:
            ax.set_ylabel("Score (points of 100)")
        if number + across >= len(names):
            ax.set_xlabel("Pretraining steps")
    for ax in axes[len(names) :]:
        ax.set_axis_off()

    left = 0.62 / width
    figure.subplots_adjust(left, foot / height, 1 - 0.15 / width, 1 - head / height, wspace=0.26, hspace=0.42)
    figure.text(left, 1 - 0.28 / height, _title(results), fontsize=12, fontweight="bold")
    figure.legend(
        handles=_legend(results, axes), loc="upper left", bbox_to_anchor=(left, 1 - 0.36 / height),
        borderaxespad=0, borderpad=0.2, frameon=False, ncols=columns, fontsize=9,
    )  # fmt: skip
    figure.text(left, 0.08 / height, "\n".join(small), fontsize=6.5, color=FAINT, va="bottom", linespacing=1.3)


def _title(results: Results) -> str:
    return f"Score by pretraining steps{on_what(results)}"


def _panel(ax: "Axes", results: Results, scores: Scores, name: str) -> None:
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
    ax.spines[["top", "right"]].set_visible(False)
    if extent:
        _baselines(ax, scores, name, min(extent), max(extent))
    else:
        ax.set_yticks([])
        ax.text(0.5, 0.5, "no runs yet", transform=ax.transAxes, ha="center", va="center", color=FAINT)


def _baselines(ax: "Axes", scores: Scores, name: str, low: float, high: float) -> None:
    """Draws the baselines near the curves and names the others, which would flatten the curves."""
    span = max(high - low, 2.0)
    near, far = [low, high], []
    for baseline, dashes in BASELINE_DASHES.items():
        value = baseline_average(scores, baseline) if name == "Average" else scores.baselines.get((baseline, name))
        if value is None:
            continue
        if low - span <= value <= high + span:
            ax.axhline(value, color=FAINT, linewidth=1, linestyle=dashes, label=baseline, zorder=2)
            near.append(value)
        else:
            far.append(f"{baseline} {value:.1f}")
    room = 0.1 * (max(near) - min(near)) or 1.0
    ax.set_ylim(min(near) - room * (2.2 if far else 1), max(near) + room)
    if far:
        text = f"off the scale: {', '.join(far)}"
        ax.text(0.98, 0.03, text, transform=ax.transAxes, ha="right", va="bottom", fontsize=6.5, color=FAINT)


def _legend(results: Results, axes: "list[Axes]") -> "list[Line2D]":
    """Returns the methods, and the baselines that some panel shows."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], label=label(name), **style(n)) for n, name in enumerate(results.config.methods)]
    shown = {str(line.get_label()) for ax in axes for line in ax.get_lines()}
    return handles + [
        Line2D([], [], color=FAINT, linewidth=1, linestyle=dashes, label=name)
        for name, dashes in BASELINE_DASHES.items()
        if name in shown
    ]


def _small_print(results: Results, scores: Scores, width: int) -> list[str]:
    """Returns the caption and the signature (broken after bars and commas) in lines of at most `width` characters."""
    absent = f" Partial: missing {'; '.join(missing(results))}." if missing(results) else ""
    lines = [*textwrap.wrap(f"Bands: ± one standard deviation over seeds.{absent}", width), ""]
    for part in re.split("(?<=[|,])", signature(results, scores.metrics)):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return lines
