"""What one fine-tuning run asks of a machine: the engines decide by it how many run side by side."""

from typing import TypedDict

from mapnet_cli.config import Config, Transformer
from mapnet_cli.glue.grid import fine_tuned, starts_from_mnli
from mapnet_cli.lineage.graph import Lineage

CONTEXT = 2**30
"""Bytes that CUDA and its libraries take of a GPU for each process."""
STATE = 16
"""Bytes a weight: float32 weight, gradient, and Adam's two moments."""
FLOAT = 4


class Requirements(TypedDict):
    """Fields of a Phase."""

    threads: int
    gpu_bytes: int
    jobs_per_gpu: int


def run_requirements(config: Config, lineage: Lineage) -> Requirements:
    """Returns the demands of the grid's largest run; raises UsageError for an import that isn't there."""
    finetune = config.finetune
    starts = [finetune.mnli_batch_size] if starts_from_mnli(config) else []
    largest_batch = max([*finetune.batch_sizes, *starts])
    models = dict.fromkeys(sizes(config, lineage, method) for method, _, _ in fine_tuned(config))
    largest = max(run_bytes(encoder, vocab_size, largest_batch) for encoder, vocab_size in models)
    return {
        "threads": finetune.threads,
        "gpu_bytes": 0 if finetune.device == "cpu" else largest,
        "jobs_per_gpu": finetune.runs_per_gpu,
    }


def sizes(config: Config, lineage: Lineage, method: str) -> tuple[Transformer, int]:
    """Returns the encoder's sizes and the largest vocabulary that a row of Table 3 may have."""
    if imported := lineage.tokenizer_of(method):
        found = lineage.imported(imported).result
        return Transformer.model_validate(found["encoder"]), found["vocab_size"]
    own = config.corpus.tokenizer
    return config.encoder, lineage.imported(own).result["vocab_size"] if own else config.corpus.vocab_size


def run_bytes(encoder: Transformer, vocab_size: int, batch_size: int) -> int:
    """Returns a rough upper estimate of a run's bytes of GPU memory, its batches full of the longest examples.

    With H the hidden and F the feed-forward size, a layer keeps for each token's backward pass two sums and
    two norms (4 H), query, key and value without padding and with it (6 H), attention's output before and
    after its matrix and without padding (3 H), what dropout kept (under 2 H), and the feed-forward's two inner
    vectors (2 F). All count as float32, though autocast keeps most of them in half of that; attention keeps
    no scores, it is fused.
    """
    hidden, ffn = encoder.hidden, encoder.ffn
    layer_weights = 4 * hidden * (hidden + 1) + 2 * hidden * ffn + ffn + 5 * hidden
    embeddings = (vocab_size + encoder.max_length + 2) * hidden
    head = hidden * (hidden + 1)
    kept = batch_size * encoder.max_length * encoder.layers * (15 * hidden + 2 * ffn) * FLOAT
    return CONTEXT + STATE * (embeddings + encoder.layers * layer_weights + head) + kept
