"""Slices of the input: each is read by one job."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mapnet_cli.config import Config, Source
from mapnet_cli.core import InputError, read_json
from mapnet_cli.lineage import input_files
from mapnet_cli.prepare_corpus.sources.documents import divisible, suffixes_of
from mapnet_cli.prepare_corpus.sources.reading import STREAMS, Piece, packing, printable

CPYTHON_PARTS = 4
HUB_PARTS = 32
ARCHIVES = (".zip", ".7z", ".rar", ".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".lz4", ".lzma", ".z", ".br")
"""Suffixes of archives and compressed files that are not supported."""
SHOWN_FILES = 5
"""Maximum number of skipped files listed in a message."""
EXPANSION = 4
"""Approximate size of text relative to its bz2, xz, gz, zst or Parquet file, whose pieces are smaller accordingly."""


@dataclass(frozen=True)
class Slice:
    """Consecutive files of one source, or a share of a large file: the input of one job."""

    number: int
    """Index of the source in corpus.sources."""
    source: Source
    pieces: tuple[Piece, ...] = ()
    part: int = 0
    """Index of the part, out of `parts`; for cpython and the Hub only."""
    parts: int = 1
    notes: tuple[str, ...] = ()
    """Problems found when the source was cut into slices."""

    @property
    def config_key(self) -> str:
        return f"corpus.sources.{self.number}"

    @property
    def bytes(self) -> int:
        """Size of the input on disk."""
        return sum(piece.end - piece.begin for piece in self.pieces)

    def name(self, piece: Piece) -> str:
        """Returns the name of a piece in messages; it doesn't depend on the location of the corpus."""
        root = Path(self.source.path)
        file = piece.path.name if piece.path == root else piece.path.relative_to(root).as_posix()
        return printable(f"{self.config_key}: {file}") + (
            f" (part {piece.part + 1} of {piece.parts})" if piece.parts > 1 else ""
        )


def input_slices(config: Config) -> list[Slice]:
    """Returns the slices in corpus order; they depend only on the input and the config.

    Raises InputError if a source is missing, has no files or can't be read.
    """
    slices: list[Slice] = []
    for number, source in enumerate(config.corpus.sources):
        if source.kind == "cpython" or source.from_hub:
            parts = 1 if source.limit else CPYTHON_PARTS if source.kind == "cpython" else HUB_PARTS
            slices += [Slice(number, source, part=part, parts=parts) for part in range(parts)]
        else:
            files, notes = _files(source, f"corpus.sources.{number}")
            size = min(config.corpus.slice_mb, source.limit_mb or config.corpus.slice_mb) * 1e6
            groups = _grouped(_pieces(files, source, size), size)
            slices += [Slice(number, source, group, notes=() if index else notes) for index, group in enumerate(groups)]
    return slices


def missing_source(config: Config) -> bool:
    """Returns whether the path of a source is missing (its artifacts may still exist)."""
    return any(s.path and not s.from_hub and not Path(s.path).exists() for s in config.corpus.sources)


def _files(source: Source, config_key: str) -> tuple[list[Path], tuple[str, ...]]:
    """Returns the files to read, in order, and notes about the skipped ones."""
    root = Path(source.path)
    if not root.exists():
        raise InputError(f"{config_key}.path: {root} does not exist")
    found = files = _saved_files(root, source.split, config_key) if source.kind == "dataset" else input_files(root)
    if root.is_dir() and (suffixes := suffixes_of(source.kind)):
        files = [file for file in found if _suffix(file) in suffixes]
    elif archive := next((file for file in files if _suffix(file) in ARCHIVES), None):
        raise InputError(
            f"{config_key}.path: {printable(str(archive))} is an archive, which can't be read: unpack it or move it "
            "elsewhere"
        )
    if not files:
        wanted = f"{_wanted(source.kind)} files" if suffixes_of(source.kind) else "files"
        if source.kind == "dataset":
            wanted = "Arrow files: create it with Dataset.save_to_disk"
        raise InputError(f"{config_key}.path: {root} has no {wanted}")
    taken = set(files)
    skipped = [file.relative_to(root).as_posix() for file in found if file not in taken]
    notes: list[str] = []
    if skipped:
        shown = ", ".join(skipped[:SHOWN_FILES]) + (" ..." if len(skipped) > SHOWN_FILES else "")
        notes = [f"{config_key}: skipped {len(skipped):,} files that are not {_wanted(source.kind)}: {shown}"]
    return files[: source.limit or None], tuple(notes)


def _wanted(kind: str) -> str:
    return " or ".join(f"*{suffix}" for suffix in suffixes_of(kind))


def _suffix(file: Path) -> str:
    """Returns the file's suffix in lower case, ignoring a compression suffix."""
    return (Path(file.stem) if packing(file) else file).suffix.lower()


def _saved_files(root: Path, split: str, config_key: str) -> list[Path]:
    """Returns the Arrow files that `datasets` would load from the folder, in its order; all files of a bare folder.

    Files that state.json doesn't list are ignored: `map` and `filter` store their caches next to the data.
    """
    if root.is_file():
        return [root]
    splits, state = root / "dataset_dict.json", root / "state.json"
    if splits.exists() and (names := read_json(splits).get("splits")):
        if split not in names:
            raise InputError(f"{config_key}.split: {root} has no split {split!r}, only {', '.join(names)}")
        return _saved_files(root / split, split, config_key)
    if state.exists() and (listed := read_json(state).get("_data_files")):
        files = [root / entry["filename"] for entry in listed]
        if missing := [file for file in files if not file.exists()]:
            raise InputError(f"{config_key}.path: {missing[0]} is missing, but is listed in {state}")
        return files
    inside = sorted(root.iterdir(), key=lambda path: path.name + "/" * path.is_dir())
    found = (
        _saved_files(path, split, config_key)
        for path in inside
        if not path.name.startswith(".") and (path.is_dir() or path.suffix.lower() == ".arrow")
    )
    return [file for files in found for file in files]


def _pieces(files: list[Path], source: Source, size: float) -> Iterator[Piece]:
    """Yields the files, large ones in pieces of at most about `size` bytes of text, up to the source's limit_mb."""
    left = source.limit_mb * 1e6 or float("inf")
    for file in files:
        parts = 1
        if packing(file) not in STREAMS and divisible(source):
            expansion = EXPANSION if packing(file) or file.suffix.lower() == ".parquet" else 1
            parts = max(1, -int(-file.stat().st_size * expansion // size))
        for part in range(parts):
            if left <= 0:
                return
            piece = Piece(file, part, parts)
            left -= piece.end - piece.begin
            yield piece


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
