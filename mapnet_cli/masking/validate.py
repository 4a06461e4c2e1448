"""Validation of methods: unknown strategies, estimators and objectives, and combinations that make no sense.

What the config's types rule out (such as proposal keys without a proposal) is not checked again.
"""

import json
from collections.abc import Iterable

from mapnet_cli.config import MapNetProposal, Method, TableProposal
from mapnet_cli.core import UsageError, did_you_mean
from mapnet_cli.masking.importance import ESTIMATORS
from mapnet_cli.masking.objectives import OBJECTIVES
from mapnet_cli.masking.strategies import STRATEGIES

CHOICES: dict[str, Iterable[str]] = {"strategy": STRATEGIES, "estimator": ESTIMATORS, "objective": OBJECTIVES}
"""Valid values of the keys that name a table entry."""


def validate_method(name: str, method: Method, visits: int = 1) -> None:
    """Raises UsageError, naming the key, if a part of the method doesn't exist or its parts are incompatible."""
    section, proposal, mapnet = f"method.{name}.proposal", method.proposal, method.mapnet
    for key, kind, value in (
        (f"method.{name}.strategy", "strategy", method.strategy),
        (f"{section}.estimator", "estimator", proposal.estimator if proposal else "none"),
        (f"{section}.objective", "objective", mapnet.objective if mapnet else "pairwise"),
    ):
        if value not in (known := CHOICES[kind]):
            choices = f"choose one of {', '.join(known)}{did_you_mean(value, known)}"
            raise UsageError(f"{key}: unknown {kind} {value!r}; {choices}")
    if proposal:
        _check_weights(section, method)
    if mapnet:
        _check_intervals(section, mapnet, visits)
        _check_baseline(section, mapnet)
    if isinstance(proposal, TableProposal) and proposal.update_every and proposal.signal not in ("error", "loss"):
        raise UsageError(f"method.{name}.proposal.update_every: AMLM learns an 'error' or 'loss'; set signal to one")
    if method.learned and method.learned.signal_at == "mask" and not method.replace_mask:
        raise UsageError(
            f"{section}.signal_at: there is no [MASK] to learn at, since method.{name}.replace_mask is 0; raise it, or "
            "set signal_at to 'all'"
        )
    if method.explore_unit != "step" and not any(method.exploration):
        key = f"method.{name}.explore_unit"
        raise UsageError(f"{key}: there is no exploration; set explore_start or explore_end, or this to 'step'")
    if STRATEGIES[method.strategy].successive and method.mask_rate_end not in (0.0, method.mask_rate):
        raise UsageError(
            f"method.{name}.mask_rate_end: strategy {method.strategy!r} splits a sentence's positions among visits "
            f"with the same mask rate; leave it at 0"
        )
    if STRATEGIES[method.strategy].successive and any(method.exploration):
        raise UsageError(
            f"method.{name}.explore_start: strategy {method.strategy!r} shares its noise among a sentence's visits, "
            f"so uniform steps would repeat the same mask; remove explore_start and explore_end"
        )
    if method.electra and method.replace_random:
        raise UsageError(
            f"method.{name}.replace_random: with ELECTRA only the generator replaces tokens, and it uses the noise "
            f"that random replacement would use; set it to 0"
        )


def _check_weights(section: str, method: Method) -> None:
    drawing = method.drawing
    key, sampler, estimator = f"{section}.estimator", drawing.sampler, ESTIMATORS[drawing.estimator]
    if estimator.needs_pi and sampler != "systematic":
        raise UsageError(
            f"{key}: {drawing.estimator!r} needs inclusion probabilities, which only sampler 'systematic' provides; "
            f"set {section}.sampler to 'systematic'"
        )
    if estimator.sequential and sampler != "gumbel":
        raise UsageError(
            f"{key}: {drawing.estimator!r} needs sequential draws, which sampler {sampler!r} doesn't make; "
            f"set {section}.sampler to 'gumbel' or the estimator to 'horvitz-thompson'"
        )
    if not estimator.clips and drawing.ratio_clip != type(drawing).model_fields["ratio_clip"].default:
        clipping = ", ".join(name for name, each in ESTIMATORS.items() if each.clips)
        raise UsageError(f"{section}.ratio_clip applies only to estimators that clip: {clipping}")


def _check_intervals(section: str, mapnet: MapNetProposal, visits: int) -> None:
    if mapnet.learn_every > 1 and mapnet.learn_every % mapnet.propose_every:
        raise UsageError(
            f"{section}: MAP-Net can only learn in steps where it runs, so learn_every ({mapnet.learn_every}) must be "
            f"a multiple of propose_every ({mapnet.propose_every})"
        )
    if visits % mapnet.propose_every:
        raise UsageError(
            f"{section}.propose_every ({mapnet.propose_every}) reuses a proposal for the same sentences, so "
            f"pretrain.visits ({visits}) must be a multiple of it"
        )


def _check_baseline(section: str, mapnet: MapNetProposal) -> None:
    """The baseline is free of bias for draws from q itself only."""
    needs: dict[str, object] = {
        "objective": "pairwise", "sampler": "gumbel", "uniform_mix": 0.0, "learn_on_uniform_steps": False,
    }  # fmt: skip
    for key, value in needs.items():
        if mapnet.baseline == "batch" and getattr(mapnet, key) != value:
            needed = f"set {key} to {json.dumps(value)}"
            raise UsageError(f"{section}.baseline: 'batch' is for learning from draws from q; {needed}")
