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

CPYTHON_PARTS = 4


@dataclass(frozen=True)
class Slice:
    """Consecutive files of one source: the unit of a job. `part` of `parts` is used for cpython."""

    place: str
    """The source's place in the config, "corpus.sources.0"."""
    source: Source
    files: tuple[Path, ...] = ()
    part: int = 0
    parts: int = 1

    def file_name(self, file: Path) -> str:
        """Returns what a problem calls the file: the same wherever the corpus stands."""
        root = Path(self.source.path)
        return f"{self.place}: {file.name if file == root else file.relative_to(root).as_posix()}"


def input_slices(config: Config) -> list[Slice]:
    """Returns the corpus's slices in corpus order; depends on nothing but the input and the config.

    Raises InputError if a source is missing or has no files.
    """
    slices: list[Slice] = []
    for number, source in enumerate(config.corpus.sources):
        place = f"corpus.sources.{number}"
        if source.kind == "cpython":
            parts = 1 if source.limit else CPYTHON_PARTS
            slices += [Slice(place, source, part=part, parts=parts) for part in range(parts)]
        else:
            groups = _grouped(_files(source, place), config.corpus.slice_mb * 1e6)
            slices += [Slice(place, source, group) for group in groups]
    return slices


def missing_source(config: Config) -> bool:
    """Returns whether an input is gone (its artefacts may still stand)."""
    return any(source.path and not Path(source.path).exists() for source in config.corpus.sources)


def _files(source: Source, place: str) -> list[Path]:
    root = Path(source.path)
    if not root.exists():
        raise InputError(f"{place}.path: {root} does not exist")
    files = input_files(root)
    if source.kind == "dataset":
        files = [file for file in files if file.suffix == ".arrow"]
    if not files:
        what = "Arrow files: make it with Dataset.save_to_disk" if source.kind == "dataset" else "files"
        raise InputError(f"{place}.path: {root} has no {what}")
    return files[: source.limit or None]


def _grouped(files: list[Path], size: float) -> Iterator[tuple[Path, ...]]:
    group: list[Path] = []
    total = 0.0
    for file in files:
        bytes_ = file.stat().st_size
        if group and total + bytes_ > size:
            yield tuple(group)
            group, total = [], 0.0
        group.append(file)
        total += bytes_
    yield tuple(group)


def finished(artifacts: Artifacts, key: str) -> Marker:
    """Returns the marker of an earlier phase's job, its files verified; raises DamagedError."""
    marker = artifacts.marker(key)
    if marker is None:
        raise DamagedError(f"{artifacts.path(key + '.json')} is missing: run prepare-corpus again with --force")
    artifacts.verify(marker)
    return marker


def results(artifacts: Artifacts, keys: list[str]) -> list[dict[str, Any]]:
    """Returns the results of earlier jobs, without reading their files."""
    markers = [artifacts.marker(key) for key in keys]
    return [marker.result for marker in markers if marker]


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
