"""Mask rates by part of speech, tagged by a spaCy pipeline where one is installed."""

from collections import Counter
from importlib.util import find_spec
from pathlib import Path

from mapnet_cli.text import CLS, PAD, SEP, load_tokenizer, word_part

TAGGER = "en_core_web_sm"
"""Pipeline that is used if the config names none."""


def tag_rates(
    tokenizer: Path, pipeline: str, tokens_BL: list[list[int]], masked_BL: list[list[bool]]
) -> dict[str, tuple[int, int]]:
    """Returns the numbers of masked and of all tokens by their word's universal part of speech.

    Returns {} if neither `pipeline` (a name or path) nor, without one, TAGGER is installed, or if it doesn't tag.
    """
    if not pipeline and find_spec(TAGGER) is None:
        return {}
    import spacy
    from spacy.tokens import Doc

    try:
        nlp = spacy.load(pipeline or TAGGER, exclude=["parser", "senter", "ner", "lemmatizer"])
    except OSError:
        return {}
    pieces, counts, masks = load_tokenizer(tokenizer), Counter[str](), Counter[str]()
    for row in zip(tokens_BL, masked_BL, strict=True):
        words, members = list[str](), list[tuple[int, bool]]()
        for token, masked in (pair for pair in zip(*row, strict=True) if pair[0] not in (PAD, CLS, SEP)):
            text, begins = word_part(pieces, token)
            words += [text] if begins or not words else [words.pop() + text]
            members.append((len(words) - 1, masked))
        tags = [word.pos_ for word in nlp(Doc(nlp.vocab, words=[word or "-" for word in words]))]
        counts.update(tags[number] for number, _ in members)
        masks.update(tags[number] for number, masked in members if masked)
    return {tag: (masks[tag], n) for tag, n in sorted(counts.items()) if tag}
