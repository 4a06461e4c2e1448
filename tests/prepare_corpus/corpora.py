"""Small test corpora, and helpers that prepare them."""

import json
import os
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import settings

from mapnet_cli.config import Config, Corpus, Method, Source
from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.core.console import Console
from mapnet_cli.core.records import CorpusManifest
from mapnet_cli.jobs.job import Phase
from mapnet_cli.jobs.local import LocalEngine
from mapnet_cli.lineage.graph import Lineage
from mapnet_cli.prepare_corpus.sources.documents import read_piece
from mapnet_cli.prepare_corpus.sources.reading import Piece, Reading
from mapnet_cli.prepare_corpus.stage import PrepareCorpus

FUZZ = settings(deadline=None, derandomize="FUZZ" not in os.environ, max_examples=int(os.environ.get("FUZZ", "300")))
"""Settings of the fuzz tests of the readers: `make fuzz` tries many more examples, which differ each time."""
SYLLABLES = (
    "ba",
    "co",
    "den",
    "fu",
    "gar",
    "hi",
    "jo",
    "kel",
    "lu",
    "mon",
    "nep",
    "or",
    "pi",
    "ras",
    "sto",
    "tu",
    "ve",
)


def prose(seed: int, sentences: int = 3) -> str:
    """Returns a paragraph of random made-up sentences."""
    draw = random.Random(seed)
    words = [["".join(draw.choices(SYLLABLES, k=draw.randint(1, 4))) for _ in range(16)] for _ in range(sentences)]
    return " ".join(f"{' '.join(sentence).capitalize()}." for sentence in words)


def text_folder(root: Path, files: int = 6, paragraphs: int = 4) -> Path:
    """Creates a folder with one document per file and one paragraph per line."""
    for number in range(files):
        path = root / f"part{number % 2}" / f"{number:02}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [prose(number * 100 + line, 1 + line) for line in range(paragraphs)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def corpus_config(*sources: Source, **corpus: Any) -> Config:
    """Returns a config with a tiny vocabulary, many slices and every third document held out."""
    defaults = {"vocab_size": 320, "block_length": 32, "validation_every": 3, "slice_mb": 0.001}
    return Config(methods=("bert",), method={"bert": Method()}, corpus=Corpus(sources=sources, **(defaults | corpus)))


def stage(config: Config, artifacts: Artifacts) -> PrepareCorpus:
    """Returns the stage with a new lineage, which has no cached hashes."""
    return PrepareCorpus(Lineage(config, artifacts))


def plan(config: Config, artifacts: Artifacts, workers: int) -> list[Phase]:
    """Returns the stage's phases."""
    return stage(config, artifacts).plan(workers)


def prepare(config: Config, artifacts: Artifacts, workers: int = 0) -> CorpusManifest:
    """Runs the whole plan and returns the manifest."""
    made = stage(config, artifacts)
    LocalEngine(artifacts, Console(quiet=True), workers, preload=made.preload).run(made.plan(workers))
    return artifacts.read(Lineage(config, artifacts).manifest, CorpusManifest)


def sentence_lines(artifacts: Artifacts) -> list[str]:
    """Returns the lines of all sentence files, in corpus order."""
    files = sorted(artifacts.root.glob("prepare-corpus/text-*/sentences-*.txt"))
    return [line for file in files for line in file.read_text(encoding="utf-8").split("\n")]


def read(path: Path, content: bytes, on_bad_utf8: str = "repair", **source: Any) -> tuple[list[str | None], list[str]]:
    """Writes a file "f" and returns its lines and problems."""
    path.write_bytes(content)
    reading = Reading()
    lines = list(read_piece(Piece(path), "f", Source(path=str(path), **source), on_bad_utf8, reading))
    return lines, reading.problems.lines


def read_shares(path: Path, parts: int, **source: str) -> tuple[list[str | None], Reading]:
    """Returns the lines of a file, read in `parts` shares."""
    reading, lines = Reading(), []
    for part in range(parts):
        lines += list(read_piece(Piece(path, part, parts), "f", Source(path=str(path), **source), "repair", reading))
    return lines, reading


def saved_data_set(folder: Path, rows: list[dict[str, Any]], kinds: dict[str, Any] | None = None) -> None:
    """Writes what `datasets` would save, without opening what the rows name; `kinds` are features of columns."""
    folder.mkdir(parents=True)
    info = {"features": {name: {"dtype": "string", "_type": "Value"} for name in rows[0]} | (kinds or {})}
    table = pa.Table.from_pylist(rows).replace_schema_metadata({"huggingface": json.dumps({"info": info})})
    with pa.OSFile(str(folder / "data.arrow"), "wb") as out, pa.ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}], "_split": None}))
    (folder / "dataset_info.json").write_text(json.dumps(info))
