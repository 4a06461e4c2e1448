"""The `mapnet pretrain` stage: one job per method and seed."""

import json
from dataclasses import dataclass

from mapnet_cli import core, jobs
from mapnet_cli.config import Config
from mapnet_cli.jobs.torchrun import TorchrunJob
from mapnet_cli.lineage import Lineage


@dataclass(frozen=True)
class Pretrain(jobs.Stage):
    """The pretraining stage, see `jobs.Stage`."""

    lineage: Lineage
    preload = ("torch", "torch._dynamo", "mapnet_cli.pretrain.loop")

    def validate(self) -> None:
        """Raises UsageError if a method is inconsistent, or if the processes don't fit the batch size or the GPUs."""
        from mapnet_cli.masking import validate_method

        config, pretrain = self.lineage.config, self.lineage.config.pretrain
        processes = (jobs.launched() or jobs.ALONE).size * pretrain.processes
        for name in config.methods:
            method = config.method[name]
            validate_method(name, method, pretrain.visits)
            own = config.for_method(name).pretrain
            first, last = own.milestone_steps()[0], own.milestone_steps()[-1]
            if own.warmup_steps >= (end := first if own.schedule == "wsd" else last):
                where = "the first milestone" if own.schedule == "wsd" else "training"
                raise core.UsageError(
                    f"pretrain.warmup_steps ({own.warmup_steps:,}) leaves {name} no step at the peak rate: {where} "
                    f"ends at step {end:,}. Set a smaller number, such as {end // 10:,}"
                )
            whole = own.batch_size > 1 and processes == 1 and not pretrain.micro_batch_size
            if method.mapnet and method.mapnet.baseline == "batch" and not whole:
                raise core.UsageError(
                    f"method.{name}.proposal.baseline: 'batch' needs a batch of several sequences in one pass: a batch "
                    "size above 1, no pretrain.micro_batch_size, and one process"
                )
        if pretrain.batch_size % processes:
            raise core.UsageError(
                f"pretrain.batch_size ({pretrain.batch_size}) isn't a multiple of the {processes} processes"
            )
        gpus = core.visible_gpus() if pretrain.device != "cpu" else 0
        if 0 < gpus < pretrain.processes:
            raise core.UsageError(
                f"--processes {pretrain.processes}: this machine has {gpus} GPUs; use at most one process per GPU, "
                "or pretrain.device=cpu"
            )
        if pretrain.compile and pretrain.batch_size // processes % (pretrain.micro_batch_size or 1):
            raise core.UsageError(
                f"pretrain.compile needs one shape: pretrain.micro_batch_size ({pretrain.micro_batch_size}) must "
                f"divide each process's {pretrain.batch_size // processes} sequences per step"
            )

    def plan(self, workers: int) -> list[jobs.Phase]:
        """Returns one job per method and seed: in parallel, unless each has several processes, which use all GPUs."""
        lineage, config = self.lineage, self.lineage.config
        processes = config.pretrain.processes
        # the first seed of every method comes first, so that a complete table is available early
        runs = sorted(config.pretraining_runs(), key=lambda run: config.seeds_of(run[0]).index(run[1]))
        side_by_side, threads = _shares(config, len(runs), workers)
        found: list[jobs.Job] = []
        for method, seed in runs:
            artifact, needs = lineage.pretraining(method, seed), (lineage.manifest,)
            job: jobs.Job = TrainModel(
                artifact=artifact, needs=needs, config=config.for_method(method), method=method, seed=seed,
                manifest=lineage.manifest, threads=threads, init_from=import_key(lineage, method),
                milestones=lineage.milestones(method, seed),
            )  # fmt: skip
            if processes > 1:
                job = TorchrunJob(artifact=artifact, needs=needs, inner=job, processes=processes, threads=threads)
            found.append(job)
        on_gpus: dict[str, int] = {}
        if config.pretrain.device != "cpu":
            on_gpus = {"gpus": processes} if processes > 1 else {"jobs_per_gpu": config.pretrain.runs_per_gpu}
        return [jobs.Phase("pretrain", found, "run", side_by_side, threads * processes, **on_gpus)]

    def forecast(self, workers: int) -> list[str]:
        """Returns the lines of `--dry-run`: tokens, FLOPs, memory, disk, and hours at a rate measured now."""
        from mapnet_cli.pretrain.forecast import forecast

        config = self.lineage.config
        side_by_side, threads = _shares(config, len(config.pretraining_runs()), workers)
        processes = (jobs.launched() or jobs.ALONE).size * config.pretrain.processes
        return forecast(config, self.lineage.vocab_size, processes, side_by_side, threads)

    def progress(self) -> jobs.StageProgress:
        """Returns the latest log line of each run, with its method and seed."""
        lineage, rows, lines = self.lineage, [], []
        for method, seed in lineage.config.pretraining_runs():
            log = lineage.artifacts.path(f"{lineage.pretraining(method, seed).key}/log.jsonl")
            if logged := [row for _, row in core.log_rows(log) if {"loss", "diverged_at"} & row.keys()]:
                line, steps = logged[-1], lineage.config.last_step(method)
                rows.append({"method": method, "seed": seed, "of_steps": steps} | line)
                branch = f" in the branch to {line['branch']:,}" if "branch" in line else ""
                if "loss" in line:
                    found = f"loss {line['loss']:.3f}, {line['tokens_per_second']:,.0f} tokens/s, MFU {line['mfu']:.0%}"
                else:
                    found = f"diverged at step {line['diverged_at']:,}"
                lines.append(f"{method} seed {seed}: step {line['step']:,} of {steps:,}{branch}, {found}")
        return jobs.StageProgress({"trainings": rows}, tuple(lines))

    def summary(self) -> list[str]:
        """Returns the held-out loss of each run's last milestone."""
        lines = []
        for method, seed in self.lineage.config.pretraining_runs():
            step, run = self.lineage.config.last_step(method), self.lineage.pretraining(method, seed)
            row = self.lineage.artifacts.find(f"{run.key}/step{step}", core.Checkpoint)
            if row and row.validation_loss is not None:
                trained = f"{step:,} steps, {core.format_duration(row.seconds)}"
                lines.append(f"{method} seed {seed}: held-out loss {row.validation_loss:.3f} after {trained}")
        return lines


def import_key(lineage: Lineage, method: str) -> str:
    """Returns the key of the import that a method starts from, or "". Raises UsageError if the sizes differ."""
    config = lineage.config
    name = config.method[method].init_from
    if not name:
        return ""
    row = lineage.imported(name)
    given = {"architecture": "bert", "norm_eps": 0.0} | row.encoder
    sizes = {key: value for key, value in given.items() if "dropout" not in key}  # which has no weights: it may differ
    wrong = [
        f"encoder.{key} = {json.dumps(value)}" for key, value in sizes.items() if getattr(config.encoder, key) != value
    ]
    own = lineage.imported(config.corpus.tokenizer).tokenizer_fingerprint if config.corpus.tokenizer else ""
    if own != row.tokenizer_fingerprint:
        wrong.append(f'corpus.tokenizer = "{name}"')
    if wrong:
        raise core.UsageError(f"method.{method}.init_from: to start from {name!r}, set {', '.join(wrong)}")
    return row.path


def _shares(config: Config, runs: int, workers: int) -> tuple[int, int]:
    """Returns (number of runs in parallel, CPU threads per process)."""
    processes = config.pretrain.processes
    gpus = core.visible_gpus() if config.pretrain.device != "cpu" else 0
    slots = gpus * config.pretrain.runs_per_gpu if processes == 1 else min(gpus, 1)
    side_by_side = max(1, min(workers // processes, slots or runs, runs))
    # Ray starts as many as fit on the GPUs, whatever the number of workers
    local = max(side_by_side, min(slots, runs)) * processes * jobs.local_processes()
    return side_by_side, config.pretrain.threads or max(1, jobs.cores() // local)


@dataclass(frozen=True, kw_only=True)
class TrainModel(jobs.Job):
    """Trains a model with one method and seed up to its last milestone, resuming from its newest checkpoint."""

    config: Config  # the method's own config, see `Config.for_method`
    method: str
    seed: int
    manifest: str
    threads: int
    init_from: str  # key of the imported checkpoint to start from; "" for random weights
    milestones: dict[int, core.ArtifactId]  # by step

    @property
    def parts(self) -> tuple[core.ArtifactId, ...]:
        """The milestones."""
        return tuple(self.milestones.values())

    def run(self, artifacts: core.Artifacts, progress: jobs.ProgressCallback) -> jobs.Output:
        import torch

        from mapnet_cli.masking import STRATEGIES, CorpusFacts
        from mapnet_cli.model import TokenTable, build_model
        from mapnet_cli.pretrain.loop import train
        from mapnet_cli.pretrain.monitor import validate_again
        from mapnet_cli.pretrain.state import TrainState, init_from, resume
        from mapnet_cli.training import build_adamw, choose_device, keep_freed_memory, precision_advice

        config, method = self.config, self.config.method[self.method]
        torch.set_num_threads(self.threads)
        keep_freed_memory()
        dist = jobs.current()
        device = choose_device(config.pretrain.device, dist.local_rank)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        artifacts.verify(self.manifest)
        corpus = CorpusFacts(artifacts, artifacts.read(self.manifest, core.CorpusManifest))
        context = STRATEGIES[method.strategy].prepare(corpus)
        model = build_model(config, self.method, corpus.vocab_size)
        model.init_weights(self.seed)
        if context.log_weight_V is not None and isinstance(model.proposal, TokenTable):
            model.proposal.log_weight_V.copy_(context.log_weight_V)
        if self.init_from:
            init_from(artifacts, self.init_from, model)
        model.to(device)
        own_peak_lr = method.mapnet.peak_lr if method.mapnet else 0.0
        ratio = own_peak_lr / config.pretrain.peak_lr if own_peak_lr else 1.0
        optimizer = build_adamw(model, config.pretrain, model.proposal, ratio)
        state = TrainState(
            config, self.method, self.seed, self.artifact, corpus, context, dist, device, model, optimizer,
            milestones=self.milestones,
        )  # fmt: skip
        advice = precision_advice(device, config.pretrain.precision, "pretrain")
        if device.type == "cpu" and config.pretrain.compile:
            advice.append("pretrain.compile takes minutes and gains nothing on a CPU; it is meant for GPUs")
        # weights stay if only the validation changes, or a milestone is added
        stand = [part for part in self.parts if artifacts.stands(part.key)]
        old = [part for part in stand if not artifacts.stands(part.key, part.fingerprint)]
        if len(stand) == len(self.parts) and artifacts.stands(self.key, self.fingerprint):
            totals = artifacts.read(self.key, core.PretrainingTotals)
        else:
            for warning in [*advice, *resume(state)]:
                progress(jobs.Progress(state.place, config.pretrain.steps, warning=warning))
            if state.place:
                progress(jobs.Progress(state.place, config.pretrain.steps, f"from step {state.step + 1:,}"))
            train(state, progress)
            totals = core.PretrainingTotals(
                method=self.method, seed=self.seed, steps=state.step, tokens=state.tokens, flops=state.flops,
                seconds=state.seconds,
            )  # fmt: skip
        validate_again(state, old)
        return jobs.Output([state.folder / "log.jsonl"], totals)
