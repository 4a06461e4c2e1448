"""Lookup of checkpoints by method, seed and step."""

from pathlib import Path

import pytest

from mapnet_cli.core.errors import UsageError
from mapnet_cli.lineage.milestones import find_milestone, find_row
from mapnet_cli.variance.candidates import find_candidates
from tests.report.report_fixtures import Records, config


@pytest.fixture
def records(tmp_path: Path) -> Records:
    """bert with seeds 1 and 2, mapnet with seed 1; steps 4 and 10, of which 4 is fine-tuned."""
    records = Records(tmp_path, config(own_seeds={"bert": (1, 2)}, milestones=(0.4,)))
    for method, seed in (("bert", 1), ("bert", 2), ("mapnet", 1)):
        for step in (4, 10):
            records.checkpoint(method, seed, step)
    return records


@pytest.mark.parametrize(
    ("method", "seed", "step", "expected"),
    [
        ("bert", None, None, ("bert", 1, 10)),
        ("bert", 2, None, ("bert", 2, 10)),
        ("bert", 2, 4, ("bert", 2, 4)),
        ("mapnet", None, None, ("mapnet", 1, 10)),
    ],
)
def test_defaults_are_the_first_seed_and_the_last_step(
    records: Records, method: str, seed: int | None, step: int | None, expected: tuple[str, int, int]
) -> None:
    row = find_milestone(records.lineage, method, seed, step)
    assert (row.method, row.pretrain_seed, row.step) == expected


def test_errors_list_the_valid_choices(records: Records) -> None:
    with pytest.raises(UsageError, match=r"choose a method with --method; .* bert, mapnet"):
        find_milestone(records.lineage, None, None, None)
    with pytest.raises(UsageError, match=r"2 is not one of mapnet's pretraining seeds \(1\)"):
        find_milestone(records.lineage, "mapnet", 2, None)
    with pytest.raises(UsageError, match="5 is not a finished milestone; choose one of 4, 10"):
        find_milestone(records.lineage, "bert", 1, 5)


def test_predictions_use_the_last_fine_tuned_checkpoint(records: Records) -> None:
    assert find_row(records.lineage, "bert", 2, None) == ("bert", 2, 4)
    with pytest.raises(UsageError, match=r"10 is not a finished milestone in finetune\.milestones; choose one of 4"):
        find_row(records.lineage, "bert", 2, 10)


@pytest.mark.parametrize("seed", [1, 2])
def test_proposal_has_the_same_seed_if_available(records: Records, seed: int) -> None:
    measured = find_milestone(records.lineage, "bert", seed, None)
    [_, plan] = find_candidates(records.lineage, measured, ["mapnet"])
    assert plan.source is not None
    assert plan.source.pretrain_seed == 1
