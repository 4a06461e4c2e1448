"""The measurement as a figure: the variances of the strategies, and gradient norms by loss."""

import math
from typing import TYPE_CHECKING

from mapnet_cli.core.plotting import COLOURS, FAINT, images
from mapnet_cli.variance.results import NORMS, Estimate, VarianceReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL_INCHES = 3.3
ROW_INCHES = 0.34


def variance_figure(found: VarianceReport) -> bytes:
    """Returns a PNG with the same bytes for the same measurement."""
    title = f"Gradient variance: {found.method}, seed {found.pretrain_seed}, step {found.step:,}"
    return images(lambda figure: _draw(figure, found, title), title, found.signature, ("png",))["png"]


def _draw(figure: "Figure", found: VarianceReport, title: str) -> None:
    width, height = (len(NORMS) + 1) * PANEL_INCHES + 0.6, max(2.9, 1.5 + ROW_INCHES * len(found.measured))
    figure.set_size_inches(width, height)
    *bars, curve = figure.subplots(1, len(NORMS) + 1)
    for ax, norm in zip(bars, NORMS, strict=True):
        _bars(ax, found, norm)
    bars[0].set_yticks(range(len(found.measured)), [row.name for row in found.measured])
    _norms(curve, found)
    for ax in (*bars, curve):
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="x", color="#E6E6E6", linewidth=0.8, zorder=0)
    figure.subplots_adjust(1.15 / width, 0.78 / height, 1 - 0.2 / width, 1 - 0.72 / height, wspace=0.28)
    figure.text(0.1 / width, 1 - 0.28 / height, title, fontsize=12, fontweight="bold")
    handles, labels = bars[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper right", ncols=2, frameon=False, fontsize=8.5)
    said = f"{found.sentences} sentences, {found.masks} masks each. Error bars: one standard error over sentences."
    figure.text(0.1 / width, 0.2 / height, said, fontsize=7, color=FAINT)
    figure.text(0.1 / width, 0.07 / height, found.signature, fontsize=6, color=FAINT)


def _bars(ax: "Axes", found: VarianceReport, norm: str) -> None:
    """Draws mask variance beside sentence variance, in units of uniform masks' mask variance."""
    unit = found.measured[0].variances[norm].mask.value or 1.0
    for shift, (name, label) in enumerate((("mask", "mask variance"), ("sentence", "sentence variance"))):
        estimates = [getattr(row.variances[norm], name) for row in found.measured]
        places = [number + 0.19 * (2 * shift - 1) for number in range(len(estimates))]
        values, errors = zip(*(_scaled(estimate, unit) for estimate in estimates), strict=True)
        ax.barh(places, values, 0.36, xerr=errors, color=COLOURS[shift], ecolor="#444444", label=label, zorder=2)
    ax.set_yticks([])
    ax.invert_yaxis()
    ax.axvline(1, color=FAINT, linewidth=1, linestyle=":", zorder=3)
    ax.set_title(NORMS[norm], loc="left", fontsize=9.5, fontweight="bold", pad=5)
    ax.set_xlabel("variance / mask variance of uniform masks")


def _scaled(estimate: Estimate, unit: float) -> tuple[float, float]:
    value = math.nan if estimate.value is None else estimate.value / unit
    return value, 0.0 if estimate.error is None else estimate.error / unit


def _norms(ax: "Axes", found: VarianceReport) -> None:
    bins = found.loss_bins
    middle = [(b.low + b.high) / 2 for b in bins]
    values, errors = zip(*(_scaled(b.norm, 1.0) for b in bins), strict=True)
    ax.errorbar(middle, values, errors, color=COLOURS[2], marker="o", markersize=4, linewidth=1.6, capsize=2)
    ax.set_title("gradient norm of a position", loc="left", fontsize=9.5, fontweight="bold", pad=5)
    ax.set_xlabel("loss (nats)")
    ax.set_ylim(bottom=0)  # or a norm that has saturated would look as if it rose
