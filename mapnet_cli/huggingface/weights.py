"""Conversion of weights to and from `BertForMaskedLM` and `ModernBertForMaskedLM`, and to `ElectraForPreTraining`.

BERT and ELECTRA add a segment embedding to every token, ours doesn't. Exported segment embeddings are
zero; on import the first segment's vector is added to the position embeddings, which is equivalent.
"""

import re

import torch
from torch import Tensor

from mapnet_cli.model import AnyPretrainingModel, Electra, PretrainingModel

Weights = dict[str, Tensor]
_LAYER = {
    "attention.out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "ffn_in": "intermediate.dense",
    "ffn_out": "output.dense",
    "ffn_norm": "output.LayerNorm",
}
_EMBEDDINGS = "bert.embeddings"
POSITIONS = f"{_EMBEDDINGS}.position_embeddings.weight"
_HEAD = "cls.predictions"
_MODERN_LAYER = {
    "attention_norm": "attn_norm",
    "attention.qkv": "attn.Wqkv",
    "attention.out": "attn.Wo",
    "ffn_norm": "mlp_norm",
    "ffn_in": "mlp.Wi",
    "ffn_out": "mlp.Wo",
}
_MODERN = {
    "encoder.tokens.weight": "model.embeddings.tok_embeddings.weight",
    "encoder.stack.norm.weight": "model.embeddings.norm.weight",
    "encoder.stack.final_norm.weight": "model.final_norm.weight",
    "head.dense.weight": "head.dense.weight",
    "head.norm.weight": "head.norm.weight",
    "head.bias": "decoder.bias",
}
TIED = {
    f"{_HEAD}.decoder.weight": f"{_EMBEDDINGS}.word_embeddings.weight",
    f"{_HEAD}.decoder.bias": f"{_HEAD}.bias",
    "decoder.weight": _MODERN["encoder.tokens.weight"],
}
"""Aliases of other weights."""
_ROBERTA = {
    "roberta.": "bert.",
    "lm_head.dense.": f"{_HEAD}.transform.dense.",
    "lm_head.layer_norm.": f"{_HEAD}.transform.LayerNorm.",
    "lm_head.": f"{_HEAD}.",
}
VOCABULARY = ("word_embeddings.weight", "tok_embeddings.weight", f"{_HEAD}.bias", "decoder.bias")
"""Ends of the names of weights with a row for each token."""


def to_hugging_face(model: AnyPretrainingModel) -> Weights:
    """Returns encoder and head as a state dict for the transformers model of their architecture.

    Padding rows of the vocabulary and ELECTRA's generator are removed.
    """
    if isinstance(model, Electra):
        return _electra(model)
    return _modern(model) if model.encoder.config.architecture == "modernbert" else _bert(model)


def _modern(model: PretrainingModel) -> Weights:
    state = model.state_dict()
    out = {theirs: state[ours] for ours, theirs in _modern_names(model).items()}
    words = out[_MODERN["encoder.tokens.weight"]][: model.encoder.vocab_size]
    return _copies(out | {_MODERN["encoder.tokens.weight"]: words, "decoder.weight": words})


def _modern_names(model: PretrainingModel) -> dict[str, str]:
    """Returns `ModernBertForMaskedLM`'s name of each of our weights."""
    layers = {
        f"encoder.stack.layers.{i}.{ours}.weight": f"model.layers.{i}.{theirs}.weight"
        for i in range(model.encoder.config.layers)
        for ours, theirs in _MODERN_LAYER.items()
    }
    del layers["encoder.stack.layers.0.attention_norm.weight"]
    return _MODERN | layers


def _bert(model: PretrainingModel) -> Weights:
    state, out = model.state_dict(), _encoder(model, "bert")
    words = out[f"{_EMBEDDINGS}.word_embeddings.weight"]
    out |= {
        f"{_HEAD}.bias": state["head.bias"],
        f"{_HEAD}.decoder.weight": words,
        f"{_HEAD}.decoder.bias": state["head.bias"],
    }
    for kind in ("weight", "bias"):
        out[f"{_HEAD}.transform.dense.{kind}"] = state[f"head.dense.{kind}"]
        out[f"{_HEAD}.transform.LayerNorm.{kind}"] = state[f"head.norm.{kind}"]
    return _copies(out)


def _electra(model: Electra) -> Weights:
    state, out = model.state_dict(), _encoder(model, "electra")
    for kind in ("weight", "bias"):
        out[f"discriminator_predictions.dense.{kind}"] = state[f"detector.dense.{kind}"]
        out[f"discriminator_predictions.dense_prediction.{kind}"] = state[f"detector.out.{kind}"]
    return _copies(out)


def _copies(weights: Weights) -> Weights:
    return {name: value.clone().contiguous() for name, value in weights.items()}


def _encoder(model: AnyPretrainingModel, prefix: str) -> Weights:
    """Returns the encoder's weights under Hugging Face names with the given prefix."""
    state = model.state_dict()
    words = state["encoder.tokens.weight"][: model.encoder.vocab_size]
    embeddings = f"{prefix}.embeddings"
    out = {
        f"{embeddings}.word_embeddings.weight": words,
        f"{embeddings}.position_embeddings.weight": state["encoder.stack.positions.weight"],
        f"{embeddings}.token_type_embeddings.weight": torch.zeros(2, words.shape[1]),
    }
    for kind in ("weight", "bias"):
        out[f"{embeddings}.LayerNorm.{kind}"] = state[f"encoder.stack.norm.{kind}"]
        for i in range(model.encoder.config.layers):
            ours, theirs = f"encoder.stack.layers.{i}", f"{prefix}.encoder.layer.{i}"
            for part, value in zip(
                ("query", "key", "value"), state[f"{ours}.attention.qkv.{kind}"].chunk(3), strict=True
            ):
                out[f"{theirs}.attention.self.{part}.{kind}"] = value
            for name, other in _LAYER.items():
                out[f"{theirs}.{other}.{kind}"] = state[f"{ours}.{name}.{kind}"]
    return out


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
        if new.startswith(("embeddings.tok_embeddings", "embeddings.norm", "layers.", "final_norm.")):
            new = f"model.{new}"
        new = f"bert.{new}" if new.startswith(("embeddings.", "encoder.", "pooler.")) else new
        if new in out:
            raise ValueError(f"{new} exists twice, under different names; one of them is {name}")
        out[new] = tensor
    bias, tied = f"{_HEAD}.bias", f"{_HEAD}.decoder.bias"
    return {bias: out[tied], **out} if tied in out and bias not in out else out


def unused_weights(found: Weights, wanted: Weights) -> list[str]:
    """Returns the names of weights of other heads.

    Raises ValueError if copies of a weight differ, or if the encoder has a weight that `wanted` doesn't.
    """
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
    modern = model.encoder.config.architecture == "modernbert"
    words = state[_MODERN["encoder.tokens.weight"] if modern else f"{_EMBEDDINGS}.word_embeddings.weight"]
    padding = model.encoder.tokens.num_embeddings - len(words)
    words = torch.cat([words, words.new_zeros(padding, words.shape[1])])
    if modern:
        ours_state = {ours: state[theirs] for ours, theirs in _modern_names(model).items()}
        ours_state["encoder.tokens.weight"] = words
    else:
        ours_state = _from_bert(state, model.encoder.config.layers) | {"encoder.tokens.weight": words}
    missing, unexpected = model.load_state_dict(ours_state, strict=False)
    assert not unexpected and all(name.startswith("proposal.") for name in missing)


def _from_bert(state: Weights, layers: int) -> Weights:
    ours_state = {
        "encoder.stack.positions.weight": state[f"{_EMBEDDINGS}.position_embeddings.weight"]
        + state[f"{_EMBEDDINGS}.token_type_embeddings.weight"][0],
        "head.bias": state[f"{_HEAD}.bias"],
    }
    for kind in ("weight", "bias"):
        ours_state[f"encoder.stack.norm.{kind}"] = state[f"{_EMBEDDINGS}.LayerNorm.{kind}"]
        ours_state[f"head.dense.{kind}"] = state[f"{_HEAD}.transform.dense.{kind}"]
        ours_state[f"head.norm.{kind}"] = state[f"{_HEAD}.transform.LayerNorm.{kind}"]
        for i in range(layers):
            ours, theirs = f"encoder.stack.layers.{i}", f"bert.encoder.layer.{i}"
            parts = [state[f"{theirs}.attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
            ours_state[f"{ours}.attention.qkv.{kind}"] = torch.cat(parts)
            for name, other in _LAYER.items():
                ours_state[f"{ours}.{name}.{kind}"] = state[f"{theirs}.{other}.{kind}"]
    return ours_state
