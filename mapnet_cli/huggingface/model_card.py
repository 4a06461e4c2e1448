"""Model card of an exported checkpoint: facts, usage, what the tokenizer does, and scores."""

import statistics
from collections.abc import Mapping

from mapnet_cli.config import Corpus
from mapnet_cli.core import AbsentError, Checkpoint, CorpusManifest, TaskFacts, TunedEncoder
from mapnet_cli.glue import TASKS, GlueTask, one_class, rows_used, runs_of, task_result, used_tasks
from mapnet_cli.lineage import Lineage, find_baselines, find_runs

_USE = """\
```python
from transformers import pipeline

{name} = pipeline("{task}", "FOLDER")
{name}({example})
```
"""
_FILL = _USE.format(name="fill_mask", task="fill-mask", example='"The cat sat on the [MASK]."')
_PAIR = '{"text": "It rained.", "text_pair": "It was wet."}'
_DETECT = """\
```python
from transformers import AutoModelForPreTraining, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("FOLDER")
model = AutoModelForPreTraining.from_pretrained("FOLDER")
batch = tokenizer("The cat sat on the mat.", return_tensors="pt")
replaced = model(**batch).logits > 0
```
"""
_PREPARED = """\
The tokenizer takes plain text: Unicode NFC, Moses' punctuation normalisation and tokenisation{lowercase} are part of
`tokenizer.json`. It encodes pairs as `[CLS] a [SEP] [SEP] b [SEP]`. What differs from the text of the training:

- Sentences were prepared one by one. In a text of several, an apostrophe after a full stop stays attached to it.
- A special token in the text is that token. What comes before it is prepared as if the text ended there: `etc. [MASK]`
  is always `etc . [MASK]`. What follows it begins a word, so `[MASK]` doesn't stand for part of a word.
- Of three or more apostrophes with single letters between them (`fo’c’s’le`), some are split elsewhere; so are long
  runs of commas and full stops after a quotation mark (`",,,`), and words with `MULTI`, a placeholder of sacremoses.
"""
_IMPORTED = """\
The tokenizer is that of the import {name}, in everything but the numbers of its tokens: it takes plain text and has its
own layout of pairs.
"""
_BERT = "A BERT encoder with a masked-language-model head"
_ELECTRA = "An ELECTRA discriminator, an encoder with a replaced-token-detection head"


def model_card(lineage: Lineage, row: Checkpoint, manifest: CorpusManifest) -> str:
    """Returns the README.md of the exported folder."""
    config, versions = lineage.config, lineage.artifacts.require(row.path).versions
    try:
        scores = _scores(lineage, row)
    except AbsentError:  # no GLUE data, so no results either
        scores = "Not fine-tuned yet.\n"
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
    about = (
        f"{_ELECTRA if electra else _BERT}, pretrained by mapnet, an implementation of *Variance-reduced Language "
        "Pretraining via a Mask Proposal Network* (arXiv 2008.05333).\n\n"
    )
    sections = {"Use": _DETECT if electra else _FILL, "Text": _text(config.corpus), "Scores": scores}
    title = f"{row.method} at step {row.step:,}"
    return _card("" if electra else "fill-mask", title, about, facts, sections)


def classifier_card(
    lineage: Lineage, encoder: tuple[str, int, int], task: GlueTask, row: TunedEncoder, corpus: Corpus
) -> str:
    """Returns the README.md of an exported classifier. `corpus` has the settings of its tokenizer."""
    (method, seed, step), example = encoder, _PAIR if len(task.texts) > 1 else '"It rained."'
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
    use = _USE.format(name="classify", task="text-classification", example=example)
    title = f"{method} fine-tuned on {task.name}"
    return _card("text-classification", title, "", facts, {"Use": use, "Text": _text(corpus)})


def _card(pipeline: str, title: str, about: str, facts: Mapping[str, str], sections: Mapping[str, str]) -> str:
    tag = f"pipeline_tag: {pipeline}\n" if pipeline else ""
    rows = "".join(f"| {name} | {value} |\n" for name, value in facts.items())
    head = (
        f"---\nlibrary_name: transformers\n{tag}---\n\n# {title}\n\n{about}| Property | Value |\n| --- | --- |\n{rows}"
    )
    return head + "".join(f"\n## {name}\n\n{text}" for name, text in sections.items())


def _text(corpus: Corpus) -> str:
    if corpus.tokenizer:
        return _IMPORTED.format(name=corpus.tokenizer)
    return _PREPARED.format(lowercase="" if corpus.lowercase == "never" else ", and lower-casing,")


def _validation_loss(row: Checkpoint) -> str:
    if row.validation_loss is not None:
        return f"{row.validation_loss:.4f} nats per masked token (15% uniform masks)"
    detection, generator = (row.validation[f"{name}_loss"] for name in ("detection", "generator"))
    held_out = f"detection {detection:.4f} nats per token, generator {generator:.4f} nats per masked token"
    return f"- (no masked-language-model head); {held_out}"


def _scores(lineage: Lineage, row: Checkpoint) -> str:
    """Returns a table of the tasks whose grid is complete, with the same scores as in the report."""
    config, encoder = lineage.config, (row.method, row.pretrain_seed, row.step)
    found = (lineage.artifacts.find(lineage.main_task(task).key, TaskFacts) for task in used_tasks(config))
    facts = list(filter(None, found))
    lines, doubts = list[str](), list[str]()
    for task in config.finetune.tasks:
        runs = find_runs(lineage, encoder, task).values()
        complete = sum(run.checkpoint == row.fingerprint for run in runs) == len(runs_of(config, *encoder, task))
        result = task_result(runs, config, find_baselines(lineage, task)) if complete else None
        for column, scores in result.scores.items() if result else ():
            mean = statistics.fmean(scored.counted for scored in scores.values())
            lines.append(f"| {column.name} | {column.metric} | {mean:.2f} |")
        doubts += [f"- {doubt}" for doubt in (result.doubts if result else ())]
    if not lines:
        return "Not fine-tuned yet.\n"
    limits = rows_used(config, facts)
    data = "probe tasks, **not GLUE**" if lineage.uses_probe else f"GLUE dev sets{f' ({limits})' if limits else ''}"
    parts = [*lines, *(["", "Scores that mean little:", "", *doubts] if doubts else []), ""]
    seeds = len(config.finetune.seeds)
    return (
        f"Evaluated on {data}: metric × 100, mean over {seeds} fine-tuning seeds of the best setting. The setting is "
        "chosen on the same dev set.\n\n| Task | Metric | Score |\n| --- | --- | ---: |\n" + "\n".join(parts)
    )
