"""Kernel launches and memory traffic of a step on a GPU don't grow unnoticed. Counted without one."""

import pytest

from tests.benchmarks import launches


@pytest.mark.parametrize(
    ("method", "most_launches", "most_gigabytes"), [("bert", 950, 80), ("mapnet", 1_830, 121)]
)  # fmt: skip
def test_pretraining_step(method: str, most_launches: int, most_gigabytes: float) -> None:
    """BERT-base, 128 x 512. Before attention and the loss had kernels of their own: 907 and 185 GB, 1,770 and 274."""
    counted = launches.pretraining_step(method)
    assert 0.8 * most_launches < counted.launches.total() <= most_launches
    assert 0.8 * most_gigabytes < counted.bytes.total() / 1e9 <= most_gigabytes
    assert counted.launches["stack"] <= 2, "gradients of q, k and v are not stacked"


def test_fine_tuning_step() -> None:
    """BERT-base, 16 x 64 with padding: before, 931 launches and 6.1 GB."""
    counted = launches.fine_tuning_step()
    assert 450 < counted.launches.total() <= 590
    assert 3 < counted.bytes.total() / 1e9 <= 4.3
    assert counted.launches["_to_copy"] < 10, "the weights are cast together"
    assert counted.launches["masked_fill"] == 1, "one bias for all layers"


def test_micro_batches_share_the_copies_of_the_weights() -> None:
    """Autocast would cast every weight again in the second forward pass."""
    once, twice = (launches.pretraining_step("bert", 2, 16, passes).launches["_to_copy"] for passes in (1, 2))
    forward_casts = 6 * 12  # weights and biases of the linear layers except queries, keys and values
    assert twice <= 2 * once - forward_casts
