"""The last phase but one: one row that says what the corpus is and where it stands."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.core.records import CorpusManifest, SourceCounts
from mapnet_cli.jobs.job import Output, ProgressCallback
from mapnet_cli.prepare_corpus.cleanup import EXAMPLE_CHARS, EXAMPLES
from mapnet_cli.prepare_corpus.slices import finished, mixed_versions, read_paragraphs, results
from mapnet_cli.prepare_corpus.sources.reading import Problems
from mapnet_cli.prepare_corpus.train_bpe import dropped
from mapnet_cli.text.shards import shard_files


def write_manifest(
    artifacts: Artifacts,
    progress: ProgressCallback,
    *,
    sources: list[str],
    source_of: list[int],
    clean: list[str],
    deduplicate: str,
    sentences: list[str],
    vocabulary: str,
    encode: list[str],
    train: list[str],
    validation: list[str],
    tokenizer: str,
    vocab_size: int,
    block_length: int,
) -> Output:
    """Returns a CorpusManifest as the result.

    `sources` are the kinds of all sources, `source_of` says of each slice which one it is from; `train` and
    `validation` are its shards.
    """
    cleaned, segmented, encoded = (results(artifacts, keys) for keys in (clean, sentences, encode))
    repeated = finished(artifacts, deduplicate).result["dropped_by_slice"]
    rows = [
        {**cleaned[n], **segmented[n], **encoded[n], "dropped": cleaned[n]["dropped"] | _some(repeated[n])}
        for n in range(len(clean))
    ]
    made = finished(artifacts, vocabulary).result["vocab_size"]
    problems = Problems()
    if made < vocab_size:
        problems.add(f"corpus.vocab_size is {vocab_size:,}, but the text yields a vocabulary of {made:,} only")
    for name, versions in mixed_versions(artifacts, [*clean, *sentences, *encode]).items():
        problems.add(f"slices were prepared with {name} {' and '.join(versions)}: --force prepares them alike")
    for row in rows:
        problems.merge(row["problems"], row["problem_count"])
    manifest = CorpusManifest(
        **_sums(rows),
        unknown_tokens=sum(row["unknown_tokens"] for row in rows),
        dropped=dropped(artifacts, clean, deduplicate),
        problem_count=problems.count,
        problems=problems.lines,
        vocab_size=made,
        block_length=block_length,
        train=[path for path, row in zip(train, rows, strict=True) if row["train_sequences"]],
        validation=[path for path, row in zip(validation, rows, strict=True) if row["validation_sequences"]],
        tokenizer=tokenizer,
        sources=[
            _of_source(kind, [row for row, source in zip(rows, source_of, strict=True) if source == number])
            for number, kind in enumerate(sources)
        ],
        sentence_lengths=np.sum([row["lengths"] for row in rows], axis=0).tolist(),
        examples=_examples(rows) | _repeated(artifacts, clean, deduplicate, repeated),
    )
    shards = [artifacts.path(name) for name in (*manifest.train, *manifest.validation)]
    files = [file for shard in shards for file in shard_files(shard)]
    return Output([artifacts.path(tokenizer), *files], manifest.to_json())


def _of_source(kind: str, rows: list[dict[str, Any]]) -> SourceCounts:
    dropped, left_out, markup = (_total(row[name] for row in rows) for name in ("dropped", "left_out", "markup"))
    return SourceCounts(kind=kind, **_sums(rows), dropped=dropped, left_out=left_out, markup=markup)


def _sums(rows: list[dict[str, Any]]) -> dict[str, Any]:
    names = ("documents", "paragraphs", "sentences", "words", "tokens", "train_sequences", "validation_sequences")
    return {name: sum(row[name] for row in rows) for name in names}


def _total(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(sorted(total.items()))


def _some(repeated: int) -> dict[str, int]:
    return {"deduplicate": repeated} if repeated else {}


def _examples(rows: list[dict[str, Any]]) -> dict[str, list[str]]:
    shown: dict[str, list[str]] = {}
    for row in rows:
        for rule, paragraphs in row["examples"].items():
            shown[rule] = (shown.get(rule, []) + paragraphs)[:EXAMPLES]
    return dict(sorted(shown.items()))


def _repeated(artifacts: Artifacts, clean: list[str], deduplicate: str, repeated: list[int]) -> dict[str, list[str]]:
    """Returns the first paragraphs that stood before."""
    shown: list[str] = []
    for number, (key, count) in enumerate(zip(clean, repeated, strict=True)):
        if count and len(shown) < EXAMPLES:
            keep = np.load(artifacts.path(f"{deduplicate}-{number:05}.npy"), mmap_mode="r", allow_pickle=False)
            shown += _dropped_here(artifacts.path(f"{key}.txt"), keep, EXAMPLES - len(shown))
    return {"deduplicate": shown} if shown else {}


def _dropped_here(file: Path, keep: Any, most: int) -> list[str]:
    found: list[str] = []
    paragraphs = (paragraph for paragraph in read_paragraphs(file) if paragraph is not None)
    for paragraph, kept in zip(paragraphs, keep, strict=False):
        if not kept:
            found.append(paragraph[:EXAMPLE_CHARS])
            if len(found) == most:
                break
    return found
