"""Diagnostics of a proposal: the logged quantities and the warnings derived from them."""

from collections.abc import Mapping
from typing import Any

COLLAPSED = 0.5  # a proposal has collapsed if its entropy is below this fraction of the uniform distribution's
SATURATED = 0.9  # importance weights are saturated if more than this fraction of them is at the clip bounds
MIN_EFFECTIVE_SHARE = 0.2  # an effective sample size below this fraction of the masked positions is too small
DIAGNOSTICS = ("proposal_entropy", "kl_to_uniform", "largest_q", "clip_fraction", "effective_sample_share")
"""Names of the diagnostics in a log line. Entropies are in nats."""


def proposal_warnings(
    row: Mapping[str, Any], name: str, objective: str = "", baseline: str = "sentence"
) -> dict[str, str]:
    """Returns warnings about a method's proposal from a log line: {kind: text that names the keys to change}.

    `objective` and `baseline` are MAP-Net's, "" and "sentence" without MAP-Net.
    """
    warnings = {}
    own = f"method.{name}.proposal"
    first = f'set {own}.baseline = "sentence" and ' if baseline == "batch" else ""  # which excludes what follows
    if "proposal_entropy" in row:
        entropy, uniform = row["proposal_entropy"], row["proposal_entropy"] + row["kl_to_uniform"]
        if entropy < COLLAPSED * uniform:
            remedies = [f"raise method.{name}.explore_end", f"{first}raise {own}.uniform_mix"]
            if objective == "pairwise":
                remedies.insert(
                    0, f'{first}set {own}.objective = "loss-matching", which has a fixed point (Eq. 10 has none)'
                )
            warnings["collapse"] = (
                f"the proposal of {name} has collapsed by step {row['step']}: its entropy is {entropy:.2f} nats "
                f"(uniform: {uniform:.2f}), so nearly the same positions are masked every time; "
                + ", or ".join(remedies)
            )
    if row.get("clip_fraction", 0.0) > SATURATED:
        warnings["saturation"] = (
            f"{row['clip_fraction']:.0%} of the importance weights of {name} are saturated at the clip bounds by step "
            f'{row["step"]}, so they correct almost nothing; {first}set {own}.sampler = "systematic" with '
            f'{own}.estimator = "horvitz-thompson", or raise {own}.ratio_clip'
        )
    if row.get("effective_sample_share", 1.0) < MIN_EFFECTIVE_SHARE:
        warnings["few"] = (
            f"the importance weights of {name} have an effective sample size of {row['effective_sample_share']:.0%} of "
            f"the masked positions by step {row['step']}; {first}raise {own}.uniform_mix"
        )
    return warnings
