"""Losses of exported encoders on any text, by transformers alone: a second check of mapnet's held-out losses.

Each FOLDER was written by `mapnet export`. From each line of `--text` that is long enough, `--masks` copies are made
with one token masked in each, the same positions for every folder with the same vocabulary. Prints one JSON object:
for each folder the mean cross-entropy in nats per masked token with its standard error over lines, and for all but the
first the difference to the first with its standard error.

    python -m tests.benchmarks.transformers_loss bert/ uniform-30/ --text sentences.txt
"""

import argparse
import json
import math
import random
import statistics
from pathlib import Path

import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

SHORTEST, LONGEST = 8, 126
"""Tokens of a line, without [CLS] and [SEP]."""


@torch.inference_mode()
def losses(folder: Path, lines: list[str], masks: int) -> list[float]:
    """Returns the mean loss of each line."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForMaskedLM.from_pretrained(folder).eval()
    rng, found = random.Random(1), []
    for line in lines:
        ids = tokenizer(line, return_tensors="pt")["input_ids"]
        if SHORTEST <= ids.shape[1] - 2 <= LONGEST:
            at = torch.tensor(rng.sample(range(1, ids.shape[1] - 1), masks))
            copies, rows = ids.repeat(masks, 1), torch.arange(masks)
            copies[rows, at] = tokenizer.mask_token_id
            logits = model(input_ids=copies).logits[rows, at]
            found.append(torch.nn.functional.cross_entropy(logits, ids[0, at]).item())
    return found


def mean(values: list[float]) -> list[float]:
    """Returns the mean and its standard error, rounded."""
    return [round(statistics.fmean(values), 4), round(statistics.stdev(values) / math.sqrt(len(values)), 4)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--masks", type=int, default=4, choices=range(1, SHORTEST + 1))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    lines = chosen.text.read_text(encoding="utf-8").splitlines()
    found = [losses(folder, lines, chosen.masks) for folder in chosen.folders]
    result = {"lines": len(found[0]), "loss": {str(f): mean(v) for f, v in zip(chosen.folders, found, strict=True)}}
    pairs = zip(chosen.folders[1:], found[1:], strict=True)
    result["minus_first"] = {str(f): mean([a - b for a, b in zip(v, found[0], strict=True)]) for f, v in pairs}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
