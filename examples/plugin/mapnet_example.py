"""A plugin of mapnet with one entry of each kind. docs/extend.md explains them; pyproject.toml gives them names."""

import random

import torch

from mapnet_cli.glue import OwnTask
from mapnet_cli.masking import ESTIMATORS, Estimator, Masks, Strategy, Weights
from mapnet_cli.prepare_corpus.sources.documents import Kind


def _block(request):
    """K neighbouring maskable positions from a random start; every start is equally likely."""
    n_B = request.maskable_BL.sum(dim=1)
    starts_B = (request.noise_BL[:, 0] * (n_B - request.counts_B + 1)).long()
    draw_K = torch.arange(request.max_masks, device=n_B.device)
    order_BL = request.maskable_BL.int().argsort(dim=1, descending=True, stable=True)
    places_BK = (starts_B[:, None] + draw_K).clamp(max=order_BL.shape[1] - 1)
    return Masks(order_BL.gather(1, places_BK), draw_K < request.counts_B[:, None])


def _tempered_ratio(drawn, clip):
    """The square roots of the clipped ratios 1 / (n q_k): less variance, more bias."""
    weights = ESTIMATORS["position-ratio"](drawn, clip)
    return Weights(weights.weight_BK.sqrt(), weights.clipped_BK)


def _subtitles(lines, piece, name, source, reading):
    """The spoken text of a SubRip file as one paragraph."""
    yield " ".join(line for line in lines if line and not line.isdigit() and "-->" not in line)
    yield None  # the end of the document


def _agreement(location, split):
    """Sentences whose verb agrees with its subject, or doesn't; made here, so there are no files to read."""
    rng = random.Random(split)
    for _ in range(600 if split == "train" else 200):
        plural, agrees = rng.random() < 0.5, rng.random() < 0.5
        noun, verb = rng.choice(["dog", "judge", "river", "teacher"]), rng.choice(["sleep", "wait", "turn", "run"])
        sentence = f"The {noun}{'s' * plural} {verb}{'s' * (plural != agrees)}."
        yield {"sentence": sentence, "label": "right" if agrees else "wrong"}


block = Strategy(_block)
tempered_ratio = Estimator(_tempered_ratio, clips=True)
subtitles = Kind(_subtitles, suffixes=(".srt",))
agreement = OwnTask(text="sentence", labels=("wrong", "right"), rows=_agreement)
