"""Pretraining throughput against transformers' BertForMaskedLM at its best, in tokens per CPU second.

Both sides use the same sizes, blocks, batch, threads and dropout, draw new 15 % masks in every step, and use fused
AdamW. The other side is a plain training loop (the Trainer is slower) in every setting that an expert would try:
float32 and bfloat16 autocast, the vocabulary head at all positions or at the masked ones only (as ModernBERT's
`sparse_prediction`), SDPA and eager attention. Our side is `mapnet pretrain`'s own loop, with its logging. The last
line on stdout is one JSON object; `ratio` is our default against the best of their settings.

    python -m tests.benchmarks.pretrain --size small
    python -m tests.benchmarks.pretrain --size base --only mapnet --only 'bfloat16 masked'
    python -m tests.benchmarks.pretrain --size paper --device cuda --batch 256 --micro 128 --compile
"""

import argparse
import os
import tempfile
from functools import partial
from itertools import product
from pathlib import Path

import torch

from mapnet_cli.config import Config
from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.jobs.job import run_job
from mapnet_cli.lineage.graph import Lineage
from mapnet_cli.model.bert import padded_vocabulary
from mapnet_cli.pretrain.stage import Pretrain
from mapnet_cli.text.words import CLS, MASK, PAD, SEP
from tests.benchmarks import workload
from tests.benchmarks.race import Lap, Side, matching, race, report

NEVER = 1 << 40
IGNORED = -100
"""Label of positions without a loss in transformers."""


def ours(lap: Lap, chosen: argparse.Namespace, folder: Path, precision: str) -> None:
    """Runs `mapnet pretrain`; a lap ends with a log line."""
    settings = (f"pretrain.steps={NEVER}", f"pretrain.log_every={chosen.steps}", f"pretrain.precision={precision}")
    config = workload.config_for(chosen, *settings)
    artifacts = Artifacts(folder / f"{precision}{os.getpid()}")
    workload.make_corpus(config, artifacts)
    [job] = [
        job for job in Pretrain(Lineage(config, artifacts)).plan(1)[0].jobs if job.key.startswith("pretrain/bert-")
    ]
    run_job(job, artifacts, lambda progress: lap() if progress.done and progress.done % chosen.steps == 0 else None)


def theirs(lap: Lap, chosen: argparse.Namespace, precision: str, head: str, attention: str) -> None:
    """Runs a plain training loop of BertForMaskedLM."""
    from transformers import BertConfig, BertForMaskedLM, get_linear_schedule_with_warmup

    config, device = workload.config_for(chosen), torch.device(chosen.device)
    encoder, pretrain = config.encoder, config.pretrain
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=padded_vocabulary(workload.VOCAB), hidden_size=encoder.hidden, num_hidden_layers=encoder.layers,
            num_attention_heads=encoder.heads, intermediate_size=encoder.ffn, pad_token_id=PAD,
            max_position_embeddings=encoder.max_length, attn_implementation=attention,
        )
    )  # fmt: skip
    model.to(device).train()
    forward = torch.compile(model) if chosen.compile else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.98), eps=1e-6, fused=True)
    schedule = get_linear_schedule_with_warmup(optimizer, 10, NEVER)
    micro = pretrain.micro_batch_size or pretrain.batch_size
    while True:
        for _ in range(chosen.steps):
            for first in range(0, pretrain.batch_size, micro):
                tokens_BL = random_tokens(config, min(micro, pretrain.batch_size - first))
                inputs_BL, labels_BL = (t.to(device) for t in mask_tokens(tokens_BL))
                with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                    if head == "masked":
                        hidden_BLH = forward.bert(inputs_BL).last_hidden_state
                        chosen_BL = labels_BL != IGNORED
                        logits_NV = forward.cls(hidden_BLH[chosen_BL])
                        loss = torch.nn.functional.cross_entropy(logits_NV.float(), labels_BL[chosen_BL])
                    else:
                        loss = forward(input_ids=inputs_BL, labels=labels_BL).loss
                (loss * len(tokens_BL) / pretrain.batch_size).backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        loss.item()
        lap()


def random_tokens(config: Config, sequences: int) -> torch.Tensor:
    tokens_BL = torch.randint(5, workload.VOCAB, (sequences, config.corpus.block_length))
    tokens_BL[:, 0], tokens_BL[:, -1] = CLS, SEP
    return tokens_BL


def mask_tokens(tokens_BL: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns (inputs, labels) as transformers' DataCollatorForLanguageModeling makes them, without its overhead."""
    labels_BL, inputs_BL = tokens_BL.clone(), tokens_BL.clone()
    ordinary_BL = tokens_BL > MASK
    masked_BL = torch.bernoulli(torch.full(tokens_BL.shape, 0.15) * ordinary_BL).bool()
    labels_BL[~masked_BL] = IGNORED
    inputs_BL[torch.bernoulli(torch.full(tokens_BL.shape, 0.8)).bool() & masked_BL] = MASK
    random_BL = torch.bernoulli(torch.full(tokens_BL.shape, 0.5)).bool() & masked_BL & (inputs_BL != MASK)
    inputs_BL[random_BL] = torch.randint(5, workload.VOCAB, (int(random_BL.sum()),))
    return inputs_BL, labels_BL


def main() -> None:
    parser = workload.options(__doc__ or "")
    parser.add_argument("--only", action="append", default=[], help="words in the names of the sides to race")
    chosen = parser.parse_args()
    config = workload.config_for(chosen)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sides: dict[str, Side] = {
            f"mapnet, {precision}": partial(ours, chosen=chosen, folder=folder, precision=precision)
            for precision in ("auto", "bfloat16", "float32")
        }
        for precision, head, attention in product(("bfloat16", "float32"), ("masked", "full"), ("sdpa", "eager")):
            sides[f"transformers, {precision}, {head} head, {attention}"] = partial(
                theirs, chosen=chosen, precision=precision, head=head, attention=attention
            )
        tokens = chosen.steps * config.pretrain.batch_size * config.corpus.block_length
        rates = race(matching(sides, chosen.only), tokens, chosen.rounds, chosen.device, chosen.threads)
    report(
        f"pretrain bert, {chosen.size}, tokens per CPU second", rates, "mapnet, auto", chosen.device,
        batch=config.pretrain.batch_size, length=config.corpus.block_length, compile=chosen.compile,
    )  # fmt: skip


if __name__ == "__main__":
    main()
