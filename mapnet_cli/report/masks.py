"""Figure 2: held-out sentences with the masks that each method draws, and mask rates by kind of token."""

import math
from collections import Counter
from typing import Any

from mapnet_cli.core import MaskedWord, ProposedMasks
from mapnet_cli.report.labels import TEXTS, encoder_name, label
from mapnet_cli.report.load import Encoder, Results
from mapnet_cli.text import stem

STRONGEST = 8.0  # ratio to a token's uniform probability at which the colour saturates; 1/STRONGEST is the other end
SHADES, BOXES = 9, 4  # numbers of colours, which are in the page's style sheet
SPECIALS = {"[CLS]", "[SEP]", "[PAD]"}  # tokens that are never masked and not shown
SHOWN = 4  # maximum number of methods


def figure2(results: Results) -> list[dict[str, Any]]:
    """Returns each method's sentences at its last checkpoint with recorded masks, learned proposals first."""
    found, methods = [], results.config.method
    for method in sorted(results.config.methods, key=lambda name: not methods[name].proposal):
        if keys := [key for key in results.masks if key[0] == method]:
            last = max(keys, key=lambda key: (key[2], -key[1]))
            found.append(_section(last, results.masks[last]))
    return found[:SHOWN]


def rate_points(results: Results) -> list[dict[str, Any]]:
    """Returns the fraction of masked tokens by method, `what` and group, over all pretraining seeds."""
    counts: dict[tuple[str, str, str], tuple[int, int]] = {}
    for (method, _, step), masks in results.masks.items():
        for what, groups in masks.rates.items() if step == results.config.last_step(method) else ():
            for group, (masked, n) in groups.items():
                others = counts.get((method, what, group), (0, 0))
                counts[method, what, group] = others[0] + masked, others[1] + n
    return [
        {"Model": label(m), "what": TEXTS["rates"][what], "group": group, "tokens": n}
        | dict.fromkeys(("value", "low", "high"), round(masked / n, 4))
        for (m, what, group), (masked, n) in counts.items()
        if n
    ]


def same_stem(words: list[MaskedWord]) -> dict[int, int]:
    """Returns {position: group} for masked words that share their stem with another masked word of the sentence."""
    found = ((position, stem(word.text)) for position, word in enumerate(words) if word.masked)
    stems = {position: word_stem for position, word_stem in found if word_stem}
    shared = [word_stem for word_stem, count in Counter(stems.values()).items() if count > 1]
    groups = {word_stem: number for number, word_stem in enumerate(shared)}
    return {position: groups[s] for position, s in stems.items() if s in groups}


def _section(key: Encoder, masks: ProposedMasks) -> dict[str, Any]:
    """Returns the template's values for one checkpoint."""
    sentences = ([word for word in words if word.text not in SPECIALS] for words in masks.sentences)
    as_even_as, positions = math.exp(masks.proposal_entropy), math.exp(masks.uniform_entropy)
    return {
        "heading": encoder_name(*key),
        "facts": f"Entropy {masks.proposal_entropy:.2f} nats, of uniform masks {masks.uniform_entropy:.2f}: as even as "
        f"{as_even_as:.0f} of {positions:.0f} positions.",
        "collapsed": masks.collapsed,
        "sentences": [_words(words, positions) for words in sentences],
    }


def _words(words: list[MaskedWord], positions: float) -> list[dict[str, Any]]:
    """Returns the words of a sentence with shades and boxes; `positions` is the number of maskable positions."""
    groups, found = same_stem(words), []
    for number, word in enumerate(words):
        ratio = word.probability * positions
        limited = min(max(ratio, 1 / STRONGEST), STRONGEST)
        shade = round(math.log(limited * STRONGEST, STRONGEST**2) * (SHADES - 1))  # linear in the logarithm
        loss = "" if word.loss is None else f", loss {word.loss:.2f} nats"
        hint = f"{'masked, ' * word.masked}probability {word.probability:.2g}, {ratio:.2g} × uniform{loss}"
        box = groups[number] % BOXES if number in groups else None
        found.append({"text": word.text, "hint": hint, "masked": word.masked, "shade": shade, "box": box})
    return found
