"""The fourth phase: the subword vocabulary, from a seeded sample of the paragraphs."""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from mapnet_cli.config import Corpus
from mapnet_cli.core import Artifacts, Imported, InputError, derive_seed, publishing
from mapnet_cli.jobs import Job, Output, Progress, ProgressCallback
from mapnet_cli.prepare_corpus.outputs import (
    CleanedSlice,
    CorpusKeys,
    Deduplication,
    SegmentedSlice,
    TrainedVocabulary,
    read_sentences,
)
from mapnet_cli.prepare_corpus.sources.reading import SHOWN_PROBLEMS, Problems
from mapnet_cli.text import load_tokenizer, train_tokenizer


@dataclass(frozen=True, kw_only=True)
class TrainVocabulary(Job):
    """Trains BPE on a seeded sample of sentences, or copies an import's tokenizer; writes tokenizer.json.

    Raises InputError if the text is too short for a training and a validation part.
    """

    keys: CorpusKeys
    corpus: Corpus
    imported: str
    """Key of the import whose tokenizer is used; "" if BPE is trained."""

    def run(self, artifacts: Artifacts, progress: ProgressCallback) -> Output:
        counts = [artifacts.read(key, SegmentedSlice) for key in self.keys.sentences]
        documents = sum(count.documents for count in counts)
        if documents < self.corpus.validation_every:
            message = _too_little(documents, self.corpus.validation_every, dropped(artifacts, self.keys))
            raise InputError(message + _first_problems(artifacts, self.keys))
        lines: list[str] = []
        if self.imported:
            artifacts.verify(self.imported)
            trained = load_tokenizer(artifacts.path(artifacts.read(self.imported, Imported).tokenizer))
        else:
            share = self.corpus.bpe_sample_words / sum(count.words for count in counts)
            lines = list(_sample(artifacts, progress, self.keys.sentences, share, self.corpus.seed))
            trained = train_tokenizer(lines, self.corpus.vocab_size)
        file = artifacts.path(self.keys.tokenizer)
        with publishing(file) as temporary:
            trained.save(str(temporary))
        result = TrainedVocabulary(
            vocab_size=trained.get_vocab_size(),
            sample_words=sum(line.count(" ") + 1 for line in lines),
            first_documents=[0, *accumulate(count.documents for count in counts)][:-1],
        )
        return Output([file], result)


def dropped(artifacts: Artifacts, keys: CorpusKeys) -> dict[str, int]:
    """Returns how many paragraphs each clean-up rule dropped."""
    counts: Counter[str] = Counter()
    for key in keys.clean:
        counts.update(artifacts.read(key, CleanedSlice).dropped)
    counts["deduplicate"] += artifacts.read(keys.deduplicate, Deduplication).dropped
    return {rule: count for rule, count in sorted(counts.items()) if count}


def _sample(
    artifacts: Artifacts, progress: ProgressCallback, sentences: list[str], share: float, seed: int
) -> Iterator[str]:
    """Yields the sentences of each paragraph with probability `share`, the draw made by (seed, slice, paragraph)."""
    for number, key in enumerate(sentences):
        progress(Progress(number, len(sentences), "reading the sample"))
        artifacts.verify(key)
        draws = random.Random(derive_seed(seed, "vocabulary sample", number))
        for paragraph in read_sentences(artifacts.path(f"{key}.txt")):
            if paragraph and (draws.random() < share or share >= 1):
                yield from paragraph
    progress(Progress(len(sentences), len(sentences), "training"))


def _first_problems(artifacts: Artifacts, keys: CorpusKeys) -> str:
    """Returns the first problems with the input, which may be why so little text is left."""
    problems = Problems()
    for key in keys.clean:
        cleaned = artifacts.read(key, CleanedSlice)
        problems.merge(cleaned.problems, cleaned.problem_count)
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
