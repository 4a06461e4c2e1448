"""The measurement as tables for a terminal and as a Markdown document."""

from mapnet_cli.core.tables import NOTHING, Cell, Table, plain, to_markdown
from mapnet_cli.variance.results import NORMS, Estimate, Measured, VarianceReport

_COLUMNS = {
    "mask": "mask variance",
    "sentence": "sentence variance",
    "mask_share": "mask share",
    "mask_to_uniform": "mask variance / uniform",
    "visits_to_uniform": "over {visits} visits / uniform",
    "bias": "bias",
}
_SIGNALS = {"loss": "loss", "one-minus-p": "1 - P", "logit-gradient": "||W^T (p - y)||"}


def document(found: VarianceReport) -> str:
    """Returns variance.md."""
    return "\n".join(to_markdown(table, 1 if number == 0 else 2) for number, table in enumerate(tables(found)))


def tables(found: VarianceReport) -> list[Table]:
    """Returns the variances in each norm, the ratios' clipping, the correlations and the norms by loss."""
    proposing = [row for row in found.measured if row.clipping]
    return [
        *(_variances(found, norm) for norm in NORMS),
        *([_clipping(found, proposing)] if proposing else []),
        _correlations(found),
        _bins(found),
    ]


def _variances(found: VarianceReport, norm: str) -> Table:
    columns = ["strategy", "weights", "mask rate", *(c.format(visits=found.visits) for c in _COLUMNS.values())]
    rows = []
    for row in found.measured:
        cells = [_estimate(getattr(row.variances[norm], name)) for name in _COLUMNS]
        rows.append((plain(row.name), plain(row.estimator), _rate(row), *cells))
    where = f"{found.method}, seed {found.pretrain_seed}, step {found.step:,}"
    notes = [
        f"Gradients of one sentence under one mask, as it weighs in a batch; {found.parameters:,} parameters; "
        f"{found.sentences} held-out sentences, {found.masks} masks each. Errors: one standard error over sentences.",
        "bias: |difference of mean gradients|^2 / |mean gradient of uniform masks|^2, unbiased, so it may be below 0.",
    ]
    if norm != "raw":
        notes.append(f"Second moments: {found.second_moments}.")
    if found.projection is not None:
        notes.append(
            f"Products of mean gradients (sentence variance, bias) are from CountSketches of {found.projection:,} "
            f"dimensions: off by {found.projection_error:.2%} of the norms' product (one standard deviation)."
        )
    notes += [f"Proposal of {row.name}: {row.proposal}." for row in found.measured if row.proposal]
    title = f"Gradient variance, {NORMS[norm]}: {where}"
    return Table(f"variance-{norm}", title, tuple(columns), tuple(rows), tuple(notes), found.signature)


def _rate(row: Measured) -> Cell:
    return Cell(f"{row.mask_rate:.0%}", row.mask_rate)


def _clipping(found: VarianceReport, proposing: list[Measured]) -> Table:
    rows = []
    for row in proposing:
        assert row.clipping is not None
        clip = row.clipping
        rows.append((plain(row.name), plain(clip.clip), _estimate(clip.clipped), _estimate(clip.effective)))
    columns = ("strategy", "clip", "masks clipped", "effective sample share")
    note = "Of the paper's sequence ratio, whether or not the strategy weighs by it; 1 and 0 leave nothing of it."
    return Table("clipping", "Clip of the sequence ratio", columns, tuple(rows), (note,), found.signature)


def _correlations(found: VarianceReport) -> Table:
    rows = [
        (plain(_SIGNALS[row.signal]), plain(NORMS[row.norm]), _estimate(row.pearson), _estimate(row.spearman))
        for row in found.correlations
    ]
    count = sum(bin_.positions for bin_ in found.loss_bins)
    note = f"Over {count:,} masked positions; errors by the jackknife over sentences."
    title = "Signals of a masked position and the norm of its gradient"
    return Table(
        "correlations", title, ("signal", "norm", "Pearson", "Spearman"), tuple(rows), (note,), found.signature
    )


def _bins(found: VarianceReport) -> Table:
    rows = [
        (Cell(f"{b.low:.2f} to {b.high:.2f}", b.low), plain(b.positions), _estimate(b.norm)) for b in found.loss_bins
    ]
    columns = ("loss (nats)", "positions", "mean gradient norm")
    return Table("norms-by-loss", "Gradient norm by loss", columns, tuple(rows), (), found.signature)


def _estimate(estimate: Estimate) -> Cell:
    """Returns "0.83 ± 0.02"; both to the error's second digit."""
    value, error = estimate.value, estimate.error
    data = {"": value, "error": error}
    if value is None:
        return Cell(NOTHING, None)
    if not error:
        return Cell(f"{value:.4g}", data)
    if not 1e-4 < max(abs(value), error) < 1e5:
        return Cell(f"{value:.3g} ± {error:.1g}", data)
    digits = max(0, 1 - _exponent(error))
    return Cell(f"{value:.{digits}f} ± {error:.{digits}f}", data)


def _exponent(number: float) -> int:
    return int(f"{number:e}".split("e")[1])
