"""`build_model` returns the right model for each method."""

import pytest

from mapnet_cli.model import build_model
from mapnet_cli.model.electra import Electra
from mapnet_cli.model.proposal import MapNet, TokenTable
from tests.conftest import small_config


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("bert", type(None)), ("spaced", type(None)), ("mapnet", MapNet), ("adaptive-mapnet", MapNet),
        ("adaptive", TokenTable), ("frequency", TokenTable), ("electra", type(None)),
    ],
)  # fmt: skip
def test_the_proposal_matches_the_strategy(method: str, kind: type) -> None:
    model = build_model(small_config(), method, 100)
    assert type(model.proposal) is kind
    assert isinstance(model, Electra) is (method == "electra")
