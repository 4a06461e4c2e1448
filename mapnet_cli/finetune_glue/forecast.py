"""Cost estimate for a grid: runs, sequences, and hours at a rate measured on this machine."""

import time
from dataclasses import dataclass

import numpy as np
import torch

from mapnet_cli.config import Config, Transformer
from mapnet_cli.core import format_duration, format_size, main_memory
from mapnet_cli.finetune_glue.classifier import Classifier, make_inputs
from mapnet_cli.finetune_glue.examples import checked_sets
from mapnet_cli.finetune_glue.loop import training_step
from mapnet_cli.finetune_glue.prepare import load_task
from mapnet_cli.finetune_glue.run import run_bytes
from mapnet_cli.finetune_glue.tokenised import Tokenised
from mapnet_cli.glue import TASKS, GridRun, get_task, task_location
from mapnet_cli.jobs import cores
from mapnet_cli.lineage import Lineage
from mapnet_cli.text import CLS, TOKENS_PER_WORD
from mapnet_cli.training import build_adamw, choose_device, device_name, precision_advice

FORWARD_SHARE = 1 / 3
"""The forward pass's share of a training step's time; the backward pass takes about twice as long."""
MAX_TIMINGS, SLOW_STEP = 3, 1.0
"""Maximum number of timings per step, and the duration in seconds from which a step is not timed again."""
SHORT, LONG = 4, 64  # tokens per sequence in the two timed steps


@dataclass(frozen=True)
class TaskSize:
    """Number of sequences and tokens in a task's training set, and in all its dev sets combined."""

    train: int
    train_tokens: float
    dev: int
    dev_tokens: float


@dataclass(frozen=True)
class Rate:
    """Duration of a training step: `fixed` seconds (the optimiser) plus `token` seconds per token of the batch."""

    fixed: float
    token: float

    def seconds(self, size: TaskSize, batch_size: int, epochs: int) -> float:
        """Returns the duration of a run in seconds."""
        steps = -(-size.train // batch_size)
        training = steps * self.fixed + size.train_tokens * self.token
        return epochs * (training + size.dev_tokens * self.token * FORWARD_SHARE)


def forecast(lineage: Lineage, todo: list[GridRun], workers: int) -> list[str]:
    """Returns the lines that `--dry-run` prints about the remaining runs. Raises InputError for missing data."""
    if not todo:
        return []
    found = {task: _size(lineage, task) for task in dict.fromkeys(run.task for run in todo)}
    known = {task: size for task, size in found.items() if size is not None}
    if unknown := [task for task in found if task not in known]:
        return [f"sequences and hours can be estimated once these tasks are prepared: {', '.join(unknown)}"]
    config, finetune = lineage.config, lineage.config.finetune
    device = choose_device(finetune.device)
    torch.set_num_threads(finetune.threads)
    rates: dict[Transformer, Rate] = {}
    lines, total = [], 0.0
    for task, size in known.items():
        runs = [run for run in todo if run.task == task]
        seconds = 0.0
        for run in runs:
            encoder, vocab_size = lineage.sizes(run.method)
            if encoder not in rates:
                rates[encoder] = measure(config, encoder, vocab_size, device)
            seconds += rates[encoder].seconds(size, run.batch_size, finetune.epochs)
        total += seconds
        lines.append(
            f"{task}: {len(runs):,} runs of {finetune.epochs} epochs, {size.train:,} training and {size.dev:,} dev "
            f"sequences, about {size.train_tokens / size.train:.0f} tokens each: "
            f"{format_duration(seconds / len(runs))} per run"
        )
    sequences = sum(finetune.epochs * (known[run.task].train + known[run.task].dev) for run in todo)
    parallel = max(1, min(workers, cores() // finetune.threads))
    return [
        *lines,
        *_memory(lineage, todo, parallel, device),
        *precision_advice(device, finetune.precision, "finetune"),
        f"{len(todo):,} runs, {sequences:,} sequences: about {format_duration(total)} one at a time, "
        f"{format_duration(total / parallel)} with {parallel} in parallel on this machine if they don't slow each "
        f"other down (rate measured now on {device_name(device)}, in {finetune.precision})",
    ]


def _memory(lineage: Lineage, todo: list[GridRun], parallel: int, device: torch.device) -> list[str]:
    """Returns how much memory the largest run needs, and whether it is free. Runs that share a GPU are fitted to it."""
    models = {lineage.sizes(run.method) for run in todo}
    most = max(run_bytes(*model, max(run.batch_size for run in todo)) for model in models)
    gpu = device.type == "cuda"
    free = torch.cuda.mem_get_info(device)[0] if gpu else main_memory()[1] / parallel
    needed = f"memory: about {format_size(most)} per run if all examples are as long as the encoder allows, else less"
    if not free or most <= free:
        return [needed]
    advice = "smaller finetune.batch_sizes" if gpu or parallel == 1 else "fewer --workers"
    return [f"{needed}. warning: only {format_size(free)} is free for each: if it runs out, use {advice}"]


def _size(lineage: Lineage, task: str) -> TaskSize | None:
    """Returns a task's size: exact if tokenised, else from its word count; None for a probe task not made yet."""
    key, config, sets = lineage.main_task(task).key, lineage.config, list[tuple[int, float]]()
    spec, longest = get_task(config, task), config.encoder.max_length
    if lineage.artifacts.marker(key) is not None:
        train, dev = load_task(lineage.artifacts, spec, key)
        sets = [(len(data), len(data.tokens)) for data in (train, *dev.values())]
    elif lineage.uses_probe:
        return None
    else:
        subset = task in config.finetune.subsets
        for split, examples in checked_sets(task_location(config, task), spec, subset):
            if split == "train" and config.finetune.max_train_examples:
                examples = examples.first(config.finetune.max_train_examples)
            words = (sum(len(text.split()) for text in row) for row in examples.texts)
            sets.append((len(examples), sum(min(longest, TOKENS_PER_WORD * count + 2) for count in words)))
    return TaskSize(*sets[0], sum(count for count, _ in sets[1:]), sum(tokens for _, tokens in sets[1:]))


def measure(config: Config, encoder: Transformer, vocab_size: int, device: torch.device) -> Rate:
    """Returns the rate at the grid's largest batch size, from one step on short and one on long sequences."""
    finetune, batch = config.finetune, max(config.finetune.batch_sizes)
    model = Classifier(encoder, vocab_size, 2, finetune).to(device).train()
    optimizer = build_adamw(model, finetune)
    tokens, seconds = [], []
    for length in (min(SHORT, encoder.max_length), min(LONG, encoder.max_length)):
        ids = np.full(batch * length, CLS, dtype=np.uint32)
        second = np.full(batch, length)
        data = Tokenised(ids, np.arange(batch + 1) * length, np.zeros(batch, dtype=np.float32), second)
        took: list[float] = []
        while len(took) < MAX_TIMINGS and (not took or took[-1] < SLOW_STEP):  # the first is a warm-up, unless slow
            start = time.perf_counter()
            inputs = make_inputs(model, data, np.arange(batch), device)
            training_step(model, optimizer, TASKS["RTE"], inputs, finetune.clip_norm).item()
            took.append(time.perf_counter() - start)
        tokens.append(batch * length)
        seconds.append(min(took))
    token = max(0.0, seconds[1] - seconds[0]) / max(1, tokens[1] - tokens[0])
    return Rate(max(0.0, seconds[0] - token * tokens[0]), token)
