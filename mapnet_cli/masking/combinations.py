"""Which strategy, estimator and objective go together: wrong names and senseless mixtures are refused early."""

import difflib
from collections.abc import Iterable

from mapnet_cli.config import Method
from mapnet_cli.errors import UsageError
from mapnet_cli.masking.importance import ESTIMATORS
from mapnet_cli.masking.objectives import OBJECTIVES
from mapnet_cli.masking.strategies import STRATEGIES


def check_method(name: str, method: Method, visits: int = 1) -> None:
    """Raises UsageError naming the key if the method's parts don't exist or make no sense together.

    `visits` is pretrain.visits.
    """
    _check_name(f"method.{name}.strategy", method.strategy, STRATEGIES)
    _check_name(f"method.{name}.estimator", method.estimator, ESTIMATORS)
    _check_name(f"method.{name}.objective", method.objective, ["none", *OBJECTIVES])
    proposes = STRATEGIES[method.strategy].needs_proposal
    _check_task(name, method, proposes)
    if proposes and method.objective == "none":
        raise UsageError(
            f"method.{name}: strategy {method.strategy!r} draws from MAP-Net, but objective is 'none', so MAP-Net "
            f"would stay at its random start; set method.{name}.objective to one of {', '.join(OBJECTIVES)}"
        )
    if not proposes and method.objective != "none":
        raise UsageError(
            f"method.{name}: objective {method.objective!r} trains MAP-Net, but strategy {method.strategy!r} never "
            f"draws from it; set method.{name}.objective to 'none' or the strategy to 'mapnet'"
        )
    if not proposes and method.estimator != "none":
        raise UsageError(
            f"method.{name}: estimator {method.estimator!r} weighs masks by MAP-Net's proposal, but strategy "
            f"{method.strategy!r} has none; set method.{name}.estimator to 'none'"
        )
    cuts = [key for key in ("learn_every", "propose_every") if getattr(method, key) > 1]
    if cuts and not proposes:
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


def _check_task(name: str, method: Method, proposes: bool) -> None:
    """Raises UsageError if the method's parts don't suit its task."""
    if method.task == "masked-lm":
        for key in ("generator_fraction", "detection_weight"):
            if getattr(method, key) != Method.model_fields[key].default:
                raise UsageError(f"method.{name}.{key} is about ELECTRA's generator; set method.{name}.task to use it")
        return
    if proposes or method.objective != "none":
        raise UsageError(
            f"method.{name}: MAP-Net learns from an encoder's losses at its masks, but under task {method.task!r} it "
            f"is the generator that fills them; set method.{name}.strategy to 'uniform' and the objective to 'none'"
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
