"""Wiki markup to prose: what MediaWiki shows, in linear time."""

import re
import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mapnet_cli.config import Cleanup, Source
from mapnet_cli.prepare_corpus.cleanup import Dropped, clean
from mapnet_cli.prepare_corpus.sources.documents import read_piece
from mapnet_cli.prepare_corpus.sources.reading import Piece, Reading
from mapnet_cli.prepare_corpus.sources.wikitext import DEEPEST, literal, prose
from tests.prepare_corpus.corpora import FUZZ, read_shares


def shown(wikitext: str) -> str:
    """Returns the lines of the page, without empty lines at its ends."""
    return "\n".join(map(literal, prose(wikitext))).strip("\n")


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        ("'''Bold''' and \"[[a b|link]]s\" of [[:Category:X]] [[File:a.jpg|thumb|no [[x]]]][[Category:Y]]",
         'Bold and "links" of X '),
        ("Text.<ref name=a>No.</ref> More<ref name=b /> text.<!-- no -->", "Text. More text."),
        ("a<ref>{{cite|b=[[c]]}}</ref>, b<ref name=c/>; <REF>d</REF >e", "a, b; e"),
        ("It is {{lang|fr|chat}}{{infobox|a=1}} away {{as of|2010}}.", "It is chat away As of 2010."),
        ("{{Template:nowrap|a}} {{lang_fr|b}} {{Lang-ru|c}} {{ nowrap\n|1=d=e}} {{#if:x|y}} {{{f|g}}} {{{h}}}.",
         "a b Russian: c d=e  g."),
        ("A ({{x}}), ({{x}}; b), such as {{x}}, {{x}} , {{x}} (c), d {{x}}.<ref/> He, {{x}}; e <ref>f</ref>, g: {{x}}.",
         "A, (b), such as,  (c), d. He; e, g."),
        ("Ministry({{x}}) was", "Ministry was"),
        ("[[wikt:abbot]] [[:Category:X]] [[#History]] [[Star Trek: II]] [[a:b|c]] [[:fr:Paris]] [[OS&nbsp;X]]",
         "abbot X History Star Trek: II c Paris OS\xa0X"),
        ("End\n[[fr:Paris]]\n[[zh-min-nan:Paris]]", "End"),
        ("[[a|b|c]] [[d\ne]] [[f", "b|c [[d\ne]] [[f"),
        ("a<math>\\times</math>b is <math>c</math> . <ce>d</ce><chem>e</chem>f",
         "a formula b is formula. formula formula f"),
        ("the <math>n</math>-th, <math>x</math>s", "the formula-th, formula s"),
        ("&#xD800;&#1;&nbsp;&copyright; AT&T &amp;amp;", "\ufffd\xa0&copyright; AT&T &amp;"),
        ("See [http://a.org the ''site''] and [http://b.org] or http://c.org. [//d.e f] [mailto:g@h i] [no link]",
         "See the site and  or. f i [no link]"),
        ("E = <math>mc^2</math>&nbsp;J, H<sub>2</sub>O<br />x<br>y", "E = formula\xa0J, H2O x y"),
        ("10<sup>23</sup> 10<sup>−7</sup> m<sup>2</sup> 1{{sfrac|1|4}}", "10^23 10^−7 m2 1 1/4"),
        ("{| class=x\n! a\n| b\n|}\n== Head ==\n* item [[x]]\n# two\nEnd __NOTOC__", "End "),
        ("a\n{|\n|b\n{|\n|c\n|}\n|d\n|} e\n :{|\n|f\n|}\ng", "a\n e\n\ng"),
        ("a\n{|\n! b\n| c\nd is prose", "a\nd is prose"),
        ("a\n==b== <!-- c -->\n=\n= d\n----e", "a\n\n=\n= d\ne"),
        ("a\n:''A quotation.''\n::More.\n:* list\n;term\n:meaning\n:: more\nb\n:c",
         "a\nA quotation.\nMore.\n\n\n\n\nb\nc"),
        ("<div>a</div>b<p>c\n<blockquote>d</blockquote><poem>e\nf</poem>", "a\nb\nc\n\nd\n\ne\nf"),
        ("a<ul><li>b<li>c</ul>d<table><tr><td>e</table>f <li>g</ol> <h2>h</h2>i <td>j", "adf g i j"),
        ("<b>a</b> <q>c</q> <other>d</other> x < y, <S, T> <b-c>", 'a "c" <other>d</other> x < y, <S, T> <b-c>'),
        ("{{Infobox\n| a = {{b|[[c]]}}\n}}Start {{ {{a}} }}}} {{{{{b}}}}} {c} {{d", "Start }}  {c} {{d"),
        ("<nowiki>''a'' {{b}} [[c]] <b> &lt;&amp;lt;</nowiki>\n<nowiki>#</nowiki>d", "''a'' {{b}} [[c]] <b> <&lt;\n#d"),
        ("&#91;&#91;a]] &#39;&#39;b &lt;i&gt; {{nowrap|c &#124; d}}", "[[a]] ''b <i> c | d"),
        ("{{nowrap|[[a|b=c]]}} {{nowrap|a {{!}} b}} {{lang|fr|[[x|y]]}}", "b=c a | b y"),
        ("<ref>a <nowiki>b <math>c <includeonly>d</includeonly>e<noinclude>f</noinclude>", "a b c ef"),
        ("<!-- a {{ -->b<!-- c", "b"),
    ],
)  # fmt: skip
def test_prose_of_markup(markup: str, expected: str) -> None:
    assert shown(markup) == expected.strip("\n")


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        ("a ''b'' c", "a b c"),
        ("a '''b''' c", "a b c"),
        ("a '''''b''''' c", "a b c"),
        ("'''''b'' c''' and '''''d''' e''", "b c and d e"),
        ("a 'b' c'd", "a 'b' c'd"),
        ("''''b''''", "'b'"),  # of four marks, the first is an apostrophe
        ("''''''b''''''", "'b'"),  # of six and more, all but five are
        ("'''''''''''b", "''''''b"),
        ("''John''s ''dog''s", "Johns dogs"),
        ("''L'''amour''", "Lamour"),  # an even number of italics
        ("''l'amour'' and ''l''''été''", "l'amour and l'été"),
        ("l'''amour''", "l'amour"),  # odd numbers of both: a bold mark is an apostrophe and italics
        ("'''L'''''amour'''", "'Lamour"),
        ("''a'' '''b ''c", "a 'b c"),
        ("x '''a '''''b'' y'''z'' u'''v", "x a b yz uv"),
        ("ab '''c de'''f gh'''i ''j", "ab c de'f ghi j"),  # after a longer word rather than after a space
        ("ab '''c de'''f g'''h ''i", "ab c def g'h i"),  # after a single letter rather than after either
        ("ab '''c é'''f gh'''i ''j", "ab c é'f ghi j"),  # two bytes are no single letter
        ("'''a ''b", "'a b"),
        ("'''''a ''b'' '''c", "a b c"),
        ("a ''b\nc'' d", "a b\nc d"),  # per line
        ("[[a|''b]]'' '''[[c]]'''d", "b cd"),
        ("''a''<sub>''b''</sub>''c''<ref/>''d''", "abcd"),
        ("''''", "'"),
        ("''", ""),
        ("{{'}}''a''{{'s}}", "'a's"),
    ],
)
def test_quotation_marks_follow_mediawikis_rule(markup: str, expected: str) -> None:
    assert shown(markup) == expected


MARKS = [
    "*", ":", ";", "#", "*a\n", ":a\n", ";a\n:b\n", "{|\n", "|-\n", "||", "|}\n", "=", "==a==\n", "'", "''a ",
    "'''a '' ", "[", "]", "{", "}", "{{", "}}", "[[", "]]", "[[a|b", "{{a|b=", "[[a]]", "{{a}}", "{{a}} ", "({{a}})",
    "( {{a}}", ", {{a}}", "{{a}},", "{{nowrap|b}}", "{{{a|b}}}", "[http://a ", "[http://", "http://a.b ", "<b>",
    "<b>a</b>", "<ref>", "<ref", "<ref a ", "<ref a>b</ref>", "<math>", "<nowiki>", "<li>", "<ul><li>", "</td>",
    "<table>", "<!--", "-->", "<!-- a -->", "&amp;", "&", "&#", "__", "__A", "----", "(", " ", "\n", "|", "<", "<br ",
    "a''''b",
]  # fmt: skip


@pytest.mark.parametrize("mark", MARKS)
def test_time_is_linear_in_repeated_marks(mark: str) -> None:
    """A million marks take under 10 seconds, so 20,000 may take 0.2 seconds; four times that for safety."""
    start = time.process_time()
    _shown_or_named(mark * 20_000)
    assert time.process_time() - start < 0.8


def _shown_or_named(text: str) -> list[str]:
    try:
        return list(prose(text))
    except ValueError as error:
        assert f"nested more than {DEEPEST} levels deep" in str(error)
        return []


@pytest.mark.parametrize("levels", [DEEPEST, DEEPEST + 1, 100_000])
@pytest.mark.parametrize(("left", "right"), [("{{a|b=", "}}"), ("[[a|", "]]"), ("{{nowrap|c", "}}"), ("{{{a|", "}}}")])
def test_nesting_is_bounded(left: str, right: str, levels: int) -> None:
    text = left * levels + "x" + right * levels
    if levels > DEEPEST:
        with pytest.raises(ValueError, match="nested more than"):
            list(prose(text))
    else:
        assert len(list(prose(text))) == 1


pieces = st.sampled_from(
    [*MARKS, "a", "Word", " ", ".", ",", ")", "</b>", "</ref>", "</nowiki>", "</ul>", "</table>", "1", "é"]
)


@FUZZ
@given(st.lists(pieces, max_size=60).map("".join), st.lists(pieces, max_size=20).map("".join))
@example("{{[[", "]]}}")
def test_any_markup_gives_text_without_marks(before: str, after: str) -> None:
    """No control character is left, and a paragraph doesn't change the ones before it."""
    lines = [literal(line) for line in _shown_or_named(before)]
    assert not re.search(r"[\x00-\x08\x0e-\x1f]", "".join(lines))
    balanced = not re.search(r"[\[\]{}<|]|=|-->", before)
    if balanced and not re.search(r"[\[\]{}<|]|=|-->", after):
        assert [literal(line) for line in _shown_or_named(f"{before}\n\n{after}")][: len(lines)] == lines


@FUZZ
@given(st.text("ab .,'\"()é;:#*=\n", max_size=80).filter(lambda text: "''" not in text))
def test_text_without_markup_is_unchanged(text: str) -> None:
    text = re.sub(r"^[;:#*=]+", "", text, flags=re.MULTILINE)
    assert "\n".join(map(literal, prose(text))) == text


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
