"""Wiki markup to prose, on the syntax tree that mwparserfromhell makes of it.

As for BERT, lists, tables and headings are left out (Devlin et al. 2019, section 3.1), and with them notes,
pictures, categories and most templates.
"""

import re
from collections.abc import Callable, Iterator

import mwparserfromhell
from mwparserfromhell.nodes import ExternalLink, Heading, HTMLEntity, Tag, Template, Text, Wikilink
from mwparserfromhell.wikicode import Wikicode

_UNSEEN = {
    "ref", "references", "table", "gallery", "timeline", "score", "hiero", "imagemap", "syntaxhighlight", "source",
    "pre", "templatestyles", "style", "mapframe", "maplink", "graph", "section", "categorytree", "indicator",
    "ol", "ul", "li", "dl", "dt", "dd", "h1", "h2", "h3", "h4", "h5", "h6",
}  # fmt: skip
"""Tags that are left out with what they hold."""
_FORMULAS = {"math", "chem", "ce"}
_NOT_PROSE = re.compile(r"\s*(?:category|file|image|media)\s*:", re.IGNORECASE)
_LIST_MARKS = "*#:;"
_QUOTES = re.compile(r"'{2,5}")
_SWITCHES = re.compile(r"__[A-Z]+__")
_BETWEEN = {"-", "–", "to", "and", "by", "x", "×", "or", "to(-)", "+/-", "±"}


def prose(wikitext: str) -> Iterator[str]:
    """Yields the lines of a page's running text; raises ValueError for what the parser can't read."""
    try:  # '' and ''' are taken out below: the parser's search for their ends takes long and can go wrong
        code = mwparserfromhell.parse(wikitext, skip_style_tags=True)
    except mwparserfromhell.parser.ParserError as error:
        raise ValueError(str(error)) from None
    text = _text(code)
    for line in _SWITCHES.sub("", _QUOTES.sub("", text)).split("\n"):
        yield "" if line.lstrip().startswith(tuple(_LIST_MARKS)) else line


def _text(code: Wikicode) -> str:
    return "".join(map(_seen, code.nodes))


def _seen(node: object) -> str:
    """Returns what a reader sees of a node in running text."""
    if isinstance(node, Text):
        return str(node.value)
    if isinstance(node, Wikilink):
        title = str(node.title)
        if _NOT_PROSE.match(title):
            return ""
        return _text(node.text) if node.text is not None else title.strip().removeprefix(":")
    if isinstance(node, ExternalLink):
        return _text(node.title) if node.brackets and node.title is not None else ""
    if isinstance(node, HTMLEntity):
        return str(node.normalize())
    if isinstance(node, Heading):
        return "\n"
    if isinstance(node, Tag):
        return _tag(node)
    return _template(node) if isinstance(node, Template) else ""  # comments and arguments of templates


def _tag(node: Tag) -> str:
    name = str(node.tag).strip().lower()
    if name in _FORMULAS:
        return "formula"
    if node.wiki_markup and node.wiki_markup in _LIST_MARKS:
        return str(node.wiki_markup)  # the line that it begins goes
    if name in _UNSEEN:
        return ""
    if name in ("br", "hr"):
        return " "
    inner = _text(node.contents) if node.contents is not None else ""
    return f"\n{inner}\n" if name in ("p", "div", "blockquote", "poem", "center") else inner


def _template(node: Template) -> str:
    """Returns what the few templates that belong to a sentence say; the others are left out."""
    name = str(node.name).strip().lower()
    say = _SPOKEN.get(name)
    return say([_text(p.value).strip() for p in node.params if not p.showkey]) if say else ""


def _converted(given: list[str]) -> str:
    """{{convert|5|km|mi}}: "5 km"; {{convert|5|to|7|km}}: "5 to 7 km"."""
    if len(given) > 3 and given[1] in _BETWEEN:
        return " ".join(given[:4])
    return " ".join(given[:2])


def _first(given: list[str]) -> str:
    return given[0] if given else ""


def _second(given: list[str]) -> str:
    return given[1] if len(given) > 1 else ""


def _block(given: list[str]) -> str:
    return f"\n{_first(given)}\n"


_SPOKEN: dict[str, Callable[[list[str]], str]] = {
    **dict.fromkeys(["convert", "cvt"], _converted),
    **dict.fromkeys(["nowrap", "nobr", "small", "abbr", "em", "strong", "math", "mvar", "angbr", "lang-en"], _first),
    **dict.fromkeys(["lang", "transl", "transliteration", "script"], _second),
    **dict.fromkeys(["quote", "blockquote", "cquote", "quotation", "quote box"], _block),
    **dict.fromkeys(["ndash", "snd", "spaced ndash", "–"], lambda given: " – "),
    **dict.fromkeys(["mdash", "em dash", "—"], lambda given: "—"),
    **dict.fromkeys(["circa", "c."], lambda given: f"c. {_first(given)}"),
    "frac": "/".join,
    "'": lambda given: "'",
    "as of": lambda given: f"As of {' '.join(given)}",
}
