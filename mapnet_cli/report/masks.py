"""Figure 2: held-out sentences with the masks that each method draws, and mask rates by kind of token."""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

from mapnet_cli.core import MaskedWord, ProposedMasks
from mapnet_cli.report.labels import TEXTS, label
from mapnet_cli.report.load import Results
from mapnet_cli.text import stem

STRONGEST = 8.0
"""Ratio to a token's uniform probability at which the colour saturates."""
SHADES = 9
BOXES = 4
"""Numbers of colours, which are in the page's style sheet."""
SPECIALS = {"[CLS]", "[SEP]", "[PAD]"}
"""Tokens that are never masked and not shown."""
SHOWN = 4
"""Maximum number of methods."""


@dataclass(frozen=True)
class Word:
    text: str
    hint: str
    masked: bool
    shade: int
    """From 0 (an eighth of the uniform probability or less) to SHADES - 1 (eight times or more)."""
    box: int | None
    """Number of the box colour; None for words that share no stem with another masked word."""


def figure2(results: Results) -> list[dict[str, Any]]:
    """Returns each method's sentences at its last checkpoint with recorded masks, learned proposals first."""
    last: dict[str, tuple[str, int, int]] = {}
    for key in results.expected_checkpoints:
        method, _, step = key
        if key in results.masks and (method not in last or step > last[method][2]):
            last[method] = key
    learned = sorted(last.values(), key=lambda key: not results.config.method[key[0]].proposal)
    return [_section(key, results.masks[key]) for key in learned[:SHOWN]]


def rate_points(results: Results) -> list[dict[str, Any]]:
    """Returns the fraction of masked tokens by method, `what` and group, over all pretraining seeds."""
    counts: dict[tuple[str, str, str], list[int]] = {}
    for (method, _, step), masks in results.masks.items():
        if step == results.config.last_step(method):
            for what, groups in masks.rates.items():
                for group, found in groups.items():
                    total = counts.setdefault((method, what, group), [0, 0])
                    total[:] = total[0] + found[0], total[1] + found[1]
    return [
        {
            "Model": label(method),
            "what": TEXTS["rates"][what],
            "group": group,
            "value": round(masked / n, 4),
            "tokens": n,
        }
        for (method, what, group), (masked, n) in counts.items()
        if n
    ]


def same_stem(words: list[MaskedWord]) -> dict[int, int]:
    """Returns {position: group} for masked words that share their stem with another masked word of the sentence."""
    found = ((position, stem(word.text)) for position, word in enumerate(words) if word.masked)
    stems = {position: word_stem for position, word_stem in found if word_stem}
    counts = Counter(stems.values())
    shared = dict.fromkeys(s for s in stems.values() if counts[s] > 1)
    groups = {word_stem: number for number, word_stem in enumerate(shared)}
    return {position: groups[s] for position, s in stems.items() if s in groups}


def _section(key: tuple[str, int, int], masks: ProposedMasks) -> dict[str, Any]:
    """Returns the template's values for one checkpoint."""
    method, seed, step = key
    sentences = ([word for word in words if word.text not in SPECIALS] for words in masks.sentences)
    positions = math.exp(masks.uniform_entropy)
    return {
        "method": label(method),
        "heading": f"{label(method)}, step {step:,}, seed {seed}",
        "facts": f"Entropy {masks.proposal_entropy:.2f} nats, of uniform masks {masks.uniform_entropy:.2f}: as even as "
        f"{math.exp(masks.proposal_entropy):.0f} of {positions:.0f} positions.",
        "collapsed": masks.collapsed,
        "sentences": [_words(words, positions) for words in sentences],
    }


def _words(words: list[MaskedWord], positions: float) -> list[Word]:
    """Returns the words of a sentence; `positions` is the number of maskable positions."""
    groups = same_stem(words)
    found = []
    for number, word in enumerate(words):
        ratio = word.probability * positions
        loss = "" if word.loss is None else f", loss {word.loss:.2f} nats"
        hint = f"{'masked, ' * word.masked}probability {word.probability:.2g}, {ratio:.2g} × uniform{loss}"
        box = groups[number] % BOXES if number in groups else None
        found.append(Word(word.text, hint, word.masked, _shade(ratio), box))
    return found


def _shade(times_uniform: float) -> int:
    """Returns a shade that is linear in the log of the ratio, from 1/STRONGEST to STRONGEST."""
    ratio = min(max(times_uniform, 1 / STRONGEST), STRONGEST)
    share = math.log(ratio * STRONGEST) / (2 * math.log(STRONGEST))
    return round(share * (SHADES - 1))
