"""Slices of the input: the units of the jobs that read it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mapnet_cli.config import Config, Source
from mapnet_cli.core import InputError, read_json
from mapnet_cli.lineage import input_files
from mapnet_cli.prepare_corpus.sources.reading import STREAMS, Piece, packing, printable

CPYTHON_PARTS = 4
HUB_PARTS = 32
SUFFIXES = {
    "parquet": (".parquet",),
    "jsonl": (".jsonl", ".ndjson", ".json"),
    "mediawiki": (".xml",),
}
"""The files of a folder that are read, packed or not and in any case, where not all are."""
ARCHIVES = (".zip", ".7z", ".rar", ".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".lz4", ".lzma", ".z", ".br")
"""What text may be packed in and isn't read through."""
NAMED = 5
"""Files left out that are named."""
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
    notes: tuple[str, ...] = ()
    """Problems that were seen when the source was cut into slices."""

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
        return printable(f"{self.place}: {file}") + (
            f" (part {piece.part + 1} of {piece.parts})" if piece.parts > 1 else ""
        )


def input_slices(config: Config) -> list[Slice]:
    """Returns the corpus's slices in corpus order; depends on nothing but the input and the config.

    Raises InputError if a source is missing or has no files, or if they can't be read.
    """
    slices: list[Slice] = []
    for number, source in enumerate(config.corpus.sources):
        if source.kind == "cpython" or source.of_hub:
            parts = 1 if source.limit else CPYTHON_PARTS if source.kind == "cpython" else HUB_PARTS
            slices += [Slice(number, source, part=part, parts=parts) for part in range(parts)]
        else:
            files, notes = _files(source, f"corpus.sources.{number}")
            size = min(config.corpus.slice_mb, source.limit_mb or config.corpus.slice_mb) * 1e6
            groups = _grouped(_pieces(files, source, size), size)
            slices += [Slice(number, source, group, notes=() if place else notes) for place, group in enumerate(groups)]
    return slices


def missing_source(config: Config) -> bool:
    """Returns whether an input is gone (its artifacts may still stand)."""
    return any(s.path and not s.of_hub and not Path(s.path).exists() for s in config.corpus.sources)


def _files(source: Source, place: str) -> tuple[list[Path], tuple[str, ...]]:
    """Returns the files that are read, in order, and what to say of those that are left out."""
    root = Path(source.path)
    if not root.exists():
        raise InputError(f"{place}.path: {root} does not exist")
    there = files = _saved_files(root, source.split, place) if source.kind == "dataset" else input_files(root)
    if root.is_dir() and source.kind in SUFFIXES:
        files = [file for file in there if _suffix(file) in SUFFIXES[source.kind]]
    elif archive := next((file for file in files if _suffix(file) in ARCHIVES), None):
        raise InputError(
            f"{place}.path: {printable(str(archive))} is an archive, which is not read through: unpack it, or move it "
            "elsewhere"
        )
    if not files:
        wanted = {"dataset": "Arrow files: make it with Dataset.save_to_disk"} | {
            kind: f"{_wanted(kind)} files" for kind in SUFFIXES
        }
        raise InputError(f"{place}.path: {root} has no {wanted.get(source.kind, 'files')}")
    taken = set(files)
    left_out = [file.relative_to(root).as_posix() for file in there if file not in taken]
    notes: list[str] = []
    if left_out:
        named = ", ".join(left_out[:NAMED]) + (" ..." if len(left_out) > NAMED else "")
        notes = [f"{place}: left out {len(left_out):,} files that are not {_wanted(source.kind)}: {named}"]
    return files[: source.limit or None], tuple(notes)


def _wanted(kind: str) -> str:
    return " or ".join(f"*{suffix}" for suffix in SUFFIXES[kind])


def _suffix(file: Path) -> str:
    """Returns what the file is, in lower case: its last suffix, or that before a compression's."""
    return (Path(file.stem) if packing(file) else file).suffix.lower()


def _saved_files(root: Path, split: str, place: str) -> list[Path]:
    """Returns the Arrow files that `datasets` would load from the folder, in its order; of a bare folder, all.

    What it doesn't name stays unread: `map` and `filter` leave their caches beside the data.
    """
    if root.is_file():
        return [root]
    splits, state = root / "dataset_dict.json", root / "state.json"
    if splits.exists() and (names := read_json(splits).get("splits")):
        if split not in names:
            raise InputError(f"{place}.split: {root} has no split {split!r}, only {', '.join(names)}")
        return _saved_files(root / split, split, place)
    if state.exists() and (named := read_json(state).get("_data_files")):
        files = [root / entry["filename"] for entry in named]
        if missing := [file for file in files if not file.exists()]:
            raise InputError(f"{place}.path: {missing[0]} is missing, which {state} names")
        return files
    inside = sorted(root.iterdir(), key=lambda path: path.name + "/" * path.is_dir())
    found = (
        _saved_files(path, split, place)
        for path in inside
        if not path.name.startswith(".") and (path.is_dir() or path.suffix.lower() == ".arrow")
    )
    return [file for files in found for file in files]


def _pieces(files: list[Path], source: Source, size: float) -> Iterator[Piece]:
    """Yields the files, large ones in shares of at most about `size` bytes of text, up to the source's limit_mb."""
    left = source.limit_mb * 1e6 or float("inf")
    for file in files:
        parts = 1
        if _divisible(file, source):
            packed = PACKED if packing(file) or file.suffix.lower() == ".parquet" else 1
            parts = max(1, -int(-file.stat().st_size * packed // size))
        for part in range(parts):
            if left <= 0:
                return
            piece = Piece(file, part, parts)
            left -= piece.end - piece.begin
            yield piece


def _divisible(file: Path, source: Source) -> bool:
    """Returns whether the file can be read from somewhere in its middle, and has documents that begin there."""
    return packing(file) not in STREAMS and not (source.kind == "text" and source.documents == "file")


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
