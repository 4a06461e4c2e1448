"""Theorem 1's two variances of a strategy, and how they compare with those of uniform masks."""

from torch import Tensor

from mapnet_cli.variance.candidates import Candidate
from mapnet_cli.variance.results import NORMS, Clipping, Measured, Variances
from mapnet_cli.variance.statistics import Samples, gram, jackknife, leave_one_out, leave_one_out_pairs, ratio


def compare(candidate: Candidate, samples: Samples, uniform: Samples, batch_size: int) -> Measured:
    """Returns the results of a strategy, given samples of uniform masks on the same sentences and their batch size."""
    method, drawing = candidate.method, candidate.method.drawing
    ordered = bool(candidate.log_q) and drawing.sampler == "gumbel"  # the ratio is defined for sequential draws
    return Measured(
        name=candidate.name,
        strategy=method.strategy,
        sampler=drawing.sampler if candidate.log_q else "",
        estimator=drawing.estimator,
        mask_rate=method.mask_rate,
        batch_size=method.batch_factor * batch_size,
        proposal=candidate.proposal,
        variances={norm: _variances(samples, uniform, norm, batch_size, method.batch_factor) for norm in NORMS},
        clipping=_clipping(samples.log_ratio_SM.double(), drawing.ratio_clip) if ordered else None,
    )


def _variances(samples: Samples, uniform: Samples, norm: str, batch_size: int, factor: int) -> Variances:
    here, there = samples.moments[norm], uniform.moments[norm]
    mask, sentence, visits = here.mask_variance(), here.sentence_variance(), here.visits_variance()
    difference = leave_one_out_pairs(gram(samples.means_SD[norm] - uniform.means_SD[norm]))
    return Variances(
        mask=jackknife(mask),
        sentence=jackknife(sentence),
        mask_share=ratio(mask, here.variance()),
        visits=jackknife(visits),
        mask_to_uniform=ratio(mask, there.mask_variance()),
        visits_to_uniform=ratio(visits, there.mask_variance()),
        difference=jackknife(difference),
        bias=ratio(difference, there.mean_square()),
        noise_scale=ratio(here.variance(), here.mean_square()),
        error_to_uniform=ratio(here.variance() / (factor * batch_size) + difference, there.variance() / batch_size),
    )


def _clipping(log_ratio_SM: Tensor, clip: float) -> Clipping:
    low, high = max(1 - clip, 0.0), 1 + clip
    ratio_SM = log_ratio_SM.exp()
    outside_S = ((ratio_SM < low) | (ratio_SM > high)).double().mean(dim=1)
    share_SM = log_ratio_SM.softmax(dim=1)
    effective_S = 1 / share_SM.square().sum(dim=1) / share_SM.shape[1]
    return Clipping(
        clip=clip, clipped=jackknife(leave_one_out(outside_S)), effective=jackknife(leave_one_out(effective_S))
    )
