"""PMI-masking: PMI compared with brute force, selection on planted collocations, units compared with plain Python.

In the test corpus, each planted collocation consists of unique tokens and is frequent enough that its
PMI is higher than that of its parts and of chance neighbours.
"""

import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mapnet_cli.config import Config, Method
from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.core.records import CorpusManifest
from mapnet_cli.masking import context, pmi
from mapnet_cli.masking.context import CorpusFacts
from mapnet_cli.masking.pmi import SHARES, Collocations, find_collocations
from mapnet_cli.masking.sampling import MaskNoise
from mapnet_cli.masking.strategies import STRATEGIES, draw_masks
from mapnet_cli.text.shards import writing_shard
from mapnet_cli.text.words import CLS, FIRST_ORDINARY, MASK, PAD, SEP, UNK
from tests.conftest import small_config

Ngram = tuple[int, ...]
PLANTED = {2: (60, 20), 3: (40, 40), 4: (20, 80), 5: (20, 160)}
"""By length: number of collocations, and number of occurrences of each in the text."""
COMMON, RARE = 3, 300
"""Other tokens: a few that co-occur by chance, often enough to be candidates, and many rare ones."""
VOCAB = FIRST_ORDINARY + sum(n * count for n, (count, _) in PLANTED.items()) + COMMON + RARE


@cache
def planted() -> dict[int, list[Ngram]]:
    """Returns the collocations by length."""
    tokens = itertools.count(FIRST_ORDINARY)
    return {n: [tuple(itertools.islice(tokens, n)) for _ in range(count)] for n, (count, _) in PLANTED.items()}


def common_tokens() -> range:
    return range(VOCAB - COMMON - RARE, VOCAB - RARE)


@cache
def planted_text(share: float) -> list[list[int]]:
    """Returns sequences [CLS] ... [SEP] in which this share of the ordinary tokens is in collocations."""
    draw = random.Random(0)
    items = [ngram for n, ngrams in planted().items() for ngram in ngrams for _ in range(PLANTED[n][1])]
    others = round(sum(map(len, items)) * (1 / share - 1))
    kinds = (common_tokens(), common_tokens(), *[range(VOCAB - RARE, VOCAB)] * 3)
    items += [(draw.choice(kinds[number % len(kinds)]),) for number in range(others)]
    draw.shuffle(items)
    parts = (items[start : start + 12] for start in range(0, len(items), 12))
    return [[CLS, *itertools.chain(*part), SEP] for part in parts]


def counted(sequences: Sequence[Sequence[int]]) -> Collocations:
    return find_collocations(np.concatenate([np.array(sequence, dtype=np.int64) for sequence in sequences]), VOCAB)


def candidates(result: Collocations, n: int) -> list[Ngram]:
    """Returns the candidate n-grams of a length, in the order of their keys."""
    if n == 1:
        return [(token,) for token in range(result.vocab_size)]
    shorter = candidates(result, n - 1)
    return [
        (*shorter[key // result.vocab_size], key % result.vocab_size) for key in result.by_length[n].keys_G.tolist()
    ]


def chosen(result: Collocations, n: int) -> set[Ngram]:
    flags = result.by_length[n].chosen_G.tolist()
    return set(itertools.compress(candidates(result, n), flags))


def units_by_hand(row: Sequence[int], ngrams: set[Ngram]) -> list[list[int]]:
    """Returns the positions of each unit, from left to right, the longest n-gram first."""
    units: list[list[int]] = []
    position = 0
    while position < len(row):
        fits = [n for n in range(max(SHARES), 1, -1) if tuple(row[position : position + n]) in ngrams]
        length = fits[0] if fits else 1
        units.append(list(range(position, position + length)))
        position += length
    return units


def padded(sequences: Sequence[Sequence[int]]) -> torch.Tensor:
    width = max(map(len, sequences))
    return torch.tensor([[*sequence, *[PAD] * (width - len(sequence))] for sequence in sequences])


@pytest.fixture
def corpus(make_corpus: Callable[[Config], CorpusManifest], artifacts: Artifacts) -> CorpusFacts:
    """A finished corpus whose training split is the text with planted collocations."""
    made = make_corpus(small_config())
    with writing_shard(artifacts.path("planted"), VOCAB) as shard:
        for sequence in planted_text(0.51):
            shard.add(sequence)
    return CorpusFacts(artifacts, made.model_copy(update={"train": ["planted"], "vocab_size": VOCAB}))


def pmi_by_hand(tokens: list[int], least: int) -> dict[Ngram, float]:
    """Returns PMI_n of the n-grams with a count of at least `least`, by enumerating all splits into parts."""
    sizes = range(1, max(SHARES) + 1)
    counts = {n: Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)) for n in sizes}

    def log_p(ngram: Ngram) -> float:
        return math.log(counts[len(ngram)][ngram] / counts[len(ngram)].total())

    def cut(ngram: Ngram, places: tuple[int, ...]) -> list[Ngram]:
        return [ngram[begin:end] for begin, end in itertools.pairwise((0, *places, len(ngram)))]

    def splits(n: int) -> list[tuple[int, ...]]:
        return [places for count in range(1, n) for places in itertools.combinations(range(1, n), count)]

    return {
        ngram: log_p(ngram) - max(sum(map(log_p, cut(ngram, places))) for places in splits(n))
        for n in SHARES
        for ngram, count in counts[n].items()
        if count >= least
    }


@pytest.mark.parametrize(("size", "kinds", "least"), [(400, 6, 1), (20_000, 4, 10), (3_000, 6, 10)])
def test_pmi_uses_the_best_of_all_splits(size: int, kinds: int, least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An n-gram's probability is its share of all n-grams of its length, including rare ones."""
    draw = random.Random(1)
    weights = [1 / (rank + 1) for rank in range(kinds)]
    tokens = draw.choices(range(FIRST_ORDINARY, FIRST_ORDINARY + kinds), weights, k=size)
    seen: dict[Ngram, float] = {}
    real = pmi._pmi

    def recording(indices: pmi.Ints, log_p: pmi.Floats, first_G: pmi.Ints, n: int) -> pmi.Floats:
        values = real(indices, log_p, first_G, n)
        seen.update({tuple(tokens[first : first + n]): value for first, value in zip(first_G, values, strict=True)})
        return values

    monkeypatch.setattr(pmi, "_pmi", recording)
    monkeypatch.setattr(pmi, "MIN_COUNT", least)
    result = find_collocations(np.array(tokens), FIRST_ORDINARY + kinds)
    expected = pmi_by_hand(tokens, least)
    assert seen.keys() == expected.keys() == {ngram for n in SHARES for ngram in candidates(result, n)}
    assert {len(ngram) for ngram in expected} == set(SHARES)
    assert [seen[ngram] for ngram in expected] == pytest.approx(list(expected.values()), abs=1e-9)


def test_planted_collocations_are_chosen_and_chance_neighbours_are_not() -> None:
    result = counted(planted_text(0.51))
    parts = {
        ngram[begin : begin + n]
        for ngrams in planted().values()
        for ngram in ngrams
        for n in SHARES
        for begin in range(len(ngram) - n + 1)
    }
    for n, ngrams in planted().items():
        assert set(ngrams) <= chosen(result, n)
        assert chosen(result, n) <= parts, "no n-gram with a chance neighbour"
    by_chance = set(itertools.product(common_tokens(), repeat=2))
    assert by_chance <= set(candidates(result, 2)), "chance neighbours must be among the candidates"


@pytest.mark.parametrize("share", [0.51, 0.7])
def test_half_of_the_tokens_are_covered(share: float) -> None:
    """Even if more could be covered. If collocations make up just over half of the text, all of them are chosen."""
    text = planted_text(share)
    result = counted(text)
    ngrams = set().union(*(chosen(result, n) for n in SHARES))
    units = [unit for sequence in text for unit in units_by_hand(sequence, ngrams)]
    ordinary = sum(token >= FIRST_ORDINARY for sequence in text for token in sequence)
    covered = sum(len(unit) for unit in units if len(unit) > 1) / ordinary
    assert covered == pytest.approx(0.5, abs=0.03)
    everything = set().union(*planted().values())
    assert (everything <= ngrams) == (share == 0.51)


def test_no_ngram_contains_a_special_token() -> None:
    """Two tokens that are often separated by [UNK] are not a collocation."""
    draw = random.Random(2)
    first, second = common_tokens()[:2]
    text = [[CLS, first, UNK, second, *draw.choice(planted()[5]), SEP] for _ in range(2000)]
    result = counted(text)
    everything = {ngram for n in SHARES for ngram in candidates(result, n)}
    assert everything
    assert min(min(ngram) for ngram in everything) >= FIRST_ORDINARY
    assert (first, second) not in everything


@cache
def dense() -> Collocations:
    """Returns all frequent n-grams over four tokens, with a random subset of each length chosen."""
    draw = np.random.default_rng(3)
    weights = np.array([0.4, 0.3, 0.2, 0.1])
    result = find_collocations(FIRST_ORDINARY + draw.choice(4, 20_000, p=weights), FIRST_ORDINARY + 4)
    by_length = {
        n: replace(ngrams, chosen_G=draw.random(len(ngrams.keys_G)) < 0.3) for n, ngrams in result.by_length.items()
    }
    return replace(result, by_length=by_length)


rows = st.integers(1, 14).flatmap(
    lambda width: st.lists(st.lists(st.integers(0, FIRST_ORDINARY + 3), min_size=width, max_size=width), min_size=1)
)


@settings(deadline=None, max_examples=200)
@given(rows)
def test_units_match_plain_python(batch: list[list[int]]) -> None:
    ngrams = set().union(*(chosen(dense(), n) for n in SHARES))
    assert all(chosen(dense(), n) for n in SHARES), "some n-grams of every length are chosen"
    starts_BL = dense().unit_starts(torch.tensor(batch))
    expected = [[unit[0] for unit in units_by_hand(row, ngrams)] for row in batch]
    assert [row.nonzero().flatten().tolist() for row in starts_BL] == expected
    assert starts_BL.dtype == torch.bool


def test_units_of_whole_sentences_match_plain_python() -> None:
    text = planted_text(0.51)
    result = counted(text)
    ngrams = set().union(*(chosen(result, n) for n in SHARES))
    batch = text[:300]
    starts_BL = result.unit_starts(padded(batch))
    lengths = Counter()
    for row, starts in zip(batch, starts_BL, strict=True):
        units = units_by_hand(row, ngrams)
        assert starts.nonzero().flatten().tolist()[: len(units)] == [unit[0] for unit in units]
        assert starts[len(row) :].all(), "each padding token is a unit"
        lengths.update(map(len, units))
    assert set(lengths) == {1, *SHARES}


@pytest.mark.parametrize("special", [PAD, UNK, CLS, SEP, MASK])
def test_the_longest_ngram_matches_and_a_special_token_ends_it(special: int) -> None:
    result = counted(planted_text(0.51))
    a, b, c, d, e = planted()[5][0]
    whole, cut = result.unit_starts(torch.tensor([[CLS, a, b, c, d, e, SEP], [CLS, a, b, special, d, e, SEP]]))
    assert whole.tolist() == [True, True, False, False, False, False, True]
    assert cut[[0, 1, 3, 4, 6]].all(), "no unit spans the special token"


@pytest.mark.parametrize("length", [1, 2, 3])
def test_short_rows(length: int, corpus: CorpusFacts) -> None:
    mask_context = STRATEGIES["pmi"].prepare(corpus)
    assert mask_context.unit_starts is not None
    pair = planted()[2][0]
    tokens_BL = torch.tensor([[*pair, SEP][:length], [CLS, *pair][:length], [PAD] * length])
    starts_BL = mask_context.unit_starts(tokens_BL)
    assert starts_BL.tolist() == [
        [True, False, True][:length], [True, True, False][:length], [True] * length,
    ]  # fmt: skip
    noise = MaskNoise.draw(torch.Generator().manual_seed(0), 3, length)
    masks = draw_masks(Method(strategy="pmi"), tokens_BL, noise, mask_context)
    assert torch.equal(masks.valid_BK.sum(dim=1) > 0, (tokens_BL >= FIRST_ORDINARY).any(dim=1))


@pytest.mark.parametrize("size", [30, 200])
def test_a_text_without_collocations_has_tokens_as_units(size: int) -> None:
    """The text is too small for any n-gram to reach the minimum count."""
    tokens = np.arange(size) % 100 + FIRST_ORDINARY
    result = find_collocations(tokens, VOCAB)
    assert not any(candidates(result, n) for n in SHARES)
    assert result.unit_starts(torch.from_numpy(tokens)[None]).all()


def test_short_ngrams_without_longer_ones() -> None:
    tokens = np.array([CLS, 7, 8, SEP] * 50)
    result = find_collocations(tokens, VOCAB)
    assert chosen(result, 2) == {(7, 8)}
    starts_BL = result.unit_starts(torch.tensor([[CLS, 7, 8, 7, 8, SEP]]))
    assert starts_BL.tolist() == [[True, True, False, True, False, True]]


def test_the_context_of_a_corpus_matches_its_text(corpus: CorpusFacts) -> None:
    text = planted_text(0.51)
    mask_context = STRATEGIES["pmi"].prepare(corpus)
    assert mask_context.unit_starts is not None
    assert torch.equal(mask_context.unit_starts(padded(text)), counted(text).unit_starts(padded(text)))
    assert mask_context.log_weight_V is None


def test_a_large_corpus_is_sampled_evenly(
    make_corpus: Callable[[Config], CorpusManifest], artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two halves of the corpus have different collocations, and only about half of the tokens are counted."""
    monkeypatch.setattr(pmi, "MOST_TOKENS", 800)
    monkeypatch.setattr(context, "PART", 10)
    pairs = planted()[2][:2]
    rare = itertools.cycle(range(VOCAB - RARE, VOCAB))
    with writing_shard(artifacts.path("halves"), VOCAB) as shard:
        for pair in pairs:
            for _ in range(100):
                shard.add([CLS, *pair, *itertools.islice(rare, 4), SEP])
    made = make_corpus(small_config())
    halves = CorpusFacts(artifacts, made.model_copy(update={"train": ["halves"], "vocab_size": VOCAB}))
    unit_starts = STRATEGIES["pmi"].prepare(halves).unit_starts
    assert unit_starts is not None
    assert unit_starts(torch.tensor(pairs)).tolist() == [[True, False], [True, False]]


@pytest.mark.parametrize("rate", [0.15, 0.4])
def test_masks_are_whole_units_except_the_last(rate: float, corpus: CorpusFacts) -> None:
    """Positions in drawing order are one unit after another; only the last unit is truncated, at its end."""
    result = counted(planted_text(0.51))
    ngrams = set().union(*(chosen(result, n) for n in SHARES))
    batch = planted_text(0.51)[:400]
    tokens_BL = padded(batch)
    noise = MaskNoise.draw(torch.Generator().manual_seed(5), *tokens_BL.shape)
    masks = draw_masks(Method(strategy="pmi", mask_rate=rate), tokens_BL, noise, STRATEGIES["pmi"].prepare(corpus))
    whole = cut = 0
    for row, positions_K, valid_K in zip(batch, masks.positions_BK, masks.valid_BK, strict=True):
        drawn = positions_K[valid_K].tolist()
        units = {unit[0]: unit for unit in units_by_hand(row, ngrams)}
        assert drawn
        while drawn:
            unit = units[drawn[0]]
            assert drawn[: len(unit)] == unit[: len(drawn)]
            whole += len(unit) > 1 and len(drawn) >= len(unit)
            cut += len(drawn) < len(unit)
            drawn = drawn[len(unit) :]
    assert whole > 30
    assert cut > 30
