"""Figure 2: the sentences of held-out text with the masks that each method draws, as one HTML page."""

import math
from collections import Counter
from html import escape

from mapnet_cli.core.records import MaskedWord, ProposedMasks
from mapnet_cli.report.load import Results, signature
from mapnet_cli.report.notes import PROBE, is_probe, label
from mapnet_cli.report.scores import Scores

STEM_LENGTH = 4
"""Words shorter than this are never boxed: "the" and "the" masked together is no pattern."""
STRONGEST = 8.0
"""Times a token's uniform probability at which the colour is full."""
BOXES = 6
SPECIALS = {"[CLS]", "[SEP]", "[PAD]"}
"""Never masked, and no words."""
FUNCTION_WORDS_TEXT = """
a an the this that these those and or but nor if then than so as at by for from in into of off on onto out over to
up with without within through under between about after before during against i you he she it we they me him her us
them my your his its our their who whom whose which what is am are was were be been being do does did has have had
will would shall should may might must can could not no there here when where while because until also
"""
FUNCTION_WORDS = frozenset(FUNCTION_WORDS_TEXT.split())

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.75 Georgia, "Times New Roman", serif; color: #222; background: #fff; max-width: 46rem;
  margin: 2.5rem auto 4rem; padding: 0 1.25rem; }
h1, h2, .legend, .facts, footer, .alarm { font-family: system-ui, "Segoe UI", Helvetica, Arial, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .75rem; }
h2 { font-size: 1.1rem; margin: 2.5rem 0 .25rem; padding-top: .75rem; border-top: 1px solid #ddd; }
.legend, .facts, footer { font-size: .85rem; line-height: 1.55; color: #555; }
.legend { background: #f7f7f5; border-radius: 6px; padding: .6rem .9rem; }
.legend span { margin-right: .15rem; }
.alarm { background: #fdecea; border-left: 4px solid #c0392b; padding: .6rem .9rem; font-size: .95rem; }
ol { padding-left: 1.6rem; } li { margin: .7rem 0; } li::marker { color: #999; font-size: .85rem; }
b { border-radius: 3px; padding: .08em .22em; }
.box { border: 2px solid; padding: .02em .16em; }
.box0 { border-color: #0072B2; } .box1 { border-color: #009E73; } .box2 { border-color: #882288; }
.box3 { border-color: #444; } .box4 { border-color: #A0522D; } .box5 { border-color: #2F4F9F; }
footer { margin-top: 3rem; border-top: 1px solid #ddd; padding-top: .75rem; overflow-wrap: anywhere; }
"""


def figure2(results: Results, scores: Scores) -> str:
    """Returns a self-contained page: each method's masks at its last checkpoint that has any."""
    shown = _last_of_each(results)
    probe = f" Scores elsewhere in this report are of {PROBE}." if is_probe(results.config) else ""
    sections = "".join(_section(method, seed, step, masks) for (method, seed, step), masks in shown)
    absent = [name for name in results.config.methods if name not in {place[0] for place, _ in shown}]
    if absent:
        sections += (
            f'<p class="alarm">No masks recorded yet for {escape(", ".join(absent))}: run mapnet pretrain.</p>\n'
        )
    title = "Figure 2: which words are masked"
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{STYLE}</style>\n</head>\n'
        f"<body>\n<h1>{title}</h1>\n{_legend()}\n{sections}<footer>The sentences are of the held-out split; every"
        f" method sees the same ones.{probe}<br>{escape(signature(results, scores.metrics))}</footer>\n</body>\n"
        "</html>\n"
    )


def same_stem(words: list[MaskedWord]) -> dict[int, int]:
    """Returns {position: group} of the masked words whose stem another masked word of the sentence shares."""
    import snowballstemmer

    stemmer = snowballstemmer.stemmer("english")
    stems = {
        position: stemmer.stemWord(word.text.lower())
        for position, word in enumerate(words)
        if word.masked and word.text.isalpha() and len(word.text) >= STEM_LENGTH
        if word.text.lower() not in FUNCTION_WORDS
    }
    counts = Counter(stems.values())
    groups = {stem: number for number, stem in enumerate(dict.fromkeys(s for s in stems.values() if counts[s] > 1))}
    return {position: groups[stem] for position, stem in stems.items() if stem in groups}


def _last_of_each(results: Results) -> list[tuple[tuple[str, int, int], ProposedMasks]]:
    """Returns one checkpoint of each method: the last step, of the first pretraining seed that has it."""
    last: dict[str, tuple[str, int, int]] = {}
    for place in results.expected_checkpoints:
        method, _, step = place
        if place in results.masks and (method not in last or step > last[method][2]):
            last[method] = place
    return [(place, results.masks[place]) for place in last.values()]


def _section(method: str, seed: int, step: int, masks: ProposedMasks) -> str:
    sentences = [[word for word in words if word.text not in SPECIALS] for words in masks.sentences]
    items = "".join(f"<li>{_sentence(words, math.exp(masks.uniform_entropy))}</li>\n" for words in sentences)
    alarm = ""
    if masks.collapsed:
        alarm = (
            '<p class="alarm"><strong>This proposal has collapsed.</strong> Its entropy is'
            f" {masks.proposal_entropy:.2f} nats against {masks.uniform_entropy:.2f} of the uniform one: nearly all"
            " probability lies on a few positions, and the masks hardly vary from visit to visit.</p>\n"
        )
    heading = f"{escape(label(method))}, step {step:,} (pretraining seed {seed})"
    facts = _facts(masks, [word for words in sentences for word in words])
    return f'<h2>{heading}</h2>\n<p class="facts">{facts}</p>\n{alarm}<ol>\n{items}</ol>\n'


def _facts(masks: ProposedMasks, shown: list[MaskedWord]) -> str:
    words = [word for word in shown if any(map(str.isalnum, word.text))]
    function = [word for word in words if word.text.lower() in FUNCTION_WORDS]
    other = [word for word in words if word.text.lower() not in FUNCTION_WORDS]
    effective = f"{math.exp(masks.proposal_entropy):.0f} of {math.exp(masks.uniform_entropy):.0f}"
    return (
        f"Entropy of the proposal {masks.proposal_entropy:.2f} nats, uniform {masks.uniform_entropy:.2f}"
        f" (as if {effective} positions were equally likely). Masked: {_rate(function)} of function words,"
        f" {_rate(other)} of other words."
    )


def _rate(words: list[MaskedWord]) -> str:
    masked = sum(word.masked for word in words)
    return f"{masked / len(words):.0%} ({masked} of {len(words)})" if words else "none"


def _sentence(words: list[MaskedWord], positions: float) -> str:
    groups = same_stem(words)
    return " ".join(_word(word, word.probability * positions, groups.get(n)) for n, word in enumerate(words))


def _word(word: MaskedWord, times_uniform: float, group: int | None) -> str:
    hint = f'title="probability {word.probability:.2g}, {times_uniform:.2g} times uniform"'
    if not word.masked:
        return f"<span {hint}>{escape(word.text)}</span>"
    box = "" if group is None else f' class="box box{group % BOXES}"'
    return f'<b{box} style="background:{_colour(times_uniform)}" {hint}>{escape(word.text)}</b>'


def _colour(times_uniform: float) -> str:
    """Returns a background from nearly white to orange, linear in the logarithm from 1/8 to 8 times uniform."""
    least = 1 / STRONGEST
    ratio = min(max(times_uniform, least), STRONGEST)
    share = math.log(ratio / least) / math.log(STRONGEST / least)
    white, orange = (255, 248, 232), (245, 158, 66)
    return "#" + "".join(f"{round(w + share * (o - w)):02x}" for w, o in zip(white, orange, strict=True))


def _legend() -> str:
    marks = ((0.125, "at most 1/8"), (1.0, "as uniform"), (2.0, "twice"), (8.0, "8 times or more"))
    scale = " ".join(f'<span><b style="background:{_colour(ratio)}">{text}</b></span>' for ratio, text in marks)
    return (
        f"<p class=\"legend\"><b>Bold</b> words are masked. Their colour is the proposal's probability (of a word's"
        f" tokens together), beside one token's uniform 1/n: {scale}.<br>"
        '<b class="box box0">Boxed</b> words of one colour share a stem and are masked'
        " together, so that none gives the other away. Hover over a word for its probability.</p>"
    )
