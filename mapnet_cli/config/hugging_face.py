"""config.json of a Hugging Face folder, as our `[encoder]`; hugging_face.toml has the names."""

import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mapnet_cli.config.training import Transformer
from mapnet_cli.core import LONGEST, InputError, json_object

_TABLES: dict[str, Any] = tomllib.loads((files(__package__) / "hugging_face.toml").read_text("utf-8"))
_REQUIRED, _SIZES, _DROPOUTS = _TABLES["required"], _TABLES["sizes"], _TABLES["dropouts"]
_MODERN_KEYS = ("local_attention", "global_every", "rope_theta", "rope_theta_local")


def present(file: Path) -> bool:
    """Returns whether the file exists; raises InputError for one that is a Git LFS pointer instead, or too large."""
    if not file.is_file():
        return False
    if file.suffix != ".safetensors" and file.stat().st_size > LONGEST:
        raise InputError(f"{file} is larger than {LONGEST >> 20} MB")
    with file.open("rb") as handle:
        if handle.read(42).startswith(b"version https://git-lfs.github.com/spec/"):
            raise InputError(f"{file} is a Git LFS pointer, not the file itself: run `git lfs pull` in {file.parent}")
    return True


def require_folder(folder: Path) -> None:
    """Raises InputError if there is no such folder, with how to download a model whose id on the Hub it may be."""
    if not folder.is_dir():
        id_ = str(folder).removeprefix("hub:")
        known = re.fullmatch(r"([\w-]+/)?[\w.-]+", id_)
        local = Path(id_).name
        hint = f". A model on the Hub is downloaded with `hf download {id_} --local-dir {local}`; then use {local}"
        raise InputError(f"{folder} is not a folder: pass one written by save_pretrained{hint if known else ''}")


def read_object(file: Path) -> dict[str, Any]:
    """Returns the JSON object in a file; raises InputError if there is none."""
    if not present(file):
        raise InputError(f"{file} does not exist: pass a folder written by save_pretrained")
    return json_object(file)


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
        raise InputError(f"{file}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None


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
    sizes = {key: getattr(encoder, key) for key in (*_SIZES, *_DROPOUTS["bert"])}
    if encoder.architecture != "bert":
        sizes |= {key: getattr(encoder, key) for key in ("architecture", *_MODERN_KEYS)}
    return sizes | ({"norm_eps": encoder.norm_eps} if encoder.norm_eps else {})
