"""Which strategy, estimator and objective go together: unknown names and meaningless combinations are refused.

What the config's types rule out (a proposal's keys without a proposal) is not checked again.
"""

from collections.abc import Iterable

from mapnet_cli.config import Method
from mapnet_cli.core import UsageError, did_you_mean
from mapnet_cli.masking.importance import ESTIMATORS
from mapnet_cli.masking.objectives import OBJECTIVES
from mapnet_cli.masking.strategies import STRATEGIES

ORDERED = ("sequence-ratio", "ordered-ratio")
"""Estimators of draws that follow one another."""
CLIPPED = (*ORDERED, "position-ratio")
CHOICES: dict[str, Iterable[str]] = {"strategy": STRATEGIES, "estimator": ESTIMATORS, "objective": OBJECTIVES}
"""Of the keys whose values are names in a table."""


def validate_method(name: str, method: Method, visits: int = 1) -> None:
    """Raises UsageError naming the key if the method's parts don't exist or make no sense together.

    `visits` is pretrain.visits.
    """
    _check_name(f"method.{name}.strategy", method.strategy, "strategy")
    if method.proposal:
        _check_name(f"method.{name}.proposal.estimator", method.proposal.estimator, "estimator")
        _check_weights(f"method.{name}.proposal", method)
    if method.mapnet:
        _check_name(f"method.{name}.proposal.objective", method.mapnet.objective, "objective")
        _check_rhythm(f"method.{name}.proposal", method, visits)
    if STRATEGIES[method.strategy].successive and method.mask_rate_end not in (0.0, method.mask_rate):
        raise UsageError(
            f"method.{name}.mask_rate_end: strategy {method.strategy!r} divides a sentence's positions among visits "
            f"of one mask rate; leave it at 0"
        )
    if STRATEGIES[method.strategy].successive and any(method.exploration):
        raise UsageError(
            f"method.{name}.explore_start: strategy {method.strategy!r} shares its noise among the visits of a "
            f"sentence, so uniform steps between them would repeat one mask; leave explore_start and explore_end out"
        )
    if method.electra and method.replace_random:
        raise UsageError(
            f"method.{name}.replace_random: with ELECTRA the generator alone makes replacements, and they are drawn "
            f"with the noise that random tokens would be; set it to 0"
        )


def _check_weights(section: str, method: Method) -> None:
    key, estimator, sampler = f"{section}.estimator", method.drawing.estimator, method.drawing.sampler
    if estimator == "horvitz-thompson" and sampler != "systematic":
        raise UsageError(
            f"{key}: 'horvitz-thompson' needs inclusion probabilities, which only sampler 'systematic' knows; "
            f"set {section}.sampler"
        )
    if estimator in ORDERED and sampler != "gumbel":
        raise UsageError(
            f"{key}: {estimator!r} weights draws that follow one another, which those of sampler {sampler!r} don't; "
            f"set {section}.sampler to 'gumbel' or the estimator to 'horvitz-thompson'"
        )
    if (
        estimator not in CLIPPED
        and method.drawing.ratio_clip != type(method.drawing).model_fields["ratio_clip"].default
    ):
        raise UsageError(f"{section}.ratio_clip is for estimators that clip: {', '.join(CLIPPED)}")


def _check_rhythm(section: str, method: Method, visits: int) -> None:
    mapnet = method.mapnet
    assert mapnet is not None
    if mapnet.learn_every > 1 and mapnet.learn_every % mapnet.propose_every:
        raise UsageError(
            f"{section}: MAP-Net learns only where it reads, so learn_every ({mapnet.learn_every}) must be a "
            f"multiple of propose_every ({mapnet.propose_every})"
        )
    if visits % mapnet.propose_every:
        raise UsageError(
            f"{section}.propose_every ({mapnet.propose_every}) reuses a proposal for the same sentences, so "
            f"pretrain.visits ({visits}) must be a multiple of it"
        )


def _check_name(key: str, value: str, kind: str) -> None:
    known = CHOICES[kind]
    if value not in known:
        choices = f"choose one of {', '.join(known)}"
        raise UsageError(f"{key}: there is no {value!r}; {choices}{did_you_mean(value, known)}")
