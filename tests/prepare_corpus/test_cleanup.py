import pytest

from mapnet_cli.config import Cleanup
from mapnet_cli.prepare_corpus import cleanup
from mapnet_cli.prepare_corpus.cleanup import EXAMPLE_CHARS, EXAMPLES, Dropped, broken_rule, clean
from tests.prepare_corpus.corpora import prose

ALL = Cleanup(min_chars=0, min_letters=0, min_letter_share=0.0, max_symbol_share=1.0)


def run(lines: list[str | None], settings: Cleanup = ALL) -> tuple[list[str | None], dict[str, int]]:
    dropped = Dropped()
    return list(clean(lines, settings, dropped)), dict(dropped.counts)


@pytest.mark.parametrize(
    ("paragraph", "rule"),
    [
        ("a" * 49, "min_chars"),
        ("a" * 50, ""),
        ("a" * 1_000_000, ""),
        ("a" * 1_000_001, "max_chars"),
        ("a" * 49 + "é" * 11, "min_letters"),
        ("a" * 70 + "1" * 30, ""),
        ("a" * 69 + "1" * 31, "min_letter_share"),
        ("a" * 95 + "/" * 5, ""),
        ("a" * 94 + "/" * 6, "max_symbol_share"),
        ("a" * 94 + "\\" * 6, "max_symbol_share"),
        ("a" * 94 + "|" * 6, "max_symbol_share"),
        ("a" * 85 + "/" * 5 + "\\" * 5 + "|" * 5, ""),
    ],
)
def test_the_papers_rules(paragraph: str, rule: str) -> None:
    assert broken_rule(paragraph, Cleanup()) == rule


def test_broken_lines_are_joined() -> None:
    lines: list[str | None] = [
        "It ends in a letter",
        "and continues,",
        "then 7",
        "more.",
        "after a stop",
        "Capital",
        "",
        "next",
    ]
    assert run(lines)[0] == ["It ends in a letter and continues, then 7 more.", "after a stop", "Capital", "next"]
    assert len(run(lines, ALL.model_copy(update={"join_lines": False}))[0]) == 7


def test_lines_are_not_joined_across_documents() -> None:
    assert run(["one", None, "two", None])[0] == ["one", None, "two", None]


def test_empty_documents_are_dropped() -> None:
    assert run([None, "", None, "x", None, None])[0] == ["x", None]
    assert run(["short", None, prose(1), None], Cleanup()) == ([prose(1), None], {"min_chars": 1})


def test_paragraphs_are_normalised_before_the_rules() -> None:
    assert run(["  “Ｃafe\u0301”…\x07 ", None])[0] == ['"Ｃafé..."', None]
    assert run(["a" + " " * 60 + "b", None], Cleanup())[1] == {"min_chars": 1}


def test_overlong_lines_are_dropped_unprocessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleanup, "OVERLONG", 2_000)
    settings = ALL.model_copy(update={"max_chars": 1_000})
    assert run(["x" * 2_001, "tail", None], settings) == (["tail", None], {"max_chars": 1})
    word_list: list[str | None] = ["word"] * 900
    paragraphs, dropped = run([*word_list, None], settings)
    assert dropped == {"max_chars": 2}
    assert [len(paragraph or "") for paragraph in paragraphs] == [5 * (900 - 2 * 401) - 1, 0]


def test_the_first_dropped_paragraphs_are_kept_as_examples() -> None:
    dropped = Dropped()
    list(clean([f"{number}" * 300 for number in range(1, 9)], ALL.model_copy(update={"min_letters": 1}), dropped))
    assert dropped.counts == {"min_letters": 8}
    assert dropped.examples == {"min_letters": [str(n) * EXAMPLE_CHARS for n in range(1, EXAMPLES + 1)]}
