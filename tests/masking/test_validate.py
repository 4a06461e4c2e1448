"""Methods that make no sense are refused, with the key named."""

import pytest

from mapnet_cli.config import Method
from mapnet_cli.config.loading import resolve
from mapnet_cli.config.training import PROPOSING
from mapnet_cli.core.errors import UsageError
from mapnet_cli.masking.strategies import STRATEGIES
from mapnet_cli.masking.validate import validate_method

METHODS = resolve("demo", None, (), {}).config.method
MAPNET, ELECTRA = METHODS["mapnet"], METHODS["electra"]


def test_shipped_methods_are_fine() -> None:
    for name, method in resolve("demo", None, (), {}).config.method.items():
        validate_method(name, method)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (Method(strategy="unifrom"), r"method\.x\.strategy: there is no 'unifrom'.*did you mean 'uniform'"),
        (Method(estimator="ratio"), r"method\.x\.estimator"),
        (Method(strategy="mapnet"), "set method.x.objective"),
        (Method(objective="pairwise"), "never draws from it"),
        (Method(estimator="sequence-ratio"), "set method.x.estimator to 'none'"),
        (Method(strategy="table", estimator="horvitz-thompson"), "set method.x.sampler"),
        (Method(strategy="table", estimator="ordered-ratio", sampler="systematic"), "draws that follow one another"),
        (Method(strategy="spaced", sampler="systematic"), r"method\.x\.sampler needs a proposal"),
        (Method(uniform_mix=0.3), r"method\.x\.uniform_mix needs a proposal"),
        (Method(signal="one-minus-p"), r"method\.x\.signal is what a proposal learns"),
        (Method(strategy="frequency", signal="one-minus-p"), r"'frequency' learns none"),
        (MAPNET.model_copy(update={"table_memory": 5}), r"method\.x\.table_memory is for strategy 'table'"),
        (Method(strategy="table", proposal_embeddings="own"), r"method\.x\.proposal_embeddings is about MAP-Net"),
        (Method(strategy="table", objective="pairwise"), "never draws from it"),
        (Method(strategy="spaced", explore_end=0.5), r"method\.x\.explore_end needs a proposal"),
        (Method(strategy="frequency", learn_on_uniform_steps=False), r"learn_on_uniform_steps is for what learns"),
        (Method(loss_weight=0.5), r"method\.x\.loss_weight is about MAP-Net"),
        (Method(strategy="table", proposal_precision="bfloat16"), r"method\.x\.proposal_precision is about MAP-Net"),
        (Method(strategy="table", ratio_clip=0.5), r"method\.x\.ratio_clip is for estimators that clip"),
        (Method(strategy="disjoint", mask_rate_end=0.3), r"method\.x\.mask_rate_end: .* leave it at 0"),
        (Method(learn_every=2), r"method\.x\.learn_every is about MAP-Net"),
        (Method(detection_weight=1.0), r"method\.x\.detection_weight is about ELECTRA's generator"),
        (Method(generator_fraction=0.5), r"set method\.x\.task"),
        (MAPNET.model_copy(update={"task": "replaced-token"}), "set method.x.strategy to 'uniform'"),
        (ELECTRA.model_copy(update={"replace_random": 0.1, "replace_mask": 0.8}), r"replace_random.*set it to 0"),
        (MAPNET.model_copy(update={"propose_every": 2}), r"pretrain\.visits \(3\) must be a multiple"),
        (MAPNET.model_copy(update={"propose_every": 3, "learn_every": 4}), r"learn_every \(4\) must be a multiple"),
    ],
)
def test_refused_with_a_reason(method: Method, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        validate_method("x", method, visits=3)


def test_the_config_knows_what_draws_from_a_proposal() -> None:
    """Light commands ask the config, which can't import the strategies."""
    assert {name for name, strategy in STRATEGIES.items() if strategy.needs_proposal} == set(PROPOSING)
