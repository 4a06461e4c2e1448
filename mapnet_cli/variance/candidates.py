"""Which strategies are measured: the config's methods, bare strategies, oracles, and where their proposals are from.

Shapes: L positions of one sentence.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mapnet_cli.config import Config, Method
from mapnet_cli.core.artifacts import Artifacts, Marker
from mapnet_cli.core.errors import UsageError
from mapnet_cli.core.records import Checkpoint, CorpusManifest
from mapnet_cli.lineage.graph import Lineage
from mapnet_cli.lineage.milestones import find_milestone
from mapnet_cli.masking import sampling
from mapnet_cli.masking.strategies import STRATEGIES
from mapnet_cli.masking.validate import validate_method
from mapnet_cli.model.factory import build_model, fix_frequencies
from mapnet_cli.model.masked_lm import PretrainingModel
from mapnet_cli.text.shards import Sequences
from mapnet_cli.training.checkpoint import load_checkpoint

REFERENCE = "uniform"
ORACLES = {"oracle-loss": "loss", "oracle-gradient": "gradient norm"}
ORACLE_MIX = 0.1
"""Share of uniform masks in what is drawn from an oracle: a bound on the weights."""


@dataclass(frozen=True)
class Plan:
    """A strategy before its proposal is loaded."""

    name: str
    method: Method
    source: Marker | None = None
    """The milestone that its proposal is from."""

    @property
    def oracle(self) -> str:
        return ORACLES.get(self.name, "")

    @property
    def proposal(self) -> str:
        """Where the proposal is from, in words; empty where there is none."""
        if self.oracle:
            mean = "mean" if self.oracle == "loss" else "root mean square"
            return f"{mean} {self.oracle} of each position under separate masks"
        if self.source is not None:
            row = Checkpoint(**self.source.result)
            return f"{row.method}, seed {row.pretrain_seed}, step {row.step:,}"
        return "token counts of the corpus" if STRATEGIES[self.method.strategy].needs_proposal else ""


def plan_subjects(lineage: Lineage, measured: Marker, names: Sequence[str]) -> list[Plan]:
    """Returns what the names stand for, uniform masks first, each once.

    `measured` is the milestone whose gradients are taken; everything but the config's methods has its
    mask rate and corruption. Raises UsageError for an unknown name, and for a method whose proposal
    isn't trained yet.
    """
    config, row = lineage.config, Checkpoint(**measured.result)
    check_task(config, row.method, "--checkpoint")
    own, steps = config.method[row.method], config.of(row.method).pretrain.steps
    plain = Method(
        mask_rate=own.rate_at(row.step, steps),
        replace_mask=own.replace_mask,
        replace_random=own.replace_random,
        ratio_clip=own.ratio_clip,
    )
    bare = {name for name, strategy in STRATEGIES.items() if strategy.proposal in ("", "frequency")}
    for name in {REFERENCE, *ORACLES} & set(names) & set(config.methods):
        raise UsageError(f"--strategies: {name!r} is one of the config's methods, but also a name of its own here")
    plans = [Plan(REFERENCE, plain)]
    for name in dict.fromkeys(names):
        if name == REFERENCE:
            continue
        if name in config.methods:
            check_task(config, name, "--strategies")
            validate_method(name, config.method[name], config.pretrain.visits)
            method = config.method[name]
            rate = method.rate_at(row.step, steps)
            method = method.model_copy(update={"mask_rate": rate, "mask_rate_end": 0.0})
            source = None
            if STRATEGIES[method.strategy].proposal in ("network", "table"):
                seed = row.pretrain_seed if row.pretrain_seed in config.seeds_of(name) else None
                source = measured if name == row.method else find_milestone(lineage, name, seed, None, "--strategies")
            plans.append(Plan(name, method, source))
        elif name in ORACLES:
            how = {"sampler": "systematic", "uniform_mix": ORACLE_MIX, "estimator": "horvitz-thompson"}
            plans.append(Plan(name, plain.model_copy(update={"strategy": "mapnet", **how})))
        elif name in bare:
            plans.append(Plan(name, plain.model_copy(update={"strategy": name})))
        else:
            raise UsageError(_unknown(name, [*config.methods, *sorted(bare), *ORACLES]))
    return plans


def check_task(config: Config, name: str, option: str) -> None:
    """Raises UsageError for ELECTRA, whose encoder isn't trained on the losses at masks."""
    if config.method[name].task != "masked-lm":
        raise UsageError(f"{option}: {name} isn't trained on masked tokens' losses, so its masks have no such gradient")


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"--strategies: there is no {name!r} to measure; choose from {', '.join(dict.fromkeys(known))}{hint}"


def load_model(
    config: Config, artifacts: Artifacts, marker: Marker, vocab_size: int, device: torch.device
) -> PretrainingModel:
    """Returns the milestone's model with its proposal, ready to measure; raises DamagedError."""
    row = Checkpoint(**marker.result)
    artifacts.verify(marker)
    model = build_model(config, row.method, vocab_size)
    assert isinstance(model, PretrainingModel), "check_task has refused others"
    model.load_state_dict(load_checkpoint(artifacts.path(row.path))[0])
    return model.eval().to(device)


@torch.no_grad()
def proposals(
    plan: Plan,
    config: Config,
    artifacts: Artifacts,
    manifest: CorpusManifest,
    sentences: Sequence[Tensor],
    device: torch.device,
) -> tuple[Tensor, ...]:
    """Returns log q [L] of each sentence, on the CPU; nothing where there is no proposal."""
    if plan.source is not None:
        model = load_model(config, artifacts, plan.source, manifest.vocab_size, device)
    elif STRATEGIES[plan.method.strategy].proposal == "frequency":
        model = PretrainingModel(config.encoder, manifest.vocab_size, "table").to(device)
        train = Sequences([artifacts.path(name) for name in manifest.train])
        fix_frequencies(model, train)
    else:
        return ()
    rows = [sentence[None].to(device) for sentence in sentences]
    return tuple(model.propose(row, None, sampling.maskable_positions(row))[0].float().cpu() for row in rows)
