"""`mapnet pretrain`: one job for each method and seed."""

from typing import TYPE_CHECKING

from mapnet_cli.artifacts import Artifacts
from mapnet_cli.config import Config
from mapnet_cli.errors import DamagedError, UsageError
from mapnet_cli.jobs.job import Job, Output, Phase, Progress, Report
from mapnet_cli.jobs.resources import cores, visible_gpus
from mapnet_cli.lineage import Lineage
from mapnet_cli.records import CorpusManifest, Imported
from mapnet_cli.training.accounting import step_flops

if TYPE_CHECKING:
    from mapnet_cli.model.pretraining import PretrainingModel

PRELOAD = ("torch", "mapnet_cli.pretrain.loop")


def plan(config: Config, artifacts: Artifacts, workers: int) -> list[Phase]:
    """Returns the pretrainings of all methods and seeds: one after the other on a GPU, else they share the cores."""
    lineage = Lineage(config, artifacts)
    gpus = visible_gpus() if config.pretrain.device != "cpu" else 0
    trainings = [(method, seed) for method in config.methods for seed in config.pretrain.seeds]
    side_by_side = 1 if gpus else max(1, min(workers, len(trainings)))
    threads = config.pretrain.threads or max(1, cores() // side_by_side)
    jobs = []
    starts = {name: _start(lineage, name) for name in config.methods}
    for method, seed in trainings:
        artefact = lineage.pretraining(method, seed)
        args = {"config": config, "method": method, "seed": seed, "key": artefact.key, "threads": threads}
        args |= {"fingerprint": artefact.fingerprint, "corpus": lineage.corpus.key, "start": starts[method]}
        needs = (f"{lineage.corpus.key}/manifest",)
        jobs.append(Job(artefact.key, artefact.fingerprint, pretrain, args, needs))
    return [Phase("pretrain", jobs, "training", side_by_side)]


def check(config: Config) -> None:
    """Raises UsageError if a method's parts don't exist or make no sense together."""
    from mapnet_cli.masking.combinations import check_method

    for name in config.methods:
        check_method(name, config.method[name])


def _start(lineage: Lineage, method: str) -> str:
    """Returns the key of the import that a method starts from, "" if it starts from random weights.

    Raises UsageError, naming each key and the value it must have, if the config's encoder is another one.
    """
    config = lineage.config
    name = config.method[method].start
    if not name:
        return ""
    marker = lineage.imported(name)
    row = Imported(**marker.result)
    # dropout has no weights: it may differ
    sizes = {key: value for key, value in row.encoder.items() if "dropout" not in key}
    wrong = [f"encoder.{key} = {value}" for key, value in sizes.items() if getattr(config.encoder, key) != value]
    own = lineage.imported(config.corpus.tokenizer).result if config.corpus.tokenizer else {}
    if own.get("tokenizer_fingerprint") != row.tokenizer_fingerprint:
        wrong.append(f'corpus.tokenizer = "{name}"')
    if wrong:
        raise UsageError(f"method.{method}.start: to start from {name!r}, set {', '.join(wrong)}")
    return marker.key


def start_from(artifacts: Artifacts, imported: str, model: "PretrainingModel") -> None:
    """Puts an import's encoder and head into the model; MAP-Net stays as it is. Raises DamagedError."""
    from mapnet_cli.training.checkpoint import load_checkpoint

    try:
        tensors, _ = load_checkpoint(artifacts.path(imported))
    except DamagedError as error:
        raise DamagedError(f"{error}: run `mapnet import-hf` again") from None
    model.load_state_dict({**model.state_dict(), **tensors})


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
    start: str,
) -> Output:
    """Trains one model to its last milestone, going on from its newest checkpoint; `start` is an import's key or ""."""
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
    if start:
        start_from(artifacts, start, model)
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
