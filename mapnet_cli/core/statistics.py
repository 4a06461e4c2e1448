"""Tests of whether a mean differs from 0, for few values, and the correction for several tests."""

import math
import statistics
from collections.abc import Sequence

CONFIDENCE = 0.95
MIN_VALUES = 3  # fewer values give no interval and no p-value
RESAMPLES = 9_999
Interval = tuple[float, float]


def t_interval(values: Sequence[float]) -> Interval | None:
    """Returns Student's t confidence interval of the mean."""
    if len(values) < MIN_VALUES:
        return None
    from scipy.special import stdtrit  # scipy.stats takes a second to import

    half = float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2)) * statistics.stdev(values) / math.sqrt(len(values))
    centre = statistics.fmean(values)
    return centre - half, centre + half


def t_test(values: Sequence[float]) -> float | None:
    """Returns the two-sided p-value of Student's t test."""
    if len(values) < MIN_VALUES:
        return None
    centre, deviation = statistics.fmean(values), statistics.stdev(values)
    if not deviation:
        return 0.0 if centre else 1.0
    from scipy.special import stdtr

    return float(2 * stdtr(len(values) - 1, -abs(centre) / deviation * math.sqrt(len(values))))


def bootstrap_interval(values: Sequence[float]) -> Interval | None:
    """Returns the bootstrap confidence interval of the mean (BCa), which doesn't assume a normal distribution."""
    if len(values) < MIN_VALUES or len(set(values)) == 1:
        return t_interval(values)
    import numpy as np
    from scipy.stats import bootstrap

    low, high = bootstrap((values,), np.mean, n_resamples=RESAMPLES, rng=0).confidence_interval
    return None if math.isnan(low + high) else (float(low), float(high))


def permutation_test(values: Sequence[float]) -> float | None:
    """Returns the exact p-value if each value's sign is random: with n values it is at least 2 / 2^n."""
    if len(values) < MIN_VALUES:
        return None
    import numpy as np
    from scipy.stats import permutation_test

    return float(permutation_test((values,), np.mean, permutation_type="samples", n_resamples=RESAMPLES, rng=0).pvalue)


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Returns the p-values corrected for their number by Holm's method; None stays None and doesn't count."""
    tested = sorted((p, number) for number, p in enumerate(values) if p is not None)
    corrected, highest = dict[int, float](), 0.0
    for rank, (p, number) in enumerate(tested):
        highest = max(highest, min(1.0, p * (len(tested) - rank)))
        corrected[number] = highest
    return [corrected.get(number) for number in range(len(values))]
