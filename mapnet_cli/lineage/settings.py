"""Which settings go into fingerprints, under which names."""

from typing import Any

from mapnet_cli.config import Method
from mapnet_cli.config.method import MOVED

RUN_SETTINGS = (
    "adam_betas", "adam_eps", "weight_decay", "clip_norm", "epochs", "warmup_ratio", "dropout", "batching", "precision",
)  # fmt: skip
"""Keys of [finetune] that a run depends on, beside those that the grid goes through."""
ELECTRA_SETTINGS = ("task", "generator_fraction", "detection_weight")
_MOVED_BACK = {new: old for old, new in MOVED.items()}
_FLAT_DEFAULTS = {
    "generator_fraction": 0.25, "detection_weight": 50.0, "sampler": "gumbel", "uniform_mix": 0.0, "estimator": "none",
    "ratio_clip": 0.2, "objective": "none", "signal": "loss", "table_memory": 1_000, "proposal_embeddings": "shared",
    "proposal_peak_lr": 0.0, "proposal_clip_norm": 0.0, "loss_weight": 0.01, "loss_weight_on": "mapnet",
    "learn_on_uniform_steps": True, "learn_every": 1, "propose_every": 1, "proposal_precision": "auto",
}  # fmt: skip
"""Defaults of a method's flat keys in version 0.1, which are part of fingerprints."""


def method_settings(method: Method) -> dict[str, Any]:
    """Returns all of a method's settings that results depend on, as plain JSON values.

    They are flat and named as in version 0.1, which had no tables in a method: fingerprints made then still hold.
    """
    found = method.results_view()
    proposal, electra = found.pop("proposal"), found.pop("electra")
    flat = {_MOVED_BACK.get(f"proposal.{key}", key): value for key, value in (proposal or {}).items() if key != "kind"}
    flat |= electra or {}
    found = _FLAT_DEFAULTS | found | flat
    found["start"] = found.pop("init_from")
    found["task"] = "replaced-token" if electra else "masked-lm"
    for key, default in (("explore_start", 1.0), ("explore_end", 1 / 3)):
        found[key] = default if found[key] is None else found[key]
    if method.proposal is None and any(method.exploration):  # which version 0.1 didn't know
        found["exploration"] = method.exploration
    return found
