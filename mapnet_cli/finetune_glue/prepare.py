"""The jobs before the grid: probe tasks, a task as token ids, its baselines."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.core.records import TaskFacts
from mapnet_cli.glue.tasks import TASKS
from mapnet_cli.jobs.job import Output, Progress, ProgressCallback


def make_probe(artifacts: Artifacts, progress: ProgressCallback, seed: int, key: str) -> Output:
    """Makes the probe tasks in GLUE's layout."""
    from mapnet_cli.core.artifacts import publishing
    from mapnet_cli.finetune_glue.probes import make_probes

    with publishing(artifacts.path(key)) as temporary:
        rows = make_probes(temporary, seed)
    return Output(sorted(p for p in artifacts.path(key).rglob("*") if p.is_file()), {"rows": rows})


def prepare_task(
    artifacts: Artifacts,
    progress: ProgressCallback,
    task: str,
    location: str | Path,
    probe: bool,
    subset: bool,
    key: str,
    source: str,
    lowercase: str,
    max_length: int,
    max_train_examples: int,
) -> Output:
    """Reads a task's rows, checks them, and writes them as token ids; `source` is the key whose tokenizer it is."""
    from mapnet_cli.finetune_glue import tokenised
    from mapnet_cli.finetune_glue.examples import check_count, read_examples

    tokenizer = verified_tokenizer(artifacts, source)
    spec = TASKS[task]
    notes: list[str] = []
    files: list[Path] = []
    counts: dict[str, int] = {}
    official = True
    splits = ("train", *spec.dev.values())
    for split in splits:
        examples = read_examples(location, spec, split)
        if examples.broken:
            notes.append(f"{split}: {examples.broken} broken lines left out")
        if not check_count(spec, split, examples, subset or probe):
            official = False
            if not probe:
                notes.append(f"{split}: {len(examples):,} rows, officially {spec.splits[split].rows:,}")
        if split == "train" and 0 < max_train_examples < len(examples):
            notes.append(f"{split}: only the first {max_train_examples:,} of {len(examples):,} rows used")
            examples = examples.first(max_train_examples)
        data, cut = tokenised.tokenise(examples, tokenizer, lowercase, max_length)
        if cut:
            notes.append(f"{split}: {cut:,} rows cut to {max_length} tokens")
        files += tokenised.save(artifacts.path(f"{key}/{split}"), data)
        counts[split] = len(data)
        progress(Progress(len(counts), len(splits), split))
    facts = TaskFacts(
        task=task,
        train_examples=counts["train"],
        dev_examples=sum(counts.values()) - counts["train"],
        official=official,
        probe=probe,
        notes=notes,
    )
    return Output(files, facts.to_json())


def verified_tokenizer(artifacts: Artifacts, source: str) -> Path:
    """Returns the tokenizer of a corpus or an import, given its key; raises DamagedError if it isn't what it was."""
    marker = artifacts.marker(source)
    assert marker is not None
    name = marker.result["tokenizer"]
    artifacts.verify(replace(marker, files={name: marker.files[name]}))
    return artifacts.path(name)


def load_task(artifacts: Artifacts, task: str, key: str) -> tuple[Any, dict[str, Any]]:
    """Returns a task's training set, and its dev sets by their metrics' suffix; raises DamagedError."""
    from mapnet_cli.finetune_glue import tokenised

    _verify(artifacts.root, key)
    dev = {suffix: tokenised.load(artifacts.path(f"{key}/{split}")) for suffix, split in TASKS[task].dev.items()}
    return tokenised.load(artifacts.path(f"{key}/train")), dev


@cache  # once a process and task: its runs are many
def _verify(root: Path, key: str) -> None:
    artifacts = Artifacts(root)
    marker = artifacts.marker(key)
    assert marker is not None
    artifacts.verify(marker)


def run_baseline(artifacts: Artifacts, progress: ProgressCallback, task: str, data: str) -> Output:
    """Scores the majority class and a bag of words."""
    from mapnet_cli.finetune_glue.baselines import baselines

    return Output([], {"rows": [row.to_json() for row in baselines(TASKS[task], *load_task(artifacts, task, data))]})
