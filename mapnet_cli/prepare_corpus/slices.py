"""Slices of the input: each is read by one job."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mapnet_cli.config import Config, Source
from mapnet_cli.core import InputError, json_object, reading_input, saved_files
from mapnet_cli.lineage import InputFile, InputListing, list_input
from mapnet_cli.prepare_corpus.sources import documents
from mapnet_cli.prepare_corpus.sources.compressed import packing
from mapnet_cli.prepare_corpus.sources.reading import Piece, printable, suffix_of

CPYTHON_PARTS = 4
HUB_PARTS = 32
ARCHIVES = (".zip", ".7z", ".rar", ".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".lz4", ".lzma", ".z", ".br")
"""Suffixes of archives and compressed files that are not supported."""
SHOWN_FILES = 5  # maximum number of skipped files listed in a message
EXPANSION = 4
"""Approximate size of text relative to its bz2, xz, gz, zst or Parquet file, whose pieces are smaller accordingly."""


@dataclass(frozen=True)
class Slice:
    """Consecutive files of one source, or a share of a large file: the input of one job."""

    number: int  # index of the source in corpus.sources
    source: Source
    pieces: tuple[Piece, ...] = ()
    part: int = 0  # index of the part, out of `parts`; for cpython and the Hub only
    parts: int = 1
    notes: tuple[str, ...] = ()  # problems found when the source was cut into slices

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
        part = f" (part {piece.part + 1} of {piece.parts})" if piece.parts > 1 else ""
        return printable(f"{self.config_key}: {file}") + part


Listing = Callable[[Path], InputListing]


def input_slices(config: Config, listing: Listing = list_input) -> list[Slice]:
    """Returns the slices in order, which depend only on input and config. Raises InputError for a missing source."""
    slices: list[Slice] = []
    for number, source in enumerate(config.corpus.sources):
        if source.kind == "cpython" or source.from_hub:
            parts = 1 if source.limit else CPYTHON_PARTS if source.kind == "cpython" else HUB_PARTS
            slices += [Slice(number, source, part=part, parts=parts) for part in range(parts)]
        else:
            with reading_input(f"corpus.sources.{number}"):
                files, notes = _files(source, f"corpus.sources.{number}", listing)
                size = min(config.corpus.slice_mb, source.limit_mb or config.corpus.slice_mb) * 1e6
                groups = list(_grouped(_pieces(files, source, size), size))
            slices += [Slice(number, source, group, notes=() if index else notes) for index, group in enumerate(groups)]
    return slices


def _files(source: Source, config_key: str, listing: Listing) -> tuple[list[InputFile], tuple[str, ...]]:
    """Returns the files to read, in order, and notes about what is left out."""
    root, kind, saved = Path(source.path), documents.KINDS[source.kind], source.kind == "dataset"
    if not root.exists():
        raise InputError(f"{config_key}.path: {root} does not exist")
    found, hidden, artifacts, parents = listing(root)
    files, wanted, notes = found, " or ".join(f"*{suffix}" for suffix in kind.suffixes), list[str]()
    if saved:
        by_path = {file.path: file for file in found}
        files = [by_path[str(path)] for path in _saved_files(root, source.split, config_key, notes)]
    elif root.is_dir() and kind.suffixes:
        files = [file for file in found if suffix_of(file.name) in kind.suffixes]
        if kind.bare and not files:
            files = [file for file in found if not suffix_of(file.name)]
    elif archive := next((printable(file.path) for file in files if suffix_of(file.name) in ARCHIVES), None):
        what = f"{archive} is an archive, which can't be read: unpack it or move it elsewhere"
        raise InputError(f"{config_key}.path: {what}")
    if not files:
        missing = "Arrow files: create it with Dataset.save_to_disk" if saved else f"{wanted} files".lstrip()
        raise InputError(f"{config_key}.path: {root} has no {missing}")
    taken = set(files)
    left_out = {
        f"files that are not {wanted}": [] if saved else [file.name for file in found if file not in taken],
        "hidden files and folders": [] if saved else hidden,
        "links to a parent folder": [] if saved else parents,
        "artifact directories of mapnet": artifacts,
    }
    others = {suffix: name for name, other in documents.KINDS.data.items() for suffix in other.suffixes}
    if source.kind == "text" and (odd := [file.name for file in files if suffix_of(file.name) in others]):
        kinds = " or ".join(f'"{name}"' for name in dict.fromkeys(others[suffix_of(name)] for name in odd))
        notes.append(
            f"{config_key}: read {len(odd):,} files as plain text, such as {odd[0]}; set kind = {kinds} for them"
        )
    for what, names in left_out.items():
        if names:
            shown = ", ".join(names[:SHOWN_FILES]) + (" ..." if len(names) > SHOWN_FILES else "")
            notes.append(f"{config_key}: skipped {len(names):,} {what}: {shown}")
    return files[: source.limit or None], tuple(notes)


def _saved_files(root: Path, split: str, config_key: str, notes: list[str]) -> list[Path]:
    """Returns the Arrow files that `datasets` would load from the folder, in its order; all files of a bare folder."""
    if root.is_file():
        return [root]
    splits, state = root / "dataset_dict.json", root / "state.json"
    if split and splits.exists() and (names := json_object(splits).get("splits")):
        if not isinstance(names, list):
            raise InputError(f"{config_key}.path: {splits} is damaged: its splits are not a list")
        if split not in names:
            shown = printable(", ".join(map(str, names)))
            raise InputError(f"{config_key}.split: {root} has no split {split!r}, only {shown}")
        return _saved_files(root / split, "", config_key, notes)
    if state.exists() and (files := saved_files(root)):
        if (own := json_object(state).get("_split") or "train") != split and split:
            if split != "train":  # the default
                raise InputError(f"{config_key}.split: {root} has no splits, it is a single data set ({own})")
            notes.append(f"{config_key}: {root} is a single data set, of split {own!r}: `split` selects nothing")
        return files
    inside = sorted(root.iterdir(), key=lambda path: path.name + "/" * path.is_dir())
    wanted = (p for p in inside if p.name[0] != "." and (p.is_dir() or p.suffix.lower() == ".arrow"))
    return [file for path in wanted for file in _saved_files(path, split, config_key, notes)]


def _pieces(files: list[InputFile], source: Source, size: float) -> Iterator[Piece]:
    """Yields the files, large ones in pieces of at most about `size` bytes of text, up to the source's limit_mb."""
    left = source.limit_mb * 1e6 or float("inf")
    for file in files:
        path, parts = Path(file.path), 1
        if file.size * EXPANSION > size:
            expansion = EXPANSION if packing(file.name) or suffix_of(file.name) == ".parquet" else 1
            parts = -int(-file.size * expansion // size)
            parts = parts if parts > 1 and documents.divisible(source, path) else 1
        for part in range(parts):
            if left <= 0:
                return
            piece = Piece(path, part, parts, file.size, file.modified)
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
