"""The first two phases: each slice's clean paragraphs, and which of them stood nowhere before."""

import hashlib
from collections import Counter
from contextlib import ExitStack

import numpy as np
import numpy.typing as npt

from mapnet_cli.artifacts import Artifacts, publishing
from mapnet_cli.config import Cleanup
from mapnet_cli.jobs.job import Output, Progress, Report
from mapnet_cli.prepare_corpus.cleanup import clean
from mapnet_cli.prepare_corpus.documents import Lines, Problems, read_cpython, read_file
from mapnet_cli.prepare_corpus.slices import Slice, finished

HASH_BYTES = 16


def clean_slice(
    artifacts: Artifacts, report: Report, *, output: str, part: Slice, cleanup: Cleanup, on_bad_utf8: str
) -> Output:
    """Writes the slice's paragraphs (OUTPUT.txt) and their 128-bit hashes (OUTPUT.hashes.npy, [n, 16] bytes)."""
    problems = Problems()
    dropped: Counter[str] = Counter()
    text_file, hash_file = artifacts.path(f"{output}.txt"), artifacts.path(f"{output}.hashes.npy")
    paragraphs = words = 0
    hashes = bytearray()
    with ExitStack() as stack:
        text = stack.enter_context(stack.enter_context(publishing(text_file)).open("w", encoding="utf-8", newline="\n"))
        temporary = stack.enter_context(publishing(hash_file))
        for paragraph in clean(_lines(part, on_bad_utf8, problems, report), cleanup, dropped):
            text.write(f"{paragraph or ''}\n")
            if paragraph:
                paragraphs += 1
                words += paragraph.count(" ") + 1
                hashes += hashlib.blake2b(paragraph.encode(), digest_size=HASH_BYTES).digest()
        with temporary.open("wb") as handle:
            np.save(handle, np.frombuffer(bytes(hashes), np.uint8).reshape(-1, HASH_BYTES), allow_pickle=False)
    result = {
        "paragraphs": paragraphs,
        "words": words,
        "dropped": dict(sorted(dropped.items())),
        "problems": problems.lines,
        "problem_count": problems.count,
    }
    return Output([text_file, hash_file], result)


def _lines(part: Slice, on_bad_utf8: str, problems: Problems, report: Report) -> Lines:
    if part.source.kind == "cpython":
        yield from read_cpython(part.part, part.parts, part.source.limit)
    for done, file in enumerate(part.files):
        report(Progress(done, len(part.files), file.name))
        yield from read_file(file, part.file_name(file), part.source, on_bad_utf8, problems)


def deduplicate(artifacts: Artifacts, report: Report, *, output: str, slices: list[str], enabled: bool) -> Output:
    """Writes for each slice which paragraphs stay (OUTPUT-N.npy, [n] bool): the first of equal ones in corpus order."""
    markers = [finished(artifacts, name) for name in slices]
    counts = [marker.result["paragraphs"] for marker in markers]
    keep = np.ones(sum(counts), dtype=np.bool_)
    if enabled and len(keep):
        parts = [np.load(artifacts.path(f"{name}.hashes.npy"), allow_pickle=False) for name in slices]
        keep = _first_occurrences(np.concatenate(parts))
    files = []
    for number, kept in enumerate(np.split(keep, np.cumsum(counts)[:-1])):
        files.append(artifacts.path(f"{output}-{number:05}.npy"))
        with publishing(files[-1]) as temporary, temporary.open("wb") as handle:
            np.save(handle, kept, allow_pickle=False)
    return Output(files, {"kept": int(keep.sum()), "dropped": int((~keep).sum())})


def _first_occurrences(hashes: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Returns for each row of [n, 16] whether no earlier row equals it."""
    halves = hashes.view(np.uint64)
    order = np.lexsort((halves[:, 1], halves[:, 0]))  # stable: equal rows stay in corpus order
    ordered = halves[order]
    keep = np.ones(len(hashes), dtype=np.bool_)
    keep[order[1:]] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return keep
