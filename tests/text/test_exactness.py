"""Each fast step gives what the plain pipeline of the same libraries gives (tests/text/plain.py), byte for byte."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import spacy
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mapnet_cli.prepare_corpus.sentences import Segmenter
from mapnet_cli.prepare_corpus.sentencizer import Sentencizer
from mapnet_cli.text import bpe, normalise
from mapnet_cli.text import cache as remembered
from mapnet_cli.text.bpe import WordEncoder, encode_lines, load_tokenizer, train_tokenizer
from tests.text import plain
from tests.text.texts import PIECES, lines, real_lines

PLAIN = plain.Sentences()
MANY = settings(deadline=None, max_examples=1_000)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> bpe.Tokenizer:
    """Knows some of the pieces' characters, so that the others are unknown."""
    file = tmp_path_factory.mktemp("bpe") / "t.json"
    train_tokenizer([plain.words(plain.normalise(piece)) for piece in PIECES[:150]] * 3, 400).save(str(file))
    return load_tokenizer(file)


@MANY
@given(lines)
@example("nº\u00a0«\u00a0x’ y‘s ''z'' ``q`` 5\u00a0% 1\u00a0000 ( a ) . “x”, ,, \r 。")
def test_normalise(line: str) -> None:
    assert normalise.normalise_text(line) == plain.normalise(line)


@MANY
@given(lines, st.sampled_from(["after-moses", "before-moses", "never"]), st.booleans())
@example("'tis 5' '6 ' x , ,y z,", "never", True)
@example("No. 5 No. x Mr. x. end. lower. Upper 3.", "never", True)
def test_words(line: str, lowercase: str, normalised: bool) -> None:
    sentence = plain.normalise(line) if normalised else line
    assert normalise.word_tokeniser(lowercase)(sentence) == plain.words(sentence, lowercase)


@MANY
@given(lines, st.booleans())
@example("word What's: o.Gen. Next. One I'll' d.Mr. Next", True)
@example("word x/o. O End. Then (o. O End", True)
@example("x 𑁇 y. राम𑁇 अगला", True)
@example("Oh (a.m. :) x). O (o.O ). D. :D ._.) He 's i . e . (.", True)
def test_sentences(line: str, normalised: bool) -> None:
    paragraph = plain.normalise(line) if normalised else line
    assert list(Segmenter("")([paragraph])) == list(PLAIN([paragraph]))


@MANY
@given(line=lines)
@example(line="▁ a▁b [MASK] x [UNK]漢字")
def test_ids(tokenizer: bpe.Tokenizer, line: str) -> None:
    for text in (line, plain.words(plain.normalise(line))):
        assert list(WordEncoder(tokenizer)([text, ""])) == list(encode_lines(tokenizer, [text, ""]))


def test_special_cases_across_a_space() -> None:
    """Where spaCy looks for a special case on both sides of a space, and so overlooks a true one beside it."""
    split, draw = Sentencizer(spacy.blank("en")), random.Random(1)
    pairs = sorted(pair for found in split._neighbours.values() for pair in found)
    specials = sorted(special for special in split.nlp.tokenizer.rules if not special.isalnum() and special.strip())
    text = []
    for _ in range(10_000):
        left, right = draw.choice(pairs)
        before, after = (draw.choice(["", "x", "(", ")", "5", ".", ".{}", "{}", "x/{}", "{}/x"]) for _ in range(2))
        before, after = before.format(draw.choice(specials)), after.format(draw.choice(specials))
        text.append(f"word {before}{left} {right}{after} Next one. End")
    assert list(Segmenter("")(text)) == list(PLAIN(text))


def test_nothing_remembered_shows(monkeypatch: pytest.MonkeyPatch, tokenizer: bpe.Tokenizer) -> None:
    """Cold, warm, with a memory of three answers and with none that is kept: the same."""
    text = [" ".join(PIECES[start : start + 12]) for start in range(0, len(PIECES), 5)] * 2
    text = [plain.normalise(line) for line in text]

    def everything() -> list[object]:
        moses, split, encode = normalise._Moses(), Sentencizer(spacy.blank("en")), WordEncoder(tokenizer)
        steps: list[Callable[[str], object]] = [moses, split, lambda line: list(encode([line]))]
        return [[step(line) for line in text] for step in steps]

    usual = everything()
    assert usual == everything()
    monkeypatch.setattr(remembered, "MOST", 3)
    assert usual == everything()
    monkeypatch.setattr(remembered, "LONGEST", 0)
    assert usual == everything()


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "MOST", 10)
    asked: list[str] = []

    def ask(key: str) -> int:
        asked.append(key)
        return len(key)

    kept = remembered.BoundedCache(ask)
    for number in range(95):
        assert kept[f"w{number}"] == kept[f"w{number}"] == len(f"w{number}")
        assert len(kept) <= 10
    assert len(asked) == 95
    assert kept["x" * 1_000] == kept["x" * 1_000] == 1_000
    assert len(asked) == 97, "a long key's answer isn't kept"


def test_real_text(shared_data: Path, tokenizer: bpe.Tokenizer) -> None:
    raw = real_lines(shared_data, 2)
    assert len(raw) > 5_000
    normal = [plain.normalise(line) for line in raw]
    assert [normalise.normalise_text(line) for line in raw] == normal
    paragraphs = list(PLAIN(normal))
    assert list(Segmenter("")(normal)) == paragraphs
    sentences = [sentence for paragraph in paragraphs for sentence in paragraph]
    words = [plain.words(sentence) for sentence in sentences]
    tokenise = normalise.word_tokeniser("after-moses")
    assert [tokenise(sentence) for sentence in sentences] == words
    assert list(WordEncoder(tokenizer)(words)) == list(encode_lines(tokenizer, words))


def test_ordinary_text_goes_the_fast_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen a second time, it asks the libraries for nothing."""
    text = 'Mr. Smith said: "It\'s 5 p.m., isn\'t it?" He (who left) came back. "No," they said; they\'d 1,000 reasons.'
    split, moses = Sentencizer(spacy.blank("en")), normalise._Moses()
    starts, words = split(text), moses(text)
    monkeypatch.setattr(split, "_tokens", None)
    monkeypatch.setattr(moses, "_whole", None)
    assert split(text) == starts == [0, text.index("He"), text.index("No")]
    assert moses(text) == words
