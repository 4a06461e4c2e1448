"""Configs and corpus of the pretraining benchmarks: full blocks of random tokens in prepare-corpus's format."""

import argparse
import json
from itertools import pairwise
from pathlib import Path

import numpy as np

from mapnet_cli.config import Config
from mapnet_cli.config.loading import resolve
from mapnet_cli.core.artifacts import Artifacts, Marker
from mapnet_cli.core.records import CorpusManifest, SourceCounts
from mapnet_cli.jobs.job import ignore_progress, run_job
from mapnet_cli.lineage.graph import Lineage
from mapnet_cli.pretrain.stage import Pretrain
from mapnet_cli.text.bpe import train_tokenizer
from mapnet_cli.text.shards import shard_files, writing_shard
from mapnet_cli.text.words import CLS, SEP

VOCAB = 32_678
SIZES = {
    # layers, hidden, heads and ffn of the encoder (MAP-Net has half the width), block length, sequences per step
    "tiny": (2, 64, 2, 256, 64, 8),
    "small": (4, 256, 4, 1024, 128, 16),
    "base": (12, 768, 12, 3072, 128, 8),
    "paper": (12, 768, 12, 3072, 512, 256),
}
SEQUENCES = 2_048
TOKENIZER_WORDS = [f"{a}{b}{c}" for a in "bcdfg" for b in "aeiou" for c in "klmnp"]


def options(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each side")
    parser.add_argument("--batch", type=int, default=0, help="sequences per step; 0: the default of the size")
    parser.add_argument("--micro", type=int, default=0, help="sequences per forward pass; 0: the whole batch")
    parser.add_argument("--steps", type=int, default=4, help="timed steps per round")
    parser.add_argument("--warm", type=int, default=2, help="warm-up steps before the timed ones")
    parser.add_argument("--rounds", type=int, default=5, help="rounds; the sides alternate")
    parser.add_argument("--compile", action="store_true", help="use torch.compile on all sides")
    return parser


def config_for(chosen: argparse.Namespace, *more: str) -> Config:
    layers, hidden, heads, ffn, length, batch = SIZES[chosen.size]
    steps = chosen.warm + chosen.steps
    settings = [
        f"corpus.vocab_size={VOCAB}", f"corpus.block_length={length}",
        f"pretrain.batch_size={chosen.batch or batch}", f"pretrain.micro_batch_size={chosen.micro}",
        f"pretrain.steps={steps}", "pretrain.milestones=[1.0]", "pretrain.warmup_steps=0", "pretrain.validate_every=0",
        "pretrain.validation_sequences=8", "pretrain.checkpoint_every=0", f"pretrain.log_every={chosen.warm}",
        f"pretrain.device={chosen.device}", f"pretrain.threads={chosen.threads}",
        f"pretrain.compile={str(chosen.compile).lower()}",
    ]  # fmt: skip
    for name, width, depth in (("encoder", 1, layers), ("proposal", 2, layers)):
        settings += [
            f"{name}.layers={depth}", f"{name}.hidden={hidden // width}", f"{name}.heads={max(heads // width, 1)}",
            f"{name}.ffn={ffn // width}", f"{name}.max_length={length}",
        ]  # fmt: skip
    return resolve("paper", None, [*settings, *more], {}).config


def make_corpus(config: Config, artifacts: Artifacts) -> CorpusManifest:
    """Publishes full blocks of random tokens under the config's corpus key, unless they exist; returns the manifest."""
    lineage = Lineage(config, artifacts)
    key = lineage.corpus.key
    existing = artifacts.find(lineage.manifest, CorpusManifest)
    if existing is not None:
        return existing
    rng = np.random.default_rng(0)
    artifacts.path(key).mkdir(parents=True)
    train_tokenizer([" ".join(TOKENIZER_WORDS)] * 3, 400).save(str(artifacts.path(f"{key}/tokenizer.json")))
    length = config.corpus.block_length
    for name, count in (("train", SEQUENCES), ("validation", 8)):
        with writing_shard(artifacts.path(f"{key}/{name}"), VOCAB) as shard:
            for _ in range(count):
                # within the small tokenizer's vocabulary, so that Figure 2 can decode them
                ids = rng.integers(5, 100, length - 2) if name == "validation" else rng.integers(5, VOCAB, length - 2)
                shard.add([CLS, *ids.tolist(), SEP])
    sums = {
        "documents": 1, "paragraphs": 1, "sentences": 1, "words": 1, "tokens": SEQUENCES * length,
        "train_sequences": SEQUENCES, "validation_sequences": 8,
    }  # fmt: skip
    manifest = CorpusManifest(
        **sums, unknown_tokens=0, dropped={}, problem_count=0, problems=[],
        sources=[SourceCounts(kind="cpython", **sums, dropped={}, left_out={}, markup={})],
        vocab_size=VOCAB, block_length=length, train=[f"{key}/train"], validation=[f"{key}/validation"],
        tokenizer=f"{key}/tokenizer.json",
    )  # fmt: skip
    files = [file for name in ("train", "validation") for file in shard_files(artifacts.path(f"{key}/{name}"))]
    artifacts.publish(Marker(lineage.manifest, "benchmark", manifest.to_json(), artifacts.checksums(files)))
    return manifest


def train(config: Config, artifacts: Artifacts, method: str) -> dict[str, float]:
    """Trains like `mapnet pretrain` and returns the means of the timed steps: those after the first log line."""
    lineage = Lineage(config, artifacts)
    key = lineage.pretraining(method, 1).key
    artifacts.discard(key)
    job = next(job for job in Pretrain(lineage).plan(1)[0].jobs if job.key == key)
    run_job(job, artifacts, ignore_progress)
    lines = artifacts.path(f"{key}/log.jsonl").read_text(encoding="utf-8").splitlines()
    first, *rows = (row for row in map(json.loads, lines) if "loss" in row)
    steps = [b["step"] - a["step"] for a, b in pairwise([first, *rows])]
    seconds = [n * row["step_seconds"] for n, row in zip(steps, rows, strict=True)]
    timed = {
        name: sum(s * row[name] for s, row in zip(seconds, rows, strict=True)) / sum(seconds)
        for name in ("tokens_per_second", "flops_per_second", "mfu", "data_wait")
    }
    return timed | {"step_seconds": sum(seconds) / sum(steps), "peak_memory_mb": rows[-1]["peak_memory_mb"]}


def sequences(config: Config, artifacts: Artifacts) -> list[Path]:
    manifest = make_corpus(config, artifacts)
    return [artifacts.path(name) for name in manifest.train]
