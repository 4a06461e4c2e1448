"""Readers of minimal pairs: BLiMP's JSONL, Zorro's text files and users' TSV, in a folder, an archive or a single file.

An invalid row raises an error with its location and is never dropped.
"""

import json
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from mapnet_cli.core import InputError, derive_seed
from mapnet_cli.lineage import list_input

GOOD, BAD = ("sentence_good", "good"), ("sentence_bad", "bad")
"""Names of the columns, BLiMP's first."""
NO_DATA = ("readme", "license", "licence")
Rows = Iterator[tuple[int, Mapping[str, Any]]]
"""Line numbers and rows by column."""


@dataclass(frozen=True)
class Paradigm:
    """Pairs of one kind of contrast. `phenomenon` groups paradigms; `field` (syntax, ...) groups phenomena in BLiMP."""

    name: str
    phenomenon: str
    field: str
    pairs: dict[int, tuple[str, str]]
    """Acceptable and unacceptable sentence, by the pair's number in the data, from 0."""


def read_paradigms(path: Path, limit: int = 0) -> list[Paradigm]:
    """Returns a data set's paradigms, with at most `limit` pairs of each: a random choice, always the same. 0: all.

    Raises InputError with file and line for an invalid row, or if there are no pairs.
    """
    found: dict[str, Paradigm] = {}
    for name, data in _files(path):
        where, file = f"{path}: {name}" if path.name != name else str(path), PurePosixPath(name)
        try:
            lines = [line.rstrip("\r") for line in data.decode("utf-8-sig").removesuffix("\n").split("\n")]
        except UnicodeDecodeError as error:
            raise InputError(f"{where} is not UTF-8 ({error})") from None
        for number, row in READERS[file.suffix](lines, where):
            pair = _sentence(row, GOOD, where, number), _sentence(row, BAD, where, number)
            uid = str(row.get("UID") or file.stem)
            if uid not in found:
                phenomenon, field = (str(row.get(key) or "") for key in ("linguistics_term", "field"))
                found[uid] = Paradigm(uid, phenomenon, field, {})
            found[uid].pairs[len(found[uid].pairs)] = pair
    if not found:
        raise InputError(f"{path} has no minimal pairs: expected {', '.join(READERS)} files")
    return [_chosen(paradigm, limit) for _, paradigm in sorted(found.items())]


def _chosen(paradigm: Paradigm, limit: int) -> Paradigm:
    if not 0 < limit < len(paradigm.pairs):
        return paradigm
    rng = np.random.default_rng(derive_seed(0, "minimal pairs", paradigm.name))
    numbers = sorted(rng.choice(len(paradigm.pairs), limit, replace=False).tolist())
    return Paradigm(paradigm.name, paradigm.phenomenon, paradigm.field, {n: paradigm.pairs[n] for n in numbers})


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yields names and contents of the files with pairs, in a folder, tar or zip file; or of a single file."""
    try:
        if path.is_dir():
            files = (file for file in list_input(path).files if _has_pairs(file.name))
            yield from ((file.name, Path(file.path).read_bytes()) for file in files)
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                yield from ((name, archive.read(name)) for name in sorted(archive.namelist()) if _has_pairs(name))
        elif path.suffix in READERS:
            yield path.name, path.read_bytes()
        else:
            with tarfile.open(path) as archive:
                members = sorted((m for m in archive.getmembers() if m.isfile()), key=lambda member: member.name)
                for member in members:
                    if _has_pairs(member.name) and (file := archive.extractfile(member)):
                        yield member.name, file.read()
    except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error) as error:
        raise InputError(f"{path} can't be read: {error}") from None


def _has_pairs(name: str) -> bool:
    file = PurePosixPath(name)
    hidden = any(part.startswith((".", "__")) for part in file.parts if part != ".")
    return file.suffix in READERS and file.stem.lower() not in NO_DATA and not hidden


def _jsonl(lines: Sequence[str], where: str) -> Rows:
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{where}:{number}: not JSON ({error})") from None
        if not isinstance(row, dict):
            raise InputError(f"{where}:{number}: expected an object, not {line[:40]!r}")
        yield number, row


def _tsv(lines: Sequence[str], where: str) -> Rows:
    """Yields the rows of a file with a header. Quotes are text."""
    header = lines[0].split("\t")
    for number, line in enumerate(lines[1:], 2):
        cells = line.split("\t")
        if len(cells) != len(header):
            raise InputError(f"{where}:{number}: {len(cells)} columns, but the header has {len(header)}")
        yield number, dict(zip(header, cells, strict=True))


def _zorro(lines: Sequence[str], where: str) -> Rows:
    """Yields the pairs of a text file named PHENOMENON-PARADIGM: odd lines are unacceptable, even ones acceptable."""
    if len(lines) % 2:
        raise InputError(f"{where}: {len(lines):,} lines, but pairs take an even number; is the file truncated?")
    phenomenon = PurePosixPath(where).stem.rpartition("-")[0]
    for number in range(0, len(lines), 2):
        yield number + 1, {"good": lines[number + 1], "bad": lines[number], "linguistics_term": phenomenon}


READERS: dict[str, Callable[[Sequence[str], str], Rows]] = {".jsonl": _jsonl, ".tsv": _tsv, ".txt": _zorro}


def _sentence(row: Mapping[str, Any], columns: tuple[str, ...], where: str, number: int) -> str:
    value = next((row[name] for name in columns if name in row), None)
    if not isinstance(value, str) or not value.strip():
        wrong = "is missing" if value is None else f"must be a sentence, not {value!r}"
        raise InputError(f"{where}:{number}: {columns[0]!r} {wrong}; there are {', '.join(row)}")
    return value
