"""`mapnet export --task`: saves a kept fine-tuned model as `BertForSequenceClassification`, whose head equals ours."""

from pathlib import Path

from mapnet_cli.config import task_name
from mapnet_cli.core import TunedEncoder, UsageError, did_you_mean
from mapnet_cli.glue import get_task
from mapnet_cli.huggingface.export import exported_tokenizer, free_folder, model_config, write_folder
from mapnet_cli.huggingface.model_card import classifier_card
from mapnet_cli.huggingface.weights import SEGMENTS, to_hugging_face
from mapnet_cli.lineage import Lineage, find_row
from mapnet_cli.model import PretrainingModel
from mapnet_cli.text import verified_tokenizer
from mapnet_cli.training import SEGMENT, load_checkpoint


def export_classifier(
    lineage: Lineage, folder: Path, method: str | None, seed: int | None, step: int | None, task: str
) -> TunedEncoder:
    """Writes the folder atomically and returns the model's record. A regression's output is in the data's range.

    Raises UsageError if the row of Table 3 is ambiguous, if its model of the task wasn't kept, or if transformers has
    no such head; DamagedError if a file doesn't match its checksum.
    """
    folder, config, artifacts = free_folder(folder), lineage.config, lineage.artifacts
    task = task_name(task)
    if task not in config.finetune.tasks:
        raise UsageError(f"--task: {task!r} is not in finetune.tasks{did_you_mean(task, config.finetune.tasks, True)}")
    name, *_ = encoder = find_row(lineage, method, seed, step)
    spec, key = get_task(config, task), lineage.kept(*encoder, task).key
    row, sizes = artifacts.find(key, TunedEncoder), lineage.sizes(name)[0]
    if config.finetune.pooling == "mean" or sizes.architecture == "modernbert":
        ours = 'finetune.pooling = "mean"' if config.finetune.pooling == "mean" else "a ModernBERT encoder"
        raise UsageError(f"transformers has no classifier whose head is that of {ours} here: only BERT's at [CLS] is")
    if row is None or not row.path:
        why = "every run failed" if row else 'set finetune.keep = "best" and run `mapnet finetune-glue` again'
        raise UsageError(f"no model of {task} was kept for {name}: {why}")
    artifacts.verify(key)
    tensors, facts = load_checkpoint(artifacts.path(row.path))
    model = PretrainingModel(sizes, facts["vocab_size"], None)
    model.load_state_dict(model.state_dict() | {n: t for n, t in tensors.items() if n.startswith("encoder.")})
    weights = {theirs: tensor for theirs, tensor in to_hugging_face(model).items() if theirs.startswith("bert.")}
    low, high = spec.range if spec.regression else (0.0, 1.0)
    for kind in ("weight", "bias"):
        weights[f"bert.pooler.dense.{kind}"] = tensors[f"head.dense.{kind}"]
        weights[f"classifier.{kind}"] = tensors[f"head.out.{kind}"] * (high - low)
    weights["classifier.bias"] += low
    if SEGMENT in tensors:
        weights[SEGMENTS][1] = tensors[SEGMENT]
    classes = dict(enumerate(spec.labels or ["score"]))
    settings = model_config(sizes, facts["vocab_size"], electra=False) | {
        "architectures": ["BertForSequenceClassification"],
        "classifier_dropout": config.finetune.dropout,
        "id2label": classes,
        "label2id": {label: number for number, label in classes.items()},
        "problem_type": "regression" if spec.regression else "single_label_classification",
    }
    imported = lineage.tokenizer_of(name)
    corpus = config.corpus.model_copy(update={"tokenizer": imported or config.corpus.tokenizer})
    source = lineage.imported(imported).path if imported else lineage.manifest
    tokenizer = exported_tokenizer(verified_tokenizer(artifacts, source), corpus)
    write_folder(folder, settings, weights, tokenizer, classifier_card(lineage, encoder, spec, row, corpus))
    return row
