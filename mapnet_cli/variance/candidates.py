"""Candidates to measure (methods from the config, bare strategies and oracles) and the masks that they draw.

Shapes: M masks of one sentence (groups of J successive visits), L positions, K masked positions (at
most), V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mapnet_cli import masking
from mapnet_cli.config import Config, FrequencyProposal, Method
from mapnet_cli.core import Artifacts, Checkpoint, UsageError, derive_seed, did_you_mean
from mapnet_cli.lineage import Lineage, find_milestone
from mapnet_cli.model import PretrainingModel, build_model, masked_log_softmax
from mapnet_cli.training import load_checkpoint

SEED = 0
REFERENCE = "uniform"
ORACLES = {"oracle-loss": "loss", "oracle-gradient": "gradient norm"}
ORACLE_MIX = 0.1  # share of uniform masks in the draws from an oracle, which bounds the weights


@dataclass(frozen=True)
class Candidate:
    """A way to draw masks and weight losses, given by a method's settings."""

    name: str
    method: Method
    source: Checkpoint | None = None  # the milestone that provides its proposal
    log_q: tuple[Tensor, ...] = ()
    """Log of the proposal [L] for each sentence, on the CPU; empty without a proposal, and until that is loaded."""

    @property
    def oracle(self) -> str:
        return ORACLES.get(self.name, "")

    @property
    def proposal(self) -> str:
        """Description of the proposal's source; empty without a proposal."""
        if self.oracle:
            mean = "mean" if self.oracle == "loss" else "root mean square"
            return f"{mean} {self.oracle} of each position under separate masks"
        if self.source is not None:
            row = self.source
            return f"{row.method}, seed {row.pretrain_seed}, step {row.step:,}"
        return "token counts of the corpus" if self.method.proposal else ""


def find_candidates(lineage: Lineage, measured: Checkpoint, names: Sequence[str]) -> list[Candidate]:
    """Returns one candidate per distinct name, uniform masks first, without their proposals.

    `measured` is the milestone whose gradients are computed. Candidates other than the config's methods
    use its mask rate and corruption. Raises UsageError for an unknown name, or for a method whose
    proposal has not been trained yet.
    """
    config, row = lineage.config, measured
    check_task(config, row.method, "--checkpoint")
    own, steps = config.method[row.method], config.for_method(row.method).pretrain.steps
    clip, rate = own.drawing.ratio_clip, own.rate_at(row.step, steps)
    plain = Method(mask_rate=rate, replace_mask=own.replace_mask, replace_random=own.replace_random)
    bare = masking.STRATEGIES.keys() - {"mapnet", "table"}
    for name in {REFERENCE, *ORACLES} & set(names) & set(config.methods):
        raise UsageError(f"--strategies: {name!r} is reserved here, but the config also has a method of that name")
    found = [Candidate(REFERENCE, plain)]
    for name in dict.fromkeys(name for name in names if name != REFERENCE):
        if name in config.methods:
            check_task(config, name, "--strategies")
            method = config.method[name]
            masking.validate_method(name, method, config.pretrain.visits)
            source = None
            if method.learned:
                seed = row.pretrain_seed if row.pretrain_seed in config.seeds_of(name) else None
                source = measured if name == row.method else find_milestone(lineage, name, seed, None, "--strategies")
            constant = {"mask_rate": method.rate_at(row.step, steps), "mask_rate_end": 0.0}
            found.append(Candidate(name, method.model_copy(update=constant), source))
        elif name in ORACLES:
            oracle = FrequencyProposal(
                sampler="systematic", uniform_mix=ORACLE_MIX, estimator="horvitz-thompson", ratio_clip=clip
            )
            found.append(Candidate(name, plain.model_copy(update={"strategy": "mapnet", "proposal": oracle})))
        elif name in bare:
            proposal = FrequencyProposal(ratio_clip=clip) if name == "frequency" else None
            found.append(Candidate(name, plain.model_copy(update={"strategy": name, "proposal": proposal})))
        elif name in config.method:
            raise UsageError(f"--strategies: method {name!r} is not trained with this config; add it to `methods`")
        else:
            known = list(dict.fromkeys([*config.methods, *sorted(bare), *ORACLES]))
            hint = did_you_mean(name, known)
            raise UsageError(f"--strategies: unknown strategy {name!r}; choose from {', '.join(known)}{hint}")
    return found


def check_task(config: Config, name: str, option: str) -> None:
    """Raises UsageError for ELECTRA, whose encoder isn't trained on the losses at masked positions."""
    if config.method[name].electra:
        raise UsageError(f"{option}: {name} uses ELECTRA, whose encoder isn't trained on masked tokens' losses")


def load_model(
    config: Config, artifacts: Artifacts, row: Checkpoint, vocab_size: int, device: torch.device
) -> PretrainingModel:
    """Returns the milestone's model, with its proposal, in eval mode on `device`. Raises DamagedError."""
    artifacts.verify(row.path)
    model = build_model(config, row.method, vocab_size)
    assert isinstance(model, PretrainingModel), "check_task refuses other models"
    model.load_state_dict(load_checkpoint(artifacts.path(row.path))[0])
    return model.eval().to(device)


@torch.no_grad()
def proposals(
    candidate: Candidate, config: Config, corpus: masking.CorpusFacts, context: masking.MaskContext,
    sentences: Sequence[Tensor], device: torch.device,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Returns log q [L] of each sentence, on the CPU; an empty tuple without a proposal."""
    rows = [(sentence[None], masking.maskable_positions(sentence[None])) for sentence in sentences]
    if candidate.source is not None:
        model = load_model(config, corpus.artifacts, candidate.source, corpus.vocab_size, device)
        return tuple(
            model.propose(row.to(device), None, maskable.to(device))[0].float().cpu() for row, maskable in rows
        )
    if context.log_weight_V is None:
        return ()
    weight_V = context.log_weight_V.float()
    return tuple(masked_log_softmax(weight_V[row], maskable)[0] for row, maskable in rows)


@dataclass(frozen=True)
class SentenceMasks:
    """Masked copies of one sentence. `weight_MK` is 0 beyond each mask's own K."""

    corrupted_ML: Tensor
    positions_MK: Tensor
    targets_MK: Tensor
    weight_MK: Tensor
    log_ratio_M: Tensor  # log of the paper's sequence ratio, before clipping; 0 without a proposal


def mean_count(sentences: Sequence[Tensor], rate: float) -> float:
    """Returns the mean number of masked positions per sentence; losses divided by it are weighted as in a batch."""
    counts = [max(1.0, rate * float(masking.maskable_positions(tokens_L).sum())) for tokens_L in sentences]
    return sum(counts) / len(counts)


def sentence_masks(
    candidate: Candidate, number: int, tokens_L: Tensor, masks: int, visits: int, vocab_size: int,
    mean_count: float = 1.0, context: masking.MaskContext = masking.NO_CONTEXT, stream: str = "variance",
) -> SentenceMasks:  # fmt: skip
    """Returns `masks` masks of sentence `number`. The same arguments give the same masks.

    Weights are importance weights divided by `mean_count`. All candidates use the same noise. Masks come
    in groups of `visits`; `successive` strategies restart with each group.
    """
    method, log_q_ML, visit_M = candidate.method, None, None
    tokens_ML = tokens_L.expand(masks, -1)
    generator = torch.Generator().manual_seed(derive_seed(SEED, stream, number))
    noise = masking.MaskNoise.draw(generator, masks, len(tokens_L))
    if masking.STRATEGIES[method.strategy].successive:
        visit_M = torch.arange(masks) % visits % masking.visits_in_turn(method.mask_rate)
        first_M = torch.arange(masks) - visit_M
        noise = replace(noise, rounding_B=noise.rounding_B[first_M], order_BL=noise.order_BL[first_M])
    if candidate.log_q:
        log_q_ML = candidate.log_q[number].expand(masks, -1)
    drawn_masks = masking.draw_masks(method, tokens_ML, noise, context, log_q_ML, visit_M)
    positions_MK, valid_MK = drawn_masks.positions_BK, drawn_masks.valid_BK
    drawn = masking.Drawn.of(drawn_masks, masking.maskable_positions(tokens_ML).sum(dim=1))
    weight_MK = masking.ESTIMATORS[method.drawing.estimator](drawn, method.drawing.ratio_clip).weight_BK
    return SentenceMasks(
        masking.corrupt(tokens_ML, drawn_masks, noise, vocab_size, method.replace_mask, method.replace_random),
        positions_MK,
        tokens_ML.gather(1, positions_MK),
        torch.where(valid_MK, weight_MK / mean_count, 0.0),
        masking.log_sequence_ratio(drawn),
    )
