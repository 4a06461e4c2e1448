"""`mapnet export`: saves a milestone, or a kept classifier of a task, as a Hugging Face folder for `transformers`."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from tokenizers import Tokenizer, processors

from mapnet_cli import core
from mapnet_cli.config import Corpus, Transformer, task_name
from mapnet_cli.glue import get_task
from mapnet_cli.huggingface.model_card import classifier_card, model_card
from mapnet_cli.huggingface.weights import SEGMENTS, TIED, Weights, to_hugging_face
from mapnet_cli.lineage import Lineage, find_milestone, find_row
from mapnet_cli.model import PretrainingModel, build_model
from mapnet_cli.text import CLS, PAD, SEP, SPECIALS, load_tokenizer, moses_normalizer, verified_tokenizer
from mapnet_cli.training import SEGMENT, load_checkpoint


def export_checkpoint(
    lineage: Lineage, folder: Path, method: str | None, seed: int | None, step: int | None
) -> core.Checkpoint:
    """Writes the folder atomically and returns the checkpoint's record.

    None selects the config's only method, its first seed or the last finished milestone. Raises
    UsageError if the checkpoint is ambiguous, none is finished or the folder isn't empty;
    DamagedError if a file doesn't match its checksum.
    """
    folder = free_folder(folder)
    config, artifacts = lineage.config, lineage.artifacts
    row = find_milestone(lineage, method, seed, step)
    if config.method[row.method].electra and config.encoder.architecture == "modernbert":
        raise core.UsageError("transformers has no ELECTRA with ModernBERT's architecture: export another method")
    manifest = artifacts.read(lineage.manifest, core.CorpusManifest)
    artifacts.verify(row.path)
    artifacts.verify(lineage.manifest, only=manifest.tokenizer)
    model = build_model(config, row.method, manifest.vocab_size)
    model.load_state_dict(load_checkpoint(artifacts.path(row.path))[0])
    electra = config.method[row.method].electra is not None
    weights = {name: tensor for name, tensor in to_hugging_face(model).items() if name not in TIED}
    tokenizer = exported_tokenizer(artifacts.path(manifest.tokenizer), config.corpus)
    settings = model_config(config.encoder, manifest.vocab_size, electra)
    write_folder(folder, settings, weights, tokenizer, model_card(lineage, row, manifest))
    return row


def export_classifier(
    lineage: Lineage, folder: Path, method: str | None, seed: int | None, step: int | None, task: str
) -> core.TunedEncoder:
    """Writes the folder atomically and returns the model's record. A regression's output is in the data's range.

    Raises UsageError if the row of Table 3 is ambiguous, if its model of the task wasn't kept, or if transformers has
    no such head; DamagedError if a file doesn't match its checksum.
    """
    folder, config, artifacts = free_folder(folder), lineage.config, lineage.artifacts
    task = task_name(task)
    if task not in config.finetune.tasks:
        raise core.UsageError(
            f"--task: {task!r} is not in finetune.tasks{core.did_you_mean(task, config.finetune.tasks, True)}"
        )
    name, *_ = encoder = find_row(lineage, method, seed, step)
    spec, key = get_task(config, task), lineage.kept(*encoder, task).key
    row, sizes = artifacts.find(key, core.TunedEncoder), lineage.sizes(name)[0]
    if config.finetune.pooling == "mean" or sizes.architecture == "modernbert":
        ours = 'finetune.pooling = "mean"' if config.finetune.pooling == "mean" else "a ModernBERT encoder"
        raise core.UsageError(
            f"transformers has no classifier whose head is that of {ours} here: only BERT's at [CLS] is"
        )
    if row is None or not row.path:
        why = "every run failed" if row else 'set finetune.keep = "best" and run `mapnet finetune-glue` again'
        raise core.UsageError(f"no model of {task} was kept for {name}: {why}")
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
    seen = corpus.model_copy(update={"sources": ()}) if imported else corpus  # an import didn't learn from the corpus
    write_folder(folder, settings, weights, tokenizer, classifier_card(lineage, encoder, spec, row, seen))
    return row


def free_folder(folder: Path) -> Path:
    """Returns the absolute path of a folder to export to. Raises UsageError if it isn't empty."""
    folder = folder.resolve()
    if folder == Path.cwd():
        raise core.UsageError("can't export into the current folder: choose a new folder")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise core.UsageError(f"{folder} is not empty: choose a new folder")
    return folder


def write_folder(folder: Path, settings: dict[str, Any], weights: Weights, tokenizer: Tokenizer, card: str) -> None:
    """Writes a folder for `from_pretrained` atomically. `settings` is its config.json, `card` its README.md."""
    with core.publishing(folder) as temporary:
        temporary.mkdir()
        core.write_json(temporary / "config.json", settings)
        save_file(weights, temporary / "model.safetensors", {"format": "pt"})
        tokenizer.save(str(temporary / "tokenizer.json"))
        core.write_json(temporary / "tokenizer_config.json", tokenizer_config(settings))
        core.write_text(temporary / "README.md", card)


def model_config(encoder: Transformer, vocab_size: int, electra: bool) -> dict[str, Any]:
    """Returns config.json for the transformers model of a checkpoint; `vocab_size` excludes padding rows."""
    types = ["sliding_attention" if window else "full_attention" for window in encoder.attention_windows()]
    ids = {"pad": PAD, "cls": CLS, "sep": SEP}
    values = {"encoder": encoder, "vocab_size": vocab_size, "electra": electra, "types": types, **ids}
    settings: dict[str, Any] = json.loads(core.render("mapnet_cli.huggingface", "config.json", **values))
    return settings


def tokenizer_config(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns tokenizer_config.json for a config.json. Without the class, `AutoTokenizer` builds another tokenizer."""
    segments = ["token_type_ids"] if settings["model_type"] != "modernbert" else []
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": settings["max_position_embeddings"],
        "model_input_names": ["input_ids", *segments, "attention_mask"],
        "clean_up_tokenization_spaces": False,
        **{f"{special.strip('[]').lower()}_token": special for special in SPECIALS},
    }


def exported_tokenizer(path: Path, corpus: Corpus) -> Tokenizer:
    """Returns a corpus's tokenizer for plain text with special tokens; an import's as it is, with its own layout."""
    tokenizer = load_tokenizer(path)
    tokenizer.encode_special_tokens = False
    if corpus.preparation != "none":
        tokenizer.normalizer = moses_normalizer(corpus.preparation)
    if tokenizer.post_processor is None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A:0 [SEP]:0 [SEP]:0 $B:0 [SEP]:0",
            special_tokens=[(SPECIALS[CLS], CLS), (SPECIALS[SEP], SEP)],
        )
    return tokenizer
