"""Corpus preparation compared with a plain single-process pipeline of the same libraries (tests/text/plain.py).

Each side prepares two equally large parts of a mix of Wikipedia and books in its own process; the tokens must be
equal. `cold` is the CPU time up to the end of the first part, including imports and BPE training; `steady` is the
CPU time of the second part without BPE training, which runs the same library code on both sides. Then the wall time
of mapnet's parallel phases with 1 and 2 workers is measured on all text of the two folders, together with the
speed-up of two independent processes on this machine. The last line on stdout is one JSON object.

    python -m tests.benchmarks.corpus --wiki FOLDER --books FOLDER
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

KINDS = {"wiki": {"kind": "wikiextractor"}, "books": {"kind": "text", "paragraphs": "blank-lines"}}
VALIDATION_EVERY = 10
TARGETS = {"cold": 2.0, "steady": 2.5, "workers": 1.8}


def config(part: Path) -> Any:
    """Returns the config of a part."""
    from mapnet_cli.config import Config, Corpus, Method, Source

    sources = tuple(Source(path=str(part / name), **kind) for name, kind in KINDS.items())
    corpus = Corpus(sources=sources, validation_every=VALIDATION_EVERY)
    return Config(methods=("bert",), method={"bert": Method()}, corpus=corpus)


def ours(parts: list[Path], workers: int) -> Iterator[tuple[float, float, Any]]:
    """Prepares each part with mapnet; yields the CPU time of BPE training, the wall time of the slices, and the ids."""
    from mapnet_cli.core.artifacts import Artifacts
    from mapnet_cli.core.console import Console
    from mapnet_cli.core.records import CorpusManifest
    from mapnet_cli.jobs.local import LocalEngine
    from mapnet_cli.lineage.graph import Lineage
    from mapnet_cli.prepare_corpus.stage import PrepareCorpus
    from mapnet_cli.text.shards import open_shards

    for part in parts:
        artifacts = Artifacts(part / f"artifacts-{workers}-{os.getpid()}")
        lineage = Lineage(config(part), artifacts)
        stage = PrepareCorpus(lineage)
        engine = LocalEngine(artifacts, Console(quiet=True), workers, preload=stage.preload)
        training = wall = 0.0
        for phase in stage.plan(workers):
            cpu, clock = time.process_time(), time.perf_counter()
            engine.run([phase])
            training += (time.process_time() - cpu) * (phase.name == "vocabulary")
            wall += (time.perf_counter() - clock) * (len(phase.jobs) > 1)
        manifest = artifacts.read(lineage.manifest, CorpusManifest)
        yield training, wall, [ids[1:-1] for ids in open_shards(artifacts, manifest.train + manifest.validation)]


def theirs(parts: list[Path]) -> Iterator[tuple[float, float, Any]]:
    """Does the same with the plain pipeline, except for reading and the clean-up rules, which are mapnet's."""
    from mapnet_cli.config import Cleanup, Corpus
    from mapnet_cli.prepare_corpus import cleanup
    from mapnet_cli.prepare_corpus.paragraphs import read_slice
    from mapnet_cli.prepare_corpus.slices import input_slices
    from mapnet_cli.prepare_corpus.sources.reading import Reading
    from mapnet_cli.text import train_tokenizer, without_long_words
    from tests.text import plain

    cleanup.normalise_text = plain.normalise
    split = plain.Sentences()
    for part in parts:
        paragraphs: list[str | None] = []
        for piece in input_slices(config(part)):
            lines = read_slice(piece, "repair", Reading(), lambda progress: None)
            paragraphs += cleanup.clean(lines, Cleanup(), cleanup.Dropped())
        seen: set[str | None] = set()
        documents: list[list[str]] = [[]]
        kept = [p for p in paragraphs if p is None or not (p in seen or seen.add(p))]
        cut = split([p for p in kept if p is not None])
        for paragraph in kept:
            if paragraph is not None:
                documents[-1] += map(plain.words, next(cut))
            elif documents[-1]:
                documents.append([])
        documents = [document for document in documents if document]
        cpu = time.process_time()
        lines = [line for document in documents for line in document]
        lines, _ = without_long_words(lines, Corpus().bpe_word_chars)
        tokenizer = train_tokenizer(lines, Corpus().vocab_size)
        tokenizer.encode_special_tokens = True
        training = time.process_time() - cpu
        held_out = [n % VALIDATION_EVERY == VALIDATION_EVERY - 1 for n in range(len(documents))]
        encoded: list[list[list[int]]] = [[], []]
        for number, document in enumerate(documents):
            encoded[held_out[number]] += [
                e.ids for e in tokenizer.encode_batch_fast(document, add_special_tokens=False)
            ]
        yield training, 0.0, encoded[0] + encoded[1]


def side(name: str, parts: list[Path], workers: int) -> None:
    """Prints one side's measurements as JSON, one object per part."""
    rows, before = [], 0.0
    for training, wall, ids in theirs(parts) if name == "theirs" else ours(parts, workers):
        now = time.process_time()
        stream = np.concatenate([np.asarray(row, dtype=np.uint16) for row in ids])
        digest = hashlib.sha256(stream.tobytes()).hexdigest()
        rows.append({"cpu": now - before, "training": training, "wall": wall, "ids": digest, "tokens": len(stream)})
        before = time.process_time()
        print(f"{name}, part {len(rows)}: {rows[-1]}", file=sys.stderr)
    print(json.dumps(rows))


def measured(name: str, parts: list[Path], workers: int = 0, times: int = 1) -> list[list[dict[str, Any]]]:
    """Runs one side in `times` single-threaded processes at once; returns the rows of each process."""
    command = [sys.executable, "-m", "tests.benchmarks.corpus", "--side", name, "--workers", str(workers), *parts]
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(times)]
    return [json.loads(run.communicate()[0]) for run in runs]


def make_parts(wiki: Path, books: Path, megabytes: float, root: Path) -> list[Path]:
    """Copies two parts of `megabytes` MB each, half Wikipedia and half books, and returns their folders."""
    parts = [root / "1", root / "2"]
    for name, source in (("wiki", wiki), ("books", books)):
        files = iter(sorted(path for path in source.rglob("*") if path.is_file()))
        for part in parts:
            (part / name).mkdir(parents=True)
            size = 0
            while size < megabytes * 5e5:
                file = next(files)
                shutil.copy(file, part / name / file.name)
                size += file.stat().st_size
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wiki", type=Path, help="folder of WikiExtractor output")
    parser.add_argument("--books", type=Path, help="folder of books, one file per book")
    parser.add_argument("--megabytes", type=float, default=20.0, help="size of each part in MB")
    parser.add_argument("--side", choices=["ours", "theirs"], help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("parts", type=Path, nargs="*", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.side:
        side(chosen.side, chosen.parts, chosen.workers)
        return
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        parts = make_parts(chosen.wiki, chosen.books, chosen.megabytes, Path(name))
        [mine], [plain] = measured("ours", parts), measured("theirs", parts)
        assert [row["ids"] for row in mine] == [row["ids"] for row in plain], "the tokens differ"
        whole = Path(name) / "whole"
        whole.mkdir()
        for kind, folder in (("wiki", chosen.wiki), ("books", chosen.books)):
            (whole / kind).symlink_to(folder.resolve())
        [one], [two] = (measured("ours", [whole], workers) for workers in (1, 2))
        start = time.perf_counter()
        measured("ours", parts[:1])
        alone = time.perf_counter() - start
        start = time.perf_counter()
        measured("ours", parts[:1], times=2)
        together = time.perf_counter() - start
    steady = [row[1]["cpu"] - row[1]["training"] for row in (mine, plain)]
    result = {
        "name": f"corpus preparation, CPU seconds for {chosen.megabytes:g} MB, warm",
        "ours": steady[0],
        "theirs": steady[1],
        "ratio": steady[1] / steady[0],
        "cold": {"ours": mine[0]["cpu"], "theirs": plain[0]["cpu"], "ratio": plain[0]["cpu"] / mine[0]["cpu"]},
        "workers": {"1": one[0]["wall"], "2": two[0]["wall"], "ratio": one[0]["wall"] / two[0]["wall"]},
        "two_independent_processes": 2 * alone / together,
        "targets": TARGETS,
        "load_before": load,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
