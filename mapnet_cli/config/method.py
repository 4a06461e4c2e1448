"""[method.NAME]: masking and training objective."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from mapnet_cli.config.base import Count, Ints, NonNegative, Positive, PositiveShare, Section, Share, ZeroOrMore, added
from mapnet_cli.core import did_you_mean


class Proposal(Section):
    """How masks are drawn from a distribution over a sentence's positions, and how their losses are weighted."""

    sampler: Literal["gumbel", "systematic"] = "gumbel"
    """How positions are drawn from the proposal. gumbel: one after another from the multinomial, as in the paper;
    systematic: systematic sampling, with known inclusion probabilities."""
    uniform_mix: Share = 0.0
    """Fraction of uniform masking mixed into the proposal, which bounds importance weights by 1/uniform_mix."""
    estimator: str = "none"
    """How the importance weight of a masked position's loss is computed; none: weight 1."""
    ratio_clip: Positive = 0.2
    """Importance weights are clipped to [1 - ratio_clip, 1 + ratio_clip]; only for estimators that clip."""


class FrequencyProposal(Proposal):
    """Strategy "frequency": fixed weights; rarer tokens are masked more often."""

    kind: Literal["frequency"] = "frequency"
    """The method's strategy."""


class LearnedProposal(Proposal):
    signal: Literal["loss", "error", "one-minus-p", "logit-gradient"] = "loss"
    """Quantity that the proposal learns per masked position: loss, 1 if the prediction is wrong, else 0 (error),
    1 - p(token), or gradient norm ||W^T (p - y)||."""
    signal_at: Literal["all", "mask"] = added("all")
    """Masked positions that it learns from: all, or only those that [MASK] replaces."""
    learn_on_uniform_steps: bool = True
    """Also train the proposal on exploration steps or sentences, whose masks are uniform."""


class TableProposal(LearnedProposal):
    """Strategy "table": a running mean of the signal per token, without a network."""

    kind: Literal["table"] = "table"
    """The method's strategy."""
    memory: Count = 1_000
    """Time constant of the running mean: the weight of an observation falls to 1/e after this many steps."""
    update_every: NonNegative = added(0)
    """Instead of the running mean, AMLM's rule: every N steps, a token's weight becomes a fifth of its old weight plus
    four fifths of its mean signal since the last update. 0: the running mean."""

    def results_view(self) -> dict[str, Any]:
        """Returns the keys that affect results; `memory` has its default where there is no running mean."""
        unused = {"memory": type(self).model_fields["memory"].default} if self.update_every else {}
        return super(TableProposal, self.model_copy(update=unused)).results_view()


class MapNetProposal(LearnedProposal):
    """Strategy "mapnet": MAP-Net, a network trained together with the encoder."""

    kind: Literal["mapnet"] = "mapnet"
    """The method's strategy."""
    estimator: str = "sequence-ratio"
    """How the importance weight of a masked position's loss is computed; none: weight 1."""
    objective: str = "pairwise"
    """Training objective of MAP-Net. pairwise: Eq. 10; loss-matching: match the distribution of the signal."""
    baseline: Literal["sentence", "batch"] = added("sentence")
    """What objective "pairwise" subtracts from a position's signal: its mean over the sentence's masks, as in Eq. 10,
    or over those of the batch's other sentences, which doesn't change the expected gradient of the draws."""
    entropy_bonus: ZeroOrMore = added(0.0)
    """Factor of the proposal's entropy in nats per sentence, which is subtracted from MAP-Net's objective."""
    embeddings: Literal["shared", "detached", "own"] = "shared"
    """Token embeddings of MAP-Net. shared: the encoder's, trained by both; detached: the encoder's, read-only."""
    peak_lr: ZeroOrMore = 0.0
    """Peak learning rate of MAP-Net; 0: pretrain.peak_lr."""
    clip_norm: ZeroOrMore = 0.0
    """Maximum norm of MAP-Net's gradient; 0: pretrain.clip_norm limits the joint norm with the encoder's."""
    loss_weight: Positive = 0.01
    """The paper's lambda, which multiplies the loss named by loss_weight_on."""
    loss_weight_on: Literal["mapnet", "encoder"] = "mapnet"
    """The loss that loss_weight multiplies: MAP-Net's, as in the paper's text, or the encoder's, as in its formula."""
    learn_every: Count = 1
    """Train MAP-Net only in every N-th step; in the other steps it only proposes masks."""
    propose_every: Count = 1
    """Run MAP-Net only in every N-th step and reuse its proposal in between; pretrain.visits must be a multiple."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of MAP-Net in steps where it only proposes masks; auto: pretrain.precision."""


PROPOSALS: dict[str, type[Proposal]] = {
    "mapnet": MapNetProposal,
    "table": TableProposal,
    "frequency": FrequencyProposal,
}
"""Strategies that draw from a proposal, with their [method.NAME.proposal] sections."""
AnyProposal = Annotated[MapNetProposal | TableProposal | FrequencyProposal, Field(discriminator="kind")]


class Electra(Section):
    """Replaced-token detection: a small generator fills the masks, the encoder detects replaced tokens."""

    generator_fraction: PositiveShare = 0.25
    """Size of the generator, as a fraction of the encoder's hidden size, heads and feed-forward size."""
    detection_weight: Positive = 50.0
    """Weight of the detection loss relative to the generator's loss."""


class Method(Section):
    """A method to compare: masking and training objective. Each `[method.NAME]` table defines one."""

    seeds: Ints = ()
    """Pretraining seeds of this method; empty: pretrain.seeds."""
    steps: NonNegative = 0
    """Pretraining steps of this method, to compare at equal FLOPs (`mapnet pretrain --dry-run` prints the number);
    0: pretrain.steps."""
    batch_factor: Count = added(1)
    """Sequences per step of this method, as a multiple of pretrain.batch_size; the number of steps stays the same."""
    peak_lr: ZeroOrMore = added(0.0)
    """Peak learning rate of this method; 0: pretrain.peak_lr."""
    init_from: str = ""
    """Name of an import whose encoder and head pretraining starts from; empty: random weights."""
    strategy: str = "uniform"
    """How positions to mask are chosen, except in exploration steps, which mask uniformly."""
    mask_rate: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Fraction of positions to mask."""
    mask_rate_end: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Mask rate at the last step, with linear interpolation from mask_rate; 0: constant mask_rate."""
    replace_mask: Share = 0.8
    """Fraction of masked positions whose token is replaced by [MASK]."""
    replace_random: Share = 0.1
    """Fraction of masked positions whose token is replaced by a random one; the rest keep their token."""
    explore_start: Share | None = None
    """Probability of an exploration step (uniform masks) at the first step; default: 1 with a proposal, else 0."""
    explore_end: Share | None = None
    """The same at the last step, with linear interpolation; default: 1/3 with a proposal, else 0."""
    explore_unit: Literal["step", "sentence"] = added("step")
    """Whether one coin decides about exploration for the whole step, or one per sentence."""
    proposal: AnyProposal | None = None
    """How masks are drawn, for strategies with a proposal."""
    electra: Annotated[Electra | None, BeforeValidator(lambda value: None if value is False else value)] = None
    """If set, the encoder learns to detect replaced tokens instead of predicting masked ones. false turns it off in a
    shipped method."""

    @model_validator(mode="before")
    @classmethod
    def _proposal_of_strategy(cls, data: Any) -> Any:
        """Sets the proposal's kind, which is implied by the strategy."""
        if not isinstance(data, Mapping):
            return data
        strategy, given = data.get("strategy", "uniform"), data.get("proposal")
        if not isinstance(strategy, str):
            return data
        if strategy not in PROPOSALS and given is not None:
            raise ValueError(
                f"proposal: strategy {strategy!r} has no proposal; the strategies {', '.join(PROPOSALS)} have one"
                + did_you_mean(strategy, PROPOSALS)
            )
        if strategy in PROPOSALS and (given is None or isinstance(given, Mapping)):
            given = given or {}
            if given.get("kind", strategy) != strategy:
                raise ValueError(f"proposal.kind: omit it; strategy {strategy!r} implies the kind")
            return {**data, "proposal": {"kind": strategy, **given}}
        return data

    @model_validator(mode="after")
    def _check(self) -> "Method":
        if self.replace_mask + self.replace_random > 1 + 1e-9:
            raise ValueError("replace_mask + replace_random can't exceed 1")
        if self.proposal is not None and self.proposal.kind != self.strategy:
            raise ValueError(f"proposal: strategy {self.strategy!r} has no proposal of kind {self.proposal.kind!r}")
        if self.proposal is not None and self.electra is not None:
            raise ValueError(
                "electra: its masks are filled by the generator, so no proposal can learn from their losses; use a "
                "strategy without a proposal"
            )
        return self

    def results_view(self) -> dict[str, Any]:
        """Returns the keys that affect results, with the defaults of exploration that the strategy implies."""
        start, end = self.exploration
        return super().results_view() | {"explore_start": start, "explore_end": end}

    @property
    def drawing(self) -> Proposal:
        """Settings for drawing and weighting masks; the defaults if there is no proposal."""
        return self.proposal or Proposal()

    @property
    def learned(self) -> MapNetProposal | TableProposal | None:
        """The proposal if it is learned, else None."""
        return self.proposal if isinstance(self.proposal, LearnedProposal) else None

    @property
    def mapnet(self) -> MapNetProposal | None:
        """The proposal if it is MAP-Net, else None."""
        return self.proposal if isinstance(self.proposal, MapNetProposal) else None

    @property
    def learning(self) -> tuple[str, str]:
        """MAP-Net's training objective and baseline, "" and "sentence" without MAP-Net."""
        return (self.mapnet.objective, self.mapnet.baseline) if self.mapnet else ("", "sentence")

    @property
    def propose_every(self) -> int:
        """Number of consecutive steps that share a proposal."""
        return self.mapnet.propose_every if self.mapnet else 1

    @property
    def exploration(self) -> tuple[float, float]:
        """Probability of an exploration step at the first and the last step."""
        first, last = (1.0, 1 / 3) if self.proposal else (0.0, 0.0)
        start, end = self.explore_start, self.explore_end
        return first if start is None else start, last if end is None else end

    def explore_at(self, step: float, steps: int) -> float:
        """Returns the exploration probability after `step` of `steps` steps, linear from its start to its end."""
        start, end = self.exploration
        return start + (end - start) * step / steps

    @property
    def highest_rate(self) -> float:
        return max(self.mask_rate, self.mask_rate_end)

    def rate_at(self, step: int, steps: int) -> float:
        """Returns the mask rate at step `step` of `steps`."""
        end = self.mask_rate_end or self.mask_rate
        return self.mask_rate + (end - self.mask_rate) * step / steps
