"""Checkpoints: folders with tensors (safetensors) and facts (JSON), never pickles.

The JSON stores a checksum of the tensors file and one of itself, because safetensors doesn't detect
flipped bits. A folder is published under its final name only when it is complete.
"""

import errno
import os
import re
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from mapnet_cli.core import DamagedError, publishing, read_json, record_checksum, sha256, write_json

TENSORS, FACTS = "tensors.safetensors", "facts.json"
SEGMENT = "segment"  # tensor in imported checkpoints: BERT's second segment embedding minus the first, [H]


def save_checkpoint(folder: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> str:
    """Writes a checkpoint folder atomically and returns the SHA-256 of its tensors file."""
    with publishing(folder, sum(tensor.nbytes for tensor in tensors.values())) as temporary:
        temporary.mkdir()
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, temporary / TENSORS)
        checksum = sha256(temporary / TENSORS)
        facts = facts | {"sha256": checksum}
        write_json(temporary / FACTS, facts | {"checksum": record_checksum(facts)})
    return checksum


def snapshot(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns copies in CPU memory, which further training doesn't modify."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


class BackgroundWriter:
    """Runs writes in order in a thread; the next `submit`, `wait` or exit raises their errors. A context manager."""

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
        """Starts these writes, in order, once the previous submission is on disk: at most one is kept in memory."""
        self.wait()
        self._last = self._thread.submit(_run_all, writes)

    def wait(self) -> None:
        """Waits until everything submitted is on disk."""
        last, self._last = self._last, None
        if last is not None:
            last.result()


def _run_all(writes: Sequence[Callable[[], None]]) -> None:
    for write in writes:
        write()


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns (tensors, facts). Raises DamagedError if anything is missing, truncated or altered."""
    if not (folder / TENSORS).exists() or not (folder / FACTS).exists():
        raise DamagedError(f"checkpoint {folder} is incomplete")
    facts = read_json(folder / FACTS)
    if not isinstance(facts, dict) or facts.pop("checksum", None) != record_checksum(facts):
        raise DamagedError(f"checkpoint {folder} is damaged (the checksum of its facts does not match)")
    if facts.get("sha256") != sha256(folder / TENSORS):
        raise DamagedError(f"checkpoint {folder} is damaged (its checksum does not match)")
    return load_tensors(folder / TENSORS), facts


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of a safetensors file. Raises OSError with number and path if the file can't be opened.

    The libraries raise FileNotFoundError, whatever the reason, or RuntimeError, with the reason in words.
    """
    try:
        return load_file(path)
    except FileNotFoundError:
        path.open("rb").close()  # raises the true error
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path)) from None
    except RuntimeError as error:
        if not (in_words := re.search(r"unable to (?:open|mmap).*\((\d+)\)$", str(error))):
            raise
        raise OSError(int(in_words[1]), os.strerror(int(in_words[1])), str(path)) from None


def rolling_name(step: int) -> str:
    return f"step{step:09d}"


def newest_checkpoint(folder: Path) -> tuple[tuple[dict[str, Tensor], dict[str, Any]] | None, list[str]]:
    """Returns (tensors, facts) of the newest undamaged checkpoint, or None, and warnings. Deletes damaged ones."""
    warnings: list[str] = []
    for candidate in sorted(folder.glob("step*"), reverse=True):
        try:
            return load_checkpoint(candidate), warnings
        except DamagedError as error:
            warnings.append(f"{error}; falling back to the previous checkpoint, or to step 0")
            shutil.rmtree(candidate)  # pruning would count it among the newest and remove a good one
    return None, warnings


def prune_checkpoints(folder: Path, keep: int, needed_for: Callable[[int], int] = lambda place: place) -> None:
    """Removes all but the newest `keep` rolling checkpoints, and those that `needed_for` names for one of them."""
    names = sorted(p.name for p in folder.glob("step*") if re.fullmatch(r"step\d{9}", p.name))
    needed = {rolling_name(needed_for(int(name.removeprefix("step")))) for name in names[-keep:]}
    for old in set(names[:-keep]) - needed:
        shutil.rmtree(folder / old)
