"""Pseudo-log-likelihoods of sentences under a masked language model, and the outcome of minimal pairs.

Shapes: S sentences of one length, B masked copies of them in a batch, L positions, V vocabulary (padded).
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from mapnet_cli.config import MinimalPairs, Transformer
from mapnet_cli.core import Artifacts, CorpusManifest, DivergedError, ParadigmScore
from mapnet_cli.glue import UNTRAINED
from mapnet_cli.lineage import PairsRun
from mapnet_cli.minimal_pairs.readers import Paradigm, read_paradigms
from mapnet_cli.model import PretrainingModel
from mapnet_cli.text import CLS, MASK, SEP, TOKENS_PER_WORD, UNK, load_tokenizer, prepare_line
from mapnet_cli.training import autocast, choose_device, load_checkpoint

TIE = 1e-4
"""Largest difference, in nats, that counts as a tie: float32's rounding of equal scores, as of permuted sentences."""
LINES = 1_000
TIMED = 32  # sentences whose scoring is timed for a forecast


@dataclass(frozen=True)
class Sentence:
    """A sentence's token ids, with [CLS] and [SEP], and the number of the word that each token belongs to."""

    tokens: tuple[int, ...]
    words: tuple[int, ...]

    @property
    def unknown(self) -> int:
        return self.tokens.count(UNK)

    @property
    def scored(self) -> int:
        """Number of tokens that are scored, each in a masked copy of its own: all but [CLS] and [SEP]."""
        return len(self.tokens) - 2


def encode(texts: Sequence[str], tokenizer: Tokenizer, lowercase: str) -> Iterator[Sentence]:
    """Yields the prepared texts as tokens. A word is what the tokenizer splits off first (for a corpus, Moses's)."""
    for start in range(0, len(texts), LINES):
        lines = [prepare_line(text, lowercase) for text in texts[start : start + LINES]]
        for found in tokenizer.encode_batch(lines, add_special_tokens=False):
            words = (-1 - n if word is None else word for n, word in enumerate(found.word_ids, 1))
            yield Sentence((CLS, *found.ids, SEP), (-1, *words, -2 - len(found.ids)))


@lru_cache(maxsize=4)  # for the next encoder in this process
def encoded_pairs(
    location: Path, content: str, limit: int, tokenizer: Path, lowercase: str
) -> list[tuple[Paradigm, list[tuple[Sentence, Sentence]]]]:
    """Returns a data set's paradigms, each with its pairs as tokens. `content` is the hash of the data."""
    paradigms = read_paradigms(location, limit)
    texts = [text for paradigm in paradigms for pair in paradigm.pairs.values() for text in pair]
    sentences = encode(texts, load_tokenizer(tokenizer), lowercase)
    return [(paradigm, [(next(sentences), next(sentences)) for _ in paradigm.pairs]) for paradigm in paradigms]


def load_model(artifacts: Artifacts, run: PairsRun, weights: str, encoder: Transformer) -> tuple[PretrainingModel, str]:
    """Returns a run's model and its weights' SHA-256, "" for random ones. Raises DamagedError if they have changed."""
    if run.method == UNTRAINED:
        model = PretrainingModel(encoder, artifacts.read(weights, CorpusManifest).vocab_size)
        model.init_weights(run.pretrain_seed)
        return model, ""
    artifacts.verify(weights)
    tensors, facts = load_checkpoint(artifacts.path(weights))
    model = PretrainingModel(encoder, int(facts["vocab_size"]))
    model.load_state_dict({name: tensors[name] for name in model.state_dict()})  # without the proposal
    return model, facts["sha256"]


@torch.inference_mode()
def pseudo_log_likelihoods(
    model: PretrainingModel, sentences: Sequence[Sentence], whole_words: bool, batch_tokens: int,
    precision: str = "float32", progress: Callable[[int], None] = lambda done: None,
) -> list[float]:  # fmt: skip
    """Returns each sentence's score in nats: the sum of log p of its tokens, each predicted where it is masked.

    One token is masked at a time (Salazar et al. 2020); with `whole_words`, together with the tokens to its right that
    belong to the same word (PLL-word-l2r, Kauf and Ivanova 2023). Batches are `batch_tokens` tokens of sentences of one
    length, so nothing is padded. Raises DivergedError if a score is not finite.
    """
    model.eval()
    device = model.head.bias.device
    scores, done = [0.0] * len(sentences), 0
    by_length = defaultdict(list)
    for number, sentence in enumerate(sentences):
        by_length[len(sentence.tokens)].append(number)
    for length, numbers in sorted(by_length.items()):
        tokens_SL, words_SL = (
            torch.tensor([getattr(sentences[n], name) for n in numbers]) for name in ("tokens", "words")
        )
        scored, index_L = length - 2, torch.arange(length)
        log_p = torch.empty(len(numbers) * scored, device=device)  # one tensor: many small ones fragment the heap
        for copies_B in torch.split(torch.arange(len(log_p)), max(1, batch_tokens // length)):
            row_B, position_B1 = copies_B // scored, 1 + (copies_B % scored)[:, None]
            tokens_BL, words_BL = tokens_SL[row_B], words_SL[row_B]
            masked_BL = index_L == position_B1
            if whole_words:
                masked_BL = (words_BL == words_BL.gather(1, position_B1)) & (index_L >= position_B1)
            with autocast(device, precision):
                input_BL = tokens_BL.masked_fill(masked_BL, MASK).to(device)
                logits_BV = model.token_logits(input_BL, None, position_B1.to(device))
            target_B = tokens_BL.gather(1, position_B1).squeeze(1).to(device)
            log_p[copies_B[0] : copies_B[-1] + 1] = -F.cross_entropy(logits_BV.float(), target_B, reduction="none")
            progress(done := done + len(copies_B))
        for number, values in zip(numbers, log_p.view(-1, scored).tolist(), strict=True):
            scores[number] = math.fsum(values)  # exact, so that the order of the tokens doesn't matter
    if not all(map(math.isfinite, scores)):
        raise DivergedError("scores are not finite")
    return scores


def estimate(paradigms: Sequence[Paradigm], encoder: Transformer, vocab_size: int, options: MinimalPairs) -> float:
    """Returns the seconds for scoring a data set, at a rate measured on a few sentences of typical length."""
    words = [len(text.split()) for paradigm in paradigms for pair in paradigm.pairs.values() for text in pair]
    # the cost of a sentence grows with the square of its length
    length = min(encoder.max_length - 2, round(TOKENS_PER_WORD * math.sqrt(sum(n * n for n in words) / len(words))))
    model = PretrainingModel(encoder, vocab_size).to(choose_device(options.device))
    model.init_weights(0)
    torch.set_num_threads(options.threads)
    batch = [Sentence((CLS, *[UNK] * length, SEP), tuple(range(length + 2)))] * TIMED
    for _ in range(2):  # the first is a warm-up
        start = time.perf_counter()
        pseudo_log_likelihoods(model, batch, options.whole_words, options.batch_tokens, options.precision)
    return (time.perf_counter() - start) / TIMED * len(words)


def judge(
    paradigms: Sequence[tuple[Paradigm, Sequence[tuple[Sentence, Sentence]]]], max_length: int,
    score: Callable[[Sequence[Sentence]], list[float]],
) -> list[ParadigmScore]:  # fmt: skip
    """Returns the outcome of every paradigm, given with its pairs as tokens. Each distinct sentence is scored once.

    A pair counts 1 if the acceptable sentence has the higher score, and one half in a tie or if the model can't tell
    its sentences apart: equal tokens, only unknown tokens, or more than `max_length`. These pairs are not scored.
    """
    needed = dict.fromkeys(
        sentence for _, pairs in paradigms for pair in pairs if not _unscored(*pair, max_length) for sentence in pair
    )
    scores = dict(zip(needed, score(list(needed)), strict=True))
    found = []
    for paradigm, pairs in paradigms:
        correct, ties = 0.0, 0
        unscored = defaultdict(list)
        for number, (good, bad) in zip(paradigm.pairs, pairs, strict=True):
            if reason := _unscored(good, bad, max_length):
                unscored[reason].append(number)
                correct += 0.5
                continue
            difference = scores[good] - scores[bad]
            tie = abs(difference) <= TIE
            ties += tie
            correct += 0.5 if tie else float(difference > 0)
        score_row = ParadigmScore(
            name=paradigm.name, phenomenon=paradigm.phenomenon, field=paradigm.field, pairs=len(pairs),
            correct=correct, ties=ties, unscored=dict(unscored),
        )  # fmt: skip
        found.append(score_row)
    return found


def _unscored(good: Sentence, bad: Sentence, max_length: int) -> str:
    """Returns why a pair isn't scored, "" if it is."""
    if good.tokens == bad.tokens:
        return "identical tokens"
    if max(len(good.tokens), len(bad.tokens)) > max_length:
        return "too long"
    return "only unknown tokens" if any(s.unknown == s.scored for s in (good, bad)) else ""
