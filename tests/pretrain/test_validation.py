"""Held-out losses: fixed masks, refitting of the output bias, and accuracy by kind of token."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import spacy
import torch

from mapnet_cli.config import Config
from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.core.records import CorpusManifest
from mapnet_cli.jobs.distributed import ALONE
from mapnet_cli.masking.context import CorpusFacts
from mapnet_cli.model.masked_lm import PretrainingModel
from mapnet_cli.pretrain.held_out_words import (
    CONTENT,
    FUNCTION,
    OTHER,
    TokenBuckets,
    tag_rates,
    token_buckets,
    word_kinds,
)
from mapnet_cli.pretrain.validation import DRAWS, fixed_masks, validate
from mapnet_cli.text.bpe import encode_lines, train_tokenizer
from mapnet_cli.text.shards import Sequences, writing_shard
from mapnet_cli.text.words import CLS, MASK, PAD, SEP
from tests.conftest import small_config

CPU = torch.device("cpu")


@pytest.fixture
def held_out(make_corpus: Callable[[Config], CorpusManifest], artifacts: Artifacts) -> tuple[Sequences, int]:
    manifest = make_corpus(small_config())
    return Sequences([artifacts.path(name) for name in manifest.validation]), manifest.vocab_size


def measured(model: PretrainingModel, sequences: Sequences, count: int, single: bool = False) -> dict[str, float]:
    """Validates with even tokens as function words and the lower half of the vocabulary as the frequent tokens."""
    token_V = torch.arange(model.encoder.vocab_size)
    buckets = TokenBuckets(9 * (token_V >= len(token_V) // 2), token_V >= 5, token_V % 2)
    return validate(model, sequences, count, CPU, "float32", ALONE, buckets, single)


def model_of(vocab_size: int) -> PretrainingModel:
    model = PretrainingModel(small_config().encoder, vocab_size, None)
    model.init_weights(1)
    return model


def test_masks_are_fixed(held_out: tuple[Sequences, int]) -> None:
    sequences, vocab_size = held_out
    model = model_of(vocab_size)
    first = measured(model, sequences, 8)
    torch.manual_seed(99)
    assert measured(model, sequences, 8) == first
    assert set(first) == {
        "validation_loss", "validation_loss_refit", "validation_loss_spaced", "validation_loss_spaced_refit",
        "accuracy", "accuracy_decile_1", "accuracy_decile_10", "accuracy_function", "accuracy_content",
    }  # fmt: skip
    assert measured(model, sequences, 1000) != first  # all sequences
    assert model.training


def test_single_masks_match_one_sentence_at_a_time(held_out: tuple[Sequences, int]) -> None:
    """8 different draws of one [MASK] per sentence, everything else unchanged, and no other loss changes."""
    sequences, vocab_size = held_out
    model = model_of(vocab_size).eval()
    losses, places = [], set()
    for draw in range(1, 1 + DRAWS):
        fixed = fixed_masks(model.encoder, "uniform", 0, torch.arange(12), sequences, 1.0, 0.0, draw)
        for row, corrupted_L in enumerate(fixed.corrupted_BL):
            (place,) = (corrupted_L != fixed.tokens_BL[row]).nonzero().flatten().tolist()
            assert corrupted_L[place] == MASK
            length = int((corrupted_L != PAD).sum())
            places.add((row, place))
            logits_NV = model.token_logits(corrupted_L[None, :length], None, torch.tensor([[place]]))
            losses.append(torch.nn.functional.cross_entropy(logits_NV, fixed.tokens_BL[row, place][None]).item())
    assert len(places) > 40
    found = measured(model, sequences, 12, single=True)
    assert found["validation_loss_single"] == pytest.approx(sum(losses) / (8 * 12), rel=1e-5)
    assert found.items() > measured(model, sequences, 12).items()


def skewed(artifacts: Artifacts) -> Sequences:
    """Returns held-out text of 20 tokens with skewed frequencies and enough masked positions to fit 20 biases."""
    rng = np.random.default_rng(1)
    share = np.arange(1, 21) / np.arange(1, 21).sum()
    with writing_shard(artifacts.path("held/out"), 25) as shard:
        for _ in range(800):
            shard.add([2, *rng.choice(np.arange(5, 25), 14, p=share).tolist(), 3])
    return Sequences([artifacts.path("held/out")])


def test_refitting_the_bias_undoes_a_shifted_prior(artifacts: Artifacts) -> None:
    """A bias that favours some tokens at random increases the raw loss, but not the refitted one."""
    sequences, model = skewed(artifacts), model_of(25)
    before = measured(model, sequences, 800)
    with torch.no_grad():
        model.head.bias[5::2] += 2.0
    after = measured(model, sequences, 800)
    for name in ("validation_loss", "validation_loss_spaced"):
        assert after[name] > before[name] + 0.2
        assert after[f"{name}_refit"] == pytest.approx(before[f"{name}_refit"], abs=0.02)


def test_untrained_model_with_a_refitted_bias_predicts_frequencies(artifacts: Artifacts) -> None:
    """Its loss is the entropy of the tokens, since an untrained encoder provides no other information."""
    share = np.arange(1, 21) / np.arange(1, 21).sum()
    entropy = float(-(share * np.log(share)).sum())
    found = measured(model_of(25), skewed(artifacts), 800)
    assert found["validation_loss_refit"] == pytest.approx(entropy, abs=0.05)
    assert found["validation_loss"] == pytest.approx(np.log(25), abs=0.15)


def test_accuracy_by_kind_of_token(artifacts: Artifacts) -> None:
    """A model that always predicts token 24 is correct only at positions with token 24."""
    model = model_of(25)
    with torch.no_grad():
        model.head.bias[24] += 100.0
    found = measured(model, skewed(artifacts), 800)
    share = np.arange(1, 21) / np.arange(1, 21).sum()
    assert found["accuracy"] == pytest.approx(share[-1], abs=0.02)
    assert found["accuracy_function"] == pytest.approx(share[-1] / share[1::2].sum(), abs=0.03)  # 24 is even
    assert found["accuracy_content"] == 0
    assert found["accuracy_decile_1"] == 0
    assert found["accuracy_decile_10"] == pytest.approx(share[-1] / share[7:].sum(), abs=0.03)


def test_token_buckets_by_frequency_and_kind_of_word(
    make_corpus: Callable[[Config], CorpusManifest], artifacts: Artifacts
) -> None:
    manifest = make_corpus(small_config())
    lines = ["the house of the king and the queen into which kings ran", "house king queen others"] * 50
    tokenizer = train_tokenizer(lines, 300)
    tokenizer.save(str(artifacts.path("tokenizer.json")))
    with writing_shard(artifacts.path("train"), tokenizer.get_vocab_size()) as shard:
        for ids in encode_lines(tokenizer, lines):
            shard.add([2, *ids, 3])
    own = {"tokenizer": "tokenizer.json", "train": ["train"], "vocab_size": tokenizer.get_vocab_size()}
    buckets = token_buckets(CorpusFacts(artifacts, manifest.model_copy(update=own)))
    token = tokenizer.token_to_id
    assert buckets.kind_V[[token("▁the"), token("▁into")]].tolist() == [FUNCTION] * 2
    assert buckets.kind_V[token("▁king")] == CONTENT
    ids = next(encode_lines(tokenizer, ["the king theg , queen"]))
    pieces = [tokenizer.id_to_token(number) for number in ids]
    assert pieces[:4] == ["▁the", "▁king", "▁the", "g"]
    assert pieces[-1] == "▁queen"
    kinds = word_kinds(buckets, torch.tensor([[2, *ids, 3]]))[0].tolist()
    assert kinds[:5] == [OTHER, FUNCTION, CONTENT, OTHER, OTHER], "a word of two tokens is OTHER"
    assert kinds[-2:] == [CONTENT, OTHER]
    assert set(kinds[5:-2]) == {OTHER}, "a comma is OTHER"
    assert buckets.decile_V[token("▁the")] == 0
    assert buckets.decile_V[token("▁the")] < buckets.decile_V[token("▁king")] < buckets.decile_V[token("▁ran")]


def test_mask_rates_by_part_of_speech_are_over_the_tokens_of_words(tmp_path: Path) -> None:
    """A pipeline that knows one verb; one that doesn't tag, or isn't there, gives no rates."""
    nlp = spacy.blank("en")
    nlp.to_disk(tmp_path / "blank")
    ruler = nlp.add_pipe("attribute_ruler")
    ruler.add([[{"LOWER": "walking"}]], {"POS": "VERB"})
    ruler.add([[{"LOWER": {"NOT_IN": ["walking"]}}]], {"POS": "X"})
    nlp.to_disk(tmp_path / "tagger")
    tokenizer = train_tokenizer(["i am walking home and walk"] * 3 + ["a b c d"], 25)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    first, second = (tokenizer.encode(word, add_special_tokens=False).ids for word in ("i", "walking"))
    assert len(second) > 1, "the word is split"
    tokens_BL = [[CLS, *first, *second, SEP, PAD]]
    masked_BL = [[False, *[False] * len(first), *[False] * (len(second) - 1), True, False, False]]
    arguments = (tokens_BL, masked_BL)
    found = tag_rates(tmp_path / "tokenizer.json", str(tmp_path / "tagger"), *arguments)
    assert found == {"VERB": (1, len(second)), "X": (0, len(first))}
    for pipeline in (tmp_path / "blank", tmp_path / "missing"):
        assert tag_rates(tmp_path / "tokenizer.json", str(pipeline), *arguments) == {}
