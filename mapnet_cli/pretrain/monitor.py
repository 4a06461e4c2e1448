"""Work done between training steps: logging, validation, milestones, checkpoints and clean shutdown."""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from typing import Any

from torch import Tensor

from mapnet_cli import training
from mapnet_cli.core import ArtifactId, DivergedError, Interrupted, format_duration, proposal_warnings
from mapnet_cli.jobs import Progress, ProgressCallback
from mapnet_cli.masking import StepPlan
from mapnet_cli.model import Electra
from mapnet_cli.pretrain.batches import Batch
from mapnet_cli.pretrain.electra import validate_detection
from mapnet_cli.pretrain.held_out_words import TokenBuckets, figure2_masks, token_buckets
from mapnet_cli.pretrain.metrics import StepMetrics, diagnostics
from mapnet_cli.pretrain.segments import Segment
from mapnet_cli.pretrain.state import TrainState, Write, milestone, resume_point, return_to_trunk
from mapnet_cli.pretrain.step import MAXIMA, work_of
from mapnet_cli.pretrain.validation import validate
from mapnet_cli.text import Sequences, open_shards

HEALTH_STEPS = 100
"""Number of last steps that the health of a milestone's proposal is measured on, or those since the one before."""
NOTE_INTERVAL = 5.0  # seconds after which the progress shows a step's loss if no line is due in the log


class TrainingMonitor:
    """Logs, validates and saves a run. Use `monitored` to make one."""

    def __init__(
        self, state: TrainState, progress: ProgressCallback, parts: Sequence[Segment],
        writer: training.BackgroundWriter, stopped: Callable[[], bool],
    ) -> None:  # fmt: skip
        self.state, self.progress, self.parts, self.part = state, progress, parts, parts[0]
        self.held_out = open_shards(state.artifacts, state.corpus.manifest.validation)
        self._writer, self._stopped = writer, stopped
        self.metrics = StepMetrics(state.folder, parts, state.place, state.dist, self._peak())
        if state.unlogged:
            self.metrics.restore(state.unlogged, state.device)
            state.unlogged = {}
        self._save_due = self._log_due = False
        self._note, self._noted = "", -NOTE_INTERVAL
        self._warned: set[str] = set()
        self._windows: set[int] = set()
        """Steps after which the window of a milestone's health begins, whatever the log and the resume points are."""

    @contextmanager
    def segment(self, part: Segment) -> Iterator[None]:
        """A context for the steps of a segment. After a branch, restores the trunk and saves it to resume from."""
        state, self.part = self.state, part
        bounds = pairwise((part.first, *part.milestones))
        self._windows = {max(before, step - HEALTH_STEPS) for before, step in bounds}
        if state.step in self._windows:
            state.window = {}
        self.metrics.begin(state.step, part.branch)
        if state.method.init_from and not state.place:
            self._validate(True)  # what the import knew
        if part.branch and not state.place:  # other branches begin after a step of the trunk, which saved it
            self._save(None, True)
        self._started = time.monotonic()
        yield
        if self._returns:
            self._wait()
            return_to_trunk(state, part)
            stop = state.dist.any(self._stopped())  # also a barrier: saving prunes what others may still be reading
            self._save(None, True)
            if stop:
                self._interrupt()

    @property
    def _returns(self) -> bool:
        """Whether the run returns to the trunk at the end of this segment."""
        return self.part.branch > 0 and self.part is not self.parts[-1]

    def after_step(
        self, batch: Batch, plan: StepPlan, sums: dict[str, Tensor], norm: Tensor, lr: float, waited: float
    ) -> None:
        """Counts a step; logs, validates, saves when due. Raises DivergedError, after SIGTERM or Ctrl-C Interrupted."""
        state, pretrain = self.state, self.state.config.pretrain
        # padding is not useful work
        flops = training.method_flops(
            state.config, state.method_name, state.corpus.manifest.vocab_size, batch.size, batch.tokens / batch.size,
            work_of(plan),
        )  # fmt: skip
        state.tokens, state.flops = state.tokens + batch.tokens, state.flops + flops
        explored = plan.explore or batch.explored
        host = {"tokens": batch.tokens, "flops": flops, "uniform_steps": explored, "learned": plan.learns}
        self.metrics.add(plan.step, sums, norm, host, waited)

        stop = state.dist.any(self._stopped())
        at_milestone, ends = state.step in self.part.milestones, state.step == self.part.last
        scheduled = at_milestone or ends or _is_due(state.step, pretrain.checkpoint_every)
        self._log_due |= scheduled
        self._save_due |= scheduled or stop
        # checkpoints don't contain the proposal, so never save before a step that reuses it
        save = self._save_due and state.step % state.method.propose_every == 0
        save &= not (ends and self._returns)  # saved after the return
        check = at_milestone or _is_due(state.step, pretrain.validate_every)
        begins = state.step in self._windows
        log = check or ends or begins or (save and self._log_due) or _is_due(state.step, pretrain.log_every)
        if log:
            self._log(lr)
        elif save:  # stopped between two log lines, which don't depend on that
            totals, seconds = self.metrics.totals(), self._clock()
            self._refuse_divergence()
            state.unlogged = totals | {"seconds": totals["seconds"] + seconds}
        elif state.dist.rank == 0 and time.monotonic() - self._noted >= NOTE_INTERVAL:
            pace = self.metrics.pace(time.monotonic() - self._started)
            self._show(float(sums["loss"] / sums["masked"].clamp(min=1)), *pace)
        validation = self._validate(at_milestone) if check else {}
        if save or at_milestone:
            self._save(validation if at_milestone else None, save)
        if begins:
            state.window = {}
        if log or save:
            self._started = time.monotonic()
        self.progress(Progress(state.place, self.parts[-1].end, self._note))
        if stop and save:
            self._interrupt()

    def _interrupt(self) -> None:
        self._wait()
        key, step = self.state.artifact.key, self.state.step
        raise Interrupted(f"{key}: stopped at step {step}; run the same command to resume")

    def _wait(self) -> None:
        """Waits until everything is on disk, in all processes: the launcher kills rank 0 if another one exits first."""
        self._writer.wait()
        self.state.dist.any(False)

    def _log(self, lr: float) -> None:
        """Synchronises with the device, which steps never do, and logs the steps since the last line."""
        state = self.state
        totals, seconds = self.metrics.totals(), self._clock()
        facts = {"lr": lr, "peak_memory_mb": round(training.peak_memory_mb(state.device)), "flops": state.flops}
        if state.method.proposal or any(state.method.exploration):
            facts["p"] = state.method.explore_at(state.step, state.config.pretrain.steps)
        row = self.metrics.line(totals, state.step, seconds, facts)
        self._refuse_divergence()
        before = state.window
        state.window = before | {  # a new one, since a resume point that is being written has the old one
            name: max(before.get(name, value), value) if name in MAXIMA else before.get(name, 0.0) + value
            for name, value in totals.items()
        }
        for kind, text in proposal_warnings(row, state.method_name, *state.method.learning).items():
            if kind not in self._warned and state.dist.rank == 0:
                self.progress(Progress(state.place, self.parts[-1].end, warning=text))
            self._warned.add(kind)
        self._show(row["loss"], row["tokens_per_second"], row["step_seconds"])

    def _show(self, loss: float, tokens_per_second: float, step_seconds: float) -> None:
        left = format_duration(step_seconds * (self.parts[-1].end - self.state.place))
        self._note, self._noted = f"loss {loss:.3f}, {tokens_per_second:,.0f} tokens/s, {left} left", time.monotonic()

    def _clock(self) -> float:
        """Returns the seconds since training began or went on, and adds them to the run's."""
        seconds = time.monotonic() - self._started
        self.state.seconds += seconds
        return seconds

    def _refuse_divergence(self) -> None:
        state, step, pretrain = self.state, self.metrics.bad_step, self.state.config.pretrain
        if step is None:
            return
        self.metrics.write({"step": state.step, "diverged_at": step})
        first = step // pretrain.visits * pretrain.batch_size
        raise DivergedError(
            f"{state.artifact.key}: loss or gradient is not finite at step {step} (batch: positions {first:,} to "
            f"{first + pretrain.batch_size - 1:,} in the data order of seed {state.seed}). "
            f"Lower method.{state.method_name}.peak_lr (now {pretrain.peak_lr:g})"
            + ("" if pretrain.clip_norm else " or set pretrain.clip_norm")
        )

    @cached_property
    def _buckets(self) -> TokenBuckets:
        return token_buckets(self.state.corpus)

    def _validate(self, single: bool) -> dict[str, float]:
        found = _held_out_losses(self.state, self.held_out, self._buckets, single)
        self.metrics.write({"step": self.state.step, **found})
        # other load may have slowed down the last measurement, so the highest one is the most accurate
        self.metrics.peak_flops = max(self.metrics.peak_flops, self._peak())
        return found

    def _peak(self) -> float:
        """Returns the peak FLOP/s of all processes' devices together."""
        return training.peak_flops(self.state.device, self.state.config.pretrain.precision)[0] * self.state.dist.size

    def _save(self, validation: dict[str, float] | None, save: bool) -> None:
        """Copies the state and writes it in the background: as a milestone given `validation`, to resume if `save`."""
        state, writes = self.state, list[Write]()
        self._writer.wait()  # one set of copies at a time
        new = state.step in state.milestones and not state.artifacts.stands(state.milestones[state.step].key)
        if state.dist.rank == 0 and validation is not None and new:
            tokenizer = state.artifacts.path(state.corpus.manifest.tokenizer)
            masks = figure2_masks(
                state.model, state.method, self.held_out, state.context, tokenizer,
                state.config.report.figure2_sentences, self._buckets, state.config.corpus.spacy_pipeline,
            )  # fmt: skip
            health = {name: round(value, 6) for name, value in diagnostics(state.window).items()}
            writes.append(milestone(state, validation, masks, health))
        if state.dist.rank == 0 and save:
            writes.append(resume_point(state))
        if writes:
            self._writer.submit(*writes)
        self._save_due &= not save
        self._log_due &= not save


def _held_out_losses(state: TrainState, held_out: Sequences, buckets: TokenBuckets, single: bool) -> dict[str, float]:
    pretrain = state.config.pretrain
    how = (held_out, pretrain.validation_sequences, state.device, pretrain.precision, state.dist)
    if isinstance(state.model, Electra):
        return validate_detection(state.model, *how)
    return validate(state.model, *how, buckets, single)


def validate_again(state: TrainState, milestones: Sequence[ArtifactId]) -> None:
    """Validates finished milestones with the present settings, and updates their records; replaces the model."""
    artifacts, corpus = state.artifacts, state.corpus
    for part in milestones:
        artifacts.verify(part.key)
        state.model.load_state_dict(training.load_checkpoint(artifacts.path(part.key))[0])
        found = _held_out_losses(state, open_shards(artifacts, corpus.manifest.validation), token_buckets(corpus), True)
        if state.dist.rank == 0:
            marker = artifacts.require(part.key)
            row = marker.result | {"validation": found, "validation_loss": found.get("validation_loss")}
            artifacts.publish(replace(marker, fingerprint=part.fingerprint, result=row))


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


@contextmanager
def monitored(state: TrainState, progress: ProgressCallback, parts: Sequence[Segment]) -> Iterator[TrainingMonitor]:
    """Yields a run's monitor; leaves the context once everything is on disk."""
    training.reset_peak_memory(state.device)
    with training.BackgroundWriter() as writer, stop_requested() as stopped:
        monitor = TrainingMonitor(state, progress, parts, writer, stopped)
        with closing(monitor.metrics):
            yield monitor


@contextmanager
def stop_requested() -> Iterator[Callable[[], bool]]:
    """Yields a function that returns whether SIGTERM, SIGHUP or Ctrl-C was received: the loop then saves and stops.

    A second Ctrl-C raises KeyboardInterrupt. If Ctrl-C is ignored (in workers, whose driver handles it), it stays so.
    """
    flag = False

    def request(signum: int, frame: Any) -> None:
        nonlocal flag
        if flag and signum == signal.SIGINT:
            raise KeyboardInterrupt
        flag = True

    handled = [s for s in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT) if signal.getsignal(s) is not signal.SIG_IGN]
    before = [(s, signal.signal(s, request)) for s in handled]
    try:
        yield lambda: flag
    finally:
        for number, handler in before:
            signal.signal(number, handler)
