"""Wikipedia from WikiExtractor and from MediaWiki dumps: text, skipped pages and leftover markup."""

import bz2
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapnet_cli.config import Source
from mapnet_cli.prepare_corpus.sources import compressed, documents, wikipedia
from mapnet_cli.prepare_corpus.sources import reading as reading_
from mapnet_cli.prepare_corpus.sources.documents import read_piece
from mapnet_cli.prepare_corpus.sources.reading import Piece
from mapnet_cli.prepare_corpus.sources.wikipedia import without_markup
from tests.prepare_corpus.corpora import FUZZ, read, read_shares
from tests.prepare_corpus.test_wikitext import MARKS


def test_wikiextractor(tmp_path: Path) -> None:
    content = (
        '<doc id="1" url="u" title="A &quot;B&quot; &amp; C">\nA "B" & C\n\nFirst text.\nA "B" & C\n</doc>\n'
        '<doc id="2" url="u" title="Two">\nTwo\n\nSecond.\n</doc>\nstray\n'
        '<doc id="3" url="u" title="Cut">\nCut\n\nThird.'
    )
    lines, problems = read(tmp_path / "f", content.encode(), kind="wikiextractor")
    assert [line for line in lines if line != ""] == ["First text.", 'A "B" & C', None, "Second.", None, "Third.", None]
    assert problems == [
        "f: the last <doc> has no </doc>, so the file may be truncated",
        "f: skipped 1 lines outside <doc> blocks",
    ]
    _, problems = read(tmp_path / "f", b"plain\n", kind="wikiextractor")
    assert "the file has no <doc ...> blocks" in problems[0]


def test_files_joined_without_a_line_end_keep_all_documents(tmp_path: Path) -> None:
    blocks = [f'<doc id="1" url="u" title="T">\nT\n\n{text}\n</doc>' for text in ("One.", "Two.", "Three.")]
    lines, problems = read(tmp_path / "f", "".join(blocks).encode(), kind="wikiextractor")
    assert [line for line in lines if line != ""] == ["One.", None, "Two.", None, "Three.", None]
    assert problems == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('Sentence.<ref name="a" /> Next.<ref>Note 5.</ref>', "Sentence. Next."),
        ("a &lt;ref&gt;See &lt;i&gt;x&lt;/i&gt; and a &lt; b.&lt;/ref&gt;b<ref>1<ref>2</ref>", "a b1"),
        ('a <dfn id=">called pocket</dfn>; one<br />two<BR>three', "a called pocket; one two three"),
        ("<poem>Roses", " Roses"),
        ("where x < y and y > z, <S, T> and <http://x.org>", "where x < y and y > z, <S, T> and <http://x.org>"),
    ],
)
def test_leftover_tags_are_removed(tmp_path: Path, line: str, expected: str) -> None:
    content = f'<doc id="1" url="u" title="T">\nT\n{line}\n</doc>'.encode()
    assert read(tmp_path / "f", content, kind="wikiextractor") == ([expected, None], [])


@pytest.mark.parametrize(
    ("line", "expected", "rules"),
    [
        ("As of 2010[ [update]], none.", "As of 2010, none.", {"notes": 1}),
        ("the [[Lie algebra|Lie bracket]] of [[rings]]", "the Lie bracket of rings", {"links": 2}),
        ("[[File:a.jpg|thumb|A [[cat]].]]Cats", "Cats", {"files": 1}),
        ("The {{convert|{{x}}|km}}end", "The end", {"templates": 1}),
        ("Hamlet (), a play, by (; Greek: X) him", "Hamlet, a play, by (Greek: X) him", {"empty_brackets": 2}),
        ("printf() is not", "printf() is not", {}),
        ("AT&amp;T &quot;x&quot; R&B; &copy", 'AT&T "x" R&B; &copy', {"entities": 1}),
        ("the angle formula_15 of", "the angle formula of", {"formulas": 1}),
        (" |date=2010", "", {"remains": 1}),
        ("}}{{#if:", "", {"remains": 1}),
        ("As of none }}, it", "As of none , it", {"stray_marks": 1}),
        ("if |x| < 3 and {a | a > 2}", "if |x| < 3 and {a | a > 2}", {}),
        ("|x| is the absolute value of a number.", "|x| is the absolute value of a number.", {}),
        ("! is the mark that is called the factorial.", "! is the mark that is called the factorial.", {}),
        ("! Office of the many words in a row", "", {"remains": 1}),
        ("Media: press | television and others", "Media: press | television and others", {}),
        ("File:A cat.jpg|A cat is sitting on a mat.", "", {"remains": 1}),
        (
            "In a template, a{{{1}}} and {{{2 are what it is given.",
            "In a template, a and {2 are what it is given.",
            {"templates": 1, "stray_marks": 1},
        ),
        ("By gradation.{{#if:Darwin, Charles (1859){{", "By gradation.", {"remains": 1, "stray_marks": 1}),
        ("He wrote it. x&rft.genre=book&rft.date=1824 It sold.", "He wrote it.  It sold.", {"remains": 1}),
        (f"&#{'9' * 5000}; &amp;", f"&#{'9' * 5000}; &", {"entities": 1}),
        (
            '&lt;ref name="a"&gt;Note.&lt;/ref&gt;One&lt;br /&gt;two&lt;templatestyles src="x" /&gt;&lt;i&gt;3.',
            "One two3.",
            {"entities": 1, "notes": 1, "tags": 3},
        ),
        ('&lt;a href="Cat"&gt;cats&lt;/a&gt;, <a href="a%20b">dogs</a>', "cats, dogs", {"entities": 1, "tags": 4}),
        ("a &lt; b, c &gt; d, &lt;b and c&gt; &amp;lt;", "a < b, c > d, <b and c> &lt;", {"entities": 1}),
        ("&unknown; &lt;other&gt;", "&unknown; <other>", {"entities": 1}),
        (
            "the codice_1 call, theformula_2and formula_3formula_4s",
            "the code call, the formula and formula  formula s",
            {"formulas": 4},
        ),
        ("get_formula_1 and Formula_1", "get_formula_1 and Formula_1", {}),
        ("!colspan=9 align=left|Cast and crew", "", {"remains": 1}),
        ('! style="a" | b', "", {"remains": 1}),
        ("!Year !! Title", "", {"remains": 1}),
        ("!Kung is spoken in Namibia, = Angola.", "!Kung is spoken in Namibia, = Angola.", {}),
        (
            "The Ministry() was in Athens(), printf(), R.read() and PEEK() are",
            "The Ministry was in Athens, printf(), R.read() and PEEK() are",
            {"empty_brackets": 2},
        ),
        (
            'He read ""Emma"", ""The Sea,"" "r""k" and x = "" .',
            'He read "Emma", "The Sea," "r""k" and x = "" .',
            {"quotes": 4},
        ),
    ],
)
def test_leftovers_are_removed_and_counted(line: str, expected: str, rules: dict[str, int]) -> None:
    counts: Counter[str] = Counter()
    assert without_markup(line, counts) == expected
    assert counts == rules


@pytest.mark.parametrize(
    "line",
    ["<b x=" + " " * 40_000, "<br" + " " * 40_000, "<" + " " * 40_000 + "(", "<b" * 20_000, "&rft" * 20_000]
    + [
        mark * 20_000
        for mark in (
            *MARKS,
            "formula_1",
            "&lt;b&gt;",
            "<ref><i>",
            "<ref>a <",
            "A()",
            '""a',
            "!a",
            "File:a.jpg |",
            "a| ",
            " (",
            "( ;",
        )
    ],
    ids=lambda line: line[:12],
)
def test_time_is_linear_in_the_line_length(line: str) -> None:
    start = time.process_time()
    without_markup(line, Counter())
    assert time.process_time() - start < 0.8


def test_an_overlong_line_is_left_to_the_clean_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wikipedia, "OVERLONG", 20)
    content = f'<doc id="1" url="u" title="T">\n{"<b>" * 9}\n<b>\n</doc>'.encode()
    assert read(tmp_path / "f", content, kind="wikiextractor") == (["<b>" * 9, "", None], [])


def page(title: str, text: str, ns: int = 0, inside: str = "", model: str = "wikitext") -> str:
    return (
        f"  <page>\n    <title>{title}</title>\n    <ns>{ns}</ns>{inside}\n    <revision>\n"
        f'      <model>{model}</model>\n      <text xml:space="preserve">{text}</text>\n    </revision>\n  </page>\n'
    )


def test_a_dump_gives_its_articles(tmp_path: Path) -> None:
    dump = "<mediawiki>\n  <siteinfo />\n" + "".join(
        [
            page("A", "One &lt;page&gt; &amp;amp; two."),
            page("B", "#REDIRECT [[A]]", inside='<redirect title="A" />'),
            page("Talk:A", "Hello", ns=1),
            page("S", "body {}", model="sanitized-css"),
            page("C", "Three.\n\n== See ==\nFour."),
            page("Broken", "a & b"),
        ]
    )
    lines, problems = read(tmp_path / "d.xml", (dump + "</mediawiki>\n").encode(), kind="mediawiki")
    assert [line for line in lines if line != ""] == ["One <page> & two.", None, "Three.", "Four.", None]
    assert problems == ["f: a page is invalid XML and was skipped (not well-formed (invalid token): line 6, column 36)"]
    _, reading = read_shares(tmp_path / "d.xml", 3, kind="mediawiki")
    assert reading.left_out == {"redirect": 1, "namespace": 1, "model": 1}
    _, problems = read(tmp_path / "cut.xml", dump[: dump.index("Four")].encode(), kind="mediawiki")
    assert problems == ["f: the last page has no </page>, so the file may be truncated"]


@pytest.mark.parametrize(
    "change",
    [
        lambda xml: xml,
        lambda xml: xml.replace("\n", ""),
        lambda xml: xml.replace("  ", "").replace("\n", " "),
        lambda xml: xml.replace("</page>\n  <page>", "</page><page>"),
        lambda xml: xml.replace("<page>", '<page id="1" xmlns="http://www.mediawiki.org/xml/export-0.11/"\n>'),
        lambda xml: xml.replace("\n", "\r\n"),
        lambda xml: xml.replace("\n", "\r"),
        lambda xml: xml.replace("<page>", "<page><!-- <page> is a comment -->").replace("<!-- <page>", "<!-- page"),
        lambda xml: xml.replace("<mediawiki>", "").replace("</mediawiki>", "").strip(),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".bz2"])
def test_the_layout_of_a_dump_makes_no_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[str], str], suffix: str
) -> None:
    pages = [page(f"Page {number}", f"Text {number}. " * (number % 7)) for number in range(40)]
    xml = change(f"<mediawiki>\n{''.join(pages)}</mediawiki>\n").encode()
    file = tmp_path / f"d.xml{suffix}"
    file.write_bytes(bz2.compress(xml[: len(xml) // 2]) + bz2.compress(xml[len(xml) // 2 :]) if suffix else xml)
    expected = [text for number in range(40) for text in (f"Text {number}. " * (number % 7), None)]
    for parts, chunk in ((1, 1 << 20), (1, 7), (3, 11), (50, 1), (200, 64)):
        monkeypatch.setattr(compressed, "CHUNK", 1 << 20 if suffix else chunk)
        lines, reading = read_shares(file, parts, kind="mediawiki")
        assert lines == expected
        assert reading.problems.lines == []


DOCS = st.sampled_from(
    [
        '<doc id="1" url="u" title="T">',
        "</doc>",
        "T",
        "",
        "text",
        "<ref>a",
        "&lt;br&gt;",
        "[[a|b]]",
        "{{a}}",
        "| a",
        "<doc ",
        "!a=b|c",
    ]
)


@FUZZ
@given(st.lists(DOCS, max_size=20))
def test_any_lines_of_wikiextractor_are_read(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    """Each <doc> gives a document; no text outside and no end of a block is lost without a problem."""
    found, problems = read(tmp_path_factory.getbasetemp() / "doc", "\n".join(lines).encode(), kind="wikiextractor")
    opened = sum(line.startswith("<doc id") for line in lines)
    assert found.count(None) == opened
    inside = "\n".join(lines).count("text")
    assert sum("text" in (line or "") for line in found) == inside or any("outside <doc> blocks" in p for p in problems)


def test_only_a_whole_file_without_pages_is_a_problem(tmp_path: Path) -> None:
    """No page begins in most shares of a long page; problems of other files make no difference."""
    (tmp_path / "long.xml").write_text(page("Long", "One line.\n" * 1000))
    lines, reading = read_shares(tmp_path / "long.xml", 4, kind="mediawiki")
    assert lines.count(None) == 1
    assert reading.problems.lines == []
    reading.problems.add("problem of another file")
    (tmp_path / "no.xml").write_text("plain\n")
    source = Source(kind="mediawiki", path="no.xml")
    assert not list(read_piece(Piece(tmp_path / "no.xml"), "no", source, "fail", reading))
    assert reading.problems.lines[1:] == ["no: the file contains no <page>"]


def test_overlong_pages_are_skipped_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wikipedia, "LONGEST_PAGE", 100)
    monkeypatch.setattr(documents, "READ", 400)
    monkeypatch.setattr(reading_, "READ", 400)
    text = page("Long", "x" * 101) + page("Endless", "one line\n" * 60) + page("Short", "Text.")
    lines, problems = read(tmp_path / "d.xml", text.encode(), kind="mediawiki")
    assert lines == ["Text.", None]
    assert problems == [
        "f: Long: the page has 101 characters and was skipped",
        "f: byte 260 (line 8): the page has over 400 bytes and was skipped",
    ]


def test_literal_text_that_looks_like_markup_is_kept(tmp_path: Path) -> None:
    text = "Write &lt;nowiki&gt;formula_1, {{x}} and &amp;amp;amp; here&lt;/nowiki&gt;, (;) it works."
    lines, _ = read(tmp_path / "d.xml", page("A", text).encode(), kind="mediawiki")
    assert lines == ["Write formula_1, {{x}} and &amp; here, it works.", None]


def test_the_text_before_a_truncation_is_read(shared_data: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.xml.bz2"
    cut.write_bytes((shared_data / "enwiki-206-pages.xml.bz2").read_bytes()[:400_000])
    lines, reading = read_shares(cut, 2, kind="mediawiki")
    assert 5 < lines.count(None) < 60
    assert any("ends in the middle of a block" in problem for problem in reading.problems.lines)
