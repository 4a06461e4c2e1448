"""`mapnet finetune-glue`: the tasks' data, the baselines, and one job a fine-tuning run."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mapnet_cli.artifacts import Artifacts, read_json
from mapnet_cli.config import Config, Transformer
from mapnet_cli.errors import DamagedError
from mapnet_cli.finetune_glue.demands import run_demands
from mapnet_cli.finetune_glue.grid import GridRun, grid
from mapnet_cli.finetune_glue.tasks import TASKS, Examples, read_examples
from mapnet_cli.glue import metrics_by_task
from mapnet_cli.jobs.job import Job, Output, Phase, Progress, Report
from mapnet_cli.lineage import Lineage
from mapnet_cli.records import Checkpoint, FinetuneRun, Imported, TaskFacts

PRELOAD = ("torch", "scipy.stats", "sklearn.metrics", "mapnet_cli.finetune_glue.loop")


def plan(config: Config, artifacts: Artifacts, workers: int) -> list[Phase]:
    """Returns the phases: probe tasks where the config asks for them, tokenised tasks, baselines, the grid."""
    lineage = Lineage(config, artifacts)
    names = config.finetune.tasks
    phases = []
    if lineage.uses_probe:
        seed = config.finetune.seed
        phases.append(
            Phase(
                "probe tasks",
                [
                    Job(
                        lineage.probe.key,
                        lineage.probe.fingerprint,
                        make_probe,
                        {"seed": seed, "key": lineage.probe.key},
                    )
                ],
            )
        )
    imports = ("", *config.imports) if config.methods else config.imports
    tasks = [_task_job(config, lineage, name, imported) for imported in imports for name in names]
    # imports may share a tokenizer, and then its tasks
    phases.append(Phase("tasks", list({job.key: job for job in tasks}.values()), "task"))
    if config.finetune.baselines:
        jobs = []
        for name in names:
            artefact, data = lineage.baseline(name), lineage.main_task(name).key
            jobs.append(Job(artefact.key, artefact.fingerprint, run_baseline, {"task": name, "data": data}, (data,)))
        phases.append(Phase("baselines", jobs, "task"))
    runs = [_run_job(config, lineage, run) for run in grid(config)]
    phases.append(Phase("finetune", runs, "run", **run_demands(config, lineage)))
    return phases


def check(config: Config) -> None:
    """Raises UsageError for a task or a metric that doesn't exist."""
    metrics_by_task(config)


def _task_job(config: Config, lineage: Lineage, name: str, imported: str) -> Job:
    """`imported` names the import whose tokenizer it is; "": the corpus's."""
    folder = lineage.artifacts.path(lineage.probe.key) if lineage.uses_probe else Path(config.finetune.data)
    artefact = lineage.task(name, imported) if imported else lineage.task(name)
    source = lineage.imported(imported).key if imported else f"{lineage.corpus.key}/manifest"
    length = lineage.imported(imported).result["encoder"]["max_length"] if imported else config.encoder.max_length
    args = {
        "task": name,
        "folder": folder / name,
        "probe": lineage.uses_probe,
        "key": artefact.key,
        "source": source,
        "lowercase": "none" if imported else config.corpus.preparation,
        "max_length": length,
        "max_train_examples": config.finetune.max_train_examples,
    }
    needs = (source, lineage.probe.key) if lineage.uses_probe else (source,)
    return Job(artefact.key, artefact.fingerprint, prepare_task, args, needs)


def _run_job(config: Config, lineage: Lineage, run: GridRun) -> Job:
    artefact = lineage.finetuning(**asdict(run))
    if run.method in config.imports:
        milestone, data = lineage.imported(run.method).key, lineage.task(run.task, run.method).key
    else:
        milestone = f"{lineage.pretraining(run.method, run.pretrain_seed).key}/step{run.step}"
        data = lineage.task(run.task).key
    args = {"run": run, "milestone": milestone, "data": data, "config": config}
    return Job(artefact.key, artefact.fingerprint, run_finetuning, args, (milestone, data))


def make_probe(artifacts: Artifacts, report: Report, seed: int, key: str) -> Output:
    """Makes the probe tasks in GLUE's layout."""
    from mapnet_cli.artifacts import publishing
    from mapnet_cli.finetune_glue.probes import make_probes

    with publishing(artifacts.path(key)) as temporary:
        rows = make_probes(temporary, seed)
    return Output(sorted(p for p in artifacts.path(key).rglob("*") if p.is_file()), {"rows": rows})


def prepare_task(
    artifacts: Artifacts,
    report: Report,
    task: str,
    folder: Path,
    probe: bool,
    key: str,
    source: str,
    lowercase: str,
    max_length: int,
    max_train_examples: int,
) -> Output:
    """Reads a task's files, checks them, and writes them as token ids; `source` is the key whose tokenizer it is."""
    from mapnet_cli.finetune_glue import tokenised

    marker = artifacts.marker(source)
    assert marker is not None
    name = marker.result["tokenizer"]
    artifacts.verify(replace(marker, files={name: marker.files[name]}))  # is it still the one it was?
    tokenizer = artifacts.path(name)
    spec = TASKS[task]
    notes, files, counts, official = [], [], {}, True
    for split, file in {"train": spec.train, **{f"dev{suffix}": name for suffix, name in spec.dev.items()}}.items():
        examples = read_examples(folder, spec, file)
        if examples.broken:
            notes.append(f"{file}: {examples.broken} broken lines left out")
        if len(examples.texts) != spec.rows[file]:
            official = False
            if not probe:
                notes.append(f"{file}: {len(examples.texts):,} rows, officially {spec.rows[file]:,}")
        if split == "train" and 0 < max_train_examples < len(examples.texts):
            notes.append(f"{file}: only the first {max_train_examples:,} of {len(examples.texts):,} rows used")
            examples = Examples(examples.texts[:max_train_examples], examples.labels[:max_train_examples])
        data, cut = tokenised.tokenise(examples, tokenizer, lowercase, max_length)
        if cut:
            notes.append(f"{file}: {cut:,} rows cut to {max_length} tokens")
        tokenised.save(artifacts.path(f"{key}/{split}.npz"), data)
        files.append(artifacts.path(f"{key}/{split}.npz"))
        counts[split] = len(data)
        report(Progress(len(files), 1 + len(spec.dev), file))
    facts = TaskFacts(
        task=task,
        train_examples=counts["train"],
        dev_examples=sum(counts.values()) - counts["train"],
        official=official,
        probe=probe,
        notes=notes,
    )
    return Output(files, facts.to_json())


def _load(artifacts: Artifacts, task: str, key: str) -> tuple[Any, dict[str, Any]]:
    from mapnet_cli.finetune_glue import tokenised

    dev = {suffix: tokenised.load(artifacts.path(f"{key}/dev{suffix}.npz")) for suffix in TASKS[task].dev}
    return tokenised.load(artifacts.path(f"{key}/train.npz")), dev


def run_baseline(artifacts: Artifacts, report: Report, task: str, data: str) -> Output:
    """Scores the majority class and a bag of words."""
    from mapnet_cli.finetune_glue.baselines import baselines

    return Output([], {"rows": [row.to_json() for row in baselines(TASKS[task], *_load(artifacts, task, data))]})


def run_finetuning(
    artifacts: Artifacts, report: Report, run: GridRun, milestone: str, data: str, config: Config
) -> Output:
    """Fine-tunes one checkpoint on one task with one setting and seed; its record is the job's result."""
    import torch

    from mapnet_cli.finetune_glue.loop import Setting, fine_tune
    from mapnet_cli.training.device import choose_device, device_name

    torch.set_num_threads(config.finetune.threads)
    device = choose_device(config.finetune.device)
    marker = artifacts.marker(milestone)
    assert marker is not None
    kind = Imported if run.method in config.imports else Checkpoint
    checkpoint = kind(**marker.result)
    encoder = Transformer.model_validate(checkpoint.encoder) if isinstance(checkpoint, Imported) else config.encoder
    if read_json(artifacts.path(f"{checkpoint.path}/facts.json"))["sha256"] != checkpoint.fingerprint:
        raise DamagedError(f"{checkpoint.path} is not what its record names: make it again (`mapnet pretrain --force`)")
    train, dev = _load(artifacts, run.task, data)
    epochs, failure = fine_tune(
        TASKS[run.task], train, dev, artifacts.path(checkpoint.path), encoder, config.finetune,
        Setting(run.batch_size, run.lr, run.seed), device,
    )  # fmt: skip
    row = FinetuneRun(
        **asdict(run), checkpoint=checkpoint.fingerprint, train_examples=len(train),
        dev_examples=sum(map(len, dev.values())), epochs=epochs, failure=failure, device=device_name(device),
    )  # fmt: skip
    return Output([], row.to_json())
