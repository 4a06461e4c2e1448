"""Tables, document and figure of a measurement."""

import json
from typing import Any

from mapnet_cli import core
from mapnet_cli.variance.results import NORMS, Estimate, VarianceReport

_SIGNALS = {"loss": "loss", "one-minus-p": "1 - P", "logit-gradient": "||W^T (p - y)||"}


def document(found: VarianceReport) -> str:
    """Returns the text of variance.md."""
    first, *others = variance_tables(found)
    return "\n".join([core.to_markdown(first), *(core.to_markdown(table, 2) for table in others)])


def variance_tables(found: VarianceReport) -> list[core.Table]:
    """Returns tables of variances in each norm, clipping of ratios, correlations, and norms by loss."""
    variances = (_variances(found, norm) for norm in NORMS)
    return [*variances, *_clipping(found), _correlations(found), _bins(found), _alignment(found)]


def _variances(found: VarianceReport, norm: str) -> core.Table:
    shown = {
        "mask": "mask variance", "sentence": "sentence variance", "mask_share": "mask share",
        "mask_to_uniform": "mask variance / uniform", "visits_to_uniform": f"over {found.visits} visits / uniform",
        "bias": "bias", "noise_scale": "noise scale",
    }  # fmt: skip
    rows = [
        {
            "strategy": row.name,
            "weights": row.estimator,
            "mask rate": core.number_cell(row.mask_rate, "{:.0%}"),
            **{title: _estimate(getattr(row.variances[norm], name)) for name, title in shown.items()},
            "batch size": row.batch_size,
            "batch error / uniform": _estimate(row.variances[norm].error_to_uniform),
        }
        for row in found.measured
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
    return core.table_of(f"variance-{norm}", title, rows, notes, found.signature)


def _where(found: VarianceReport) -> str:
    return f"{found.method}, seed {found.pretrain_seed}, step {found.step:,}"


def _clipping(found: VarianceReport) -> list[core.Table]:
    """Returns one table, or none if the ratio is defined for no strategy."""
    rows = [
        {
            "strategy": row.name,
            "clip": row.clipping.clip,
            "masks clipped": _estimate(row.clipping.clipped),
            "effective sample share": _estimate(row.clipping.effective),
        }
        for row in found.measured
        if row.clipping
    ]
    note = "For the paper's sequence ratio, even if other weights are used. Uninformative if all masks are clipped."
    return [core.table_of("clipping", "Clipping of the sequence ratio", rows, (note,), found.signature)] if rows else []


def _correlations(found: VarianceReport) -> core.Table:
    rows = (
        {
            "signal": _SIGNALS[row.signal],
            "norm": NORMS[row.norm],
            "Pearson": _estimate(row.pearson),
            "Spearman": _estimate(row.spearman),
        }
        for row in found.correlations
    )
    count = sum(bin_.positions for bin_ in found.loss_bins)
    note = f"Over {count:,} masked positions. Errors: jackknife over sentences."
    title = "Correlation of signals at masked positions with the gradient norm"
    return core.table_of("correlations", title, rows, (note,), found.signature)


def _bins(found: VarianceReport) -> core.Table:
    rows = (
        {
            "loss (nats)": core.Cell(f"{row.low:.2f} to {row.high:.2f}", row.low),
            "positions": row.positions,
            "mean gradient norm": _estimate(row.norm),
        }
        for row in found.loss_bins
    )
    return core.table_of("norms-by-loss", "Gradient norm by loss", rows, (), found.signature)


def _alignment(found: VarianceReport) -> core.Table:
    rows = ({"norm": title, "share of the best 30%": _estimate(found.alignment[norm])} for norm, title in NORMS.items())
    note = (
        "Inner products of single positions' gradients with the mean gradient of other sentences: the share of their "
        "sum that the 30% of positions with the largest ones hold, chosen and added up with different sentences."
    )
    title = "Alignment of single positions with the mean gradient"
    return core.table_of("alignment", title, rows, (note,), found.signature)


def _estimate(estimate: Estimate) -> core.Cell:
    """Returns a cell such as "0.832 ± 0.021", rounded to two significant digits of the error."""
    value, error = estimate.value, estimate.error
    data = {"": value, "error": error}
    if value is None:
        return core.plain(None)
    if not error:
        return core.Cell(f"{value:.4g}", data)
    if not 1e-4 < max(abs(value), error) < 1e5:
        return core.Cell(f"{value:.3g} ± {error:.1g}", data)
    digits = max(0, 1 - int(f"{error:e}".split("e")[1]))
    return core.Cell(f"{value:.{digits}f} ± {error:.{digits}f}", data)


def variance_chart(found: VarianceReport) -> core.Chart:
    """Returns one panel of bars per norm, relative to the mask variance of uniform masks, and of norms by loss."""
    rows = list[dict[str, Any]]()
    for norm in NORMS:
        unit = found.measured[0].variances[norm].mask.value or 1.0
        for row in found.measured:
            for kind, estimate in (("mask", row.variances[norm].mask), ("sentence", row.variances[norm].sentence)):
                rows.append({"strategy": row.name, "variance": kind, "norm": norm, **_bounds(estimate, unit)})
    bins = [{"loss": (b.low + b.high) / 2, **_bounds(b.norm, 1.0)} for b in found.loss_bins]
    relative = "variance / mask variance of uniform masks"
    value, low = (core.axis(field, relative, zero=True) for field in ("value", "low"))
    text = core.render(
        "mapnet_cli.variance", "panels.json", norms=NORMS, value=value, low=low,
        color=core.named_colours(["mask", "sentence"], "variance")["color"], loss=core.axis("loss", "loss (nats)"),
        norm_value=core.axis("value", "", zero=True), norm_low=core.axis("low", ""),
    )  # fmt: skip
    caption = f"{found.sentences} sentences, {found.masks} masks each. Error bars: one standard error over sentences."
    return core.Chart(
        "variance", f"Gradient variance: {_where(found)}", caption, json.loads(text), {"variances": rows, "bins": bins}
    )


def _bounds(estimate: Estimate, unit: float) -> dict[str, float | None]:
    if estimate.value is None:
        return {"value": None, "low": None, "high": None}
    value, error = estimate.value / unit, (estimate.error or 0.0) / unit
    return {"value": value, "low": value - error, "high": value + error}
