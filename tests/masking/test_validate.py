"""Invalid methods are rejected with the key named, by the config's types or by `validate_method`."""

import re

import pytest
from pydantic import ValidationError

from mapnet_cli.config import PROPOSALS, FrequencyProposal, MapNetProposal, Method, TableProposal
from mapnet_cli.config.loading import resolve
from mapnet_cli.config.method import Proposal
from mapnet_cli.core.diagnostics import proposal_warnings
from mapnet_cli.core.errors import UsageError
from mapnet_cli.masking.strategies import STRATEGIES, proposed
from mapnet_cli.masking.validate import validate_method

METHODS = resolve("demo", None, (), {}).config.method


def test_shipped_methods_are_valid() -> None:
    for name, method in METHODS.items():
        validate_method(name, method)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_is_valid_with_defaults(strategy: str) -> None:
    validate_method("x", Method(strategy=strategy))


def table(**proposal: object) -> Method:
    return Method(strategy="table", proposal=TableProposal(**proposal))


def mapnet(**proposal: object) -> Method:
    return Method(strategy="mapnet", proposal=MapNetProposal(**proposal))


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (Method(strategy="unifrom"), r"method\.x\.strategy: unknown strategy 'unifrom'.*did you mean 'uniform'"),
        (table(estimator="ratio"), r"method\.x\.proposal\.estimator: unknown estimator 'ratio'.*choose one of none, "),
        (mapnet(objective="none"), r"method\.x\.proposal\.objective: unknown objective 'none'; choose one of pairwise"),
        (table(estimator="horvitz-thompson"), r"set method\.x\.proposal\.sampler"),
        (table(estimator="ordered-ratio", sampler="systematic"), "needs sequential draws"),
        (mapnet(sampler="systematic"), r"method\.x\.proposal\.estimator: 'sequence-ratio' needs sequential draws"),
        (table(ratio_clip=0.5), r"method\.x\.proposal\.ratio_clip applies only to estimators that clip"),
        (Method(strategy="disjoint", mask_rate_end=0.3), r"method\.x\.mask_rate_end: .* leave it at 0"),
        (Method(strategy="disjoint", explore_start=0.5), r"method\.x\.explore_start: .* shares its noise"),
        (
            METHODS["electra"].model_copy(update={"replace_random": 0.1, "replace_mask": 0.8}),
            r"method\.x\.replace_random: .*set it to 0",
        ),
        (Method(explore_unit="sentence"), r"method\.x\.explore_unit: there is no exploration; .* this to 'step'"),
        (table(update_every=9, signal="logit-gradient"), r"method\.x\.proposal\.update_every: .*set signal"),
        (mapnet(baseline="batch"), r"method\.x\.proposal\.baseline: .*set learn_on_uniform_steps to false"),
        (mapnet(baseline="batch", uniform_mix=0.1), r"method\.x\.proposal\.baseline: .*set uniform_mix to 0"),
        (
            mapnet(signal_at="mask").model_copy(update={"replace_mask": 0.0}),
            r"method\.x\.proposal\.signal_at: .*replace_mask is 0",
        ),
        (mapnet(propose_every=2), r"method\.x\.proposal\.propose_every \(2\) .* pretrain\.visits \(3\) must be"),
        (mapnet(propose_every=3, learn_every=4), r"method\.x\.proposal: .*learn_every \(4\) must be a multiple"),
    ],
)
def test_rejected_with_a_reason(method: Method, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        validate_method("x", method, visits=3)


@pytest.mark.parametrize("baseline", ["sentence", "batch"])
def test_advice_about_a_proposal_leads_to_valid_methods(baseline: str) -> None:
    own = [f"method.mapnet.proposal.baseline={baseline}"]
    own += ["method.mapnet.proposal.learn_on_uniform_steps=false"]
    row = {
        "step": 9, "proposal_entropy": 0.1, "kl_to_uniform": 3.0, "clip_fraction": 1.0, "effective_sample_share": 0.1,
    }  # fmt: skip
    warnings = proposal_warnings(row, "mapnet", "pairwise", baseline)
    assert warnings.keys() == {"collapse", "saturation", "few"}
    remedies = [remedy for text in warnings.values() for remedy in text.split("; ")[-1].split(", or ")]
    raised = {"explore_end": 0.5, "uniform_mix": 0.3, "ratio_clip": 0.4}
    for remedy in remedies:
        settings = [f"{key}={value}" for key, value in re.findall(r'(method\.[\w.]+) = ("[\w-]+")', remedy)]
        settings += [f"{key}={raised[key.split('.')[-1]]}" for key in re.findall(r"raise (method\.[\w.]+)", remedy)]
        assert settings, remedy
        validate_method("mapnet", resolve("demo", None, [*own, *settings], {}).config.method["mapnet"])


NO_PROPOSAL = r"^method\.x \(--set\): proposal: strategy 'STRATEGY' has no proposal"
UNKNOWN = r"^method\.x\.KEY \(--set\): unknown key"


@pytest.mark.parametrize(
    ("strategy", "setting", "message"),
    [
        ("uniform", "proposal.objective=pairwise", NO_PROPOSAL),
        ("uniform", "proposal.estimator=sequence-ratio", NO_PROPOSAL),
        ("spaced", "proposal.sampler=systematic", NO_PROPOSAL),
        ("uniform", "proposal.uniform_mix=0.3", NO_PROPOSAL),
        ("uniform", "proposal.signal=one-minus-p", NO_PROPOSAL),
        ("uniform", "proposal.loss_weight=0.5", NO_PROPOSAL),
        ("uniform", "proposal.learn_every=2", NO_PROPOSAL),
        ("pmi", "proposal.uniform_mix=0.3", NO_PROPOSAL),
        ("frequency", "proposal.signal=one-minus-p", UNKNOWN),
        ("frequency", "proposal.learn_on_uniform_steps=false", UNKNOWN),
        ("frequency", "proposal.memory=5", UNKNOWN),
        ("mapnet", "proposal.memory=5", UNKNOWN),
        ("table", "proposal.embeddings=own", UNKNOWN),
        ("table", "proposal.objective=pairwise", UNKNOWN),
        ("table", "proposal.precision=bfloat16", UNKNOWN),
        ("table", "proposal.learn_every=2", UNKNOWN),
        ("mapnet", "proposal.sampler=sys", r"^method\.x\.proposal\.sampler \(--set\): .*'gumbel' or 'systematic'"),
        ("mapnet", "proposal.kind=table", r"proposal\.kind: omit it; strategy 'mapnet' implies the kind"),
        ("mapnet", "electra.detection_weight=1.0", r"^method\.x \(--set\): electra: its masks are filled by the gen"),
        ("frequency", "electra={}", r"^method\.x \(--set\): electra: .* use a strategy without a proposal"),
    ],
)
def test_rejected_by_the_config(strategy: str, setting: str, message: str) -> None:
    key = re.escape(setting.partition("=")[0])
    with pytest.raises(UsageError, match=message.replace("STRATEGY", strategy).replace("KEY", key)):
        resolve("demo", None, [f"method.x.strategy={strategy}", f"method.x.{setting}"], {})


@pytest.mark.parametrize(
    ("strategy", "proposal"),
    [("spaced", MapNetProposal()), ("table", MapNetProposal()), ("mapnet", FrequencyProposal())],
)
def test_a_proposal_of_another_kind_is_rejected(strategy: str, proposal: Proposal) -> None:
    with pytest.raises(ValidationError, match="proposal"):
        Method(strategy=strategy, proposal=proposal)


def test_the_config_lists_the_strategies_that_draw_from_a_proposal() -> None:
    """Commands that start fast rely on the config, which can't import the strategies."""
    assert {name for name, strategy in STRATEGIES.items() if strategy.draw is proposed} == set(PROPOSALS)
    for name in STRATEGIES:
        proposal = Method(strategy=name).proposal
        assert type(proposal) is PROPOSALS.get(name, type(None))
