"""What `mapnet variance` finds, as rows of its marker and of variance.json."""

from mapnet_cli.core import Row

NORMS = {"raw": "raw", "adam": "preconditioned by Adam", "adam-layers": "preconditioned, layers only"}
"""In which geometry gradients are measured: as they are; divided by the root of Adam's second moments; the
same without what each token has of its own (embeddings, output bias), whose second moments are near 0 for rare ones."""


class Estimate(Row):
    """A value and its standard error over sentences; None where it isn't defined (a ratio to nothing)."""

    value: float | None
    error: float | None


class Variances(Row):
    """Theorem 1 for one strategy, of the gradient of one sentence under one mask."""

    mask: Estimate
    """Mask variance: the trace of the covariance over masks, mean over sentences."""
    sentence: Estimate
    """Sentence variance: the trace of the covariance over sentences of the mean gradient."""
    mask_share: Estimate
    """Mask variance as a share of both together."""
    visits: Estimate
    """J times the variance of the mean over J successive visits; the mask variance if visits are independent."""
    mask_to_uniform: Estimate
    """Mask variance over that of uniform masks of the same sentences."""
    visits_to_uniform: Estimate
    """`visits` over the mask variance of uniform masks."""
    difference: Estimate
    """Squared norm of the mean gradient's difference to uniform masks'; unbiased, so it may be below 0."""
    bias: Estimate
    """`difference` over the squared norm of uniform masks' mean gradient."""


class Clipping(Row):
    """The paper's sequence ratio of a proposal's masks."""

    clip: float
    clipped: Estimate
    """Share of masks whose ratio leaves [1 - clip, 1 + clip]."""
    effective: Estimate
    """Effective sample size under the unclipped ratio, as a share of the masks."""


class Measured(Row):
    """One strategy."""

    name: str
    strategy: str
    sampler: str
    estimator: str
    mask_rate: float
    proposal: str
    """Where the proposal is from; empty where there is none."""
    variances: dict[str, Variances]
    """By NORMS."""
    clipping: Clipping | None


class Correlation(Row):
    """One signal of a masked position with the norm of its gradient."""

    signal: str
    norm: str
    pearson: Estimate
    spearman: Estimate


class LossBin(Row):
    """Positions between two losses (nats): how many, and their mean gradient norm."""

    low: float
    high: float
    positions: int
    norm: Estimate


class VarianceReport(Row):
    method: str
    pretrain_seed: int
    step: int
    checkpoint: str
    """SHA-256 of the weights."""
    parameters: int
    """Dimensions of a gradient: encoder and head."""
    sentences: int
    masks: int
    """A sentence and strategy."""
    visits: int
    second_moments: str
    """Where Adam's second moments are from."""
    projection: int | None
    """Dimensions of the CountSketch of mean gradients; None: they are exact."""
    projection_error: float
    """Standard deviation of an inner product of sketches, as a share of the norms' product."""
    measured: list[Measured]
    """Uniform masks first."""
    correlations: list[Correlation]
    loss_bins: list[LossBin]
    signature: str
