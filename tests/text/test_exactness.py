"""Each optimised step gives byte-identical results to the reference implementation (tests/text/plain.py)."""

import time
from pathlib import Path

import pytest
import spacy
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from spacy.tokenizer import Tokenizer

from mapnet_cli.prepare_corpus.sentences import LONGEST_CHUNK, Segmenter, Sentencizer
from mapnet_cli.text import normalise
from tests.text import plain
from tests.text.texts import PIECES, lines, real_lines

PLAIN = plain.Sentences()
MANY = settings(deadline=None, max_examples=1_000)


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
@example("._.< space > next. He said :- space ) x", True)
@example("was ' bout then a.m. o' clock he said \u00a0 we 'd who 're. An old \u3002 end of the  line .) of", True)
@example("Oh (a.m. :) x). O (o.O ). D. :D ._.) He 's i . e . (.", True)
def test_sentences(line: str, normalised: bool) -> None:
    paragraph = plain.normalise(line) if normalised else line
    assume(max(map(len, paragraph.split()), default=0) <= LONGEST_CHUNK)
    assert list(Segmenter("")([paragraph])) == list(PLAIN([paragraph]))


def test_plain_words_separate_special_cases() -> None:
    """No word is the end of one special case and the beginning of another, or, except "space", in the middle of one."""
    rules = spacy.blank("en").tokenizer
    without = Tokenizer(
        rules.vocab,
        {},
        rules.prefix_search,
        rules.suffix_search,
        rules.infix_finditer,
        rules.token_match,
        rules.url_match,
    )
    cases = [[token.text for token in without(case)] for case in rules.rules]
    words = [[len(text) > 1 and text.isalpha() and text for text in case] for case in cases if len(case) > 1]
    assert len(words) > 100
    assert {case[0] for case in words} & {case[-1] for case in words} == {False}
    assert {text for case in words for text in case[1:-1]} - {False} == {"space"}


@pytest.mark.parametrize(
    "text",
    [
        "abcdefgh ." * 20_000,
        "abcdefgh . " * 20_000,
        "(" * 20_000 + "a." + ")" * 20_000 + " Next.",
        "Word." * 20_000 + " Next one. End",
        ". ".join(["$" * 300 + "Word"] * 300),
        "Oh (a.m. :) " * 5_000,
        "'' " * 20_000 + "End.",
        "... " * 20_000,
        "\ue000" * 20_000,
        "".join(map(chr, range(0x20000, 0x2A000))),
        "a’" * 20_000,
        "\u00ad" * 20_000,
    ],
    ids=lambda text: text[:12],
)
def test_time_is_linear_in_the_length_of_an_item(text: str) -> None:
    """A million characters take under 10 seconds in each step."""
    limit = 10 * len(text) / 1e6 + 0.2
    for step in (normalise.normalise_text, Sentencizer(), normalise._Moses()):
        start = time.process_time()
        step(text)
        assert time.process_time() - start < limit, step


def test_sentences_of_overlong_chunks() -> None:
    """Sentences end at the end of such a chunk, and none begins within it."""
    chunk = "x" * 60 + ".Not" + "y" * 60
    text = f'One. ({chunk}!) Two {chunk}. {chunk} Three.)" Four'
    assert list(Segmenter("")([text])) == [["One.", f"({chunk}!)", f"Two {chunk}.", f'{chunk} Three.)"', "Four"]]


def test_results_do_not_depend_on_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """The results are the same with a cold cache, a warm one, one of three entries and without caching."""
    text = [plain.normalise(" ".join(PIECES[start : start + 12])) for start in range(0, len(PIECES), 5)] * 2
    expected = [normalise._Moses()(line) for line in text]
    moses = normalise._Moses()
    assert [moses(line) for line in text] == expected
    monkeypatch.setattr(normalise, "MAX_ENTRIES", 3)
    moses = normalise._Moses()
    assert [moses(line) for line in text] == expected
    monkeypatch.setattr(normalise, "LONGEST_KEY", 0)
    assert [moses(line) for line in text] == expected


@pytest.mark.slow
def test_real_text(shared_data: Path) -> None:
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


def test_ordinary_text_is_processed_from_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time, the library is not called."""
    text = 'Mr. Smith said: "It\'s 5 p.m., isn\'t it?" He (who left) came back. "No," they said; they\'d 1,000 reasons.'
    moses = normalise._Moses()
    words = moses(text)
    monkeypatch.setattr(moses, "_whole", None)
    assert moses(text) == words
