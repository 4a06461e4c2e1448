"""Conversion of weights to and from `BertForMaskedLM` and `ModernBertForMaskedLM`, and to `ElectraForPreTraining`.

BERT and ELECTRA add a segment embedding to every token, ours doesn't. Exported segment embeddings are
zero; on import the first segment's vector is added to the position embeddings, which is equivalent.
"""

import re

import torch
from torch import Tensor

from mapnet_cli.model import AnyPretrainingModel, Electra, PretrainingModel

Weights = dict[str, Tensor]
_HEAD = "cls.predictions"
_BERT = {
    "encoder.tokens": "bert.embeddings.word_embeddings",
    "encoder.stack.positions": "bert.embeddings.position_embeddings",
    "encoder.stack.norm": "bert.embeddings.LayerNorm",
    "encoder.stack.layers": "bert.encoder.layer",
    "attention.qkv": "attention.self.query attention.self.key attention.self.value",
    "attention.out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "ffn_in": "intermediate.dense",
    "ffn_out": "output.dense",
    "ffn_norm": "output.LayerNorm",
    "head": _HEAD,
    "head.dense": f"{_HEAD}.transform.dense",
    "head.norm": f"{_HEAD}.transform.LayerNorm",
    "detector.dense": "discriminator_predictions.dense",
    "detector.out": "discriminator_predictions.dense_prediction",
}
"""Our modules and theirs, in the order in which ours are made of several."""
_MODERN = {
    "encoder.tokens": "model.embeddings.tok_embeddings",
    "encoder.stack.norm": "model.embeddings.norm",
    "encoder.stack.final_norm": "model.final_norm",
    "encoder.stack.layers": "model.layers",
    "attention.qkv": "attn.Wqkv",
    "attention.out": "attn.Wo",
    "attention_norm": "attn_norm",
    "ffn_in": "mlp.Wi",
    "ffn_out": "mlp.Wo",
    "ffn_norm": "mlp_norm",
    "head": "decoder",
    "head.dense": "head.dense",
    "head.norm": "head.norm",
}
_ROBERTA = {
    "roberta.": "bert.",
    "lm_head.dense.": f"{_HEAD}.transform.dense.",
    "lm_head.layer_norm.": f"{_HEAD}.transform.LayerNorm.",
    "lm_head.": f"{_HEAD}.",
}
POSITIONS, SEGMENTS = (f"bert.embeddings.{kind}_embeddings.weight" for kind in ("position", "token_type"))
TIED = {
    f"{_HEAD}.decoder.weight": "bert.embeddings.word_embeddings.weight",
    f"{_HEAD}.decoder.bias": f"{_HEAD}.bias",
    "decoder.weight": "model.embeddings.tok_embeddings.weight",
}
"""Copies, and what they are copies of."""
VOCABULARY = ("word_embeddings.weight", "tok_embeddings.weight", f"{_HEAD}.bias", "decoder.bias")
"""Ends of the names of weights with a row for each token."""


def to_hugging_face(model: AnyPretrainingModel) -> Weights:
    """Returns encoder and head as a state dict for transformers, without padding rows and ELECTRA's generator."""
    out: Weights = {}
    for ours, theirs in _names(model).items():
        weight = model.state_dict()[ours]
        weight = weight[: model.encoder.vocab_size] if ours == "encoder.tokens.weight" else weight
        out |= zip(theirs, weight.chunk(len(theirs)), strict=True)
    if model.encoder.config.architecture == "bert":
        out[SEGMENTS] = torch.zeros(2, model.encoder.config.hidden)
    if isinstance(model, Electra):
        out = {re.sub(r"^bert\.", "electra.", name): value for name, value in out.items()}
    out |= {copy: out[original] for copy, original in TIED.items() if original in out}
    return {name: value.clone().contiguous() for name, value in out.items()}


def _names(model: AnyPretrainingModel) -> dict[str, list[str]]:
    """Returns the names in `transformers`, BERT's for ELECTRA, of encoder and head by our names."""
    table = _MODERN if model.encoder.config.architecture == "modernbert" else _BERT
    names = {}
    for ours in model.state_dict():
        module, _, kind = ours.rpartition(".")
        layer = re.fullmatch(r"(encoder\.stack\.layers)\.(\d+)\.(.+)", module)
        prefix = f"{table[layer[1]]}.{layer[2]}." if layer else ""
        if theirs := table.get(layer[3] if layer else module):
            names[ours] = [f"{prefix}{name}.{kind}" for name in theirs.split()]
    return names


def standard_names(state: Weights) -> Weights:
    """Returns the weights of any BERT, RoBERTa or ModernBERT under the names of BERT's or ModernBERT's masked LM.

    Checkpoints of the encoder alone have no prefix, old files name LayerNorm parameters gamma and beta, and
    some files have the head's bias only under its tied name. Raises ValueError if two weights get the same name.
    """
    out: Weights = {}
    for name, tensor in state.items():
        new = re.sub(r"(LayerNorm)\.gamma$", r"\1.weight", re.sub(r"(LayerNorm)\.beta$", r"\1.bias", name))
        for theirs, ours in _ROBERTA.items():
            new = ours + new.removeprefix(theirs) if new.startswith(theirs) else new
        new = re.sub(r"^(embeddings\.(tok_embeddings|norm)|layers|final_norm)\.", r"model.\1.", new)
        new = re.sub(r"^(embeddings|encoder|pooler)\.", r"bert.\1.", new)
        if new in out:
            raise ValueError(f"{new} exists twice, under different names; one of them is {name}")
        out[new] = tensor
    bias, tied = f"{_HEAD}.bias", f"{_HEAD}.decoder.bias"
    return {bias: out[tied], **out} if tied in out and bias not in out else out


def unused_weights(found: Weights, wanted: Weights) -> list[str]:
    """Returns other heads' weights. Raises ValueError if copies differ or the encoder has one not in `wanted`."""
    for copy, original in TIED.items():
        if copy in found and original in found and not torch.equal(found[copy], found[original]):
            raise ValueError(f"{copy} differs from {original}: only a decoder tied to the embeddings is supported")
    unused = sorted(found.keys() - wanted.keys() - TIED.keys())
    for name in unused:
        if name.startswith(("bert.", "model.")) and not name.startswith("bert.pooler."):
            raise ValueError(f"{name} is not part of the encoder that config.json describes: do they belong together?")
    return unused


def from_hugging_face(state: Weights, model: PretrainingModel) -> None:
    """Copies a state dict as of `to_hugging_face` into encoder and MLM head. Raises KeyError for a missing weight."""
    if SEGMENTS in state:
        state = state | {POSITIONS: state[POSITIONS] + state[SEGMENTS][0]}
    weights = {ours: torch.cat([state[name] for name in theirs]) for ours, theirs in _names(model).items()}
    words = weights["encoder.tokens.weight"]
    padding = words.new_zeros(model.encoder.tokens.num_embeddings - len(words), words.shape[1])
    missing, unexpected = model.load_state_dict(weights | {"encoder.tokens.weight": torch.cat([words, padding])}, False)
    assert not unexpected and all(name.startswith("proposal.") for name in missing)
