"""Fine-tuning throughput in examples per second, compared with the training loop of transformers' run_glue.py.

Both sides use the same sizes, examples, random batches, epochs, threads, dropout and AdamW. Lengths are
log-normal with a median of `--median` tokens, similar to GLUE's sentences; the other side pads to the
longest example of a batch, or with `--pad max` to `--max-length`, which is run_glue.py's default.
The last line on stdout is one JSON object.

    python -m tests.benchmarks.finetune
    python -m tests.benchmarks.finetune --size base --examples 128 --rounds 2
    python -m tests.benchmarks.finetune --parallel 4 --device cuda

With `--parallel N` our side runs N jobs at a time in N processes, as the grid does if GPU memory
allows; the other side runs one after the other, since run_glue.py has no parallel runs.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from multiprocessing import get_context
from multiprocessing.pool import Pool
from pathlib import Path

import numpy as np
import torch

from mapnet_cli.config import Finetune, Transformer
from mapnet_cli.core.seeds import derive_seed
from mapnet_cli.finetune_glue.loop import Setting, encoder_weights, fine_tune
from mapnet_cli.finetune_glue.tokenised import Tokenised
from mapnet_cli.glue.tasks import TASKS
from mapnet_cli.huggingface.weights import to_hugging_face
from mapnet_cli.model.masked_lm import PretrainingModel
from mapnet_cli.text.words import CLS, PAD, SEP
from mapnet_cli.training.checkpoint import save_checkpoint
from mapnet_cli.training.device import autocast, device_name

VOCAB = 8_000
SIZES = {"small": (4, 256, 4, 1024), "base": (12, 768, 12, 3072)}
TASK = "RTE"


def examples(chosen: argparse.Namespace) -> Tokenised:
    rng = np.random.default_rng(0)
    lengths = np.exp(rng.normal(np.log(chosen.median), 0.5, chosen.examples)).astype(int).clip(3, chosen.max_length)
    rows = [[CLS, *rng.integers(5, VOCAB, length - 2).tolist(), SEP] for length in lengths]
    offsets = np.cumsum([0, *map(len, rows)])
    labels = rng.integers(0, 2, chosen.examples).astype(np.float32)
    return Tokenised(np.concatenate(rows).astype(np.uint32), offsets, labels, np.diff(offsets))


def our_rate(data: Tokenised, folder: Path, encoder: Transformer, chosen: argparse.Namespace) -> float:
    """Returns examples per second of a whole run: training and, as in the grid, the dev set after each epoch."""
    config = Finetune(epochs=chosen.epochs, clip_norm=1.0)
    dev = {"": Tokenised(data.tokens[: data.offsets[1]], data.offsets[:2], data.labels[:1], data.second[:1])}
    setting = Setting(chosen.batch, 1e-5, 1)
    device = torch.device(chosen.device)
    start = time.perf_counter()
    tuned = fine_tune(TASKS[TASK], data, dev, encoder_weights(folder), encoder, config, setting, device)
    assert len(tuned.epochs) == chosen.epochs, tuned.failure
    return chosen.epochs * chosen.examples / (time.perf_counter() - start)


def our_parallel_rate(pool: Pool, folder: Path, encoder: Transformer, chosen: argparse.Namespace) -> float:
    """Returns the total examples per second of several runs in parallel."""
    start = time.perf_counter()
    pool.starmap(_run_once, [(folder, encoder, chosen)] * chosen.parallel, chunksize=1)
    return chosen.parallel * chosen.epochs * chosen.examples / (time.perf_counter() - start)


def _run_once(folder: Path, encoder: Transformer, chosen: argparse.Namespace) -> None:
    torch.set_num_threads(chosen.threads)
    our_rate(examples(chosen), folder, encoder, chosen)


def their_rate(data: Tokenised, folder: Path, chosen: argparse.Namespace) -> float:
    """Returns examples per second of BertForSequenceClassification in run_glue.py's loop, on the same batches."""
    from transformers import BertForSequenceClassification, get_linear_schedule_with_warmup

    device = torch.device(chosen.device)
    start = time.perf_counter()
    model = BertForSequenceClassification.from_pretrained(folder, num_labels=2, attn_implementation="sdpa")
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.1, fused=True)  # as the Trainer does
    steps = chosen.epochs * -(-len(data) // chosen.batch)
    schedule = get_linear_schedule_with_warmup(optimizer, round(0.06 * steps), steps)
    for epoch in range(1, chosen.epochs + 1):
        generator = torch.Generator().manual_seed(derive_seed(1, "fine-tuning order", TASK, epoch))
        for indices in torch.split(torch.randperm(len(data), generator=generator), chosen.batch):
            rows_BL = torch.from_numpy(data.batch(indices.numpy()))
            if chosen.pad == "max":
                rows_BL = torch.nn.functional.pad(rows_BL, (0, chosen.max_length - rows_BL.shape[1]), value=PAD)
            labels_B = torch.from_numpy(data.labels[indices.numpy()]).long()
            with autocast(device, "auto"):  # the same precision on both sides
                loss = model(
                    input_ids=rows_BL.to(device),
                    attention_mask=(rows_BL != PAD).long().to(device),
                    labels=labels_B.to(device),
                ).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    loss.item()
    return chosen.epochs * chosen.examples / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--examples", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--median", type=int, default=24, help="median number of tokens per example")
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--pad", choices=["longest", "max"], default="longest")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parallel", type=int, default=1, help="parallel runs on our side, one process each")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    layers, hidden, heads, ffn = SIZES[chosen.size]
    encoder = Transformer(layers=layers, hidden=hidden, heads=heads, ffn=ffn, max_length=chosen.max_length)
    data, ours, theirs = examples(chosen), [], []
    with tempfile.TemporaryDirectory() as name, get_context("spawn").Pool(chosen.parallel) as pool:
        model = PretrainingModel(encoder, VOCAB, None)
        model.init_weights(1)
        save_checkpoint(Path(name) / "ours", model.state_dict(), {"vocab_size": VOCAB})
        save_for_transformers(model, Path(name) / "theirs")

        def our_side() -> float:
            folder = Path(name) / "ours"
            if chosen.parallel > 1:
                return our_parallel_rate(pool, folder, encoder, chosen)
            return our_rate(data, folder, encoder, chosen)

        our_side()  # warm-up: the first run of a process includes imports and page faults
        their_rate(data, Path(name) / "theirs", chosen)
        for number in range(chosen.rounds):
            ours.append(our_side())
            theirs.append(their_rate(data, Path(name) / "theirs", chosen))
            print(f"round {number + 1}: {ours[-1]:.1f} vs. {theirs[-1]:.1f} examples/s", file=sys.stderr)
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    fill = float(np.mean(data.lengths)) / chosen.max_length
    print(
        json.dumps(
            {
                "name": f"fine-tuning, {chosen.size}, examples/s",
                "ours": statistics.median(ours),
                "theirs": statistics.median(theirs),
                "ratio": statistics.median(ratios),
                "ratios": ratios,
                "against": f"BertForSequenceClassification in run_glue.py's loop, padded to {chosen.pad}",
                "mean length": fill * chosen.max_length,
                "device": device_name(torch.device(chosen.device)),
                "batch": chosen.batch,
            }
        )
    )


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
