"""Wiki markup to prose, on the syntax tree that mwparserfromhell makes of it.

As for BERT, lists, tables and headings are left out (Devlin et al. 2019, section 3.1), and with them notes,
pictures, categories and most templates.
"""

import html
import re
from collections import Counter
from collections.abc import Iterator

import mwparserfromhell
from mwparserfromhell.nodes import ExternalLink, Heading, HTMLEntity, Tag, Template, Text, Wikilink
from mwparserfromhell.wikicode import Wikicode

from mapnet_cli.prepare_corpus.sources import wiki_templates

_UNSEEN = {
    "ref", "references", "table", "gallery", "timeline", "score", "hiero", "imagemap", "syntaxhighlight", "source",
    "pre", "templatestyles", "style", "mapframe", "maplink", "graph", "section", "categorytree", "indicator",
    "ol", "ul", "li", "dl", "dt", "dd", "h1", "h2", "h3", "h4", "h5", "h6",
}  # fmt: skip
"""Tags that are left out with what they hold."""
_FORMULAS = {"math", "chem", "ce"}
_UNCLOSED = {"br", "hr", "wbr", "img", "li", "dt", "dd", "th", "td", "tr"}
"""Tags that need no end."""
_NOT_PROSE = re.compile(r"\s*(?:category|file|image|media)\s*:", re.IGNORECASE)
_PREFIXES = {
    "b", "c", "commons", "d", "m", "meta", "mw", "n", "q", "s", "species", "v", "voy", "w", "wikibooks", "wikidata",
    "wikinews", "wikipedia", "wikiquote", "wikisource", "wikispecies", "wikiversity", "wikivoyage", "wikt",
    "wiktionary", "category", "file", "help", "image", "media", "portal", "special", "talk", "template", "user",
}  # fmt: skip
"""Namespaces and sister projects; a link to them without a text of its own shows what follows."""
_LANGUAGE = re.compile(r"(?:[a-z]{2,3}(?:-[a-z-]+)?|simple):(?=\S)")
_LIST_MARKS = "*#:;"
_QUOTES = re.compile(r"'{2,5}")
_SWITCHES = re.compile(r"__[A-Z]+__")

# What is marked until the line is whole; such characters are never in XML.
_HOLE = "\x00"
"""A template, note or picture that isn't shown."""
_POWER = "\x01"
"""The beginning of what is raised."""
_SEAM = "\x02"
"""The beginning and the end of what a template shows."""
_MARKS = re.compile(r"[\x00-\x02]")
_RAISED = re.compile(r"(?<=\d)\x01(?=[-−–+]?\d)")
_FRACTION = re.compile(r"(?<=\d)\x02(?=\d+/\d)")
# Where a hole stands before a stop, the space before it goes, and a comma that it leaves alone.
_GAPS = (
    (re.compile(r"(?<![^\S\n])[^\S\n]*\((?:[^\S\n,;:]*\x00)+[^\S\n,;:]*\)"), ""),
    (re.compile(r"\((?:[^\S\n,;:]*\x00)+[^\S\n,;:]*(?:[,;:][^\S\n]*)*"), "("),
    (re.compile(r"(?<![^\S\n])(?:[,;:]?[^\S\n]*\x00)+[^\S\n]*(?=[,;)]|[.:](?!\w))"), ""),
)

MOST_WORK = 3e7
"""Characters that the parser may go over in vain: 5 to 15 seconds."""
_BRACKETS = re.compile(
    r"<!--|-->|\[\[|\]\]|\{\{|\}\}|\{\||\|\}(?!\})|\[(?=\w*:?//)|\]|<(?P<tag>[a-zA-Z]\w*)(?![^<>]*/>)|</(?P<end>[a-zA-Z]\w*)\s*>"
)
_CLOSES = {"-->": "<!--", "]]": "[[", "}}": "{{", "|}": "{|", "]": "["}


def prose(wikitext: str) -> Iterator[str]:
    """Yields the lines of a page's running text; raises ValueError for what the parser can't read, or not in time."""
    if (work := _work_in_vain(wikitext)) > MOST_WORK:
        raise ValueError(f"what it opens and doesn't close would take the parser {work:,} characters")
    try:  # '' and ''' are taken out below: the parser's search for their ends takes long and can go wrong
        text = _text(mwparserfromhell.parse(wikitext, skip_style_tags=True))
    except (mwparserfromhell.parser.ParserError, RecursionError) as error:
        raise ValueError(str(error)) from None
    text = _FRACTION.sub(" ", _RAISED.sub("^", _QUOTES.sub("", text)))
    for pattern, replacement in _GAPS:
        text = pattern.sub(replacement, text)
    for line in _SWITCHES.sub("", _MARKS.sub("", text)).split("\n"):
        yield "" if line.lstrip().startswith(tuple(_LIST_MARKS)) else line


def _work_in_vain(wikitext: str) -> int:
    """Returns how many characters the parser may read to no end: from each opening without its close to the page's end.

    It reads a page again from each such place, so a page of 100,000 `<b>` would take it hours.
    """
    opened: list[tuple[str, int]] = []
    count: Counter[str] = Counter()
    work = 0
    for mark in _BRACKETS.finditer(wikitext):
        kind = (mark["tag"] or mark["end"] or mark[0]).lower()
        if mark["end"] or kind in _CLOSES:
            kind = _CLOSES.get(kind, kind)
            while count[kind]:  # what was opened inside it and is still open never closes
                inner, place = opened.pop()
                count[inner] -= 1
                if inner == kind:
                    break
                work += len(wikitext) - place
        elif kind not in _UNCLOSED:
            opened.append((kind, mark.start()))
            count[kind] += 1
    return work + sum(len(wikitext) - place for _, place in opened)


def _text(code: Wikicode) -> str:
    return "".join(map(_seen, code.nodes))


def _seen(node: object) -> str:
    """Returns what a reader sees of a node in running text."""
    if isinstance(node, Text):
        return str(node.value)
    if isinstance(node, Wikilink):
        return _link(node)
    if isinstance(node, ExternalLink):
        return _text(node.title) if node.brackets and node.title is not None else _HOLE
    if isinstance(node, HTMLEntity):
        return html.unescape(str(node))
    if isinstance(node, Heading):
        return "\n"
    if isinstance(node, Tag):
        return _tag(node)
    return _template(node) if isinstance(node, Template) else _HOLE  # comments and arguments of templates


def _link(node: Wikilink) -> str:
    title = html.unescape(str(node.title)).strip()
    if _NOT_PROSE.match(title):
        return _HOLE
    if node.text is not None and str(node.text).strip():
        return _text(node.text)
    inline = title.startswith(":")
    title = title.removeprefix(":")
    prefix, colon, rest = title.partition(":")
    if colon and prefix.lower() in _PREFIXES:
        return rest.strip()
    if _LANGUAGE.match(title):
        return rest if inline else _HOLE  # the article in another language, listed beside the page
    return title.removeprefix("#")


def _tag(node: Tag) -> str:
    name = str(node.tag).strip().lower()
    if name in _FORMULAS:
        return f"formula{_HOLE}"  # as WikiExtractor's text has it; a space before the stop goes
    if node.wiki_markup and node.wiki_markup in _LIST_MARKS:
        return str(node.wiki_markup)  # the line that it begins goes
    if name in _UNSEEN:
        return _HOLE
    if name in ("br", "hr"):
        return " "
    inner = _text(node.contents) if node.contents is not None else ""
    if name == "sup":
        return _POWER + inner  # 10<sup>23</sup> is not 1023
    return f"\n{inner}\n" if name in ("p", "div", "blockquote", "poem", "center") else inner


def _template(node: Template) -> str:
    given = {str(argument.name).strip(): _text(argument.value).strip() for argument in node.params}
    text = wiki_templates.shown(_text(node.name), given)
    return f"{_SEAM}{text}{_SEAM}" if text else _HOLE
