"""What the corpus's phases hand to each other: slices of the input, and two plain text formats.

Paragraph files hold one paragraph a line, sentence files one sentence a line with an empty line
after each paragraph. In both, one more empty line ends a document.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mapnet_cli.artifacts import Artifacts, Marker
from mapnet_cli.config import Config, Source
from mapnet_cli.errors import DamagedError, InputError
from mapnet_cli.lineage.digests import input_files
from mapnet_cli.prepare_corpus.pieces import STREAMS, Piece

CPYTHON_PARTS = 4
HUB_PARTS = 32
SUFFIXES = {"dataset": (".arrow",), "parquet": (".parquet",)}
"""The files of a folder that are read, where not all are."""
PACKED = 4
"""Text is so many times as large as its bz2, xz, gz, zst or Parquet file, roughly: a job reads less of these."""


@dataclass(frozen=True)
class Slice:
    """Consecutive files of one source, or a share of a large one: the unit of a job."""

    number: int
    """The source's place in the config."""
    source: Source
    pieces: tuple[Piece, ...] = ()
    part: int = 0
    """Of `parts`: of cpython and the hub."""
    parts: int = 1

    @property
    def place(self) -> str:
        return f"corpus.sources.{self.number}"

    @property
    def bytes(self) -> int:
        """Of input, as it lies on disk."""
        return sum(piece.end - piece.begin for piece in self.pieces)

    def name(self, piece: Piece) -> str:
        """Returns what a problem calls the piece: the same wherever the corpus stands."""
        root = Path(self.source.path)
        file = piece.path.name if piece.path == root else piece.path.relative_to(root).as_posix()
        return f"{self.place}: {file}" + (f" (part {piece.part + 1} of {piece.parts})" if piece.parts > 1 else "")


def input_slices(config: Config) -> list[Slice]:
    """Returns the corpus's slices in corpus order; depends on nothing but the input and the config.

    Raises InputError if a source is missing or has no files.
    """
    slices: list[Slice] = []
    for number, source in enumerate(config.corpus.sources):
        if source.kind == "cpython" or source.of_hub:
            parts = 1 if source.limit else CPYTHON_PARTS if source.kind == "cpython" else HUB_PARTS
            slices += [Slice(number, source, part=part, parts=parts) for part in range(parts)]
        else:
            files = _files(source, f"corpus.sources.{number}")
            size = min(config.corpus.slice_mb, source.limit_mb or config.corpus.slice_mb) * 1e6
            groups = _grouped(_pieces(files, source, size), size)
            slices += [Slice(number, source, group) for group in groups]
    return slices


def missing_source(config: Config) -> bool:
    """Returns whether an input is gone (its artefacts may still stand)."""
    return any(s.path and not s.of_hub and not Path(s.path).exists() for s in config.corpus.sources)


def _files(source: Source, place: str) -> list[Path]:
    root = Path(source.path)
    if not root.exists():
        raise InputError(f"{place}.path: {root} does not exist")
    files = input_files(root)
    if source.kind in SUFFIXES and root.is_dir():
        files = [file for file in files if file.suffix in SUFFIXES[source.kind]]
    if not files:
        wanted = {"dataset": "Arrow files: make it with Dataset.save_to_disk", "parquet": "*.parquet files"}
        raise InputError(f"{place}.path: {root} has no {wanted.get(source.kind, 'files')}")
    return files[: source.limit or None]


def _pieces(files: list[Path], source: Source, size: float) -> Iterator[Piece]:
    """Yields the files, large ones in shares of at most about `size` bytes of text, up to the source's limit_mb."""
    left = source.limit_mb * 1e6 or float("inf")
    for file in files:
        parts = 1
        if _divisible(file, source):
            packed = PACKED if file.suffix in (".bz2", ".parquet") else 1
            parts = max(1, -int(-file.stat().st_size * packed // size))
        for part in range(parts):
            if left <= 0:
                return
            piece = Piece(file, part, parts)
            left -= piece.end - piece.begin
            yield piece


def _divisible(file: Path, source: Source) -> bool:
    """Returns whether the file can be read from somewhere in its middle, and has documents that begin there."""
    return file.suffix not in STREAMS and not (source.kind == "text" and source.documents == "file")


def _grouped(pieces: Iterator[Piece], size: float) -> Iterator[tuple[Piece, ...]]:
    group: list[Piece] = []
    total = 0.0
    for piece in pieces:
        bytes_ = piece.end - piece.begin
        if group and (total + bytes_ > size or piece.parts > 1):
            yield tuple(group)
            group, total = [], 0.0
        group.append(piece)
        total += bytes_ if piece.parts == 1 else size
    yield tuple(group)


def finished(artifacts: Artifacts, key: str, only: str = "") -> Marker:
    """Returns the marker of an earlier phase's job, its files or `only` that one verified; raises DamagedError."""
    marker = _marker(artifacts, key)
    artifacts.verify(marker, only)
    return marker


def results(artifacts: Artifacts, keys: list[str]) -> list[dict[str, Any]]:
    """Returns the results of earlier jobs, without reading their files; raises DamagedError where one is missing."""
    return [_marker(artifacts, key).result for key in keys]


def mixed_versions(artifacts: Artifacts, keys: list[str]) -> dict[str, list[str]]:
    """Returns of each library the versions that these jobs ran with, where they are several."""
    versions: dict[str, set[str]] = {}
    for key in keys:
        for name, version in _marker(artifacts, key).versions.items():
            versions.setdefault(name, set()).add(version)
    return {name: sorted(several) for name, several in sorted(versions.items()) if len(several) > 1}


def _marker(artifacts: Artifacts, key: str) -> Marker:
    marker = artifacts.marker(key)
    if marker is None:
        raise DamagedError(f"{artifacts.path(key + '.json')} is missing: run prepare-corpus again with --force")
    return marker


def read_paragraphs(path: Path) -> Iterator[str | None]:
    """Yields the paragraphs of a paragraph file, and None where a document ends."""
    with path.open(encoding="utf-8", newline="\n") as handle:
        for line in handle:
            yield line.rstrip("\n") or None


def read_sentences(path: Path) -> Iterator[list[str] | None]:
    """Yields the paragraphs of a sentence file as lists of sentences, and None where a document ends."""
    sentences: list[str] = []
    with path.open(encoding="utf-8", newline="\n") as handle:
        for line in handle:
            if line != "\n":
                sentences.append(line.rstrip("\n"))
            else:
                yield sentences or None
                sentences = []
