"""Reads Wikipedia from WikiExtractor's output or MediaWiki dumps, and removes leftover wiki markup from lines."""

import html
import re
from collections import Counter
from collections.abc import Iterator
from xml.etree import ElementTree

from mapnet_cli.prepare_corpus.sources.reading import OVERLONG, READ, Lines, Reading

LONGEST_PAGE = 1 << 21
"""Characters; MediaWiki itself allows no more bytes, and a syntax tree is a hundred times as large."""

_OPENING = re.compile(r"<doc\b[^>]*>\s*$")
_TITLE = re.compile(r'\btitle="([^"]*)"')

# All patterns take time linear in the length of the line, even with long runs of spaces.
_ATTRIBUTES = r"(?:\s+[\w-]+\s*=[^<>]*|\s*/?)"
_NOTE = re.compile(r"<ref\b[^<>]*(?:/>|>[^<>]*</ref>)", re.IGNORECASE)
_INLINE = re.compile(
    r"</?(?:b|code|dfn|em|font|i|includeonly|noinclude|nowiki|onlyinclude|ref|s|small|span|strong|sub|sup|tt|u)"
    rf"{_ATTRIBUTES}>",
    re.IGNORECASE,
)
_BLOCK = re.compile(
    rf"</?(?:blockquote|br|center|dd|div|dl|dt|gallery|hr|li|ol|p|poem|table|td|th|tr|ul){_ATTRIBUTES}>", re.IGNORECASE
)

_Rules = tuple[tuple[str, re.Pattern[str], str], ...]
_TAGS: _Rules = (("tags", _INLINE, ""), ("tags", _BLOCK, " "))
_BRACKETS: _Rules = (
    ("empty_brackets", re.compile(r"(?<=\()\s*[;,:](?:\s*[;,:\]])*\s*"), ""),
    ("empty_brackets", re.compile(r"(?<!\s)\s+\(\s*\)"), ""),
)
_AFTER_PARSER: _Rules = (*_TAGS, *_BRACKETS)
"""Rules for markup that the parser leaves: unclosed tags, and brackets emptied by removals."""
_AFTER_WIKIEXTRACTOR: _Rules = (
    ("notes", _NOTE, ""),
    *_TAGS,
    ("notes", re.compile(r"\[ ?\[update\]\]"), ""),
    ("templates", re.compile(r"\{{2,3}(?:[^{}]|\{\{[^{}]*\}\})*\}{2,3}"), ""),
    ("files", re.compile(r"\[\[(?:category|file|image|media):(?:[^\[\]]|\[\[[^\[\]]*\]\])*\]\]", re.I), ""),
    ("links", re.compile(r"\[\[(?:[^\[\]|]*\|)*([^\[\]|]*)\]\]"), r"\1"),
    ("formulas", re.compile(r"\bformula_\d+"), "formula"),
    *_BRACKETS,
)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});")
_TABLE_ROW = re.compile(  # or the beginning of a table or template
    r"\s*(?:\||![\s!]|\}\}|\{\{|\{\||#if|category:\S[^|]*\||(?:class|style|align|width|colspan|rowspan) ?=)", re.I
)
_CAPTION = re.compile(r"\s*(?:file|image|media):[^|]*\.\w{3,4}\s*\|", re.IGNORECASE)
_WORDS = re.compile(r"\b(?:[^\W\d_]+[,;:]? ){5}")
_CALL = re.compile(r"\{\{#\w+:[^{}]*|(?<!\S)\S*?&rft\S*")
_STRAY = re.compile(r"\[\[|\]\]|\{\{|\}\}|\{\||\|\}")
_MARKS = ("<", "&", "{", "}", "|", "!", "=", "[[", "]]", "formula_", "#if")
_EMPTY = re.compile(r"\(\s*[;,:)]")


def without_markup(line: str, markup: Counter[str], parsed: bool = False) -> str:
    """Returns the line without leftover wiki markup, "" if nothing else remains; counts removals by rule in `markup`.

    `parsed` says that the line comes from the syntax tree: anything that looks like a link or template is literal text.
    """
    if not any(mark in line for mark in _MARKS) and not _EMPTY.search(line):
        return line
    for rule, pattern, replacement in _AFTER_PARSER if parsed else _AFTER_WIKIEXTRACTOR:
        line, count = pattern.subn(replacement, line)
        if count:
            markup[rule] += count
    if "&" in line and not parsed:
        plain = _unescaped(line)
        if plain != line:
            markup["entities"] += 1
            line = plain
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


def _unescaped(text: str) -> str:
    return _ENTITY.sub(lambda entity: html.unescape(entity[0]), text)


def wikiextractor(lines: Iterator[str], name: str, reading: Reading) -> Lines:
    """Yields the text of WikiExtractor's `<doc id= url= title=>` ... `</doc>` blocks without the title line."""
    title: str | None = None
    inside, outside, blocks = False, 0, 0
    for line in lines:
        if line.startswith("<doc ") and _OPENING.match(line):
            if inside:
                yield None
            inside, blocks = True, blocks + 1
            named = _TITLE.search(line)
            title = _unescaped(named[1]).strip() if named else ""
        elif line.startswith("</doc>"):
            if inside:
                yield None
            inside = False
        elif not inside:
            outside += bool(line.strip())
        elif title and line.strip() and len(line) <= OVERLONG:
            if _unescaped(line).strip() != title:
                yield without_markup(line, reading.markup)
            title = None
        else:  # no regular expressions on overlong lines: they take minutes, and the clean-up drops the line
            yield without_markup(line, reading.markup) if len(line) <= OVERLONG else line
    if inside:
        reading.problems.add(f"{name}: the last <doc> has no </doc>, so the file may be truncated")
        yield None
    if outside:
        hint = "" if blocks else ": the file has no <doc ...> blocks (should its kind be text?)"
        reading.problems.add(f"{name}: skipped {outside:,} lines outside <doc> blocks{hint}")


def mediawiki(lines: Iterator[str], name: str, reading: Reading, whole: bool) -> Lines:
    """Yields the prose of the articles of a MediaWiki XML dump, one article per document.

    Redirects, pages of other namespaces (talk, users, templates) and pages that aren't wikitext are skipped and
    counted. If a page has several revisions, the last one is used. `whole` says that the lines are a whole file; a
    share of a file may contain no page.
    """
    page: list[str] = []
    size = found = 0
    for line in lines:
        start = line.strip()
        if start.startswith("<page>"):
            if page:
                reading.problems.add(f"{name}: a page has no </page> and was skipped")
            page, size = [], 0
        elif not page:
            continue
        if size <= READ:
            page.append(line)
        size += len(line)
        if start.endswith("</page>"):
            found += 1
            if size > READ:
                reading.problems.add(f"{name}: a page has over {READ:,} characters and was skipped")
            else:
                yield from _page("\n".join(page), name, reading)
            page = []
    if page:
        reading.problems.add(f"{name}: the last page has no </page>, so the file may be truncated")
    if whole and not found and not page:
        reading.problems.add(f"{name}: the file contains no <page>")


def _page(xml: str, name: str, reading: Reading) -> Lines:
    from mapnet_cli.prepare_corpus.sources.wikitext import prose

    try:
        page = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        reading.problems.add(f"{name}: a page is invalid XML and was skipped ({error})")
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
        reading.problems.add(f"{name}: {page.findtext('title')}: the page has {len(text):,} characters and was skipped")
    else:
        try:
            lines = list(prose(text))
        except ValueError as error:
            reading.problems.add(f"{name}: {page.findtext('title')} can't be parsed and was skipped ({error})")
            return
        for line in lines:
            yield without_markup(line, reading.markup, parsed=True)
        yield None
