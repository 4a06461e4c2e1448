"""Reference implementation of the text pipeline: the same libraries without the optimisations of mapnet."""

import unicodedata
from collections.abc import Iterator

import spacy
from sacremoses import MosesPunctNormalizer, MosesTokenizer

_PUNCTUATION = MosesPunctNormalizer(lang="en", perl_parity=True)
_REPAIRED = MosesPunctNormalizer(lang="en", perl_parity=True)
_REPAIRED.substitutions = [("’", "'") if old == "’" else (old, new) for old, new in _PUNCTUATION.substitutions]
_INVISIBLE = {
    *(0xAD, 0x34F, 0x61C, 0xFEFF),
    *(
        *range(0x180B, 0x1810),
        *range(0x200B, 0x2010),
        *range(0x202A, 0x202F),
        *range(0x2060, 0x2070),
        *range(0xFE00, 0xFE10),
    ),
}
_MOSES = MosesTokenizer(lang="en")
_OPENING = "\"'(["


def normalise(text: str, characters: str = "repair", changed: object = None) -> str:
    if characters == "repair":
        text = "".join(char for char in text if ord(char) not in _INVISIBLE)
    punctuation = _REPAIRED if characters == "repair" else _PUNCTUATION
    text = punctuation.normalize(unicodedata.normalize("NFC", text))
    text = "".join(" " if unicodedata.category(char).startswith("C") else char for char in text)
    return " ".join(text.split())


def words(sentence: str, lowercase: str = "after-moses") -> str:
    if lowercase == "before-moses":
        sentence = sentence.lower()
    tokens = " ".join(_MOSES.tokenize(sentence, escape=False))
    return tokens.lower() if lowercase == "after-moses" else tokens


class Sentences:
    """spaCy's sentencizer, with opening quotation marks and brackets moved to the sentence that they open."""

    def __init__(self) -> None:
        self._nlp = spacy.blank("en")
        self._nlp.add_pipe("sentencizer")

    def __call__(self, paragraphs: list[str]) -> Iterator[list[str]]:
        for document in self._nlp.pipe(paragraphs):
            yield _moved([sentence.text_with_ws for sentence in document.sents])


def _moved(sentences: list[str]) -> list[str]:
    moved = [""]
    for sentence in sentences:
        kept = moved[-1].rstrip(_OPENING)
        opening = moved[-1][len(kept) :] if kept[-1:].isspace() else ""
        moved[-1:] = [moved[-1].removesuffix(opening), opening + sentence]
    return [sentence.strip() for sentence in moved if sentence.strip()]
