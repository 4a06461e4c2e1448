"""Sentences for the probe tasks: held out, absent from the demo's corpus; and the edits that make rows of them."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random

from mapnet_cli.text import Document, paragraphs

MIN_WORDS, MAX_WORDS = 5, 22
DEV_SHARE = 0.35
LARGEST_DEV_SHARE = 0.1
"""A document with more than this share of the sentences is for training, so that no one module is the dev set."""
PLAIN_WORD = re.compile(r"['\"(]?[A-Za-z][a-z]*(-[a-z]+)?['\")]?[.,;:]?")
PLAIN_SHARE = 0.75


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


COMMANDS = _words(
    "Add Append Apply Attempt Build Calculate Call Cancel Change Check Clean Clear Close Compare Compute Configure "
    "Construct Convert Copy Create Declare Decode Define Delete Determine Display Do Draw Encode Ensure Execute "
    "Extract Find Flush Generate Get Give Handle Implement Initialize Insert Install Invoke Load Look Make Move Open "
    "Parse Print Process Provide Put Query Raise Read Register Release Remove Replace Reset Restore Retrieve Return "
    "Run Search Select Send Set Show Specify Split Start Stop Store Take Tell Test Try Turn Update Use Wait Write"
)
STATEMENTS = _words("A All An Any Each Every If It Its No Some The There These They This Those You")
FUNCTION_WORDS = _words(
    "a all an and any are as at be been but by can do does each for from has have if in into is it its may must no "
    "not of on only or should than that the then there these they this to was were when where which will with you"
)
AUXILIARIES = _words("are be can could do does has is may might must should was were will would")
NEVER_DROPPED = AUXILIARIES | _words("all always any if never no not only or unless until when without")


@dataclass(frozen=True)
class Sentence:
    """One sentence of a held-out document, by the document's name."""

    text: str
    document: str

    @property
    def words(self) -> list[str]:
        """The words between blanks, without the final full stop; commas stay with their word."""
        return self.text.removesuffix(".").split()


def held_out_sentences(documents: Iterable[Document]) -> dict[str, list[Sentence]]:
    """Returns {document name: its sentences, in order}, each sentence once, none that the corpus has anywhere."""
    corpus: list[str] = []
    candidates: dict[str, list[str]] = {}
    for document in documents:
        texts = [paragraph for docstring in document.docstrings for paragraph in paragraphs(docstring.text)]
        if document.held_out:
            candidates[document.name] = [text for paragraph in texts for text in _split(paragraph) if _is_prose(text)]
        else:
            corpus += map(fold, texts)
    haystack = f" {' | '.join(corpus)} "
    seen: set[str] = set()
    found: dict[str, list[Sentence]] = {}
    for name, texts in candidates.items():
        for text in texts:
            folded = fold(text)
            if folded not in seen and f" {folded} " not in haystack:
                seen.add(folded)
                found.setdefault(name, []).append(Sentence(text, name))
    return found


def split_documents(found: dict[str, list[Sentence]], rng: Random) -> tuple[list[str], list[str]]:
    """Returns the names of the documents for training and for the dev sets, about 35 % of the sentences."""
    names = sorted(found)
    rng.shuffle(names)
    total = sum(map(len, found.values()))
    dev: list[str] = []
    taken = 0
    for name in names:
        size = len(found[name])
        if size <= LARGEST_DEV_SHARE * total and taken + size <= DEV_SHARE * total:
            dev.append(name)
            taken += size
    return sorted(set(names) - set(dev)), sorted(dev)


def fold(text: str) -> str:
    """Returns what two spellings of a text have in common: its letters and digits in lower case."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def _split(paragraph: str) -> list[str]:
    return re.split(r"(?<=[.!?])\s+(?=[A-Z])", paragraph)


def _is_prose(text: str) -> bool:
    """Whether it is one English sentence of fitting length: mostly plain words, ASCII, with a full stop."""
    words = text.split()
    if not MIN_WORDS <= len(words) <= MAX_WORDS or not re.fullmatch(r"[A-Z][ -~]*[a-z)'\"]\.", text):
        return False
    return sum(bool(PLAIN_WORD.fullmatch(word)) for word in words) >= PLAIN_SHARE * len(words)


def text(words: Sequence[str], end: str = ".") -> str:
    """Returns the words in lower case, so that a capital never tells where a sentence began."""
    return " ".join(words).rstrip(",;:").lower() + end


def halves_exchanged(words: Sequence[str]) -> list[str] | None:
    """Returns the second half and then the first. The cut comes after a bare word: a comma at the end would tell."""
    cut = next((i for i in range(len(words) // 2, len(words) - 1) if words[i - 1][-1].isalnum()), None)
    return None if cut is None else [*words[cut:], *words[:cut]]


def shortened(words: Sequence[str], less: int, rng: Random) -> list[str]:
    """Returns the words less so many, never those on which the truth of a sentence hangs; at least four stay."""
    droppable = [i for i, word in enumerate(words) if word.lower() not in NEVER_DROPPED]
    dropped = set(rng.sample(droppable, min(less, len(droppable), max(0, len(words) - 4))))
    return [word for i, word in enumerate(words) if i not in dropped]


def negated(words: Sequence[str]) -> list[str] | None:
    """Returns the words with a "not" taken out, or put in after the first auxiliary; None if there is neither."""
    words = list(words)
    if "not" in words:
        words.remove("not")
        return words
    place = next((i for i, word in enumerate(words) if word in AUXILIARIES), None)
    return None if place is None else [*words[: place + 1], "not", *words[place + 1 :]]


def content(words: Sequence[str]) -> set[str]:
    """Returns the words that are not function words, bare and in lower case."""
    return {bare for word in words if (bare := word.strip(".,;:()'\"").lower()) and bare not in FUNCTION_WORDS}
