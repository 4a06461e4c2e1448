"""Scores equal those of `transformers`, computed the slow way, and of minicons; ties count one half."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from mapnet_cli.config import Transformer
from mapnet_cli.core.errors import DivergedError
from mapnet_cli.core.records import Imported, ParadigmScore, mean_accuracy
from mapnet_cli.huggingface.export import export_checkpoint
from mapnet_cli.minimal_pairs.readers import Paradigm
from mapnet_cli.minimal_pairs.scoring import Sentence, encode, judge, pseudo_log_likelihoods
from mapnet_cli.model.masked_lm import PretrainingModel
from mapnet_cli.text.bpe import load_tokenizer
from mapnet_cli.text.words import CLS, SEP, UNK
from mapnet_cli.training.checkpoint import load_checkpoint
from tests.huggingface.conftest import load_theirs
from tests.minimal_pairs.conftest import SENTENCES, User, reference

TINY = Transformer(layers=2, hidden=16, heads=2, ffn=32, max_length=20, init_std=0.2)


def tiny_model() -> PretrainingModel:
    model = PretrainingModel(TINY, 50)
    model.init_weights(1)
    return model


def sentence(*tokens: int) -> Sentence:
    """Returns a sentence in which every token is a word."""
    return Sentence((CLS, *tokens, SEP), tuple(range(len(tokens) + 2)))


@pytest.fixture(scope="module", params=["export", "import"])
def both(request: pytest.FixtureRequest, user: User, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    """Returns our model and tokenizer, their folder, and how texts are prepared: for an export and for an import."""
    lineage, artifacts = user.lineage(), user.artifacts
    if request.param == "export":
        folder, encoder, lowercase = tmp_path_factory.mktemp("export") / "model", lineage.config.encoder, "after-moses"
        row: Any = export_checkpoint(lineage, folder, "mapnet", None, None)
        tokenizer = artifacts.path(f"{lineage.corpus.key}/tokenizer.json")
    else:
        row = lineage.imported("tiny")
        assert isinstance(row, Imported)
        folder, encoder, lowercase = user.folder / "tiny", Transformer.model_validate(row.encoder), "none"
        tokenizer = artifacts.path(row.tokenizer)
    tensors, facts = load_checkpoint(artifacts.path(row.path))
    model = PretrainingModel(encoder, facts["vocab_size"])
    model.load_state_dict({name: tensors[name] for name in model.state_dict()})
    return model, load_tokenizer(tokenizer), folder, lowercase


@pytest.mark.parametrize("whole_words", [False, True])
def test_scores_equal_those_of_transformers(both: tuple[Any, ...], whole_words: bool) -> None:
    model, tokenizer, folder, lowercase = both
    theirs = load_theirs(folder)
    expected = [reference(theirs, text, whole_words) for text in SENTENCES]
    sentences = list(encode(SENTENCES, tokenizer, lowercase))
    assert any(a == b for s in sentences for a, b in zip(s.words, s.words[1:], strict=False)), "some words are split"
    assert any(s.unknown for s in sentences)
    assert pseudo_log_likelihoods(model, sentences, whole_words, 64) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("whole_words", "metric"), [(False, "original"), (True, "within_word_l2r")])
def test_scores_equal_those_of_minicons(both: tuple[Any, ...], whole_words: bool, metric: str) -> None:
    """`pip install --no-deps minicons wonderwords` runs this test."""
    scorer = pytest.importorskip("minicons.scorer", reason="minicons is not installed")
    model, tokenizer, folder, lowercase = both
    theirs = load_theirs(folder)
    minicons = scorer.MaskedLMScorer(theirs[1], "cpu", tokenizer=theirs[0])
    encodings = [theirs[0]([text], return_tensors="pt") for text in SENTENCES]
    total = partial(torch.sum, dim=0)
    expected = [
        float(minicons.sequence_score(encoding, reduction=total, PLL_metric=metric)[0]) for encoding in encodings
    ]
    ours = pseudo_log_likelihoods(model, list(encode(SENTENCES, tokenizer, lowercase)), whole_words, 8192)
    assert ours == pytest.approx(expected, abs=1e-3)


def test_whole_words_changes_only_sentences_with_split_words() -> None:
    whole, split = sentence(7, 8, 9), Sentence((CLS, 7, 8, 9, SEP), (-1, 0, 1, 1, -2))
    plain, words = (pseudo_log_likelihoods(tiny_model(), [whole, split], mode, 100) for mode in (False, True))
    assert plain[0] == plain[1] == words[0]
    assert abs(words[1] - plain[1]) > 1e-3


def test_scores_do_not_depend_on_the_batches() -> None:
    sentences = [sentence(*range(5, 5 + n % 7 + 1)) for n in range(20)]
    one, all_ = (pseudo_log_likelihoods(tiny_model(), sentences, True, tokens) for tokens in (1, 10_000))
    assert one == pytest.approx(all_, abs=1e-5)
    done: list[int] = []
    pseudo_log_likelihoods(tiny_model(), sentences, False, 30, progress=done.append)
    assert done == sorted(done) and done[-1] == sum(s.scored for s in sentences)


def test_a_score_that_is_not_finite_is_an_error() -> None:
    model = tiny_model()
    model.head.bias.data[:] = math.nan
    with pytest.raises(DivergedError, match="not finite"):
        pseudo_log_likelihoods(model, [sentence(5)], False, 100)


def outcome(pairs: list[tuple[Sentence, Sentence]], score: Any, max_length: int = 20) -> ParadigmScore:
    paradigm = Paradigm("p", "q", "f", {10 + n: ("", "") for n in range(len(pairs))})
    (found,) = judge([(paradigm, pairs)], max_length, score)
    return found


@pytest.mark.parametrize("kind", ["constant", "without positions"])
def test_a_symmetric_model_is_right_in_half_of_the_permuted_pairs(kind: str) -> None:
    """A score that doesn't depend on the order of words knows nothing about pairs of the same words."""
    model = tiny_model()
    if kind == "constant":
        model.head.norm.weight.data.zero_()
        model.head.bias.data.normal_(generator=torch.Generator().manual_seed(1))
    else:
        model.encoder.stack.positions.weight.data.zero_()
    draw = torch.Generator().manual_seed(2)
    words = [torch.randint(5, 50, (8,), generator=draw) for _ in range(50)]
    pairs = [(sentence(*w.tolist()), sentence(*w[torch.randperm(8, generator=draw)].tolist())) for w in words]
    found = outcome(pairs, lambda sentences: pseudo_log_likelihoods(model, sentences, False, 64))
    assert (found.correct, found.ties, found.pairs) == (25.0, 50, 50)


def test_pairs_that_cannot_be_told_apart_count_half_and_are_named() -> None:
    good, bad = sentence(7, 8), sentence(8, 7)
    pairs = [
        (good, bad), (bad, good), (good, good), (sentence(*range(5, 24)), bad), (good, sentence(UNK, UNK)),
        (sentence(), good), (sentence(UNK, 7), good),
    ]  # fmt: skip
    seen: list[Sentence] = []

    def score(sentences: Sequence[Sentence]) -> list[float]:
        seen.extend(sentences)
        return [1.0 if s == good else 0.0 for s in sentences]

    found = outcome(pairs, score)
    assert found.unscored == {"identical tokens": [12], "too long": [13], "only unknown tokens": [14, 15]}
    assert (found.correct, found.ties, found.pairs) == (1 + 0 + 4 / 2 + 0, 0, 7)
    assert seen == [good, bad, sentence(UNK, 7)], "every sentence once"


def test_accuracy_is_the_mean_over_paradigms_with_binomial_errors() -> None:
    def row(pairs: int, correct: float) -> ParadigmScore:
        return ParadigmScore(name="", phenomenon="", field="", pairs=pairs, correct=correct, ties=0, unscored={})

    accuracy, error = mean_accuracy([row(100, 80), row(10, 5)])
    assert accuracy == pytest.approx(0.65)
    assert error == pytest.approx(math.sqrt(0.8 * 0.2 / 100 + 0.5 * 0.5 / 10) / 2)


def test_a_random_model_is_at_chance_on_real_pairs(shared_data: Path) -> None:
    """Zorro's sides are not swapped by accident: an untrained model is near 50%, with a plausible standard error."""
    from tokenizers import Tokenizer

    from mapnet_cli.minimal_pairs.readers import read_paradigms
    from mapnet_cli.text.bpe import train_tokenizer

    paradigms = read_paradigms(shared_data / "zorro.tar.xz", 40)
    texts = [text for paradigm in paradigms for pair in paradigm.pairs.values() for text in pair]
    tokenizer: Tokenizer = train_tokenizer(texts, 2000)
    encoded = encode(texts, tokenizer, "after-moses")
    model = PretrainingModel(TINY, tokenizer.get_vocab_size())
    model.init_weights(3)
    pairs = [(paradigm, [(next(encoded), next(encoded)) for _ in paradigm.pairs]) for paradigm in paradigms]
    accuracy, error = mean_accuracy(judge(pairs, 20, lambda s: pseudo_log_likelihoods(model, s, False, 4096)))
    assert 0.01 < error < 0.5 / math.sqrt(23 * 40)
    assert abs(accuracy - 0.5) < 0.15
