"""State of one pretraining run: settings, model and progress, and the checkpoints written from it."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mapnet_cli import core, training
from mapnet_cli.config import Config, Method
from mapnet_cli.jobs import DistContext, library_versions
from mapnet_cli.masking import CorpusFacts, MaskContext
from mapnet_cli.model import AnyPretrainingModel
from mapnet_cli.pretrain.segments import Segment, needed_for, place_of, segments

FACTS = ("step", "before", "tokens", "flops", "seconds", "unlogged", "window")
"""What a checkpoint has of the state besides tensors."""
Write = Callable[[], None]
"""Writes a snapshot taken when the function was created, so training may continue in the meantime."""


@dataclass
class TrainState:
    """State of one run. The same in every process, except for `dist` and `device`."""

    config: Config  # the method's own config, see `Config.for_method`
    method_name: str
    seed: int
    artifact: core.ArtifactId
    corpus: CorpusFacts
    context: MaskContext
    dist: DistContext
    device: torch.device
    model: AnyPretrainingModel
    optimizer: torch.optim.AdamW
    step: int = 0
    before: int = 0
    """Number of steps made in earlier branches. They don't count in the next three."""
    tokens: int = 0
    flops: float = 0.0
    seconds: float = 0.0
    milestones: dict[int, core.ArtifactId] = field(default_factory=dict)  # by step
    unlogged: dict[str, float] = field(default_factory=dict)
    """Totals of the steps since the last log line, if the run was stopped there."""
    window: dict[str, float] = field(default_factory=dict)
    """Totals up to the last log line of the steps that a milestone's health is measured on."""

    @property
    def artifacts(self) -> core.Artifacts:
        return self.corpus.artifacts

    @property
    def method(self) -> Method:
        return self.config.method[self.method_name]

    @property
    def folder(self) -> Path:
        return self.artifacts.path(self.artifact.key)

    @property
    def place(self) -> int:
        """Number of steps made so far, including those in branches; names resume checkpoints."""
        return self.before + self.step

    @property
    def rolling(self) -> Path:
        return self.folder / "resume"


def milestone(
    state: TrainState, validation: dict[str, float], masks: core.ProposedMasks, diagnostics: dict[str, float]
) -> Write:
    """Returns a function that writes a milestone: weights, sentences of Figure 2, and a marker for finetune-glue."""
    processes = f", {state.dist.size} processes" if state.dist.size > 1 else ""
    artifact = state.milestones[state.step]
    row = core.Checkpoint(
        method=state.method_name, pretrain_seed=state.seed, step=state.step,
        path=artifact.key, fingerprint="", tokens=state.tokens, flops=state.flops,
        seconds=round(state.seconds, 3), device=training.device_name(state.device) + processes,
        validation_loss=validation.get("validation_loss"), validation=validation, health=diagnostics,
    )  # fmt: skip
    tensors = training.snapshot(state.model.state_dict())
    facts = {"step": row.step, "method": row.method, "vocab_size": state.corpus.manifest.vocab_size}

    def write() -> None:
        folder = state.artifacts.path(row.path)
        found = row.model_copy(update={"fingerprint": training.save_checkpoint(folder, tensors, facts)})
        core.write_json(folder / "figure2.json", masks.to_json())
        names = training.TENSORS, training.FACTS, "figure2.json"
        files = state.artifacts.checksums([folder / name for name in names])
        marker = core.Marker(row.path, artifact.fingerprint, found.to_json(), files, row.seconds, library_versions())
        state.artifacts.publish(marker)

    return write


def resume_point(state: TrainState) -> Write:
    """Returns a function that writes a rolling checkpoint and prunes older ones."""
    tensors = {f"model.{name}": tensor for name, tensor in state.model.state_dict().items()}
    tensors = training.snapshot(tensors | training.optimizer_state(state.model, state.optimizer))
    facts = {name: getattr(state, name) for name in FACTS}
    folder, pretrain = state.rolling / training.rolling_name(state.place), state.config.pretrain

    def write() -> None:
        core.sync(state.folder / "log.jsonl")  # a run that resumes needs the log up to there
        training.save_checkpoint(folder, tensors, facts)
        parts = segments(pretrain)
        training.prune_checkpoints(state.rolling, pretrain.keep_checkpoints, lambda place: needed_for(place, parts))

    return write


def resume(state: TrainState) -> list[str]:
    """Restores the newest undamaged checkpoint, if any, chosen by the first process. Returns warnings."""
    found, warnings = None, list[str]()
    if state.dist.rank == 0:
        warnings = _forget_gaps(state)
        found, damaged = training.newest_checkpoint(state.rolling)
        warnings += damaged
    place = state.dist.broadcast(None if found is None else found[1]["before"] + found[1]["step"])
    if place is not None:
        _restore(state, *(found or training.load_checkpoint(state.rolling / training.rolling_name(place))))
    return warnings


def _forget_gaps(state: TrainState) -> list[str]:
    """Deletes the checkpoints after a milestone or log line that no longer exists, so that it is made again."""
    parts, log = segments(state.config.pretrain), state.folder / "log.jsonl"
    logged = max((place_of(row, parts) for _, row in core.log_rows(log)), default=0)
    milestones = {part.before + step: step for part in parts for step in part.milestones}
    lost = [
        (place, f"step{step}")
        for place, step in milestones.items()
        if not state.artifacts.stands(state.milestones[step].key)
    ]
    end, name = min([*lost, (logged + 1, log.name)])
    later = [folder for folder in state.rolling.glob("step*") if _needs(folder) >= end]
    for folder in later:
        shutil.rmtree(folder)
    return [f"{state.folder / name} is missing or incomplete: training again from before it"] if later else []


def _needs(folder: Path) -> int:
    """Returns the place up to which a checkpoint needs the log and the milestones; 0 for a damaged one."""
    try:
        facts = core.read_json(folder / training.FACTS)
        return int(facts["before"] + facts["step"] - facts["unlogged"].get("steps", 0))
    except (OSError, core.DamagedError, AttributeError, KeyError, TypeError):
        return 0


def return_to_trunk(state: TrainState, branch: Segment) -> None:
    """Restores what a branch began from. If that is damaged, raises DamagedError and deletes what needs it."""
    place = branch.before + branch.first
    try:
        _restore(state, *training.load_checkpoint(state.rolling / training.rolling_name(place)))
    except core.DamagedError as error:
        for needs_it in state.rolling.glob("step*") if state.dist.rank == 0 else ():
            if needs_it.name >= training.rolling_name(place):
                shutil.rmtree(needs_it)
        raise core.DamagedError(f"{error}: run the same command to resume from the one before") from None
    state.before = branch.end - state.step


def _restore(state: TrainState, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    state.model.load_state_dict({n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")})
    for name in FACTS:
        setattr(state, name, facts[name])
    training.restore_optimizer(state.model, state.optimizer, tensors)


def init_from(artifacts: core.Artifacts, imported: str, model: AnyPretrainingModel) -> None:
    """Loads an import's encoder and, if present, head into the model. Raises DamagedError if the import is damaged."""
    try:
        tensors, _ = training.load_checkpoint(artifacts.path(imported))
    except core.DamagedError as error:
        raise core.DamagedError(f"{error}: run `mapnet import-hf` again") from None
    state = model.state_dict()
    model.load_state_dict(state | {name: tensor for name, tensor in tensors.items() if name in state})
