"""What happens between two steps: the log, held-out losses, milestones, checkpoints, and leaving in good order."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from types import TracebackType
from typing import Any

from torch import Tensor

from mapnet_cli.core.errors import DivergedError, Interrupted
from mapnet_cli.jobs.job import Progress, Report
from mapnet_cli.masking.diagnostics import FIGURES, complaints
from mapnet_cli.masking.schedule import exploration_probability
from mapnet_cli.model.electra import Electra
from mapnet_cli.pretrain.batches import Batch
from mapnet_cli.pretrain.detection import validate_detection
from mapnet_cli.pretrain.figure2 import figure2_masks
from mapnet_cli.pretrain.metrics import Telemetry
from mapnet_cli.pretrain.state import Run, Write, milestone, resume_point
from mapnet_cli.pretrain.step import StepPlan
from mapnet_cli.pretrain.token_buckets import TokenGroups, token_groups
from mapnet_cli.pretrain.validation import validate
from mapnet_cli.text.shards import Sequences
from mapnet_cli.training import flops as accounting
from mapnet_cli.training.checkpoint import BackgroundWriter
from mapnet_cli.training.device import peak_flops


class Books:
    """Keeps a run's books; a context that ends when everything is on disk."""

    def __init__(self, run: Run, report: Report, last: int) -> None:
        self.run = run
        self.report = report
        self.last = last
        self.held_out = Sequences([run.artifacts.path(name) for name in run.manifest.validation])
        self.milestones = set(run.config.pretrain.milestone_steps())
        self._save_due = False
        self._note = ""
        self._said: set[str] = set()
        self._health: dict[str, float] = {}

    def __enter__(self) -> "Books":
        run = self.run
        accounting.forget_peak_memory(run.device)
        with ExitStack() as contexts:
            self._telemetry = Telemetry(run.folder, run.step, run.world, self._peak())
            contexts.callback(self._telemetry.close)
            self._writer = contexts.enter_context(BackgroundWriter())
            self._stopped = contexts.enter_context(stop_requested())
            self._contexts = contexts.pop_all()
        self._started = time.monotonic()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._contexts.__exit__(kind, error, at)

    def after_step(
        self, batch: Batch, plan: StepPlan, sums: dict[str, Tensor], norm: Tensor, lr: float, waited: float
    ) -> None:
        """Counts a step; logs, validates and saves where that is due.

        Raises DivergedError if a loss or a gradient since the last line was not finite, and Interrupted,
        everything saved, after SIGTERM or Ctrl-C.
        """
        run, pretrain = self.run, self.run.config.pretrain
        flops = accounting.method_flops(
            run.config, run.method_name, run.manifest.vocab_size, batch.size, batch.length, plan.work
        )
        run.tokens, run.flops = run.tokens + batch.tokens, run.flops + flops
        host = {"tokens": batch.tokens, "flops": flops, "uniform_steps": plan.explore, "learned": plan.learns}
        self._telemetry.add(plan.step, sums, norm, host, waited)

        stop = run.world.any(self._stopped())
        at_milestone = run.step in self.milestones
        self._save_due |= at_milestone or stop or _is_due(run.step, pretrain.checkpoint_every)
        # a proposal that the next step reuses does not stand in checkpoints
        save = self._save_due and run.step % run.method.propose_every == 0
        check = at_milestone or _is_due(run.step, pretrain.validate_every)
        if save or check or _is_due(run.step, pretrain.log_every):
            self._log(lr)
            found = self._validate() if check else {}
            if save or at_milestone:
                self._save(found if at_milestone else None, save)
            self._started = time.monotonic()
        self.report(Progress(run.step, self.last, self._note))
        if stop and save:
            self._writer.wait()
            run.world.any(False)  # nobody leaves, and makes a launcher end the others, before the first has written
            raise Interrupted(f"{run.key}: stopped at step {run.step}; the same command goes on from there")

    def _log(self, lr: float) -> None:
        """Waits for the device, which no step does, and writes what came of the steps since the last line."""
        run = self.run
        totals = self._telemetry.collect()
        seconds = time.monotonic() - self._started
        run.seconds += seconds
        facts = {"lr": lr, "peak_memory_mb": round(accounting.peak_memory_mb(run.device)), "flops": run.flops}
        if run.method.draws_from_proposal:
            facts["p"] = exploration_probability(run.method, run.step, run.config.pretrain.steps)
        row = self._telemetry.line(totals, run.step, seconds, facts)
        if self._telemetry.bad_step is not None:
            raise DivergedError(_diverged(run, self._telemetry.bad_step))
        self._health = {name: row[name] for name in FIGURES if name in row}
        for kind, text in complaints(row, run.method_name, run.method).items():
            if kind not in self._said and run.world.rank == 0:
                self.report(Progress(run.step, self.last, warning=text))
            self._said.add(kind)
        left = row["step_seconds"] * (self.last - run.step)
        rate = f"{row['tokens_per_second']:,.0f} tokens/s, MFU {row['mfu']:.0%}"
        self._note = f"loss {row['loss']:.3f}, {rate}, {_span(left)} left"

    @cached_property
    def _groups(self) -> TokenGroups:
        manifest, path = self.run.manifest, self.run.artifacts.path
        train = Sequences([path(name) for name in manifest.train])
        return token_groups(path(manifest.tokenizer), train, manifest.vocab_size)

    def _validate(self) -> dict[str, float]:
        run, pretrain = self.run, self.run.config.pretrain
        how = (self.held_out, pretrain.validation_sequences, run.device, pretrain.precision, run.world)
        if isinstance(run.model, Electra):
            found = validate_detection(run.model, *how)
        else:
            found = validate(run.model, *how, self._groups)
        self._telemetry.write({"step": run.step, **found})
        # others may have been at work at the last measurement; the best that was seen is the nearest to the truth
        self._telemetry.peak_flops = max(self._telemetry.peak_flops, self._peak())
        return found

    def _peak(self) -> float:
        """Returns the FLOP/s of all processes' devices together at best."""
        return peak_flops(self.run.device, self.run.config.pretrain.precision)[0] * self.run.world.size

    def _save(self, found: dict[str, float] | None, save: bool) -> None:
        """Copies what is to be saved and has it written beside the training; `found` belongs to a milestone."""
        run, writes = self.run, list[Write]()
        self._writer.wait()  # one set of copies at a time
        if run.world.rank == 0 and found is not None:
            tokenizer = run.artifacts.path(run.manifest.tokenizer)
            masks = figure2_masks(run.model, self.held_out, run.method, run.config, tokenizer)
            writes.append(milestone(run, found, masks, self._health))
        if run.world.rank == 0 and save:
            writes.append(resume_point(run))
        if writes:
            self._writer.submit(*writes)
        self._save_due &= not save


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _span(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min" if minutes else f"{seconds:.0f} s"


def _diverged(run: Run, step: int) -> str:
    pretrain = run.config.pretrain
    first = step // pretrain.visits * pretrain.batch_size
    return (
        f"{run.key}: loss or gradient is not finite at step {step} (its batch: places {first:,} to "
        f"{first + pretrain.batch_size - 1:,} in the data order of seed {run.seed}); "
        f"the last good checkpoint is kept in {run.rolling}. Lower pretrain.peak_lr or set pretrain.clip_norm"
    )


@contextmanager
def stop_requested() -> Iterator[Callable[[], bool]]:
    """Yields a function that tells whether SIGTERM or Ctrl-C has come; the loop then saves and leaves.

    A second Ctrl-C leaves at once. Where Ctrl-C is ignored (workers, whose driver hears it) it stays so.
    """
    flag = False

    def request(signum: int, frame: Any) -> None:
        nonlocal flag
        if flag and signum == signal.SIGINT:
            raise KeyboardInterrupt
        flag = True

    watched = [s for s in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(s) is not signal.SIG_IGN]
    before = [(s, signal.signal(s, request)) for s in watched]
    try:
        yield lambda: flag
    finally:
        for number, handler in before:
            signal.signal(number, handler)
