"""Pretraining throughput in tokens per second, compared with transformers' BertForMaskedLM and Trainer.

Both sides use the same sizes, blocks, batch, precision, threads and dropout, and draw new 15 % masks in every step.
The last line on stdout is one JSON object.

    python -m tests.benchmarks.pretrain --size small
    python -m tests.benchmarks.pretrain --size paper --device cuda --batch 256 --micro 128 --compile
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from mapnet_cli.config import Config
from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.text.shards import Sequences
from mapnet_cli.text.words import PAD, SPECIALS
from mapnet_cli.training.device import device_name
from tests.benchmarks import workload

NEVER = 1 << 40
"""A step interval longer than any round."""


class Blocks(torch.utils.data.Dataset[dict[str, Any]]):
    """The corpus as lists of ids, like the output of run_mlm.py's `group_texts`."""

    def __init__(self, paths: list[Path]) -> None:
        sequences = Sequences(paths)
        self.rows = [sequences[i].tolist() for i in range(len(sequences))]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": self.rows[index]}


def trainer_rate(config: Config, artifacts: Artifacts, chosen: argparse.Namespace, folder: Path) -> float:
    """Returns tokens per second of the timed steps under transformers' Trainer."""
    from tokenizers import Tokenizer, models
    from transformers import (
        BertConfig,
        BertForMaskedLM,
        DataCollatorForLanguageModeling,
        PreTrainedTokenizerFast,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step in (chosen.warm, chosen.warm + chosen.steps):
                if chosen.device == "cuda":
                    torch.cuda.synchronize()
                self.times = [*getattr(self, "times", []), time.perf_counter()]

    encoder, clock = config.encoder, Clock()
    vocabulary = {**{s: i for i, s in enumerate(SPECIALS)}, **{f"t{i}": i for i in range(5, workload.VOCAB)}}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]")),
        pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]",
    )  # fmt: skip
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=workload.VOCAB, hidden_size=encoder.hidden, num_hidden_layers=encoder.layers,
            num_attention_heads=encoder.heads, intermediate_size=encoder.ffn, pad_token_id=PAD,
            max_position_embeddings=encoder.max_length, attn_implementation="sdpa",
        )
    )  # fmt: skip
    micro = config.pretrain.micro_batch_size or config.pretrain.batch_size
    arguments = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=micro, max_steps=chosen.warm + chosen.steps,
        gradient_accumulation_steps=config.pretrain.batch_size // micro, learning_rate=1e-4, weight_decay=0.01,
        adam_beta2=0.98, adam_epsilon=1e-6, max_grad_norm=0.0, use_cpu=chosen.device == "cpu",
        bf16=chosen.device == "cuda", torch_compile=chosen.compile, save_strategy="no", logging_steps=NEVER,
        report_to="none", disable_tqdm=True, dataloader_num_workers=4 if chosen.device == "cuda" else 0,
    )  # fmt: skip
    data = Blocks(workload.sequences(config, artifacts))
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
    Trainer(model, arguments, train_dataset=data, data_collator=collator, callbacks=[clock]).train()
    begin, end = clock.times
    return chosen.steps * config.pretrain.batch_size * config.corpus.block_length / (end - begin)


def main() -> None:
    chosen = workload.options(__doc__ or "").parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(chosen.threads)
    device = torch.device(chosen.device)
    config = workload.config_for(chosen)
    ours, theirs, rows = [], [], []
    with tempfile.TemporaryDirectory() as name:
        artifacts = Artifacts(Path(name) / "artifacts")
        workload.make_corpus(config, artifacts)
        for number in range(chosen.rounds):
            rows.append(workload.train(config, artifacts, "bert"))
            ours.append(rows[-1]["tokens_per_second"])
            theirs.append(trainer_rate(config, artifacts, chosen, Path(name) / "trainer"))
            print(
                f"round {number + 1}: mapnet {ours[-1]:,.0f} tokens/s (waiting for data {rows[-1]['data_wait']:.2%}, "
                f"MFU {rows[-1]['mfu']:.0%}), Trainer {theirs[-1]:,.0f} tokens/s, ratio {ours[-1] / theirs[-1]:.2f}",
                file=sys.stderr,
            )
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    print(
        json.dumps(
            {
                "name": f"pretrain bert, {chosen.size}, tokens/s",
                "ours": statistics.median(ours),
                "theirs": statistics.median(theirs),
                "ratio": statistics.median(ratios),
                "ratios": ratios,
                "against": "transformers BertForMaskedLM under Trainer",
                "device": device_name(device),
                "batch": config.pretrain.batch_size,
                "length": config.corpus.block_length,
                "compile": chosen.compile,
            }
        )
    )


if __name__ == "__main__":
    main()
