"""The networks: BERT encoder and heads, MAP-Net and ELECTRA; and a factory for a method's model."""

from typing import Literal

from mapnet_cli.config import Config, MapNetSizes
from mapnet_cli.model.attention import Packing
from mapnet_cli.model.bert import Attention, Encoder, attention_mask, padded_vocabulary, rounded_weights
from mapnet_cli.model.electra import Electra
from mapnet_cli.model.kernels import as_on_gpu, on_cpu
from mapnet_cli.model.masked_lm import ClassificationHead, PretrainingModel, initialise
from mapnet_cli.model.proposal import TokenTable, masked_log_softmax
from mapnet_cli.model.token_loss import token_loss

AnyPretrainingModel = PretrainingModel | Electra
"""Both have an `encoder`, which is what gets fine-tuned, a `proposal`, which may be None, and `init_weights`."""


def build_model(config: Config, name: str, vocab_size: int) -> AnyPretrainingModel:
    """Returns a method's model. Its weights are not initialised: call `init_weights` or load a checkpoint."""
    method, generator = config.method[name], config.generator(name)
    if generator is not None:
        return Electra(config.encoder, vocab_size, generator)
    if method.mapnet:
        return PretrainingModel(config.encoder, vocab_size, config.proposal, method.mapnet.embeddings)
    proposal: MapNetSizes | Literal["table"] | None = "table" if method.proposal else None
    return PretrainingModel(config.encoder, vocab_size, proposal)
