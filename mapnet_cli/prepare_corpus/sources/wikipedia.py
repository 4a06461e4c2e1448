"""Reads Wikipedia from WikiExtractor's output or MediaWiki dumps, and removes leftover wiki markup from lines."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from xml.etree import ElementTree

from mapnet_cli.config import Source
from mapnet_cli.prepare_corpus.sources.reading import OVERLONG, Lines, Piece, Reading, unescaped
from mapnet_cli.prepare_corpus.sources.wikitext import BLOCKS, EXTENSIONS, HIDDEN, INLINE, literal, prose

LONGEST_PAGE = 1 << 21  # characters; MediaWiki itself allows no more bytes

_OPENING = re.compile(r"<doc\b.*>\s*$")
_TITLE = re.compile(r'\btitle="(.*?)"(?=>\s*$|\s[\w-]+=")')
_PAGE = re.compile(r"<page(?:\s[^<>]*)?>")

# All patterns take time linear in the length of the line, even with long runs of spaces.
_ATTRIBUTES = r"(?:\s+[\w-]+\s*=[^<>]*|\s*/?)"
_PLACEHOLDER = r"(?P<before>(?<=[^\W_]))?(?<!_){}_\d+(?P<after>(?=[^\W_]))?"
"""WikiExtractor's placeholders, formula_1 and codice_2, and whether a word is adjacent."""


def _separated(word: str) -> Callable[[re.Match[str]], str]:
    """Returns a function that replaces a placeholder by the word, separated from adjacent words."""
    return lambda found: f"{'' if found['before'] is None else ' '}{word}{'' if found['after'] is None else ' '}"


_Rules = tuple[tuple[str, str, re.Pattern[str], str | Callable[[re.Match[str]], str]], ...]
"""Name of a rule, text that must occur for the pattern to match, pattern and replacement."""
_AFTER_PARSER: _Rules = (
    ("empty_brackets", "(", re.compile(r"(?<=\()\s*[;,:](?:\s*[;,:\]])*\s*"), ""),
    ("empty_brackets", "(", re.compile(r"(?<!\s)\s+\(\s*\)"), ""),
)
"""Rules for brackets emptied by removals."""
_AFTER_WIKIEXTRACTOR: _Rules = (
    ("notes", "<", re.compile(r"<ref\b[^<>]*(?:/>|>(?:[^<]|<(?!/?ref\b))*+</ref>)", re.I), ""),
    ("tags", "<", re.compile(rf"</?(?:a|{INLINE}|{EXTENSIONS}){_ATTRIBUTES}>", re.I), ""),
    ("tags", "<", re.compile(rf"</?(?:br|hr|{BLOCKS}|{HIDDEN}){_ATTRIBUTES}>", re.I), " "),
    ("notes", "[update]]", re.compile(r"\[ ?\[update\]\]"), ""),
    ("templates", "{{", re.compile(r"\{{2,3}(?:[^{}]|\{\{[^{}]*\}\})*\}{2,3}"), ""),
    ("files", "[[", re.compile(r"\[\[(?:category|file|image|media):(?:[^\[\]]|\[\[[^\[\]]*\]\])*\]\]", re.I), ""),
    ("links", "[[", re.compile(r"\[\[(?:[^\[\]|]*\|)*([^\[\]|]*)\]\]"), r"\1"),
    ("formulas", "formula_", re.compile(_PLACEHOLDER.format("formula")), _separated("formula")),
    ("formulas", "codice_", re.compile(_PLACEHOLDER.format("codice")), _separated("code")),
    ("quotes", '""', re.compile(r'(?<!\w)""+(?=\w)|(?<=[\w.,;:!?)\]])""+(?!\w)'), '"'),  # bold italics
    ("empty_brackets", "(", re.compile(r"(?<![\w.])([A-Z][a-z]{4,})\(\s*\)"), r"\1"),  # but not printf()
    *_AFTER_PARSER,
)
_TABLE_ROW = re.compile(  # or the beginning of a table or template
    r"\s*(?:\||!(?:\s|!|\s*\w+ ?=|[^!]+!!)|\}\}|\{\{|\{\||#if|category:\S[^|]*\|"
    r"|(?:class|style|align|width|colspan|rowspan) ?=)",
    re.IGNORECASE,
)
_CAPTION = re.compile(r"\s*(?:file|image|media):[^|]*\.\w{3,4}\s*\|", re.IGNORECASE)
_WORDS = re.compile(r"\b(?:[^\W\d_]+[,;:]? ){5}")
_CALL = re.compile(r"\{\{#\w+:[^{}]*|(?<!\S)\S*?&rft\S*")
_STRAY = re.compile(r"\[\[|\]\]|\{\{|\}\}|\{\||\|\}")
_MARKS = ("<", "&", "{", "}", "|", "!", "=", "[[", "]]", "formula_", "codice_", "#if", '""', "()")
_EMPTY = re.compile(r"\(\s*[;,:)]")


def without_markup(line: str, markup: Counter[str], parsed: bool = False) -> str:
    """Returns the line without leftover wiki markup, "" if nothing else remains; counts removals by rule in `markup`.

    `parsed` says that the line comes from the parser: anything that looks like a link or template is literal text.
    """
    if len(line) > OVERLONG or not (any(mark in line for mark in _MARKS) or _EMPTY.search(line)):
        return line  # the clean-up drops overlong lines
    if not parsed and "&" in line and (plain := unescaped(line)) != line:  # before the tags, which may be escaped
        markup["entities"] += 1
        line = plain
    for rule, needed, pattern, replacement in _AFTER_PARSER if parsed else _AFTER_WIKIEXTRACTOR:
        if needed in line:
            line, count = pattern.subn(replacement, line)
            markup.update({rule: count} if count else {})
    if _CAPTION.match(line) or (_TABLE_ROW.match(line) and not _is_sentence(line)):
        markup["remains"] += 1
        return ""
    if not parsed:
        line, count = _CALL.subn("", line)
        markup.update({"remains": count} if count else {})
    line, count = _STRAY.subn("", line)
    if count:
        markup["stray_marks"] += count
    return line if line.strip() else ""


def _is_sentence(line: str) -> bool:
    """Returns whether a line contains five consecutive words and ends like a sentence ("|x| is the ...")."""
    return line.rstrip(" \"')")[-1:] in tuple(".!?:") and _WORDS.search(line) is not None


def wikiextractor(lines: Iterator[str], name: str, reading: Reading) -> Lines:
    """Yields the text of WikiExtractor's `<doc id= url= title=>` ... `</doc>` blocks without the title line."""
    title: str | None = None
    inside, outside, blocks = False, 0, 0
    # files without a last line end may have been concatenated
    for line in (part for whole in lines for part in whole.replace("</doc><doc ", "</doc>\n<doc ").split("\n")):
        if line.startswith("<doc ") and _OPENING.match(line):
            if inside:
                yield None
            inside, blocks = True, blocks + 1
            named = _TITLE.search(line)
            title = unescaped(named[1]).strip() if named else ""
        elif line.startswith("</doc>"):
            if inside:
                yield None
            inside = False
        elif not inside:
            outside += bool(line.strip())
            reading.amounts["lost bytes"] += len(line)
        elif title and line.strip() and unescaped(line).strip() == title:
            title = None
        else:
            title = None if line.strip() else title
            yield without_markup(line, reading.markup)
    if inside:
        reading.problems.add(f"{name}: the last <doc> has no </doc>, so the file may be truncated")
        yield None
    if outside:
        hint = "" if blocks else ": the file has no <doc ...> blocks (should its kind be text?)"
        reading.problems.add(f"{name}: skipped {outside:,} lines outside <doc> blocks{hint}")


def mediawiki(records: Iterator[str], piece: Piece, name: str, source: Source, reading: Reading) -> Lines:
    """Yields the prose of the articles of a MediaWiki XML dump, one article per document.

    Each record ends with `</page>`. Redirects, pages of other namespaces (talk, users, templates) and pages that aren't
    wikitext are skipped and counted. If a page has several revisions, the last one is used.
    """
    found, before = 0, reading.amounts["bytes"]
    for record in records:
        begins = [*_PAGE.finditer(record)]
        found += len(begins)
        for page, following in pairwise(begins):
            reading.lose(f"{name}: a page has no </page> and was skipped", following.start() - page.start())
        if begins and record.endswith("</page>"):
            yield from _page(f"<page>{record[begins[-1].end() :]}", name, reading)
        elif begins:
            size = len(record) - begins[-1].start()
            reading.lose(f"{name}: the last page has no </page>, so the file may be truncated", size)
    if not found:
        reading.amounts["lost bytes"] += reading.amounts["bytes"] - before
        if piece.parts == 1:  # a share of a file may contain no page
            reading.problems.add(f"{name}: the file contains no <page>")


def _page(xml: str, name: str, reading: Reading) -> Lines:
    try:
        page = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        reading.lose(f"{name}: a page is invalid XML and was skipped ({error})", len(xml))
        return
    revisions = page.findall("revision")
    text = (revisions[-1].findtext("text") or "") if revisions else ""
    if page.find("redirect") is not None:
        reading.left_out["redirect"] += 1
    elif page.findtext("ns", "0") != "0":
        reading.left_out["namespace"] += 1
    elif not revisions or revisions[-1].findtext("model", "wikitext") != "wikitext":
        reading.left_out["model"] += 1
    elif len(text) > LONGEST_PAGE:
        reading.lose(
            f"{name}: {page.findtext('title')}: the page has {len(text):,} characters and was skipped", len(xml)
        )
    else:
        try:
            lines = list(prose(text))
        except ValueError as error:
            reading.lose(f"{name}: {page.findtext('title')} was skipped: {error}", len(xml))
            return
        for line in lines:
            yield literal(without_markup(line, reading.markup, parsed=True))
        yield None
