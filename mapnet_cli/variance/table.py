"""Tables, document and figure of a measurement."""

import json
from typing import Any

from mapnet_cli import core
from mapnet_cli.variance.results import NORMS, Clipping, Correlation, Estimate, LossBin, Measured, VarianceReport

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
    def estimate(row: Measured, name: str) -> core.Cell:
        return _estimate(getattr(row.variances[norm], name))

    shown = {
        "mask": "mask variance", "sentence": "sentence variance", "mask_share": "mask share",
        "mask_to_uniform": "mask variance / uniform", "visits_to_uniform": f"over {found.visits} visits / uniform",
        "bias": "bias", "noise_scale": "noise scale",
    }  # fmt: skip
    columns: list[core.Column[Measured]] = [
        core.Column("strategy", lambda row: row.name),
        core.Column("weights", lambda row: row.estimator),
        core.Column("mask rate", lambda row: core.number_cell(row.mask_rate, "{:.0%}")),
        *core.each(shown, estimate),
        core.Column("batch size", lambda row: row.batch_size),
        *core.each({"error_to_uniform": "batch error / uniform"}, estimate),
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


def variance_chart(found: VarianceReport) -> core.Chart:
    """Returns one panel of bars per norm, relative to the mask variance of uniform masks, and of norms by loss."""
    rows = list[dict[str, Any]]()
    for norm in NORMS:
        unit = found.measured[0].variances[norm].mask.value or 1.0
        for row in found.measured:
            for kind, estimate in (("mask", row.variances[norm].mask), ("sentence", row.variances[norm].sentence)):
                rows.append({"strategy": row.name, "variance": kind, "norm": norm, **_bounds(estimate, unit)})
    bins = [{"loss": (b.low + b.high) / 2, **_bounds(b.norm, 1.0)} for b in found.loss_bins]
    value, low = (
        core.axis(field, "variance / mask variance of uniform masks", zero=True) for field in ("value", "low")
    )
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
