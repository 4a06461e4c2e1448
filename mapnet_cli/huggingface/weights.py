"""Weights of a Hugging Face folder, and their conversion to and from `BertForMaskedLM` and `ModernBertForMaskedLM`, and
to `ElectraForPreTraining`. transformers.toml has the names.

BERT and ELECTRA add a segment embedding to every token, ours doesn't. Exported segment embeddings are
zero; on import the first segment's vector is added to the position embeddings, which is equivalent.
"""

import re
import shlex
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mapnet_cli.config.hugging_face import present, read_object
from mapnet_cli.core import InputError, readable
from mapnet_cli.model import AnyPretrainingModel, Electra, PretrainingModel
from mapnet_cli.training import load_tensors

Weights = dict[str, Tensor]
TABLES: dict[str, Any] = tomllib.loads((files(__package__) / "transformers.toml").read_text("utf-8"))
POSITIONS, SEGMENTS = (f"bert.embeddings.{kind}_embeddings.weight" for kind in ("position", "token_type"))
TIED: dict[str, str] = TABLES["tied"]
_HEAD = "cls.predictions"
VOCABULARY = ("word_embeddings.weight", "tok_embeddings.weight", f"{_HEAD}.bias", "decoder.bias")
"""Ends of the names of weights with a row for each token."""
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_BUFFERS = ("position_ids", "token_type_ids")
"""Ends of the names of integer tensors that old files contain and no model needs."""
_CONVERT = """\
import sys, pathlib, torch, safetensors.torch as s; f = pathlib.Path(sys.argv[1]); \
s.save_file({n: t.clone().contiguous() for p in f.glob('pytorch_model*.bin') \
for n, t in torch.load(p, weights_only=True).items()}, f / 'model.safetensors', {'format': 'pt'})"""


def read_weights(folder: Path) -> Weights:
    """Returns all weights in float32. Raises InputError if one is unreadable, quantized or not finite."""
    index: dict[str, str] = {}
    if not present(folder / WEIGHTS) and present(folder / INDEX):
        index = read_object(folder / INDEX).get("weight_map") or {}
    found: Weights = {}
    for name in dict.fromkeys(index.values()) or [WEIGHTS]:
        file = folder / Path(name).name
        if not present(file):
            raise InputError(_missing(file, folder))
        with readable(str(file), "is not a readable safetensors file"):
            found |= {key: _checked(key, tensor, file) for key, tensor in load_tensors(file).items()}
    if absent := sorted(index.keys() - found.keys()):
        raise InputError(f"{folder / INDEX} lists {absent[0]}, but {index[absent[0]]} doesn't contain it")
    return {name: tensor for name, tensor in found.items() if not name.endswith(_BUFFERS)}


def _missing(file: Path, folder: Path) -> str:
    if file.name != WEIGHTS:
        return f"{file} does not exist, but {folder / INDEX} lists it: copy all files of the model"
    if list(folder.glob("*.safetensors")):
        return f"{folder} has neither {WEIGHTS} nor {INDEX}, which lists its parts: copy all files of the model"
    if not list(folder.glob("pytorch_model*.bin")):
        return f"{file} does not exist: save the weights as safetensors"
    return (
        f"{folder} has pickled weights (pytorch_model.bin), which mapnet doesn't load, since pickles can run code. "
        f'If you trust the file, convert it with: python -c "{_CONVERT}" {shlex.quote(str(folder))}'
    )


def _checked(name: str, tensor: torch.Tensor, file: Path) -> torch.Tensor:
    if name.endswith(_BUFFERS):
        return tensor
    if tensor.dtype not in _DTYPES:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise InputError(f"{file}: {name} is {kind}: quantized weights are not supported, save them in float32")
    tensor = tensor.float()
    if not bool(tensor.isfinite().all()):
        raise InputError(f"{file}: {name} contains values that are not finite (NaN or infinity)")
    return tensor


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
    table: dict[str, str] = TABLES["modules"][model.encoder.config.architecture]
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
        for theirs, ours in TABLES["roberta"].items():
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
