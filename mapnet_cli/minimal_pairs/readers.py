"""Readers of minimal pairs: BLiMP's JSONL, Zorro's text files and users' tables, in a folder, an archive or a file.

An invalid row raises an error with its location and is never dropped.
"""

import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

import numpy as np

from mapnet_cli import core
from mapnet_cli.lineage import list_input

GOOD, BAD = ("sentence_good", "good"), ("sentence_bad", "bad")  # names of the columns, BLiMP's first
NO_DATA = ("readme", "license", "licence")
SUFFIXES = (".txt", *(suffix for suffix in core.TABLE_FORMATS if suffix != ".json"))
"""Zorro's, and those of tables; JSON files next to them are descriptions of data sets."""
PAIR_BYTES, MOST = 300, 1 << 28
"""Approximate memory of a pair besides its characters, and the maximum of a data set's, in bytes."""


@dataclass(frozen=True)
class Paradigm:
    """Pairs of one kind of contrast. `phenomenon` groups paradigms; `field` (syntax, ...) groups phenomena in BLiMP."""

    name: str
    phenomenon: str
    field: str
    pairs: dict[int, tuple[str, str]]
    """Acceptable and unacceptable sentence, by the pair's number in the data, from 0."""


def read_paradigms(path: Path, limit: int = 0) -> list[Paradigm]:
    """Returns paradigms of at most `limit` pairs (0: all), a fixed random choice. Raises InputError with the line."""
    found, size, name = dict[str, Paradigm](), 0, ""
    with core.readable(str(path)):
        for name, data in _files(path):
            where, file = f"{path}: {name}" if path.name != name else str(path), PurePosixPath(name)
            rows = _zorro(data, where) if file.suffix == ".txt" else core.table_rows(data, where, file.suffix)
            for place, row in rows:
                pair = _sentence(row, GOOD, place), _sentence(row, BAD, place)
                size += sum(map(len, pair), PAIR_BYTES)
                if size > MOST:
                    advice = "divide the data into several sets"
                    raise core.InputError(f"{place}: more than {MOST >> 20} MB of pairs: {advice}")
                uid = str(row.get("UID") or file.stem)
                if uid not in found:
                    phenomenon, field = (str(row.get(key) or "") for key in ("linguistics_term", "field"))
                    found[uid] = Paradigm(uid, phenomenon, field, {})
                found[uid].pairs[len(found[uid].pairs)] = pair
    if not found:
        expected = "" if name else f": expected {', '.join(SUFFIXES)} files"
        raise core.InputError(f"{path} has no minimal pairs{expected}")
    return [_chosen(paradigm, limit) for _, paradigm in sorted(found.items())]


def _chosen(paradigm: Paradigm, limit: int) -> Paradigm:
    if not 0 < limit < len(paradigm.pairs):
        return paradigm
    rng = np.random.default_rng(core.derive_seed(0, "minimal pairs", paradigm.name))
    numbers = sorted(rng.choice(len(paradigm.pairs), limit, replace=False).tolist())
    return Paradigm(paradigm.name, paradigm.phenomenon, paradigm.field, {n: paradigm.pairs[n] for n in numbers})


def _files(path: Path) -> Iterator[tuple[str, BinaryIO]]:
    """Yields names and contents of the files with pairs, in a folder, tar or zip file; or of a single file."""
    if path.is_dir():
        paths = {file.name: Path(file.path) for file in list_input(path).files if _has_pairs(file.name)}
        yield from ((name, file.open("rb")) for name, file in paths.items())
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for name in sorted(filter(_has_pairs, archive.namelist())):
                yield name, cast(BinaryIO, archive.open(name))
    elif path.suffix in SUFFIXES:
        yield path.name, path.open("rb")
    elif ".tar" not in path.suffixes and not tarfile.is_tarfile(path):
        raise core.InputError(f"{path} is neither an archive nor one of {', '.join(SUFFIXES)}")
    else:
        with tarfile.open(path) as tar:
            for member in sorted((m for m in tar.getmembers() if m.isfile()), key=lambda member: member.name):
                if _has_pairs(member.name) and (file := tar.extractfile(member)):
                    yield member.name, cast(BinaryIO, file)


def _has_pairs(name: str) -> bool:
    file = PurePosixPath(name)
    hidden = any(part.startswith((".", "__")) for part in file.parts if part != ".")
    return file.suffix in SUFFIXES and file.stem.lower() not in NO_DATA and not hidden


def _zorro(file: BinaryIO, where: str) -> Iterator[core.TableRow]:
    """Yields the pairs of a text file named PHENOMENON-PARADIGM: odd lines are unacceptable, even ones acceptable."""
    phenomenon = PurePosixPath(where).stem.rpartition("-")[0]
    with file:
        lines = core.not_blank(((n, line.strip("\r\n")) for n, line in core.text_lines(file, where)), where)
        for number, bad in lines:
            if not (good := next(lines, (0, ""))[1]):
                odd = f"{number:,} lines, but pairs take an even number"
                raise core.InputError(f"{where}: {odd}; is the file truncated?")
            yield f"{where}:{number}", {"good": good, "bad": bad, "linguistics_term": phenomenon}


def _sentence(row: Mapping[str, Any], columns: tuple[str, ...], where: str) -> str:
    value = next((row[name] for name in columns if name in row), None)
    if not isinstance(value, str) or not value.strip():
        named = " or ".join(map(repr, columns))
        wrong = f"is missing; there are {', '.join(row)}" if value is None else f"must be a sentence, not {value!r}"
        raise core.InputError(f"{where}: {named} {wrong}")
    return value
