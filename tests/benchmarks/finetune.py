"""Fine-tuning throughput against transformers' BertForSequenceClassification at its best, in examples per CPU second.

Both sides use the same sizes, examples, threads, dropout and fused AdamW. Lengths are log-normal with a median of
`--median` tokens, similar to GLUE's sentences. The other side is the loop of run_glue.py with dynamic padding, in every
setting that an expert would try: float32 and bfloat16 autocast, random batches and batches of similar lengths, SDPA
and eager attention. Our side takes the steps of `mapnet finetune-glue`. The last line on stdout is one JSON object;
`ratio` is our default against the best of their settings.

    python -m tests.benchmarks.finetune
    python -m tests.benchmarks.finetune --size base --examples 64 --only mapnet --only bfloat16
    python -m tests.benchmarks.finetune --device cuda --parallel 4

With `--parallel N`, each side runs in N processes at a time, as the grid does if GPU memory allows.
"""

import argparse
import tempfile
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch

from mapnet_cli.config import Finetune, Transformer
from mapnet_cli.core import automatic_precision
from mapnet_cli.finetune_glue.classifier import Start, build, encoder_weights, make_inputs
from mapnet_cli.finetune_glue.loop import epoch_batches, training_step
from mapnet_cli.finetune_glue.tokenised import Tokenised
from mapnet_cli.glue.tasks import TASKS
from mapnet_cli.huggingface.weights import to_hugging_face
from mapnet_cli.model.masked_lm import PretrainingModel
from mapnet_cli.text.words import CLS, PAD, SEP
from mapnet_cli.training import build_adamw, keep_freed_memory, set_learning_rate
from mapnet_cli.training.checkpoint import save_checkpoint
from tests.benchmarks.race import Lap, Side, matching, race, report

VOCAB = 8_000
SIZES = {"tiny": (2, 32, 2, 64), "small": (4, 256, 4, 1024), "base": (12, 768, 12, 3072)}
TASK = TASKS["RTE"]


def examples(chosen: argparse.Namespace) -> Tokenised:
    rng = np.random.default_rng(0)
    lengths = np.exp(rng.normal(np.log(chosen.median), 0.5, chosen.examples)).astype(int).clip(3, chosen.max_length)
    rows = [[CLS, *rng.integers(5, VOCAB, length - 2).tolist(), SEP] for length in lengths]
    offsets = np.cumsum([0, *map(len, rows)])
    labels = rng.integers(0, 2, chosen.examples).astype(np.float32)
    return Tokenised(np.concatenate(rows).astype(np.uint32), offsets, labels, np.diff(offsets))


def ours(lap: Lap, chosen: argparse.Namespace, folder: Path, precision: str, batching: str) -> None:
    """A lap is an epoch."""
    keep_freed_memory()
    if precision == "auto":
        precision = automatic_precision(chosen.device)
    config = Finetune(epochs=1, clip_norm=0.0, precision=precision, batching=batching)
    device, data = torch.device(chosen.device), examples(chosen)
    start = Start(sizes(chosen), *encoder_weights(folder / "ours"))
    model = build(TASK, start, config, 1).to(device).train()
    optimizer = build_adamw(model, config)
    set_learning_rate(optimizer, 1e-5)
    compiled = torch.compile(model, mode="reduce-overhead", dynamic=False, fullgraph=True) if chosen.compile else None
    generator = torch.Generator().manual_seed(1)
    while True:
        for indices in epoch_batches(data, chosen.batch, batching, generator):
            forward = compiled if len(indices) == chosen.batch else None
            inputs = make_inputs(model, data, indices, device, fixed=forward is not None)
            training_step(model, optimizer, TASK, inputs, config.clip_norm, forward)
        lap()


def theirs(lap: Lap, chosen: argparse.Namespace, folder: Path, precision: str, batching: str, attention: str) -> None:
    """A lap is an epoch in run_glue.py's loop."""
    from transformers import BertForSequenceClassification, get_linear_schedule_with_warmup

    device, data = torch.device(chosen.device), examples(chosen)
    model = BertForSequenceClassification.from_pretrained(
        folder / "theirs", num_labels=2, attn_implementation=attention
    )
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.1, fused=True)  # as the Trainer does
    schedule = get_linear_schedule_with_warmup(optimizer, 10, 1 << 40)
    generator = torch.Generator().manual_seed(1)
    while True:
        for indices in epoch_batches(data, chosen.batch, batching, generator):
            rows_BL = torch.from_numpy(data.batch(indices))
            labels_B = torch.from_numpy(data.labels[indices]).long()
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                loss = model(
                    input_ids=rows_BL.to(device),
                    attention_mask=(rows_BL != PAD).long().to(device),
                    labels=labels_B.to(device),
                ).loss
            loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        loss.item()
        lap()


def sizes(chosen: argparse.Namespace) -> Transformer:
    layers, hidden, heads, ffn = SIZES[chosen.size]
    return Transformer(layers=layers, hidden=hidden, heads=heads, ffn=ffn, max_length=chosen.max_length)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--examples", type=int, default=256, help="examples per round")
    parser.add_argument("--median", type=int, default=24, help="median number of tokens per example")
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", action="append", default=[], help="words in the names of the sides to race")
    parser.add_argument("--compile", action="store_true", help="finetune.compile on our side")
    parser.add_argument("--parallel", type=int, default=1, help="processes of each side that run at the same time")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = PretrainingModel(sizes(chosen), VOCAB, None)
        model.init_weights(1)
        save_checkpoint(folder / "ours", model.state_dict(), {"vocab_size": VOCAB})
        save_for_transformers(model, folder / "theirs")
        common = {"chosen": chosen, "folder": folder}
        sides: dict[str, Side] = {
            f"mapnet, {precision}, {batching} batches": partial(ours, precision=precision, batching=batching, **common)
            for precision, batching in product(("auto", "float32"), ("random", "by-length"))
        }
        for precision, batching, attention in product(
            ("bfloat16", "float32"), ("random", "by-length"), ("sdpa", "eager")
        ):
            sides[f"transformers, {precision}, {batching} batches, {attention}"] = partial(
                theirs, precision=precision, batching=batching, attention=attention, **common
            )
        chosen_sides = matching(sides, chosen.only)
        rates = race(chosen_sides, chosen.examples, chosen.rounds, chosen.device, chosen.threads, chosen.parallel)
    mean = float(np.mean(examples(chosen).lengths))
    report(
        f"fine-tuning, {chosen.size}, examples/s", rates, "mapnet, auto, random batches", chosen.device,
        batch=chosen.batch, mean_length=mean, parallel=chosen.parallel,
    )  # fmt: skip


def save_for_transformers(model: PretrainingModel, folder: Path) -> None:
    from transformers import BertConfig, BertForMaskedLM

    config = model.encoder.config
    theirs = BertForMaskedLM(
        BertConfig(
            vocab_size=VOCAB, hidden_size=config.hidden, num_hidden_layers=config.layers,
            num_attention_heads=config.heads, intermediate_size=config.ffn, max_position_embeddings=config.max_length,
            pad_token_id=PAD,
        )
    )  # fmt: skip
    theirs.load_state_dict(to_hugging_face(model), strict=False)
    theirs.save_pretrained(folder)


if __name__ == "__main__":
    main()
