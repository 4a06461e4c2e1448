"""Figure 2: held-out sentences with the masks that each method draws, as one HTML page."""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

from mapnet_cli.core import MaskedWord, ProposedMasks, render
from mapnet_cli.report.load import Results, signature
from mapnet_cli.report.notes import PROBE, is_probe, label
from mapnet_cli.report.scores import Scores
from mapnet_cli.text import FUNCTION_WORDS, stem

STRONGEST = 8.0
"""Ratio to a token's uniform probability at which the colour saturates."""
BOX_COLOURS = 6
SPECIALS = {"[CLS]", "[SEP]", "[PAD]"}
"""Tokens that are never masked and not shown."""


@dataclass(frozen=True)
class _Word:
    text: str
    hint: str
    masked: bool
    colour: str
    box: str
    """Index of the box colour; empty for words that share no stem with another masked word."""


def figure2(results: Results, scores: Scores) -> str:
    """Returns a self-contained page with each method's masks at its last checkpoint with recorded masks."""
    shown = _last_checkpoints(results)
    marks = ((1 / STRONGEST, "≤ 1/8"), (1.0, "1 (uniform)"), (2.0, "2"), (STRONGEST, "≥ 8"))
    return render(
        "mapnet_cli.report",
        "figure2.html",
        title="Figure 2: which words are masked",
        scale=[(_colour(ratio), text) for ratio, text in marks],
        sections=[_section(method, seed, step, masks) for (method, seed, step), masks in shown],
        absent=", ".join(name for name in results.config.methods if name not in {key[0] for key, _ in shown}),
        probe=PROBE if is_probe(results.config) else "",
        signature=signature(results, scores.metrics),
    )


def same_stem(words: list[MaskedWord]) -> dict[int, int]:
    """Returns {position: group} for masked words that share their stem with another masked word of the sentence."""
    found = ((position, stem(word.text)) for position, word in enumerate(words) if word.masked)
    stems = {position: word_stem for position, word_stem in found if word_stem}
    counts = Counter(stems.values())
    shared = dict.fromkeys(s for s in stems.values() if counts[s] > 1)
    groups = {word_stem: number for number, word_stem in enumerate(shared)}
    return {position: groups[s] for position, s in stems.items() if s in groups}


def _last_checkpoints(results: Results) -> list[tuple[tuple[str, int, int], ProposedMasks]]:
    """Returns one checkpoint per method: the last step, for the first pretraining seed that has it."""
    last: dict[str, tuple[str, int, int]] = {}
    for key in results.expected_checkpoints:
        method, _, step = key
        if key in results.masks and (method not in last or step > last[method][2]):
            last[method] = key
    return [(key, results.masks[key]) for key in last.values()]


def _section(method: str, seed: int, step: int, masks: ProposedMasks) -> dict[str, Any]:
    """Returns the template's values for one checkpoint."""
    sentences = [[word for word in words if word.text not in SPECIALS] for words in masks.sentences]
    alphanumeric = [word for words in sentences for word in words if any(map(str.isalnum, word.text))]
    effective = f"{math.exp(masks.proposal_entropy):.0f} of {math.exp(masks.uniform_entropy):.0f}"
    return {
        "heading": f"{label(method)}, step {step:,} (pretraining seed {seed})",
        "entropy": f"{masks.proposal_entropy:.2f}",
        "uniform": f"{masks.uniform_entropy:.2f}",
        "effective": effective,
        "function_words": _rate([word for word in alphanumeric if word.text.lower() in FUNCTION_WORDS]),
        "other_words": _rate([word for word in alphanumeric if word.text.lower() not in FUNCTION_WORDS]),
        "collapsed": masks.collapsed,
        "sentences": [_words(words, math.exp(masks.uniform_entropy)) for words in sentences],
    }


def _rate(words: list[MaskedWord]) -> str:
    masked = sum(word.masked for word in words)
    return f"{masked / len(words):.0%} ({masked} of {len(words)})" if words else "none"


def _words(words: list[MaskedWord], positions: float) -> list[_Word]:
    """Returns the words of a sentence; `positions` is the number of maskable positions."""
    groups = same_stem(words)
    found = []
    for number, word in enumerate(words):
        ratio = word.probability * positions
        hint = f"probability {word.probability:.2g}, {ratio:.2g} × uniform"
        box = str(groups[number] % BOX_COLOURS) if number in groups else ""
        found.append(_Word(word.text, hint, word.masked, _colour(ratio), box))
    return found


def _colour(times_uniform: float) -> str:
    """Returns a background from nearly white to orange, linear in the log of the ratio from 1/8 to 8."""
    least = 1 / STRONGEST
    ratio = min(max(times_uniform, least), STRONGEST)
    share = math.log(ratio / least) / math.log(STRONGEST / least)
    white, orange = (255, 248, 232), (245, 158, 66)
    return "#" + "".join(f"{round(w + share * (o - w)):02x}" for w, o in zip(white, orange, strict=True))
