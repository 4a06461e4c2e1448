"""Tables, document and figure of a measurement."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from mapnet_cli import core
from mapnet_cli.variance.results import NORMS, Clipping, Correlation, Estimate, LossBin, Measured, VarianceReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIGNALS = {"loss": "loss", "one-minus-p": "1 - P", "logit-gradient": "||W^T (p - y)||"}


def document(found: VarianceReport) -> str:
    """Returns the text of variance.md."""
    return "\n".join(
        core.to_markdown(table, 1 if number == 0 else 2) for number, table in enumerate(variance_tables(found))
    )


def variance_tables(found: VarianceReport) -> list[core.Table]:
    """Returns tables of variances in each norm, clipping of ratios, correlations, and norms by loss."""
    variances = (_variances(found, norm) for norm in NORMS)
    return [*variances, *_clipping(found), _correlations(found), _bins(found), _alignment(found)]


def _variances(found: VarianceReport, norm: str) -> core.Table:
    shown = {
        "mask variance": "mask", "sentence variance": "sentence", "mask share": "mask_share",
        "mask variance / uniform": "mask_to_uniform", f"over {found.visits} visits / uniform": "visits_to_uniform",
        "bias": "bias", "noise scale": "noise_scale",
    }  # fmt: skip

    def estimate(name: str) -> Callable[[Measured], core.Cell]:
        return lambda row: _estimate(getattr(row.variances[norm], name))

    columns: list[core.Column[Measured]] = [
        core.Column("strategy", lambda row: row.name),
        core.Column("weights", lambda row: row.estimator),
        core.Column("mask rate", lambda row: core.number_cell(row.mask_rate, "{:.0%}")),
        *(core.Column(title, estimate(name)) for title, name in shown.items()),
        core.Column("batch size", lambda row: row.batch_size),
        core.Column("batch error / uniform", estimate("error_to_uniform")),
    ]
    notes = [
        f"Gradients of one sentence under one mask, weighted as in a batch; {found.parameters:,} parameters; "
        f"{found.sentences} held-out sentences, {found.masks} masks each. Errors: one standard error over sentences.",
        "bias: |difference of mean gradients|^2 / |mean gradient of uniform masks|^2; unbiased, so it may be negative.",
        "noise scale: (mask + sentence variance) / |mean gradient|^2, in sentences. batch error: (mask + sentence "
        "variance) / batch size + |difference of mean gradients|^2, relative to that of uniform masks.",
    ]
    if norm != "raw":
        notes.append(f"Second moments: {found.second_moments}.")
    if found.projection is not None:
        notes.append(
            f"Inner products with mean gradients (all but the mask variance) use CountSketches of {found.projection:,} "
            f"dimensions, whose standard deviation is at most {found.projection_error:.2%} of the product of the norms."
        )
    notes += [f"Proposal of {row.name}: {row.proposal}." for row in found.measured if row.proposal]
    title = f"Gradient variance, {NORMS[norm]}: {_where(found)}"
    return core.build_table(f"variance-{norm}", title, columns, found.measured, notes, found.signature)


def _where(found: VarianceReport) -> str:
    return f"{found.method}, seed {found.pretrain_seed}, step {found.step:,}"


def _clipping(found: VarianceReport) -> list[core.Table]:
    """Returns one table, or none if the ratio is defined for no strategy."""
    rows = [(row.name, row.clipping) for row in found.measured if row.clipping]
    columns: list[core.Column[tuple[str, Clipping]]] = [
        core.Column("strategy", lambda row: row[0]),
        core.Column("clip", lambda row: row[1].clip),
        core.Column("masks clipped", lambda row: _estimate(row[1].clipped)),
        core.Column("effective sample share", lambda row: _estimate(row[1].effective)),
    ]
    note = "For the paper's sequence ratio, even if other weights are used. Uninformative if all masks are clipped."
    table = core.build_table("clipping", "Clipping of the sequence ratio", columns, rows, (note,), found.signature)
    return [table] if rows else []


def _correlations(found: VarianceReport) -> core.Table:
    columns: list[core.Column[Correlation]] = [
        core.Column("signal", lambda row: _SIGNALS[row.signal]),
        core.Column("norm", lambda row: NORMS[row.norm]),
        core.Column("Pearson", lambda row: _estimate(row.pearson)),
        core.Column("Spearman", lambda row: _estimate(row.spearman)),
    ]
    count = sum(bin_.positions for bin_ in found.loss_bins)
    note = f"Over {count:,} masked positions. Errors: jackknife over sentences."
    title = "Correlation of signals at masked positions with the gradient norm"
    return core.build_table("correlations", title, columns, found.correlations, (note,), found.signature)


def _bins(found: VarianceReport) -> core.Table:
    columns: list[core.Column[LossBin]] = [
        core.Column("loss (nats)", lambda row: core.Cell(f"{row.low:.2f} to {row.high:.2f}", row.low)),
        core.Column("positions", lambda row: row.positions),
        core.Column("mean gradient norm", lambda row: _estimate(row.norm)),
    ]
    return core.build_table("norms-by-loss", "Gradient norm by loss", columns, found.loss_bins, (), found.signature)


def _alignment(found: VarianceReport) -> core.Table:
    columns: list[core.Column[str]] = [
        core.Column("norm", lambda norm: NORMS[norm]),
        core.Column("share of the best 30%", lambda norm: _estimate(found.alignment[norm])),
    ]
    note = (
        "Inner products of single positions' gradients with the mean gradient of other sentences: the share of their "
        "sum that the 30% of positions with the largest ones hold, chosen and added up with different sentences."
    )
    title = "Alignment of single positions with the mean gradient"
    return core.build_table("alignment", title, columns, NORMS, (note,), found.signature)


def _estimate(estimate: Estimate) -> core.Cell:
    """Returns a cell such as "0.832 ± 0.021", rounded to two significant digits of the error."""
    value, error = estimate.value, estimate.error
    data = {"": value, "error": error}
    if value is None:
        return core.Cell(core.NOTHING, None)
    if not error:
        return core.Cell(f"{value:.4g}", data)
    if not 1e-4 < max(abs(value), error) < 1e5:
        return core.Cell(f"{value:.3g} ± {error:.1g}", data)
    digits = max(0, 1 - int(f"{error:e}".split("e")[1]))
    return core.Cell(f"{value:.{digits}f} ± {error:.{digits}f}", data)


def variance_figure(found: VarianceReport) -> bytes:
    """Returns a PNG that is byte-identical for identical measurements."""
    title = f"Gradient variance: {_where(found)}"
    return core.images(lambda figure: draw_variance(figure, found, title), title, found.signature, ("png",))["png"]


def draw_variance(figure: "Figure", found: VarianceReport, title: str) -> None:
    """Draws one bar panel per norm, and a panel of gradient norms by loss."""
    [[*bars, curve]] = core.panels(figure, 1, len(NORMS) + 1, (3.45, max(1.8, 0.6 + 0.34 * len(found.measured))))
    for ax, norm in zip(bars, NORMS, strict=True):
        _bars(ax, found, norm)
    bars[0].set_yticks(range(len(found.measured)), [row.name for row in found.measured])
    _norms(curve, found)
    for ax in (*bars, curve):
        ax.grid(axis="x", color="#E6E6E6", linewidth=0.8, zorder=0)
    caption = f"{found.sentences} sentences, {found.masks} masks each. Error bars: one standard error over sentences."
    core.frame(figure, title, bars[0].get_legend_handles_labels()[0], caption, found.signature)


def _bars(ax: "Axes", found: VarianceReport, norm: str) -> None:
    """Draws mask variance next to sentence variance, relative to the mask variance of uniform masks."""
    unit = found.measured[0].variances[norm].mask.value or 1.0
    for shift, (name, label) in enumerate((("mask", "mask variance"), ("sentence", "sentence variance"))):
        estimates = [getattr(row.variances[norm], name) for row in found.measured]
        places = [number + 0.19 * (2 * shift - 1) for number in range(len(estimates))]
        values, errors = zip(*(_scaled(estimate, unit) for estimate in estimates), strict=True)
        ax.barh(places, values, 0.36, xerr=errors, color=core.COLOURS[shift], ecolor="#444444", label=label, zorder=2)
    ax.set_yticks([])
    ax.invert_yaxis()
    ax.axvline(1, color=core.FAINT, linewidth=1, linestyle=":", zorder=3)
    ax.set_title(NORMS[norm], loc="left", fontsize=9.5, fontweight="bold", pad=5)
    ax.set_xlabel("variance / mask variance of uniform masks")


def _scaled(estimate: Estimate, unit: float) -> tuple[float, float]:
    value = math.nan if estimate.value is None else estimate.value / unit
    return value, 0.0 if estimate.error is None else estimate.error / unit


def _norms(ax: "Axes", found: VarianceReport) -> None:
    bins = found.loss_bins
    middle = [(b.low + b.high) / 2 for b in bins]
    values, errors = zip(*(_scaled(b.norm, 1.0) for b in bins), strict=True)
    ax.errorbar(middle, values, errors, color=core.COLOURS[2], marker="o", markersize=4, linewidth=1.6, capsize=2)
    ax.set_title("gradient norm per position", loc="left", fontsize=9.5, fontweight="bold", pad=5)
    ax.set_xlabel("loss (nats)")
    ax.set_ylim(bottom=0)  # otherwise a saturated norm would appear to rise
