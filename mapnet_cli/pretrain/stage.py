"""`mapnet pretrain`: one job for each method and seed."""

from typing import TYPE_CHECKING, Any

from mapnet_cli.config import Config
from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.core.errors import UsageError
from mapnet_cli.core.records import CorpusManifest
from mapnet_cli.jobs.distributed import ALONE, cores, current, launched
from mapnet_cli.jobs.job import Job, Output, Phase, Progress, ProgressCallback
from mapnet_cli.jobs.resources import local_processes, visible_gpus
from mapnet_cli.jobs.torchrun import run_on_processes
from mapnet_cli.lineage.graph import Lineage
from mapnet_cli.pretrain.init_from import start_from, start_key
from mapnet_cli.pretrain.log import last_line

if TYPE_CHECKING:
    import torch

PRELOAD = ("torch", "mapnet_cli.pretrain.loop")


def plan(config: Config, artifacts: Artifacts, workers: int) -> list[Phase]:
    """Returns the pretrainings of all methods and seeds: one after the other on GPUs, else they share the cores."""
    lineage = Lineage(config, artifacts)
    processes = config.pretrain.processes
    # every method's first seed before anyone's second: a whole table stands early
    trainings = sorted(config.trainings(), key=lambda training: config.seeds_of(training[0]).index(training[1]))
    side_by_side, threads = _shares(config, len(trainings), workers)
    starts = {name: start_key(lineage, name) for name in config.methods}
    jobs = []
    for method, seed in trainings:
        artifact = lineage.pretraining(method, seed)
        args: dict[str, Any] = {"config": config.of(method), "method": method, "seed": seed, "key": artifact.key}
        args |= {"threads": threads, "fingerprint": artifact.fingerprint, "corpus": lineage.corpus.key}
        args |= {"start": starts[method]}
        needs = (f"{lineage.corpus.key}/manifest",)
        if processes == 1:
            jobs.append(Job(artifact.key, artifact.fingerprint, pretrain, args, needs))
        else:
            several = {"processes": processes, "threads": threads, "fn": pretrain, "args": args}
            jobs.append(Job(artifact.key, artifact.fingerprint, run_on_processes, several, needs))
    gpus = processes if config.pretrain.device != "cpu" else 0
    return [Phase("pretrain", jobs, "training", side_by_side, threads * processes, gpus)]


def _shares(config: Config, trainings: int, workers: int) -> tuple[int, int]:
    """Returns how many trainings run side by side, and the CPU threads of each of their processes."""
    processes = config.pretrain.processes
    gpus = visible_gpus() if config.pretrain.device != "cpu" else 0
    side_by_side = 1 if gpus else max(1, min(workers // processes, trainings))
    here = side_by_side * processes * local_processes()
    return side_by_side, config.pretrain.threads or max(1, cores() // here)


def check(config: Config, artifacts: Artifacts) -> None:
    """Raises UsageError if a method's parts don't exist or go ill together, or a batch can't be shared out."""
    from mapnet_cli.masking.validate import validate_method

    for name in config.methods:
        validate_method(name, config.method[name], config.pretrain.visits)
    pretrain = config.pretrain
    processes = (launched() or ALONE).size * pretrain.processes
    if pretrain.batch_size % processes:
        raise UsageError(
            f"pretrain.batch_size ({pretrain.batch_size}) must be a multiple of the number of processes ({processes})"
        )
    gpus = visible_gpus() if pretrain.device != "cpu" else 0
    if 0 < gpus < pretrain.processes:
        raise UsageError(
            f"--processes {pretrain.processes}: this machine has {gpus} GPUs; one process a GPU, or pretrain.device=cpu"
        )
    if pretrain.compile and pretrain.batch_size // processes % (pretrain.micro_batch_size or 1):
        raise UsageError(
            f"pretrain.compile wants one shape: pretrain.micro_batch_size ({pretrain.micro_batch_size}) must divide "
            f"each process's {pretrain.batch_size // processes} sequences a step"
        )


def estimate(config: Config, artifacts: Artifacts, workers: int) -> list[str]:
    """Returns what `--dry-run` says: tokens, FLOPs, memory, disk, and hours at a rate measured now."""
    from mapnet_cli.pretrain.forecast import forecast

    own = config.corpus.tokenizer
    vocab_size = Lineage(config, artifacts).imported(own).result["vocab_size"] if own else config.corpus.vocab_size
    side_by_side, threads = _shares(config, len(config.trainings()), workers)
    processes = (launched() or ALONE).size * config.pretrain.processes
    return forecast(config, vocab_size, processes, side_by_side, threads)


def standing(config: Config, artifacts: Artifacts) -> dict[str, Any]:
    """Returns, as "trainings", the newest line of each training's log with its method and seed, for `status`."""
    lineage = Lineage(config, artifacts)
    rows = []
    for method, seed in config.trainings():
        log = artifacts.path(f"{lineage.pretraining(method, seed).key}/log.jsonl")
        line = last_line(log) if log.exists() else None
        if line:
            rows.append({"method": method, "seed": seed, "of_steps": config.last_step(method)} | line)
    return {"trainings": rows}


def pretrain(
    artifacts: Artifacts,
    progress: ProgressCallback,
    config: Config,
    method: str,
    seed: int,
    key: str,
    fingerprint: str,
    corpus: str,
    threads: int,
    start: str,
) -> Output:
    """Trains one model to its last milestone, going on from its newest checkpoint; `start` is an import's key or ""."""
    import torch

    from mapnet_cli.masking.strategies import STRATEGIES
    from mapnet_cli.model.factory import build_model, fix_frequencies
    from mapnet_cli.pretrain import loop
    from mapnet_cli.pretrain.state import TrainState, resume
    from mapnet_cli.text.shards import Sequences
    from mapnet_cli.training.device import choose_device
    from mapnet_cli.training.optim import build_adamw

    torch.set_num_threads(threads)
    place = current()
    device = choose_device(config.pretrain.device, place.local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    marker = artifacts.marker(f"{corpus}/manifest")
    assert marker is not None
    artifacts.verify(marker)
    manifest = CorpusManifest(**marker.result)
    how = config.method[method]
    model = build_model(config, method, manifest.vocab_size)
    model.reset(seed)
    if STRATEGIES[how.strategy].proposal == "frequency":
        fix_frequencies(model, Sequences([artifacts.path(name) for name in manifest.train]))
    if start:
        start_from(artifacts, start, model)
    model.to(device)
    ratio = how.proposal_peak_lr / config.pretrain.peak_lr if how.proposal_peak_lr else 1.0
    optimizer = build_adamw(model, config.pretrain, model.proposal, ratio)
    state = TrainState(config, method, seed, key, fingerprint, artifacts, manifest, place, device, model, optimizer)
    for warning in [*_advice(config, device), *resume(state)]:
        progress(Progress(state.step, config.pretrain.steps, warning=warning))
    loop.train(state, progress)
    return Output(
        [state.folder / "log.jsonl"],
        {
            "method": method,
            "seed": seed,
            "steps": state.step,
            "tokens": state.tokens,
            "flops": state.flops,
            "seconds": state.seconds,
        },
    )


def _advice(config: Config, device: "torch.device") -> list[str]:
    """Returns what of the settings costs time on this device."""
    from mapnet_cli.training.device import precision_advice

    advice = []
    if device.type == "cpu" and config.pretrain.compile:
        advice.append("pretrain.compile on a CPU costs minutes and gains nothing: meant for GPUs")
    if config.pretrain.precision == "bfloat16":
        advice += precision_advice(device, config.pretrain.precision, "pretrain")
    return advice
