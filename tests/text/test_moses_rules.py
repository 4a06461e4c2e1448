"""The rules in an exported tokenizer.json give the words of the corpus, apart from the differences that are listed."""

from pathlib import Path

import pytest

from mapnet_cli.text.moses_rules import moses_normalizer
from mapnet_cli.text.normalise import prepare_line
from tests.text.texts import PIECES, real_lines

PREPARATIONS = ("after-moses", "before-moses", "never", "after-moses moses")
CONTEXTS = ("{}", "x {}", "{} x", "x {} X", "The {}. And", "“{}” she said", "{}, {}", "({}) 5")
SENTENCES = (
    "Mr. Smith went to the U.S. in Jan. 5. No. 5 and No. He etc. and etc. But 3.5. e.g. this... ok...",
    "John's dogs' rock'n'roll o'clock, 5's 5'6 'tis (don't) \"Hi.\" she said, \"no\".",
    "«\u00a0x\u00a0», “den”,, ``q'' 5 % nº\u00a05 1\u00a0000 — …",
    "5\u00a0ºC .5. x.5. Σ ΣΑΣ", "x\u00a0! y\u200bz\t\r\nw", "", " ", "'", ".", "He said 'hello.'", '"...', "p.m. He",
    "the girls’ co\u00adat, \u200b’tis l’été", "cafe\u200d\u0301 ’’x’’ ‘y’",
)  # fmt: skip


@pytest.mark.parametrize("preparation", PREPARATIONS)
def test_words_are_those_of_the_corpus(preparation: str) -> None:
    rules = moses_normalizer(preparation)
    pieces = [piece for piece in PIECES if "MULTI" not in piece and "....." not in piece]
    texts = [*SENTENCES, *(context.format(*[piece] * 2) for piece in pieces for context in CONTEXTS)]
    different = [text for text in texts if rules.normalize_str(text) != prepare_line(text, preparation)]
    assert different == []


@pytest.mark.parametrize(
    ("text", "corpus", "exported"),
    [
        ("a fo’c’s’le", "a fo 'c's 'le", "a fo 'c's'le"),
        ('x ",,,,, y', 'x , , , , , " y', 'x " , , , , , y'),
        ("a DOTMULTI b", "a . b", "a dotmulti b"),
    ],
)
def test_listed_differences(text: str, corpus: str, exported: str) -> None:
    assert prepare_line(text, "after-moses") == corpus
    assert moses_normalizer("after-moses").normalize_str(text) == exported


@pytest.mark.slow
def test_real_text(shared_data: Path) -> None:
    lines = real_lines(shared_data, 2)
    assert len(lines) > 5_000
    rules = moses_normalizer("after-moses")
    different = [line for line in lines if rules.normalize_str(line) != prepare_line(line, "after-moses")]
    assert len(different) <= len(lines) // 2_000, different[:5]
