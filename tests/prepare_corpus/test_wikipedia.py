"""Wikipedia from WikiExtractor and from MediaWiki dumps: text, skipped pages and leftover markup."""

import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from mapnet_cli.config import Cleanup, Source
from mapnet_cli.prepare_corpus.cleanup import Dropped, clean
from mapnet_cli.prepare_corpus.sources import wikipedia, wikitext
from mapnet_cli.prepare_corpus.sources.documents import read_piece
from mapnet_cli.prepare_corpus.sources.reading import Piece, Reading
from mapnet_cli.prepare_corpus.sources.wikipedia import without_markup
from mapnet_cli.prepare_corpus.sources.wikitext import prose
from tests.prepare_corpus.corpora import read, read_shares


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


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('Sentence.<ref name="a" /> Next.<ref>Note 5.</ref>', "Sentence. Next."),
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
    ],
)
def test_leftovers_are_removed_and_counted(line: str, expected: str, rules: dict[str, int]) -> None:
    counts: Counter[str] = Counter()
    assert without_markup(line, counts) == expected
    assert counts == rules


@pytest.mark.parametrize(
    "line", ["<b x=" + " " * 40_000, "<br" + " " * 40_000, "<" + " " * 40_000 + "(", "<b" * 20_000, "&rft" * 20_000]
)
def test_time_is_linear_in_the_line_length(line: str) -> None:
    start = time.process_time()
    without_markup(line, Counter())
    assert time.process_time() - start < 1


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
    monkeypatch.setattr(wikipedia, "READ", 400)
    text = page("Long", "x" * 101) + page("Endless", "one line\n" * 60) + page("Short", "Text.")
    lines, problems = read(tmp_path / "d.xml", text.encode(), kind="mediawiki")
    assert lines == ["Text.", None]
    assert problems == [
        "f: Long: the page has 101 characters and was skipped",
        "f: a page has over 400 characters and was skipped",
    ]


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        ("'''Bold''' and \"[[a b|link]]s\" of [[:Category:X]] [[File:a.jpg|thumb|no [[x]]]][[Category:Y]]",
         'Bold and "links" of X '),
        ("Text.<ref name=a>No.</ref> More<ref name=b /> text.<!-- no -->", "Text. More text."),
        ("It is {{convert|5|km|mi}} or {{convert|5|to|7|km}} {{lang|fr|chat}}{{infobox|a=1}} away {{as of|2010}}.",
         "It is 5 km or 5 to 7 km chat away As of 2010."),
        ("{{as of|2014|7|lc=y}} {{convert|3|ft|4|in}}, {{convert|5|by|6|by|7|m|ft}}, {{convert|9|km|0}}, "
         "{{frac|3|1|2}}, 1{{sfrac|1|4}}, {{frac|3}}",
         "as of July 2014 3 ft 4 in, 5 by 6 by 7 m, 9 km, 3 1/2, 1 1/4, 1/3"),
        ("{{Template:nowrap|a}} {{lang_fr|b}} {{Lang-ru|c}} {{ nowrap\n|1=d=e}} {{transl|ar|DIN|f}} {{formatnum:9}}",
         "a b c d=e f 9"),
        ("{{IPA|/a/}} {{IPA-fr|b|lang}} Al ({{IPAc-en|lang|æ|_|l}}; {{respell|AL|go}}) {{nihongo|art|術|jutsu}}",
         "/a/ [b] Al () art"),
        ("{{chem|C|''n''|H|2''n''}} {{chem|SO|4|2-}} {{e|24}} {{val|6.2|e=18|u=V}} 10<sup>23</sup> 10<sup>−7</sup> "
         "m<sup>2</sup>", "CnH2n SO4^2- ×10^24 6.2×10^18 V 10^23 10^−7 m2"),
        ("''Eagle''{{'s}} 3500{{nbsp}}{{sc|bc}} {{HMS|Ajax|22}} at {{coord|13|19|N|169|9|W|type:x}}"
         "{{coord|1|2|display=title}}", "Eagle's 3500 bc HMS Ajax at 13 19 N 169 9 W"),
        ("A ({{x}}), ({{x}}; b), such as {{x}}, {{x}} , {{x}} (c), d {{x}}.<ref/> He, {{x}}; e <ref>f</ref>, g: {{x}}.",
         "A, (b), such as,  (c), d. He; e, g."),
        ("[[wikt:abbot]] [[:Category:X]] [[#History]] [[Star Trek: II]] [[a:b|c]] [[:fr:Paris]] [[OS&nbsp;X]]",
         "abbot X History Star Trek: II c Paris OS\xa0X"),
        ("End\n[[fr:Paris]]\n[[zh-min-nan:Paris]]", "End\n\n"),
        ("a<math>\\times</math>b is <math>c</math> . &#xD800;&#1;", "aformulab is formula. \ufffd"),
        ("See [http://a.org the site] and [http://b.org] or http://c.org now", "See the site and  or  now"),
        ("E = <math>mc^2</math>&nbsp;J, H<sub>2</sub>O<br />x", "E = formula\xa0J, H2O x"),
        ("{| class=x\n! a\n| b\n|}\n== Head ==\n* item [[x]]\n# two\n:quote\nEnd __NOTOC__", "\n\n\n\n\n\nEnd "),
        ("{{Infobox\n| a = {{b|[[c]]}}\n}}Start", "Start"),
    ],
)  # fmt: skip
def test_prose_of_markup(markup: str, expected: str) -> None:
    assert "\n".join(prose(markup)).strip("\n") == expected.strip("\n")


@pytest.fixture
def default_recursion_limit() -> Iterator[None]:
    """Sets Python's default of 1,000, since Hypothesis leaves a higher limit behind."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1_000)
    yield
    sys.setrecursionlimit(limit)


@pytest.mark.usefixtures("default_recursion_limit")
@pytest.mark.parametrize(
    "text", ["{{{" * 700 + "x" + "}}}" * 700, "{{a|b=" * 10_000, "<b>" * 20_000, "<ref a" * 10_000]
)
def test_a_page_that_takes_the_parser_too_long_is_skipped_and_reported(tmp_path: Path, text: str) -> None:
    dump = page("Deep", text.replace("<", "&lt;")) + page("Next", "Text.")
    start = time.process_time()
    lines, problems = read(tmp_path / "d.xml", dump.encode(), kind="mediawiki")
    assert time.process_time() - start < 5
    assert lines == ["Text.", None]
    assert len(problems) == 1 and problems[0].startswith("f: Deep can't be parsed and was skipped (")


@pytest.mark.parametrize(
    ("text", "wasted"),
    [("{{a}}[[b]]<i>c</i><br><ref name=d />{|\n|}", 0), ("{{a", 3), ("[[ {{ ]] }}", 8), ("<b>[[x</b>", 7), ("]]}}", 0)],
)
def test_wasted_chars_counts_from_unclosed_marks(text: str, wasted: int) -> None:
    assert wikitext._wasted_chars(text) == wasted


def test_literal_text_that_looks_like_markup_is_kept(tmp_path: Path) -> None:
    text = "Write &lt;nowiki&gt;formula_1, {{x}} and &amp;amp;amp; here&lt;/nowiki&gt;, (;) it works."
    lines, _ = read(tmp_path / "d.xml", page("A", text).encode(), kind="mediawiki")
    assert lines == ["Write formula_1, x and &amp; here, it works.", None]


MARKUP = re.compile(r"\[\[|\]\]|\{\{|\}\}|\{\||</?(?:ref|br|div|span|table|small|math)\b|&[a-z]+;|'''|==|\(\s*[;,)]")


GAP = re.compile(r" [,;]|(?<!\.) \.(?! ?\.)|\(\s*\)|[,;] ?[,;]")
"""Matches gaps left by removals: a space before punctuation, empty brackets, repeated commas; not "..."."""


@pytest.mark.slow
def test_a_real_dump(shared_data: Path) -> None:
    """106 of the 206 pages are articles; reading the bz2 file in shares gives the same text."""
    file = shared_data / "enwiki-206-pages.xml.bz2"
    reading, dropped = Reading(), Dropped()
    source = Source(kind="mediawiki", path=str(file))
    lines = list(read_piece(Piece(file), "f", source, "fail", reading))
    assert lines.count(None) == 106
    assert reading.left_out == {"redirect": 100}
    assert reading.problems.lines == []
    paragraphs = [line for line in clean(iter(lines), Cleanup(), dropped) if line]
    assert 350_000 < sum(len(paragraph.split()) for paragraph in paragraphs) < 450_000
    left = [paragraph for paragraph in paragraphs if MARKUP.search(paragraph)]
    assert len(left) < 0.002 * len(paragraphs), left[:5]
    gaps = [paragraph for paragraph in paragraphs if GAP.search(paragraph)]
    assert len(gaps) < 0.004 * len(paragraphs), gaps[:5]
    assert read_shares(file, 3, kind="mediawiki")[0] == lines


def test_the_text_before_a_truncation_is_read(shared_data: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.xml.bz2"
    cut.write_bytes((shared_data / "enwiki-206-pages.xml.bz2").read_bytes()[:400_000])
    lines, reading = read_shares(cut, 2, kind="mediawiki")
    assert 5 < lines.count(None) < 60
    assert any("ends in the middle of a block" in problem for problem in reading.problems.lines)
    assert any("no </page>" in problem for problem in reading.problems.lines)
