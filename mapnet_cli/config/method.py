"""[method.NAME]: where masks come from, and what is learned from them."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mapnet_cli.config.base import Count, Ints, NonNegative, Section, Share
from mapnet_cli.core import did_you_mean


class Proposal(Section):
    """How masks are drawn from a distribution over the positions of a sentence, and weighted for it."""

    sampler: Literal["gumbel", "systematic"] = "gumbel"
    """How positions are drawn: one after the other from the multinomial, as in the paper, or with known inclusion
    probabilities."""
    uniform_mix: Share = 0.0
    """Share of uniform masks mixed into what is drawn; bounds the weights by 1/uniform_mix."""
    estimator: str = "none"
    """Importance weight of a masked position's loss."""
    ratio_clip: Annotated[float, Field(gt=0)] = 0.2
    """epsilon of CLIP(r, 1 - eps, 1 + eps)."""


class FrequencyProposal(Proposal):
    """Strategy "frequency": fixed weights, rarer tokens are likelier."""

    kind: Literal["frequency"] = "frequency"
    """The method's strategy."""


class LearnedProposal(Proposal):
    signal: Literal["loss", "one-minus-p", "logit-gradient"] = "loss"
    """What the proposal learns of a masked position: its loss, 1 - p of the token, or ||W^T (p - y)||."""
    learn_on_uniform_steps: bool = True
    """Also learn from the losses of uniform steps."""


class TableProposal(LearnedProposal):
    """Strategy "table": the running mean of the signal by token, without a network."""

    kind: Literal["table"] = "table"
    """The method's strategy."""
    memory: Count = 1_000
    """Steps after which what was seen of a token counts 1/e."""


class MapNetProposal(LearnedProposal):
    """Strategy "mapnet": MAP-Net, a network that is trained along with the encoder."""

    kind: Literal["mapnet"] = "mapnet"
    """The method's strategy."""
    estimator: str = "sequence-ratio"
    """Importance weight of a masked position's loss."""
    objective: str = "pairwise"
    """What MAP-Net is trained on."""
    embeddings: Literal["shared", "detached", "own"] = "shared"
    """MAP-Net reads the encoder's token embeddings and trains them too, or only reads them, or has its own."""
    peak_lr: Annotated[float, Field(ge=0)] = 0.0
    """MAP-Net's own peak learning rate; 0: pretrain.peak_lr."""
    clip_norm: Annotated[float, Field(ge=0)] = 0.0
    """Largest norm of MAP-Net's gradient by itself; 0: pretrain.clip_norm holds for both together."""
    loss_weight: Annotated[float, Field(gt=0)] = 0.01
    """The paper's lambda."""
    loss_weight_on: Literal["mapnet", "encoder"] = "mapnet"
    """Which of the two losses lambda multiplies; the paper says both."""
    learn_every: Count = 1
    """Train MAP-Net only in every N-th step; in the others it proposes without learning."""
    propose_every: Count = 1
    """Run MAP-Net only on every N-th batch and reuse its proposal; pretrain.visits must be a multiple."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of steps in which MAP-Net only proposes; auto: as everything else."""


PROPOSALS: dict[str, type[Proposal]] = {
    "mapnet": MapNetProposal,
    "table": TableProposal,
    "frequency": FrequencyProposal,
}
"""The strategies that draw from a proposal, and their keys under [method.NAME.proposal]."""
AnyProposal = Annotated[MapNetProposal | TableProposal | FrequencyProposal, Field(discriminator="kind")]


class Electra(Section):
    """Replaced-token detection: a small generator fills the masks, the encoder detects what it replaced."""

    generator_fraction: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Of the encoder's hidden size, heads and feed-forward: the size of the generator."""
    detection_weight: Annotated[float, Field(gt=0)] = 50.0
    """Factor of the detection loss beside the generator's loss."""


MOVED = {
    "start": "init_from",
    "task": "electra",
    **{key: f"electra.{key}" for key in ("generator_fraction", "detection_weight")},
    "table_memory": "proposal.memory",
    **{f"proposal_{key}": f"proposal.{key}" for key in ("embeddings", "peak_lr", "clip_norm", "precision")},
    **{
        key: f"proposal.{key}"
        for key in (
            "sampler", "uniform_mix", "estimator", "ratio_clip", "signal", "learn_on_uniform_steps", "objective",
            "loss_weight", "loss_weight_on", "learn_every", "propose_every",
        )
    },
}  # fmt: skip
"""Keys of [method.NAME] in configs of version 0.1, and where they are now."""
_OLD_NAMES = {new: old for old, new in MOVED.items()}
_OLD_DEFAULTS = {
    "generator_fraction": 0.25, "detection_weight": 50.0, "sampler": "gumbel", "uniform_mix": 0.0, "estimator": "none",
    "ratio_clip": 0.2, "objective": "none", "signal": "loss", "table_memory": 1_000, "proposal_embeddings": "shared",
    "proposal_peak_lr": 0.0, "proposal_clip_norm": 0.0, "loss_weight": 0.01, "loss_weight_on": "mapnet",
    "learn_on_uniform_steps": True, "learn_every": 1, "propose_every": 1, "proposal_precision": "auto",
    "explore_start": 1.0, "explore_end": 1 / 3,
}  # fmt: skip
"""Defaults of version 0.1, which are part of fingerprints."""


class Method(Section):
    """What is compared: masking and objective. Any number of `[method.NAME]` tables."""

    seeds: Ints = ()
    """Pretraining seeds of this method; empty: pretrain.seeds."""
    steps: NonNegative = 0
    """Steps of this method, for a comparison at equal FLOPs (`mapnet pretrain --dry-run` says how many); 0:
    pretrain.steps."""
    init_from: str = ""
    """An import's name: training starts from its encoder and head in place of random weights."""
    strategy: str = "uniform"
    """Where masks come from when the step is not an exploration step."""
    mask_rate: Annotated[float, Field(gt=0, lt=1)] = 0.15
    mask_rate_end: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Mask rate at the last step, linear between; 0: mask_rate throughout."""
    replace_mask: Share = 0.8
    """Share of the chosen positions that become [MASK]."""
    replace_random: Share = 0.1
    """Share that becomes a random ordinary token; the rest stays as it is."""
    explore_start: Share | None = None
    """Probability of a uniform step at the first step; default: 1 with a proposal, else 0."""
    explore_end: Share | None = None
    """The same at the last step, linear between; default: 1/3 with a proposal, else 0."""
    proposal: AnyProposal | None = None
    """How masks are drawn, with a strategy that has a proposal."""
    electra: Electra | None = None
    """Given: the encoder learns to detect replaced tokens in place of restoring masked ones."""

    @model_validator(mode="before")
    @classmethod
    def _proposal_of_strategy(cls, data: Any) -> Any:
        """The strategy says which keys [method.NAME.proposal] has."""
        if not isinstance(data, Mapping):
            return data
        strategy, given = data.get("strategy", "uniform"), data.get("proposal")
        if not isinstance(strategy, str):
            return data
        if strategy not in PROPOSALS and given is not None:
            raise ValueError(
                f"proposal: strategy {strategy!r} draws from no proposal; the strategies {', '.join(PROPOSALS)} do"
                + did_you_mean(strategy, PROPOSALS)
            )
        if strategy in PROPOSALS and (given is None or isinstance(given, Mapping)):
            given = given or {}
            if given.get("kind", strategy) != strategy:
                raise ValueError(f"proposal.kind: leave it out; strategy {strategy!r} says which proposal it is")
            return {**data, "proposal": {"kind": strategy, **given}}
        return data

    @model_validator(mode="after")
    def _check(self) -> "Method":
        if self.replace_mask + self.replace_random > 1 + 1e-9:
            raise ValueError("replace_mask + replace_random can't exceed 1")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds: all different")
        if self.proposal is not None and self.proposal.kind != self.strategy:
            raise ValueError(f"proposal: strategy {self.strategy!r} has no proposal of kind {self.proposal.kind!r}")
        if self.proposal is not None and self.electra is not None:
            raise ValueError(
                "electra: its masks are filled by the generator, so no proposal can learn from their losses; use a "
                "strategy without a proposal"
            )
        return self

    def results_view(self) -> dict[str, Any]:
        """Returns the settings that results depend on, with the names of version 0.1, so fingerprints stay valid."""
        found = super().results_view()
        proposal, electra = found.pop("proposal") or {}, found.pop("electra") or {}
        found["start"], found["task"] = found.pop("init_from"), "replaced-token" if electra else "masked-lm"
        settings = {_OLD_NAMES.get(f"proposal.{key}", key): value for key, value in proposal.items() if key != "kind"}
        given = {key: value for key, value in (found | settings | electra).items() if value is not None}
        if self.proposal is None and any(self.exploration):  # which version 0.1 didn't have
            given["exploration"] = self.exploration
        return _OLD_DEFAULTS | given

    @property
    def drawing(self) -> Proposal:
        """How masks are drawn and weighted; the defaults without a proposal."""
        return self.proposal or Proposal()

    @property
    def learned(self) -> MapNetProposal | TableProposal | None:
        """The proposal if it learns."""
        return self.proposal if isinstance(self.proposal, LearnedProposal) else None

    @property
    def mapnet(self) -> MapNetProposal | None:
        """The proposal if it is MAP-Net."""
        return self.proposal if isinstance(self.proposal, MapNetProposal) else None

    @property
    def objective(self) -> str:
        """What MAP-Net is trained on, "" without MAP-Net."""
        return self.mapnet.objective if self.mapnet else ""

    @property
    def propose_every(self) -> int:
        """Steps that share a proposal."""
        return self.mapnet.propose_every if self.mapnet else 1

    @property
    def exploration(self) -> tuple[float, float]:
        """Probability of a uniform step at the first and the last step."""
        first, last = (1.0, 1 / 3) if self.proposal else (0.0, 0.0)
        return (
            first if self.explore_start is None else self.explore_start,
            last if self.explore_end is None else self.explore_end,
        )

    @property
    def highest_rate(self) -> float:
        return max(self.mask_rate, self.mask_rate_end)

    def rate_at(self, step: int, steps: int) -> float:
        """Returns the mask rate of step number `step` of `steps`."""
        end = self.mask_rate_end or self.mask_rate
        return self.mask_rate + (end - self.mask_rate) * step / steps
