"""Checkpoints: a folder with tensors (safetensors) and facts (JSON), never a pickle.

The JSON holds the tensors' checksum and its own, since safetensors itself takes flipped bits
silently. A folder appears under its name only when it is complete.
"""

import re
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mapnet_cli.core import DamagedError, publishing, read_json, record_checksum, sha256, write_json

TENSORS, FACTS = "tensors.safetensors", "facts.json"
SEGMENT = "segment"
"""In an import: what BERT's second segment embedding adds beyond the first, [H]."""


def save_checkpoint(folder: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> str:
    """Writes a checkpoint folder in one step and returns the SHA-256 of its tensors' file."""
    with publishing(folder) as temporary:
        temporary.mkdir()
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, temporary / TENSORS)
        checksum = sha256(temporary / TENSORS)
        facts = facts | {"sha256": checksum}
        write_json(temporary / FACTS, facts | {"checksum": record_checksum(facts)})
    return checksum


def snapshot(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns copies in main memory, which training does not change any more."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


class BackgroundWriter:
    """Writes one thing after the other beside the training; use it as a context.

    What a write raises is raised by the next one, or at the end. The end waits for the last write.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "checkpoints")
        self._last: Future[None] | None = None

    def __enter__(self) -> "BackgroundWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._thread.shutdown(wait=True)
        if error is None:
            self.wait()

    def submit(self, *writes: Callable[[], None]) -> None:
        """Starts writing, one after the other, once the submission before is on disk: one at most stands in memory."""
        self.wait()
        self._last = self._thread.submit(_all, writes)

    def wait(self) -> None:
        """Returns when everything submitted is on disk."""
        last, self._last = self._last, None
        if last is not None:
            last.result()


def _all(writes: Sequence[Callable[[], None]]) -> None:
    for write in writes:
        write()


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns (tensors, facts); raises DamagedError if anything is missing, truncated or altered."""
    if not (folder / TENSORS).exists() or not (folder / FACTS).exists():
        raise DamagedError(f"checkpoint {folder} is incomplete")
    facts = read_json(folder / FACTS)
    if not isinstance(facts, dict) or facts.pop("checksum", None) != record_checksum(facts):
        raise DamagedError(f"checkpoint {folder} is damaged (the checksum of its facts does not match)")
    if facts.get("sha256") != sha256(folder / TENSORS):
        raise DamagedError(f"checkpoint {folder} is damaged (its checksum does not match)")
    try:
        return load_file(folder / TENSORS), facts
    except SafetensorError as error:
        raise DamagedError(f"checkpoint {folder} is damaged ({error})") from None


def rolling_name(step: int) -> str:
    return f"step{step:09d}"


def newest_checkpoint(folder: Path) -> tuple[tuple[dict[str, Tensor], dict[str, Any]] | None, list[str]]:
    """Returns ((tensors, facts) of the newest undamaged rolling checkpoint, None if there is none; warnings).

    A damaged one is passed over with a warning; the one before takes over.
    """
    warnings: list[str] = []
    for candidate in sorted(folder.glob("step*"), reverse=True):
        try:
            return load_checkpoint(candidate), warnings
        except DamagedError as error:
            warnings.append(f"{error}; going back to the one before, or to the start")
            shutil.rmtree(candidate)  # or pruning would keep it for its number and drop a good one
    return None, warnings


def prune_checkpoints(folder: Path, keep: int) -> None:
    """Removes all but the newest `keep` rolling checkpoints."""
    names = sorted(p for p in folder.glob("step*") if re.fullmatch(r"step\d{9}", p.name))
    for old in names[:-keep]:
        shutil.rmtree(old)
