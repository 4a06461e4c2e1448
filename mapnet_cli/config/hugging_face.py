"""config.json of a Hugging Face folder, as our `[encoder]`."""

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mapnet_cli.config.training import Transformer
from mapnet_cli.core import InputError

_BERT = {
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}
_REQUIRED: dict[str, dict[str, Any]] = {
    "bert": _BERT,
    "roberta": _BERT,
    "modernbert": {
        "hidden_activation": "gelu",
        "classifier_activation": "gelu",
        "norm_bias": False,
        "attention_bias": False,
        "mlp_bias": False,
        "classifier_bias": False,
        "decoder_bias": True,
        "tie_word_embeddings": True,
    },
}
"""Required values in config.json by model_type; they are also the defaults of transformers."""
_SIZES = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "ffn": "intermediate_size",
    "max_length": "max_position_embeddings",
}
_BERT_DROPOUTS = {"dropout": ("hidden_dropout_prob", 0.1), "attention_dropout": ("attention_probs_dropout_prob", 0.1)}
_DROPOUTS = {
    "bert": _BERT_DROPOUTS,
    "roberta": _BERT_DROPOUTS,
    "modernbert": {"dropout": ("mlp_dropout", 0.0), "attention_dropout": ("attention_dropout", 0.0)},
}
"""Our keys: their key, and its default."""
_MODERN_KEYS = ("local_attention", "global_every", "rope_theta", "rope_theta_local")


def present(file: Path) -> bool:
    """Returns whether the file exists; raises InputError if it is a Git LFS pointer instead of the file itself."""
    if not file.is_file():
        return False
    with file.open("rb") as handle:
        if handle.read(42).startswith(b"version https://git-lfs.github.com/spec/"):
            raise InputError(f"{file} is a Git LFS pointer, not the file itself: run `git lfs pull` in {file.parent}")
    return True


def read_object(file: Path) -> dict[str, Any]:
    """Returns the JSON object in a file; raises InputError if there is none."""
    if not present(file):
        raise InputError(f"{file} does not exist: pass a folder written by save_pretrained")
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{file} is not a JSON object")
    return value


def first_position(config: dict[str, Any]) -> int:
    """Returns the row of the position embeddings at which texts begin: RoBERTa's follow that of its padding."""
    return int(config.get("pad_token_id", 1)) + 1 if config["model_type"] == "roberta" else 0


def read_config(file: Path) -> tuple[dict[str, Any], Transformer]:
    """Returns a config.json and our sizes of its encoder; raises InputError for an unsupported value."""
    found = read_object(file)
    kind = found.get("model_type")
    if found.get("quantization_config"):
        raise InputError(f"{file}: quantized weights (quantization_config) are not supported: save them in float32")
    if kind not in _REQUIRED:
        raise InputError(f"{file}: model_type {kind!r} is not supported, only {', '.join(map(repr, _REQUIRED))}")
    for key, required in _REQUIRED[kind].items():
        if (value := found.get(key, required)) != required:
            raise InputError(f"{file}: {key} {value!r} is not supported, only {required!r}")
    if (segments := found.get("type_vocab_size", 2)) not in (1, 2):
        raise InputError(f"{file}: type_vocab_size {segments!r} is not supported, only 1 or 2")
    if absent := [key for key in (*_SIZES.values(), "vocab_size") if type(found.get(key)) is not int]:
        raise InputError(f"{file}: {', '.join(absent)} must be given as integers")
    sizes: dict[str, Any] = {ours: found[theirs] for ours, theirs in _SIZES.items()}
    sizes |= {ours: found.get(theirs, default) for ours, (theirs, default) in _DROPOUTS[kind].items()}
    if kind == "modernbert":
        sizes |= {"architecture": kind, **_attention_settings(found, file)}
    sizes["max_length"] -= first_position(found)
    eps, usual = ("norm_eps", 1e-5) if kind == "modernbert" else ("layer_norm_eps", 1e-12)
    sizes["norm_eps"] = 0.0 if found.get(eps, usual) == usual else found[eps]
    try:
        return found, Transformer(**sizes)
    except ValidationError as error:
        raise InputError(f"{file}: {error.errors()[0]['msg']}") from None


def _attention_settings(found: dict[str, Any], file: Path) -> dict[str, Any]:
    """Returns our keys for ModernBERT's local layers and rotary positions, in its config's old and new format."""
    layers, every = found["num_hidden_layers"], found.get("global_attn_every_n_layers", 3)
    types = found.get("layer_types") or ["sliding_attention" if i % every else "full_attention" for i in range(layers)]
    local = [kind == "sliding_attention" for kind in types]
    every = local[1:].index(False) + 1 if False in local[1:] else layers
    if local != [any(local) and i % every > 0 for i in range(layers)]:
        raise InputError(f"{file}: layer_types must have full attention in the first of every N layers, or everywhere")
    rope = found.get("rope_parameters") or {}
    theta = {}
    for key, kind, old in (
        ("rope_theta", "full_attention", "global_rope_theta"),
        ("rope_theta_local", "sliding_attention", "local_rope_theta"),
    ):
        given = rope.get(kind) or {}
        if given.get("rope_type", "default") != "default" or found.get("rope_scaling"):
            raise InputError(f"{file}: only rope_type 'default' is supported")
        if value := given.get("rope_theta") or found.get(old):
            theta[key] = float(value)
    window = found.get("local_attention", 128) if any(local) else 0
    return {"local_attention": window, "global_every": every if window else 3, **theta}


def sizes_of(encoder: Transformer) -> dict[str, Any]:
    """Returns the keys of `[encoder]` that an import sets."""
    sizes = {key: getattr(encoder, key) for key in (*_SIZES, *_BERT_DROPOUTS)}
    if encoder.architecture != "bert":
        sizes |= {key: getattr(encoder, key) for key in ("architecture", *_MODERN_KEYS)}
    return sizes | ({"norm_eps": encoder.norm_eps} if encoder.norm_eps else {})
