"""Diagnostics of a proposal: what the log shows of it, and the warnings that follow from that."""

from collections.abc import Mapping
from typing import Any

COLLAPSED = 0.5
"""A proposal has collapsed when its entropy is below this share of the uniform one's."""
SATURATED = 0.9
"""Weights are called saturated when more than this share of them are at the clip's ends."""
FEW = 0.2
"""An effective sample size below this share of the masked positions is called small."""
FIGURES = ("proposal_entropy", "kl_to_uniform", "largest_q", "clip_fraction", "effective_sample_share")
"""Of a log line: entropies in nats."""


def proposal_warnings(row: Mapping[str, Any], name: str, objective: str = "") -> dict[str, str]:
    """Returns what a log line shows to be wrong with a method's proposal: {kind: text with the keys that cure it}.

    `objective` is MAP-Net's, "" without MAP-Net.
    """
    found = {}
    if "proposal_entropy" in row:
        entropy, uniform = row["proposal_entropy"], row["proposal_entropy"] + row["kl_to_uniform"]
        if entropy < COLLAPSED * uniform:
            cures = [f"raise method.{name}.explore_end or method.{name}.proposal.uniform_mix"]
            if objective == "pairwise":
                key = f"method.{name}.proposal.objective"
                cures.insert(0, f'set {key} = "loss-matching", which has a fixed point (Eq. 10 has none)')
            found["collapse"] = (
                f"the proposal of {name} has collapsed by step {row['step']}: its entropy is {entropy:.2f} nats where "
                f"uniform masks have {uniform:.2f}, so nearly the same positions are masked each time; "
                + ", or ".join(cures)
            )
    if row.get("clip_fraction", 0.0) > SATURATED:
        found["saturation"] = (
            f"{row['clip_fraction']:.0%} of the importance weights of {name} are at the ends of their clip by step "
            f'{row["step"]}, so they correct next to nothing; set method.{name}.proposal.sampler = "systematic" with '
            f'method.{name}.proposal.estimator = "horvitz-thompson", or raise method.{name}.proposal.ratio_clip'
        )
    if row.get("effective_sample_share", 1.0) < FEW:
        found["few"] = (
            f"the importance weights of {name} leave an effective sample of {row['effective_sample_share']:.0%} of the "
            f"masked positions by step {row['step']}; raise method.{name}.proposal.uniform_mix"
        )
    return found
