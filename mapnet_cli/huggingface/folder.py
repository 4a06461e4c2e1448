"""Files of a Hugging Face folder: JSON, and weights in one safetensors file or in several with an index."""

import shlex
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from mapnet_cli.config.hugging_face import present, read_object
from mapnet_cli.core import InputError
from mapnet_cli.huggingface.weights import Weights

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_BUFFERS = ("position_ids", "token_type_ids")
"""Ends of the names of integer tensors that old files contain and no model needs."""
_CONVERT = """\
import sys, pathlib, torch, safetensors.torch as s; f = pathlib.Path(sys.argv[1]); \
s.save_file({n: t.clone().contiguous() for p in f.glob('pytorch_model*.bin') \
for n, t in torch.load(p, weights_only=True).items()}, f / 'model.safetensors', {'format': 'pt'})"""


def read_weights(folder: Path) -> Weights:
    """Returns all weights of a folder in float32.

    Raises InputError if a file is missing or unreadable, or if a weight is quantized or not finite.
    """
    index: dict[str, str] = {}
    if not present(folder / WEIGHTS) and present(folder / INDEX):
        index = read_object(folder / INDEX).get("weight_map") or {}
    found: Weights = {}
    for name in dict.fromkeys(index.values()) or [WEIGHTS]:
        file = folder / Path(name).name
        if not present(file):
            raise InputError(_missing(file, folder))
        try:
            found |= {key: _checked(key, tensor, file) for key, tensor in load_file(file).items()}
        except SafetensorError as error:
            raise InputError(f"{file} is not a readable safetensors file: {error}") from None
    if absent := sorted(index.keys() - found.keys()):
        raise InputError(f"{folder / INDEX} lists {absent[0]}, but {index[absent[0]]} doesn't contain it")
    return {name: tensor for name, tensor in found.items() if not name.endswith(_BUFFERS)}


def _missing(file: Path, folder: Path) -> str:
    if file.name != WEIGHTS:
        return f"{file} does not exist, but {folder / INDEX} lists it: copy all files of the model"
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
