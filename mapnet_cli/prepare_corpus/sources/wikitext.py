"""Converts wiki markup to prose, using the syntax tree of mwparserfromhell.

As in BERT, lists, tables and headings are left out (Devlin et al. 2019, section 3.1), as are notes,
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

_HIDDEN_TAGS = {
    "ref", "references", "table", "gallery", "timeline", "score", "hiero", "imagemap", "syntaxhighlight", "source",
    "pre", "templatestyles", "style", "mapframe", "maplink", "graph", "section", "categorytree", "indicator",
    "ol", "ul", "li", "dl", "dt", "dd", "h1", "h2", "h3", "h4", "h5", "h6",
}  # fmt: skip
"""Tags that are left out with their contents."""
_FORMULAS = {"math", "chem", "ce"}
_VOID_TAGS = {"br", "hr", "wbr", "img", "li", "dt", "dd", "th", "td", "tr"}
"""Tags that need no closing tag."""
_NOT_PROSE = re.compile(r"\s*(?:category|file|image|media)\s*:", re.IGNORECASE)
_PREFIXES = {
    "b", "c", "commons", "d", "m", "meta", "mw", "n", "q", "s", "species", "v", "voy", "w", "wikibooks", "wikidata",
    "wikinews", "wikipedia", "wikiquote", "wikisource", "wikispecies", "wikiversity", "wikivoyage", "wikt",
    "wiktionary", "category", "file", "help", "image", "media", "portal", "special", "talk", "template", "user",
}  # fmt: skip
"""Namespaces and sister projects; a link to them without a label shows the rest of its title."""
_LANGUAGE = re.compile(r"(?:[a-z]{2,3}(?:-[a-z-]+)?|simple):(?=\S)")
_LIST_MARKS = "*#:;"
_QUOTES = re.compile(r"'{2,5}")
_SWITCHES = re.compile(r"__[A-Z]+__")

# Marks in the text while it is being assembled; XML can't contain these characters.
_REMOVED = "\x00"
"""Replaces a template, note or picture that is left out."""
_SUPERSCRIPT = "\x01"
"""Precedes a superscript."""
_EDGE = "\x02"
"""Precedes and follows the text of a template."""
_MARKS = re.compile(r"[\x00-\x02]")
_RAISED = re.compile(r"(?<=\d)\x01(?=[-−–+]?\d)")
_FRACTION = re.compile(r"(?<=\d)\x02(?=\d+/\d)")
# Where _REMOVED leaves a space before punctuation, a stray comma or empty brackets, they are removed too.
_GAPS = (
    (re.compile(r"(?<![^\S\n])[^\S\n]*\((?:[^\S\n,;:]*\x00)+[^\S\n,;:]*\)"), ""),
    (re.compile(r"\((?:[^\S\n,;:]*\x00)+[^\S\n,;:]*(?:[,;:][^\S\n]*)*"), "("),
    (re.compile(r"(?<![^\S\n])(?:[,;:]?[^\S\n]*\x00)+[^\S\n]*(?=[,;)]|[.:](?!\w))"), ""),
)

MAX_WASTED_CHARS = 3e7
"""Maximum number of characters that the parser may scan in vain, which takes 5 to 15 seconds."""
_BRACKETS = re.compile(
    r"<!--|-->|\[\[|\]\]|\{\{|\}\}|\{\||\|\}(?!\})|\[(?=\w*:?//)|\]|<(?P<tag>[a-zA-Z]\w*)(?![^<>]*/>)|</(?P<end>[a-zA-Z]\w*)\s*>"
)
_CLOSES = {"-->": "<!--", "]]": "[[", "}}": "{{", "|}": "{|", "]": "["}


def prose(wikitext: str) -> Iterator[str]:
    """Yields the lines of a page's running text; raises ValueError if the parser fails or would take too long."""
    if (wasted := _wasted_chars(wikitext)) > MAX_WASTED_CHARS:
        raise ValueError(f"because of unclosed markup, the parser would scan {wasted:,} characters in vain")
    try:  # '' and ''' are removed below: the parser is slow to find their ends and can fail
        text = _text(mwparserfromhell.parse(wikitext, skip_style_tags=True))
    except (mwparserfromhell.parser.ParserError, RecursionError) as error:
        raise ValueError(str(error)) from None
    text = _FRACTION.sub(" ", _RAISED.sub("^", _QUOTES.sub("", text)))
    for pattern, replacement in _GAPS:
        text = pattern.sub(replacement, text)
    for line in _SWITCHES.sub("", _MARKS.sub("", text)).split("\n"):
        yield "" if line.lstrip().startswith(tuple(_LIST_MARKS)) else line


def _wasted_chars(wikitext: str) -> int:
    """Returns how many characters the parser may scan in vain: from each unclosed mark to the end of the page.

    The parser scans the page again from each such mark, so a page of 100,000 `<b>` would take hours.
    """
    opened: list[tuple[str, int]] = []
    count: Counter[str] = Counter()
    wasted = 0
    for mark in _BRACKETS.finditer(wikitext):
        kind = (mark["tag"] or mark["end"] or mark[0]).lower()
        if mark["end"] or kind in _CLOSES:
            kind = _CLOSES.get(kind, kind)
            while count[kind]:  # anything still open inside it is never closed
                inner, start = opened.pop()
                count[inner] -= 1
                if inner == kind:
                    break
                wasted += len(wikitext) - start
        elif kind not in _VOID_TAGS:
            opened.append((kind, mark.start()))
            count[kind] += 1
    return wasted + sum(len(wikitext) - start for _, start in opened)


def _text(code: Wikicode) -> str:
    return "".join(map(_visible_text, code.nodes))


def _visible_text(node: object) -> str:
    """Returns the text that a reader sees of a node in running text."""
    if isinstance(node, Text):
        return str(node.value)
    if isinstance(node, Wikilink):
        return _link(node)
    if isinstance(node, ExternalLink):
        return _text(node.title) if node.brackets and node.title is not None else _REMOVED
    if isinstance(node, HTMLEntity):
        return html.unescape(str(node))
    if isinstance(node, Heading):
        return "\n"
    if isinstance(node, Tag):
        return _tag(node)
    return _template(node) if isinstance(node, Template) else _REMOVED  # comments and template arguments


def _link(node: Wikilink) -> str:
    title = html.unescape(str(node.title)).strip()
    if _NOT_PROSE.match(title):
        return _REMOVED
    if node.text is not None and str(node.text).strip():
        return _text(node.text)
    inline = title.startswith(":")
    title = title.removeprefix(":")
    prefix, colon, rest = title.partition(":")
    if colon and prefix.lower() in _PREFIXES:
        return rest.strip()
    if _LANGUAGE.match(title):
        return rest if inline else _REMOVED  # an interlanguage link, which the sidebar shows
    return title.removeprefix("#")


def _tag(node: Tag) -> str:
    name = str(node.tag).strip().lower()
    if name in _FORMULAS:
        return f"formula{_REMOVED}"  # as in WikiExtractor's output; _REMOVED closes the gap before punctuation
    if node.wiki_markup and node.wiki_markup in _LIST_MARKS:
        return str(node.wiki_markup)  # `prose` drops the line
    if name in _HIDDEN_TAGS:
        return _REMOVED
    if name in ("br", "hr"):
        return " "
    inner = _text(node.contents) if node.contents is not None else ""
    if name == "sup":
        return _SUPERSCRIPT + inner  # 10<sup>23</sup> is not 1023
    return f"\n{inner}\n" if name in ("p", "div", "blockquote", "poem", "center") else inner


def _template(node: Template) -> str:
    args = {str(argument.name).strip(): _text(argument.value).strip() for argument in node.params}
    text = wiki_templates.template_text(_text(node.name), args)
    return f"{_EDGE}{text}{_EDGE}" if text else _REMOVED
