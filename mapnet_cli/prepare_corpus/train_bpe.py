"""Phase 4: trains the subword vocabulary on a seeded sample of the paragraphs."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from mapnet_cli.config import Corpus
from mapnet_cli.core import Artifacts, Imported, InputError, derive_seed, publishing
from mapnet_cli.jobs import Job, Output, Progress, ProgressCallback
from mapnet_cli.prepare_corpus import outputs
from mapnet_cli.prepare_corpus.cleanup import EXAMPLE_CHARS
from mapnet_cli.text import load_tokenizer, train_tokenizer, without_long_words


@dataclass(frozen=True, kw_only=True)
class TrainVocabulary(Job):
    """Trains BPE on a seeded sample of paragraphs, or copies an import's tokenizer; writes tokenizer.json."""

    keys: outputs.CorpusKeys
    corpus: Corpus
    imported: str  # key of the import whose tokenizer is used, or "" to train BPE

    def run(self, artifacts: Artifacts, progress: ProgressCallback) -> Output:
        counts = [artifacts.read(key, outputs.SegmentedSlice) for key in self.keys.each("sentences")]
        documents = sum(count.documents for count in counts)
        if documents < self.corpus.validation_every:
            raise InputError(_too_little(documents, self.corpus.validation_every, artifacts, self.keys))
        lines, left_out = list[str](), list[str]()
        if self.imported:
            artifacts.verify(self.imported)
            trained = load_tokenizer(artifacts.path(artifacts.read(self.imported, Imported).tokenizer))
        else:
            share = self.corpus.bpe_sample_words / sum(count.words for count in counts)
            sample = list(_sample(artifacts, progress, self.keys.each("sentences"), share, self.corpus.seed))
            lines, left_out = without_long_words(sample, self.corpus.bpe_word_chars)
            trained = train_tokenizer(lines, self.corpus.vocab_size)
        file = artifacts.path(self.keys.of("tokenizer.json"))
        with publishing(file) as temporary:
            trained.save(str(temporary))
        result = outputs.TrainedVocabulary(
            vocab_size=trained.get_vocab_size(),
            sample_words=sum(line.count(" ") + 1 for line in lines),
            long_words=len(left_out),
            longest_word=max(left_out, key=len, default="")[:EXAMPLE_CHARS],
            first_documents=[0, *accumulate(count.documents for count in counts)][:-1],
        )
        return Output([file], result)


def _sample(
    artifacts: Artifacts, progress: ProgressCallback, sentences: list[str], share: float, seed: int
) -> Iterator[str]:
    """Yields the sentences of each paragraph with probability `share`; the random stream is seeded per slice."""
    for number, key in enumerate(sentences):
        progress(Progress(number, len(sentences), "sampling text"))
        artifacts.verify(key)
        draws = random.Random(derive_seed(seed, "vocabulary sample", number))
        for paragraph in outputs.read_sentences(artifacts.path(f"{key}.txt")):
            if paragraph and (draws.random() < share or share >= 1):
                yield from paragraph
    progress(Progress(len(sentences), len(sentences), "training"))


def _too_little(documents: int, validation_every: int, artifacts: Artifacts, keys: outputs.CorpusKeys) -> str:
    cleaned = [artifacts.read(key, outputs.CleanedSlice) for key in keys.each("clean")]
    repeated = artifacts.read(keys.of("deduplicate"), outputs.Deduplication).dropped
    dropped = outputs.total([*(row.dropped for row in cleaned), {"deduplicate": repeated}])
    rules = ", ".join(f"cleanup.{rule} {count:,}" for rule, count in dropped.items()) or "none"
    ascii_only = "min_letters" in dropped or "min_letter_share" in dropped
    problems = outputs.found_problems(cleaned)
    starting = f"\n{problems.count:,} problems, starting with:{problems.shown}" if problems.count else ""
    if not documents and not dropped:
        return f"corpus.sources: no text was found: check the path and kind of the sources{starting}"
    if not documents:
        scripts = " (min_letters and min_letter_share count ASCII letters: set both to 0 for another script)"
        return (
            f"corpus.sources: no text is left after clean-up. Paragraphs dropped by rule: {rules}. Relax the rule "
            f"under [corpus.cleanup]{scripts * ascii_only}, or check kind and paragraphs of the sources{starting}"
        )
    lower = f"set corpus.validation_every to at most {documents:,}, " if documents > 1 else ""
    return (
        f"the corpus has {documents:,} non-empty documents, but only one in {validation_every:,} is held out, so the "
        f"validation set would be empty: {lower}add text, or split the files into documents (at blank lines: "
        f'documents = "blank-lines"). Paragraphs dropped by rule: {rules}{starting}'
    )
