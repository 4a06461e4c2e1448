"""The last phase: one row that says what the corpus is and where it stands."""

from typing import Any

from mapnet_cli.artifacts import Artifacts
from mapnet_cli.jobs.job import Output, Report
from mapnet_cli.prepare_corpus.documents import Problems
from mapnet_cli.prepare_corpus.slices import finished, results
from mapnet_cli.prepare_corpus.vocabulary import dropped
from mapnet_cli.records import CorpusManifest
from mapnet_cli.text.shards import shard_files


def write_manifest(
    artifacts: Artifacts,
    report: Report,
    *,
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
    """Returns a CorpusManifest as the result; `train` and `validation` are the shards of each slice."""
    counts, encoded = results(artifacts, sentences), results(artifacts, encode)
    made = finished(artifacts, vocabulary).result["vocab_size"]
    problems = Problems()
    if made < vocab_size:
        problems.add(f"corpus.vocab_size is {vocab_size:,}, but the text yields a vocabulary of {made:,} only")
    for result in results(artifacts, clean):
        problems.merge(result["problems"], result["problem_count"])
    manifest = CorpusManifest(
        documents=_sum(counts, "documents"),
        paragraphs=_sum(counts, "paragraphs"),
        sentences=_sum(counts, "sentences"),
        words=_sum(counts, "words"),
        tokens=_sum(encoded, "tokens"),
        unknown_tokens=_sum(encoded, "unknown_tokens"),
        train_sequences=_sum(encoded, "train_sequences"),
        validation_sequences=_sum(encoded, "validation_sequences"),
        dropped=dropped(artifacts, clean, deduplicate),
        problem_count=problems.count,
        problems=problems.lines,
        vocab_size=made,
        block_length=block_length,
        train=[path for path, result in zip(train, encoded, strict=True) if result["train_sequences"]],
        validation=[path for path, result in zip(validation, encoded, strict=True) if result["validation_sequences"]],
        tokenizer=tokenizer,
    )
    shards = [artifacts.path(name) for name in (*manifest.train, *manifest.validation)]
    files = [file for shard in shards for file in shard_files(shard)]
    return Output([artifacts.path(tokenizer), *files], manifest.to_json())


def _sum(rows: list[dict[str, Any]], name: str) -> int:
    return sum(row[name] for row in rows)
