"""Which strategy, sampler, estimator and objective go together: wrong names and senseless mixtures are refused."""

import difflib
from collections.abc import Iterable

from mapnet_cli.config import Method
from mapnet_cli.core.errors import UsageError
from mapnet_cli.masking.importance import ESTIMATORS
from mapnet_cli.masking.objectives import OBJECTIVES
from mapnet_cli.masking.strategies import STRATEGIES

ORDERED = ("sequence-ratio", "ordered-ratio")
"""Estimators of draws that follow one another."""
CLIPPED = (*ORDERED, "position-ratio")
MAPNETS = (
    "proposal_embeddings", "proposal_peak_lr", "proposal_clip_norm", "proposal_precision", "loss_weight",
    "loss_weight_on",
)  # fmt: skip


def validate_method(name: str, method: Method, visits: int = 1) -> None:
    """Raises UsageError naming the key if the method's parts don't exist or make no sense together.

    `visits` is pretrain.visits.
    """
    _check_name(f"method.{name}.strategy", method.strategy, STRATEGIES)
    _check_name(f"method.{name}.estimator", method.estimator, ESTIMATORS)
    _check_name(f"method.{name}.objective", method.objective, ["none", *OBJECTIVES])
    _check_task(name, method)
    _check_proposal(name, method)
    _check_weights(name, method)
    _check_rhythm(name, method, visits)


def _check_proposal(name: str, method: Method) -> None:
    proposal = STRATEGIES[method.strategy].proposal
    if proposal == "network" and not method.has_network:
        raise UsageError(
            f"method.{name}: strategy {method.strategy!r} draws from MAP-Net, but objective is 'none', so MAP-Net "
            f"would stay at its random start; set method.{name}.objective to one of {', '.join(OBJECTIVES)}"
        )
    if proposal != "network" and method.has_network:
        raise UsageError(
            f"method.{name}: objective {method.objective!r} trains MAP-Net, but strategy {method.strategy!r} never "
            f"draws from it; set method.{name}.objective to 'none' or the strategy to 'mapnet'"
        )
    if proposal not in ("network", "table"):
        _refuse(name, method, ("signal",), f"is what a proposal learns, but strategy {method.strategy!r} learns none")
    if proposal != "table":
        _refuse(name, method, ("table_memory",), "is for strategy 'table'")
    if not proposal:
        _refuse(name, method, ("sampler", "uniform_mix"), f"needs a proposal; strategy {method.strategy!r} has none")
    if not proposal:
        _refuse(name, method, ("explore_start", "explore_end"), f"needs a proposal; {method.strategy!r} never explores")
    if proposal not in ("network", "table"):
        _refuse(name, method, ("learn_on_uniform_steps",), f"is for what learns; strategy {method.strategy!r} doesn't")
    if proposal != "network":
        _refuse(name, method, MAPNETS, f"is about MAP-Net, which strategy {method.strategy!r} doesn't use")


def _check_weights(name: str, method: Method) -> None:
    key = f"method.{name}.estimator"
    if method.estimator != "none" and not STRATEGIES[method.strategy].needs_proposal:
        raise UsageError(
            f"{key}: {method.estimator!r} weighs masks by a proposal, but strategy "
            f"{method.strategy!r} has none; set {key} to 'none'"
        )
    if method.estimator == "horvitz-thompson" and method.sampler != "systematic":
        raise UsageError(
            f"{key}: 'horvitz-thompson' needs inclusion probabilities, which only sampler 'systematic' knows; "
            f"set method.{name}.sampler"
        )
    if method.estimator not in CLIPPED:
        _refuse(name, method, ("ratio_clip",), f"is for estimators that clip: {', '.join(CLIPPED)}")
    if method.estimator in ORDERED and method.sampler != "gumbel":
        raise UsageError(
            f"{key}: {method.estimator!r} weighs draws that follow one another, which those of sampler "
            f"{method.sampler!r} don't; set method.{name}.sampler to 'gumbel' or the estimator to 'horvitz-thompson'"
        )


def _check_rhythm(name: str, method: Method, visits: int) -> None:
    if STRATEGIES[method.strategy].successive and method.mask_rate_end not in (0.0, method.mask_rate):
        raise UsageError(
            f"method.{name}.mask_rate_end: strategy {method.strategy!r} shares out a sentence's positions among visits "
            f"of one mask rate; leave it at 0"
        )
    cuts = [key for key in ("learn_every", "propose_every") if getattr(method, key) > 1]
    if cuts and STRATEGIES[method.strategy].proposal != "network":
        raise UsageError(f"method.{name}.{cuts[0]} is about MAP-Net, which strategy {method.strategy!r} doesn't use")
    if len(cuts) == 2 and method.learn_every % method.propose_every:
        raise UsageError(
            f"method.{name}: MAP-Net learns only where it reads, so learn_every ({method.learn_every}) must be a "
            f"multiple of propose_every ({method.propose_every})"
        )
    if visits % method.propose_every:
        raise UsageError(
            f"method.{name}.propose_every ({method.propose_every}) reuses a proposal for the same sentences, so "
            f"pretrain.visits ({visits}) must be a multiple of it"
        )


def _refuse(name: str, method: Method, keys: Iterable[str], reason: str) -> None:
    for key in keys:
        if getattr(method, key) != Method.model_fields[key].default:
            raise UsageError(f"method.{name}.{key} {reason}")


def _check_task(name: str, method: Method) -> None:
    if method.task == "masked-lm":
        keys = ("generator_fraction", "detection_weight")
        _refuse(name, method, keys, f"is about ELECTRA's generator; set method.{name}.task to use it")
        return
    if STRATEGIES[method.strategy].needs_proposal or method.has_network:
        raise UsageError(
            f"method.{name}: a proposal learns from an encoder's losses at its masks, but under task {method.task!r} "
            f"it is the generator that fills them; set method.{name}.strategy to 'uniform' and the objective to 'none'"
        )
    if method.replace_random:
        raise UsageError(
            f"method.{name}.replace_random: under task {method.task!r} the generator alone makes replacements, and "
            f"they are drawn with the noise that random tokens would be; set it to 0"
        )


def _check_name(key: str, value: str, known: Iterable[str]) -> None:
    names = list(known)
    if value not in names:
        near = difflib.get_close_matches(value, names, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"{key}: there is no {value!r}; choose one of {', '.join(names)}{hint}")
