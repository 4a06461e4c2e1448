from collections import Counter

import pytest

from mapnet_cli.text.normalise import normalise_text, prepare_line, word_tokeniser
from tests.text import plain


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cafe\u0301", "café"),  # NFC
        ("“It’s”", '"It\'s"'),
        ("a – b—c", "a - b - c"),
        ("wait…", "wait..."),
        ("the Jones’ house, ’tis ‘so’, l’été", "the Jones' house, 'tis 'so', l'été"),
        ("’’double’’", '"double"'),
        ("«quoted»", '"quoted"'),
        ("one ,\t two\u00a0three", "one , two three"),
        ("ze\u200bro soft\u00adhyphen bell\x07", "zero softhyphen bell"),
        (
            "wo\u2060rd jo\u200din\u200cer \ufeffmark \u200e(a)\u202c heart\ufe0f \u00ad cafe\u200d\u0301",
            "word joiner mark (a) heart café",
        ),
        ("line\u2028separator", "line separator"),
        ("private \ue000 use", "private use"),
        ("  \x0c ", ""),
        ("Ünïcödé 漢字 😀", "Ünïcödé 漢字 😀"),
    ],
)
def test_normalise(text: str, expected: str) -> None:
    assert normalise_text(text) == expected
    assert normalise_text(expected) == expected


@pytest.mark.parametrize(
    ("text", "expected", "changed"),
    [
        ("plain text", "plain text", {}),
        ("it’s café", "it's café", {}),
        ("the students’ ’cause", 'the students" "cause', {"apostrophes": 2}),
        ("co\u00adop\u200be\u00adrate ’", 'co op e rate "', {"invisible_characters": 3, "apostrophes": 1}),
    ],
)
def test_repaired_characters_are_counted_and_left_to_moses_on_request(
    text: str, expected: str, changed: dict[str, int]
) -> None:
    counts: Counter[str] = Counter()
    repaired = normalise_text(text, "repair", counts)
    assert counts == changed
    assert normalise_text(text, "moses") == expected == plain.normalise(text, "moses")
    assert (repaired == expected) == (not changed)
    assert prepare_line(text, "never moses") == " ".join(plain.words(expected, "never").split())
    assert prepare_line(text, "never") == " ".join(plain.words(repaired, "never").split())


def test_moses_runs_before_lower_casing() -> None:
    tokenise = word_tokeniser("after-moses")
    assert tokenise("Don't split Mr. Smith's U.S. e-mail, (please).") == (
        "don 't split mr. smith 's u.s. e-mail , ( please ) ."
    )
    assert tokenise('A & B | C < D "quoted"') == 'a & b | c < d " quoted "', "nothing is escaped"


def test_full_stops_stay_attached_when_lower_casing_first() -> None:
    text = "It ended. Then it began."
    assert word_tokeniser("after-moses")(text) == "it ended . then it began ."
    assert word_tokeniser("before-moses")(text) == "it ended. then it began ."
    assert word_tokeniser("never")(text) == "It ended . Then it began ."


def test_results_equal_those_of_sacremoses() -> None:
    from sacremoses import MosesTokenizer

    moses = MosesTokenizer(lang="en")
    tokenise = word_tokeniser("never")
    for text in ("Jan. fifth", "x.y. Z", "No. 5 vs. the U.S. of a.", "émile. élan", "3.5. and 2.a. b", "... . ."):
        assert tokenise(text) == " ".join(moses.tokenize(text, escape=False))


def test_prepare_line_runs_all_steps() -> None:
    assert prepare_line("  The “Cat’s” pyjamas…\x00", "after-moses") == 'the " cat \'s " pyjamas ...'
    assert prepare_line("", "after-moses") == ""
