"""Exploration against exploitation: how often the masks of a step are uniform (section 4.1.1)."""

import random

from mapnet_cli.config import Method
from mapnet_cli.core.seeds import derive_seed


def exploration_probability(method: Method, step: int, steps: int) -> float:
    """Returns p after `step` of `steps` steps: linear from explore_start to explore_end."""
    return method.explore_start + (method.explore_end - method.explore_start) * step / steps


def is_exploration_step(method: Method, seed: int, step: int, steps: int) -> bool:
    """Returns the coin of this step: one for the whole batch, the same in every process."""
    coin = random.Random(derive_seed(seed, "exploration", step)).random()
    return coin < exploration_probability(method, step, steps)
