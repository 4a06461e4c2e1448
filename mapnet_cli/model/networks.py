"""What a method trains: an encoder with what stands around it."""

from mapnet_cli.model.electra import Electra
from mapnet_cli.model.masked_lm import PretrainingModel

AnyPretrainingModel = PretrainingModel | Electra
"""Both have an `encoder`, which is what is fine-tuned, a `proposal`, which may be None, and a `reset`."""
