"""Reading users' files in bounded memory: what one contains is read, or refused with an InputError that names it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from mapnet_cli.core.errors import InputError, MapnetError

LONGEST = 1 << 24  # maximum size in bytes of a line, a row, a value, and of a file that is read as a whole

COMPRESSED = {".gz": b"\x1f\x8b", ".bz2": b"BZh91AY&SY", ".xz": b"\xfd7zXZ", ".zst": b"\x28\xb5\x2f\xfd"}
"""How compressed files begin, by suffix; bzip2's at its default level."""


def whole_file(path: Path, limit: int = LONGEST) -> bytes:
    """Returns the contents of a file; raises InputError if it has more than `limit` bytes."""
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise InputError(f"{path} is larger than {limit >> 20} MB")
    return data


def json_value(data: bytes | str, where: str) -> Any:
    """Returns parsed JSON; raises InputError, also if it is nested too deeply or a number has too many digits."""
    try:
        return json.loads(data if isinstance(data, str) else data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise InputError(f"{where}: not JSON ({error})") from None


def json_object(path: Path) -> dict[str, Any]:
    """Returns the JSON object in a file; raises InputError if there is none."""
    value = json_value(whole_file(path), str(path))
    if not isinstance(value, dict):
        raise InputError(f"{path} is not a JSON object")
    return value


@contextmanager
def readable(where: str, problem: str = "can't be read") -> Iterator[None]:
    """Turns whatever a library raises for a damaged, hostile or unsupported file into an InputError."""
    try:
        yield
    except MapnetError:
        raise
    except Exception as error:
        raise InputError(f"{where} {problem}: {error}") from None


def text_lines(file: BinaryIO, where: str) -> Iterator[tuple[int, str]]:
    """Yields the lines of UTF-8 text with their numbers, from 1, and their ends. Only line feeds end lines."""
    for number, line in enumerate(iter(partial(file.readline, LONGEST), b""), 1):
        if len(line) >= LONGEST:  # a file in a zip returns more than it is asked for
            raise InputError(f"{where}:{number}: the line is longer than {LONGEST >> 20} MB")
        try:
            yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            packed = number == 1 and line.startswith(tuple(COMPRESSED.values()))
            cure = "it is compressed: unpack it" if packed else "save it as UTF-8"
            byte = error.object[error.start]
            raise InputError(f"{where}:{number}: not UTF-8 (byte 0x{byte:02x}): {cure}") from None
