"""The networks that a method of the config trains."""

from mapnet_cli.config import Config
from mapnet_cli.model.electra import Electra
from mapnet_cli.model.pretraining import PretrainingModel

Networks = PretrainingModel | Electra
"""Both have an `encoder`, which is what is fine-tuned, and a `reset`."""


def build_networks(config: Config, method: str, vocab_size: int) -> Networks:
    """Returns the method's networks, their weights not drawn yet."""
    generator = config.generator(method)
    if generator is not None:
        return Electra(config.encoder, vocab_size, generator)
    proposal = config.proposal if config.method[method].objective != "none" else None
    return PretrainingModel(config.encoder, vocab_size, proposal)
