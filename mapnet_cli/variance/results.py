"""Results of `mapnet variance`, as rows in its marker and in variance.json."""

from mapnet_cli.core import EncoderRecord, Row

NORMS = {"raw": "raw", "adam": "preconditioned by Adam", "adam-layers": "preconditioned, layers only"}
"""Geometries in which gradients are measured: raw; divided by the root of Adam's second moments; and the same
without the per-token parameters (embeddings, output bias), whose second moments are near 0 for rare tokens."""


class Estimate(Row):
    """A value and its standard error over sentences; None if undefined, such as a ratio with a zero denominator."""

    value: float | None
    error: float | None


class Variances(Row):
    """Theorem 1 for one strategy: variances of the gradient of one sentence under one mask."""

    mask: Estimate  # mask variance: the trace of the covariance over masks, averaged over sentences
    sentence: Estimate  # sentence variance: the trace of the covariance of the mean gradient over sentences
    mask_share: Estimate  # mask variance as a share of the sum of both
    visits: Estimate
    """J times the variance of the mean over J successive visits; equals the mask variance if visits are independent."""
    mask_to_uniform: Estimate  # mask variance divided by that of uniform masks on the same sentences
    visits_to_uniform: Estimate  # `visits` divided by the mask variance of uniform masks
    difference: Estimate
    """Squared norm of the difference in mean gradient from uniform masks; unbiased, so it may be negative."""
    bias: Estimate  # `difference` divided by the squared norm of the mean gradient under uniform masks
    noise_scale: Estimate
    """The sum of both variances divided by the squared norm of the mean gradient: the number of sentences per batch at
    which noise and signal are equal (McCandlish et al. 2018)."""
    error_to_uniform: Estimate
    """Mean squared error of a batch's gradient as an estimate of the mean gradient under uniform masks, the sum of both
    variances / batch size + `difference`, divided by that of uniform masks."""


class Clipping(Row):
    """Clipping of the paper's sequence ratio for a proposal's masks."""

    clip: float
    clipped: Estimate  # share of masks whose ratio is outside [1 - clip, 1 + clip]
    effective: Estimate  # effective sample size under the unclipped ratio, as a share of the masks


class Measured(Row):
    """Results of one strategy."""

    name: str
    strategy: str
    sampler: str
    estimator: str
    mask_rate: float
    batch_size: int
    proposal: str  # description of the proposal's source; empty without a proposal
    variances: dict[str, Variances]  # keyed by NORMS
    clipping: Clipping | None


class Correlation(Row):
    """Correlation of a signal at masked positions with the norm of the gradient."""

    signal: str
    norm: str
    pearson: Estimate
    spearman: Estimate


class LossBin(Row):
    """Positions with losses in an interval (nats): their number and mean gradient norm."""

    low: float
    high: float
    positions: int
    norm: Estimate


class VarianceReport(EncoderRecord):
    parameters: int  # number of parameters in a gradient: encoder and head
    sentences: int
    masks: int  # per sentence and strategy
    visits: int
    second_moments: str  # source of Adam's second moments
    projection: int | None  # dimensions of the CountSketches of mean gradients; None if these are exact
    projection_error: float
    """Upper bound on the standard deviation of an inner product of sketches, relative to the product of the norms."""
    measured: list[Measured]  # uniform masks first
    correlations: list[Correlation]
    loss_bins: list[LossBin]
    alignment: dict[str, Estimate]
    """Share of the alignment with the mean gradient that the best 30% of positions hold, keyed by NORMS."""
    signature: str
