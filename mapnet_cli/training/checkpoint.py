"""Checkpoints: a folder with tensors (safetensors) and facts (JSON), never a pickle.

The JSON holds the tensors' checksum, since safetensors itself takes flipped bits silently. A folder
appears under its name only when it is complete.
"""

import re
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mapnet_cli.artifacts import publishing, read_json, sha256, write_json
from mapnet_cli.errors import DamagedError

TENSORS, FACTS = "tensors.safetensors", "facts.json"


def save_checkpoint(folder: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> str:
    """Writes a checkpoint folder in one step and returns the SHA-256 of its tensors' file."""
    with publishing(folder) as temporary:
        temporary.mkdir()
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, temporary / TENSORS)
        checksum = sha256(temporary / TENSORS)
        write_json(temporary / FACTS, facts | {"sha256": checksum})
    return checksum


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns (tensors, facts); raises DamagedError if anything is missing, truncated or altered."""
    if not (folder / TENSORS).exists() or not (folder / FACTS).exists():
        raise DamagedError(f"checkpoint {folder} is incomplete")
    facts = read_json(folder / FACTS)
    if facts.get("sha256") != sha256(folder / TENSORS):
        raise DamagedError(f"checkpoint {folder} is damaged (its checksum does not match)")
    try:
        return load_file(folder / TENSORS), facts
    except SafetensorError as error:
        raise DamagedError(f"checkpoint {folder} is damaged ({error})") from None


def rolling_name(step: int) -> str:
    return f"step{step:09d}"


def newest_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any], list[str]] | None:
    """Returns (tensors, facts, warnings) of the newest undamaged rolling checkpoint, None if there is none.

    A damaged one is passed over with a warning; the one before takes over.
    """
    warnings: list[str] = []
    for candidate in sorted(folder.glob("step*"), reverse=True):
        try:
            return *load_checkpoint(candidate), warnings
        except DamagedError as error:
            warnings.append(f"{error}; going back to the one before")
            shutil.rmtree(candidate)  # or pruning would keep it for its number and drop a good one
    return None


def prune_checkpoints(folder: Path, keep: int) -> None:
    """Removes all but the newest `keep` rolling checkpoints."""
    names = sorted(p for p in folder.glob("step*") if re.fullmatch(r"step\d{9}", p.name))
    for old in names[:-keep]:
        shutil.rmtree(old)
