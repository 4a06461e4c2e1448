"""Batches: independent of the number of processes and of padding; visits, schedules and coins."""

from collections.abc import Callable

import pytest
import torch

from mapnet_cli.config import Config
from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.core.records import CorpusManifest
from mapnet_cli.jobs.distributed import DistContext
from mapnet_cli.masking.sampling import max_mask_count
from mapnet_cli.masking.strategies import STRATEGIES, MaskRequest
from mapnet_cli.pretrain.batches import BatchMaker
from mapnet_cli.pretrain.sampler import ResumableSampler
from mapnet_cli.text.shards import Sequences
from tests.conftest import small_config


def maker(
    config: Config,
    manifest: CorpusManifest,
    artifacts: Artifacts,
    dist: DistContext,
    fixed: bool,
    method: str = "mapnet",
) -> BatchMaker:
    sequences = Sequences([artifacts.path(name) for name in manifest.train])
    order = ResumableSampler([len(sequences)], config.pretrain.batch_size, 1)
    return BatchMaker(
        sequences, order, config.method[method], config.pretrain, 1, dist, False, manifest.block_length, fixed
    )


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("processes", [2, 4])
def test_processes_split_one_batch(
    fixed: bool, processes: int, make_corpus: Callable[[Config], CorpusManifest], artifacts: Artifacts
) -> None:
    config = small_config("pretrain.batch_size=8", "method.mapnet.explore_unit=sentence")
    manifest = make_corpus(config)
    whole = maker(config, manifest, artifacts, DistContext(), fixed)(5)
    (everything,) = whole.parts
    shares = [maker(config, manifest, artifacts, DistContext(r, processes), fixed)(5) for r in range(processes)]
    parts = [part for share in shares for part in share.parts]
    for name in ("tokens_BL", "maskable_BL", "counts_B", "explore_B"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(everything, name)), name
    assert torch.equal(torch.cat([part.noise.order_BL for part in parts]), everything.noise.order_BL)
    assert {(share.tokens, share.explored) for share in shares} == {(whole.tokens, whole.explored)}
    assert everything.explore_B is not None and whole.explored == everything.explore_B.double().mean()
    assert {part.all_masked for part in parts} == {int(everything.counts_B.sum())}
    assert [part.first for part in parts] == [rank * 8 // processes for rank in range(processes)]


def test_masks_do_not_depend_on_padding(make_corpus: Callable[[Config], CorpusManifest], artifacts: Artifacts) -> None:
    config = small_config()
    manifest = make_corpus(config)
    make, fixed_make = (maker(config, manifest, artifacts, DistContext(), fixed) for fixed in (False, True))
    step = next(step for step in range(20) if make(step).parts[0].tokens_BL.shape[1] < manifest.block_length)
    (short,), (fixed,) = make(step).parts, fixed_make(step).parts
    length = short.tokens_BL.shape[1]
    assert fixed.tokens_BL.shape[1] == manifest.block_length
    assert torch.equal(short.noise.order_BL, fixed.noise.order_BL[:, :length])
    assert fixed.slots_N is None
    assert short.slots_N is not None
    assert len(short.slots_N) == short.counts_B.sum()


def test_visits_repeat_sentences_with_new_masks(
    make_corpus: Callable[[Config], CorpusManifest], artifacts: Artifacts
) -> None:
    config = small_config("pretrain.visits=2")
    make = maker(config, make_corpus(config), artifacts, DistContext(), False)
    first, second, third = (make(step).parts[0] for step in (0, 1, 2))
    assert torch.equal(first.tokens_BL, second.tokens_BL)
    assert not torch.equal(first.noise.order_BL, second.noise.order_BL)
    assert first.tokens_BL.shape != third.tokens_BL.shape or not torch.equal(first.tokens_BL, third.tokens_BL)


def test_disjoint_visits_continue_across_epochs(
    make_corpus: Callable[[Config], CorpusManifest], artifacts: Artifacts
) -> None:
    """60 sentences, 20 per step, 2 visits: seven visits within four epochs mask every position of a sentence."""
    config = small_config("pretrain.visits=2", "pretrain.batch_size=20")
    manifest = make_corpus(config)
    make = maker(config, manifest, artifacts, DistContext(), False, "disjoint")
    seen: dict[int, list[list[int]]] = {}
    maskable: dict[int, set[int]] = {}
    for step in range(24):
        (part,) = make(step).parts
        assert part.visit_B is not None
        request = MaskRequest(
            part.tokens_BL, part.maskable_BL, part.counts_B, part.max_masks, part.noise.order_BL, visit_B=part.visit_B
        )
        masks = STRATEGIES["disjoint"].draw(request)
        for row, sentence in enumerate(make.order.indices(step // 2).tolist()):
            seen.setdefault(sentence, []).append(masks.positions_BK[row][masks.valid_BK[row]].tolist())
            maskable[sentence] = set(part.maskable_BL[row].nonzero().flatten().tolist())
    assert len(seen) == 60
    for sentence, visits in seen.items():
        n, counts = len(maskable[sentence]), [len(mask) for mask in visits[:7]]
        assert len(set(counts)) == 1, "K is rounded the same way in all visits of a cycle"
        assert len({position for mask in visits[:7] for position in mask}) == min(n, 7 * counts[0])


def test_mask_rate_follows_its_schedule(make_corpus: Callable[[Config], CorpusManifest], artifacts: Artifacts) -> None:
    config = small_config("method.bert.mask_rate=0.1", "method.bert.mask_rate_end=0.5", "pretrain.batch_size=60")
    manifest = make_corpus(config)
    for fixed in (False, True):
        make = maker(config, manifest, artifacts, DistContext(), fixed, "bert")
        for step, rate in ((0, 0.1), (5, 0.3), (9, 0.46)):
            (part,) = make(step).parts
            expected = rate * part.maskable_BL.sum(dim=1)
            long = expected >= 1  # in shorter sentences, one position is masked regardless of the rate
            assert ((part.counts_B - expected).abs() < 1)[long].all()
            assert part.counts_B.max() <= part.max_masks
        assert not fixed or part.max_masks == max_mask_count(manifest.block_length, 0.5)


def test_coins_of_sentences_follow_the_schedule(
    make_corpus: Callable[[Config], CorpusManifest], artifacts: Artifacts
) -> None:
    config = small_config("pretrain.batch_size=100", "pretrain.steps=30", "method.mapnet.explore_unit=sentence")
    make = maker(config, make_corpus(config), artifacts, DistContext(), False)
    shares = [make(step).explored for step in range(30)]
    thirds = [sum(shares[start : start + 10]) / 10 for start in (0, 10, 20)]
    assert thirds == pytest.approx([8 / 9, 2 / 3, 4 / 9], abs=4 * 0.5 / 1000**0.5)
    assert all(0 < share < 1 for share in shares[5:])
    assert make(3).explored == shares[3]
