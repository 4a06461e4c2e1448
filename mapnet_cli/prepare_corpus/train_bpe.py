"""The fourth phase: the subword vocabulary, from a seeded sample of the paragraphs."""

import random
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from mapnet_cli.core.artifacts import Artifacts, publishing
from mapnet_cli.core.errors import InputError
from mapnet_cli.core.seeds import derive_seed
from mapnet_cli.jobs.job import Output, Progress, ProgressCallback
from mapnet_cli.prepare_corpus.slices import finished, read_sentences, results
from mapnet_cli.prepare_corpus.sources.reading import SHOWN_PROBLEMS, Problems
from mapnet_cli.text import bpe


def train_vocabulary(
    artifacts: Artifacts,
    progress: ProgressCallback,
    *,
    tokenizer: str,
    clean: list[str],
    deduplicate: str,
    sentences: list[str],
    vocab_size: int,
    sample_words: int,
    validation_every: int,
    seed: int,
    imported: str,
) -> Output:
    """Writes the tokenizer under the key `tokenizer`; the other strings are keys of earlier phases.

    Where `imported` is the key of an import, the tokenizer is a copy of its own.

    The result also says the number of each slice's first document in the whole corpus.

    Raises InputError if the text is too little for a training and a validation part.
    """
    counts = results(artifacts, sentences)
    documents = sum(result["documents"] for result in counts)
    if documents < validation_every:
        raise InputError(
            _too_little(documents, validation_every, dropped(artifacts, clean, deduplicate))
            + _first_problems(results(artifacts, clean))
        )
    lines: list[str] = []
    if imported:
        trained = bpe.load(artifacts.path(finished(artifacts, imported).result["tokenizer"]))
    else:
        words = sum(result["words"] for result in counts)
        lines = list(_sample(artifacts, progress, sentences, sample_words / words, seed))
        trained = bpe.train(lines, vocab_size)
    file = artifacts.path(tokenizer)
    with publishing(file) as temporary:
        trained.save(str(temporary))
    first = [0, *accumulate(result["documents"] for result in counts)][:-1]
    result = {
        "vocab_size": trained.get_vocab_size(),
        "sample_words": sum(line.count(" ") + 1 for line in lines),
        "first_documents": first,
    }
    return Output([file], result)


def dropped(artifacts: Artifacts, clean: list[str], deduplicate: str) -> dict[str, int]:
    """Returns how many paragraphs each clean-up rule dropped."""
    counts: Counter[str] = Counter()
    for result in results(artifacts, clean):
        counts.update(result["dropped"])
    for result in results(artifacts, [deduplicate]):
        counts["deduplicate"] += result["dropped"]
    return {rule: count for rule, count in sorted(counts.items()) if count}


def _sample(
    artifacts: Artifacts, progress: ProgressCallback, sentences: list[str], share: float, seed: int
) -> Iterator[str]:
    """Yields the sentences of each paragraph with probability `share`, the draw made by (seed, slice, paragraph)."""
    for number, key in enumerate(sentences):
        progress(Progress(number, len(sentences), "reading the sample"))
        finished(artifacts, key)
        draws = random.Random(derive_seed(seed, "vocabulary sample", number))
        for paragraph in read_sentences(artifacts.path(f"{key}.txt")):
            if paragraph and (draws.random() < share or share >= 1):
                yield from paragraph
    progress(Progress(len(sentences), len(sentences), "training"))


def _first_problems(cleaned: list[dict[str, Any]]) -> str:
    """Returns the first things that were wrong with the input, which may be why so little is left."""
    problems = Problems()
    for result in cleaned:
        problems.merge(result["problems"], result["problem_count"])
    shown = "".join(f"\n  {line}" for line in problems.lines[:SHOWN_PROBLEMS])
    return f"\n{problems.count:,} problems, the first of them:{shown}" if problems.count else ""


def _too_little(documents: int, validation_every: int, drops: dict[str, int]) -> str:
    rules = ", ".join(f"cleanup.{rule} {count:,}" for rule, count in drops.items()) or "none"
    if not documents:
        return (
            f"no text is left of corpus.sources. Paragraphs dropped, by rule: {rules}. "
            "Loosen the rule under [corpus.cleanup], or see whether the sources' kind and paragraphs are right"
        )
    return (
        f"the corpus has {documents:,} documents with text, but only one in {validation_every:,} is held out, so "
        "there would be none to validate on: lower corpus.validation_every, add text, or cut the files into "
        f'documents (documents = "blank-lines"). Paragraphs dropped, by rule: {rules}'
    )
