"""The data order: visits per sequence match the source's weight, and any step is computed independently."""

from collections import Counter
from fractions import Fraction
from itertools import pairwise
from math import floor

import pytest
import torch

from mapnet_cli.core.seeds import derive_seed
from mapnet_cli.pretrain import sampler
from mapnet_cli.pretrain.sampler import ResumableSampler


def visits(data: ResumableSampler, count: int) -> list[int]:
    """Returns the first `count` sequences that are visited."""
    steps = range(-(-count // data.batch_size))
    return torch.cat([data.indices(step) for step in steps]).tolist()[:count]


def test_every_epoch_visits_every_sequence_once() -> None:
    data = ResumableSampler([10], 4, seed=3)
    seen = visits(data, 20)
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10] != seen[10:]
    assert torch.equal(ResumableSampler([10], 4, seed=3).indices(4), data.indices(4))
    assert not torch.equal(ResumableSampler([10], 4, seed=4).indices(0), data.indices(0))


def test_epoch_is_one_permutation_for_any_split_into_sources() -> None:
    """The order is torch.randperm for (seed, epoch); splitting into sources of weight 1 doesn't change it."""
    for counts in ([100], [30, 0, 70], [1] * 100):
        data = ResumableSampler(counts, 7, seed=5, weights=[1.0] * len(counts))
        for epoch in range(3):
            generator = torch.Generator().manual_seed(derive_seed(5, "data order", epoch))
            expected = torch.randperm(100, generator=generator).tolist()
            assert visits(data, 300)[epoch * 100 : (epoch + 1) * 100] == expected


@pytest.mark.parametrize(
    "weights", [(1.0, 2.0, 1.0), (0.5, 1.0, 3.0), (0.3, 0.7, 1.6), (2.5, 0.01, 0.1), (0.01, 0.02, 0.1)]
)
def test_weights_set_the_number_of_visits(weights: tuple[float, ...]) -> None:
    counts, epochs = (20, 31, 1), 40
    data = ResumableSampler(counts, 16, seed=1, weights=weights)
    rates = [n * Fraction(str(w)) for n, w in zip(counts, weights, strict=True)]
    ends = [sum(floor(epoch * rate) for rate in rates) for epoch in range(epochs + 1)]
    assert [data.count(epoch) for epoch in range(epochs)] == [b - a for a, b in pairwise(ends)]
    seen = visits(data, ends[-1])
    first = 0
    for n, rate in zip(counts, rates, strict=True):
        members = range(first, first + n)
        for epoch, end in enumerate(ends):
            assert sum(v in members for v in seen[:end]) == floor(epoch * rate)
        times = Counter(v for v in seen if v in members)
        assert all(abs(times[sequence] - Fraction(floor(epochs * rate), n)) < 1 for sequence in members)
        first += n


def test_fractional_weight_is_spread_over_its_source() -> None:
    """For a tenth of 1,000 sequences, no gap exceeds three times the mean gap."""
    data = ResumableSampler([1000, 50], 50, seed=1, weights=[0.1, 1.0])
    chosen = sorted(v for v in visits(data, data.count(0)) if v < 1000)
    assert len(chosen) == 100
    gaps = [b - a for a, b in zip(chosen, [*chosen[1:], chosen[0] + 1000], strict=True)]
    assert max(gaps) <= 30


def test_epochs_count_earlier_visits() -> None:
    data = ResumableSampler([5, 8], 6, seed=2, weights=[2.0, 0.5])
    seen: Counter[int] = Counter()
    for step in range(40):
        for sequence, before in zip(data.indices(step).tolist(), data.epochs(step).tolist(), strict=True):
            seen[sequence] += 1
            assert abs(seen[sequence] - 1 - before) <= 1, "within an epoch, second visits may precede first ones"
    single = ResumableSampler([9], 4, seed=2)
    assert torch.cat([single.epochs(step) for step in range(9)]).tolist() == [place // 9 for place in range(36)]


@pytest.mark.parametrize("count", [64, 65, 100, 127, 128, 129, 1000, 1007])
def test_large_corpus_is_shuffled_by_blocks(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "BLOCK", 4)
    monkeypatch.setattr(sampler, "GROUP", 64)
    data = ResumableSampler([count], 10, seed=1)
    seen = visits(data, 3 * count)
    epochs = [seen[n * count : (n + 1) * count] for n in range(3)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    fresh = ResumableSampler([count], 10, seed=1)
    for step in (len(seen) // 10 - 1, 7, 0, 12):  # any step, in any order, without the earlier ones
        assert fresh.indices(step).tolist() == seen[step * 10 : (step + 1) * 10]
    if count > 900:
        blocks = {sequence // 4 for sequence in epochs[0][:64]}
        assert len(blocks) in (16, 17), "a group consists of whole blocks"
        assert max(blocks) - min(blocks) > 100, "blocks come from all over the corpus"


def test_epoch_of_a_billion_sequences_starts_quickly() -> None:
    data = ResumableSampler([10**9], 8, seed=1)
    step = 10**9 // 8 * 3 // 2
    chosen = data.indices(step)
    assert data.epochs(step).tolist() == [1] * 8
    assert int(chosen.max() - chosen.min()) > 10**7
    assert data._order(1, 500).nbytes < 10e6
