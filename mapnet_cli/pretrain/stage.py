"""`mapnet pretrain`: one job for each method and seed."""

from mapnet_cli.artifacts import Artifacts
from mapnet_cli.config import Config
from mapnet_cli.jobs.job import Job, Output, Phase, Progress, Report
from mapnet_cli.jobs.resources import cores, visible_gpus
from mapnet_cli.lineage import Lineage
from mapnet_cli.records import CorpusManifest
from mapnet_cli.training.accounting import step_flops

PRELOAD = ("torch", "mapnet_cli.pretrain.loop")


def plan(config: Config, artifacts: Artifacts, workers: int) -> list[Phase]:
    """Returns the pretrainings of all methods and seeds: one after the other on a GPU, else they share the cores."""
    lineage = Lineage(config, artifacts)
    gpus = visible_gpus() if config.pretrain.device != "cpu" else 0
    trainings = [(method, seed) for method in config.methods for seed in config.pretrain.seeds]
    side_by_side = 1 if gpus else max(1, min(workers, len(trainings)))
    threads = config.pretrain.threads or max(1, cores() // side_by_side)
    jobs = []
    for method, seed in trainings:
        artefact = lineage.pretraining(method, seed)
        args = {"config": config, "method": method, "seed": seed, "key": artefact.key, "threads": threads}
        args |= {"fingerprint": artefact.fingerprint, "corpus": lineage.corpus.key}
        needs = (f"{lineage.corpus.key}/manifest",)
        jobs.append(Job(artefact.key, artefact.fingerprint, pretrain, args, needs))
    return [Phase("pretrain", jobs, "training", side_by_side)]


def check(config: Config) -> None:
    """Raises UsageError if a method's parts don't exist or make no sense together."""
    from mapnet_cli.masking.combinations import check_method

    for name in config.methods:
        check_method(name, config.method[name])


def estimate(config: Config) -> list[str]:
    """Returns what `--dry-run` says of the pretraining: steps, tokens at most, FLOPs by method."""
    pretrain, corpus = config.pretrain, config.corpus
    tokens = pretrain.steps * pretrain.batch_size * corpus.block_length
    lines = [f"{pretrain.steps:,} steps, at most {tokens:,} tokens a training"]
    for name in config.methods:
        method = config.method[name]
        proposal = config.proposal if method.objective != "none" else None
        step = step_flops(
            config.encoder, proposal, corpus.vocab_size, pretrain.batch_size, corpus.block_length, method.mask_rate
        )
        lines.append(f"{name}: {step * pretrain.steps * len(pretrain.seeds):.3g} FLOPs")
    return lines


def pretrain(
    artifacts: Artifacts,
    report: Report,
    config: Config,
    method: str,
    seed: int,
    key: str,
    fingerprint: str,
    corpus: str,
    threads: int,
) -> Output:
    """Trains one model to its last milestone, going on from its newest checkpoint."""
    import torch

    from mapnet_cli.model.pretraining import PretrainingModel
    from mapnet_cli.pretrain import loop
    from mapnet_cli.training.device import choose_device
    from mapnet_cli.training.optim import build_adamw

    torch.set_num_threads(threads)
    marker = artifacts.marker(f"{corpus}/manifest")
    assert marker is not None
    artifacts.verify(marker)
    manifest = CorpusManifest(**marker.result)
    proposal = config.proposal if config.method[method].objective != "none" else None
    device = choose_device(config.pretrain.device)
    model = PretrainingModel(config.encoder, manifest.vocab_size, proposal)
    model.reset(seed)
    model.to(device)
    run = loop.Run(
        config, method, seed, key, fingerprint, artifacts, manifest, device, model, build_adamw(model, config.pretrain)
    )
    loop.resume(run)
    for warning in run.warnings:
        report(Progress(run.step, config.pretrain.steps, warning=warning))
    loop.train(run, report)
    return Output(
        [run.folder / "log.jsonl"],
        {
            "method": method,
            "seed": seed,
            "steps": run.step,
            "tokens": run.tokens,
            "flops": run.flops,
            "seconds": run.seconds,
        },
    )
