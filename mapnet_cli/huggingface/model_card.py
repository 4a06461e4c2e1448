"""Model card of an exported checkpoint: facts, usage, what the tokenizer does, and scores."""

import statistics
from typing import Any

from mapnet_cli.config import Corpus
from mapnet_cli.core import AbsentError, Checkpoint, CorpusManifest, TaskFacts, TunedEncoder, render
from mapnet_cli.glue import TASKS, GlueTask, one_class, rows_used, runs_of, task_result, used_tasks
from mapnet_cli.lineage import Lineage, find_baselines, find_runs

_BERT = "A BERT encoder with a masked-language-model head"
_ELECTRA = "An ELECTRA discriminator, an encoder with a replaced-token-detection head"


def model_card(lineage: Lineage, row: Checkpoint, manifest: CorpusManifest) -> str:
    """Returns the README.md of the exported folder."""
    config, versions = lineage.config, lineage.artifacts.require(row.path).versions
    try:
        results = _scores(lineage, row)
    except AbsentError:  # no GLUE data, so no results either
        results = {"scores": []}
    encoder, start = config.encoder, config.method[row.method].init_from
    electra = config.method[row.method].electra is not None
    facts = {
        "Method": f"{row.method}, pretraining seed {row.pretrain_seed}{f', started from {start}' if start else ''}",
        "Recipe": config.recipe or "custom config",
        "Encoder": f"{encoder.layers} layers, hidden {encoder.hidden}, {encoder.heads} heads, ffn {encoder.ffn}, "
        f"max length {encoder.max_length}",
        "Vocabulary": f"{manifest.vocab_size:,}",
        "Steps": f"{row.step:,}",
        "Tokens seen": f"{row.tokens:,}",
        "FLOPs": f"{row.flops:.3g}",
        "Hours": f"{row.seconds / 3600:.3f} on {row.device}",
        "Validation loss": _validation_loss(row),
        "Corpus": f"{manifest.documents:,} documents, {manifest.sentences:,} sentences, {manifest.words:,} words, "
        f"{manifest.tokens:,} tokens",
        "Corpus fingerprint": f"`{lineage.corpus.fingerprint}`",
        "Checkpoint fingerprint": f"`{row.fingerprint}`",
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    return render(
        "mapnet_cli.huggingface", "model_card.md", pipeline="" if electra else "fill-mask", name="fill_mask",
        example='"The cat sat on the [MASK]."', title=f"{row.method} at step {row.step:,}", facts=facts,
        about=_ELECTRA if electra else _BERT, corpus=config.corpus, **results,
    )  # fmt: skip


def classifier_card(
    lineage: Lineage, encoder: tuple[str, int, int], task: GlueTask, row: TunedEncoder, corpus: Corpus
) -> str:
    """Returns the README.md of an exported classifier. `corpus` has the settings of its tokenizer."""
    method, seed, step = encoder
    pair = '{"text": "It rained.", "text_pair": "It was wet."}'
    constant = one_class(row.epochs[-1].metrics)
    facts = {
        "Task": task.name + ("" if task.name in TASKS and not lineage.uses_probe else ", **not GLUE's**"),
        "Output": ", ".join(task.labels) or f"a score from {task.range[0]:g} to {task.range[1]:g}",
        "Encoder": f"{method}, pretraining seed {seed}, step {step:,}" if step else method,
        "Run": f"{row.run}: the best on the dev set",
        "Dev set": ", ".join(f"{name} {100 * value:.2f}" for name, value in row.epochs[-1].metrics.items()),
        **({"Warning": "**it predicts one class (or value) for all examples**"} if constant else {}),
        "Fingerprint": f"`{row.fingerprint}`",
    }
    return render(
        "mapnet_cli.huggingface", "model_card.md", pipeline="text-classification", name="classify",
        example=pair if len(task.texts) > 1 else '"It rained."', title=f"{method} fine-tuned on {task.name}",
        facts=facts, about="", corpus=corpus, scores=None,
    )  # fmt: skip


def _validation_loss(row: Checkpoint) -> str:
    if row.validation_loss is not None:
        return f"{row.validation_loss:.4f} nats per masked token (15% uniform masks)"
    detection, generator = (row.validation[f"{name}_loss"] for name in ("detection", "generator"))
    held_out = f"detection {detection:.4f} nats per token, generator {generator:.4f} nats per masked token"
    return f"- (no masked-language-model head); {held_out}"


def _scores(lineage: Lineage, row: Checkpoint) -> dict[str, Any]:
    """Returns the scores of the tasks whose grid is complete, the same as in the report, and what they are of."""
    config, encoder = lineage.config, (row.method, row.pretrain_seed, row.step)
    found = (lineage.artifacts.find(lineage.main_task(task).key, TaskFacts) for task in used_tasks(config))
    limits = rows_used(config, filter(None, found))
    scores, doubts = list[tuple[str, str, float]](), list[str]()
    for task in config.finetune.tasks:
        runs = find_runs(lineage, encoder, task).values()
        complete = sum(run.checkpoint == row.fingerprint for run in runs) == len(runs_of(config, *encoder, task))
        result = task_result(runs, config, find_baselines(lineage, task)) if complete else None
        for column, by_seed in result.scores.items() if result else ():
            mean = statistics.fmean(scored.counted for scored in by_seed.values())
            scores.append((column.name, column.metric, mean))
        doubts += result.doubts if result else ()
    data = "probe tasks, **not GLUE**" if lineage.uses_probe else f"GLUE dev sets{f' ({limits})' if limits else ''}"
    return {"scores": scores, "doubts": doubts, "data": data, "seeds": len(config.finetune.seeds)}
