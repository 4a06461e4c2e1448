"""Wikipedia two ways: WikiExtractor's output and MediaWiki's own dumps, and the wiki markup that is left in lines."""

import html
import re
from collections import Counter
from collections.abc import Iterator
from xml.etree import ElementTree

from mapnet_cli.prepare_corpus.pieces import READ
from mapnet_cli.prepare_corpus.reading import Lines, Reading

LONGEST_PAGE = 1 << 21
"""Characters; MediaWiki itself takes no more bytes, and a syntax tree is a hundred times as large."""

_OPENING = re.compile(r'<doc\b[^>]*?(?:\btitle="(?P<title>[^"]*)"[^>]*)?>\s*$')
_NOTE = re.compile(r"<ref\b[^<>]*(?:/>|>[^<>]*</ref>)", re.IGNORECASE)
_INLINE = re.compile(
    r"</?(?:b|code|dfn|em|font|i|includeonly|noinclude|nowiki|onlyinclude|ref|s|small|span|strong|sub|sup|tt|u)"
    r"(?:\s+[\w-]+\s*=[^<>]*)?\s*/?>",
    re.IGNORECASE,
)
_BLOCK = re.compile(
    r"</?(?:blockquote|br|center|dd|div|dl|dt|gallery|hr|li|ol|p|poem|table|td|th|tr|ul)"
    r"(?:\s+[\w-]+\s*=[^<>]*)?\s*/?>",
    re.IGNORECASE,
)
_FILE = r"(?:category|file|image|media)"

# In this order. Only _REMAINS drops text that a reader would see: rows of tables and pieces of templates.
_RULES: tuple[tuple[str, "re.Pattern[str]", str], ...] = (
    ("notes", _NOTE, ""),
    ("tags", _INLINE, ""),
    ("tags", _BLOCK, " "),
    ("notes", re.compile(r"\[ ?\[update\]\]"), ""),
    ("templates", re.compile(r"\{\{(?:[^{}]|\{\{[^{}]*\}\})*\}\}"), ""),
    ("files", re.compile(rf"\[\[{_FILE}:(?:[^\[\]]|\[\[[^\[\]]*\]\])*\]\]", re.IGNORECASE), ""),
    ("links", re.compile(r"\[\[(?:[^\[\]|]*\|)*([^\[\]|]*)\]\]"), r"\1"),
    ("formulas", re.compile(r"\bformula_\d+"), "formula"),
    ("empty_brackets", re.compile(r"(?<=\()\s*[;,:](?:\s*[;,:\]])*\s*"), ""),
    ("empty_brackets", re.compile(r"\s+\(\s*\)"), ""),
)
_ENTITY = re.compile(r"&(?:#\d+|#[xX][0-9a-fA-F]+|[a-zA-Z][a-zA-Z0-9]*);")
_REMAINS = re.compile(
    rf"\s*(?:\||![\s!]|\}}\}}|\{{\{{|\{{\||#if|{_FILE}:[^|]*\||(?:class|style|align|width|colspan|rowspan) ?=)"
    r"|.*(?:\{\{[#!{]|&rft)",
    re.IGNORECASE,
)
_STRAY = re.compile(r"\[\[|\]\]|\{\{|\}\}|\{\||\|\}")
_SUSPECT = re.compile(r"[<&{}|!]|\[\[|\]\]|\(\s*[;,:)]|\[ ?\[|formula_|#if|(?:class|style|align|width) ?=")


def without_markup(line: str, markup: Counter[str]) -> str:
    """Returns the line without what is left of wiki markup, "" if that is all it is; counts by rule what it removes."""
    if not _SUSPECT.search(line):
        return line
    for rule, pattern, replacement in _RULES:
        line, count = pattern.subn(replacement, line)
        if count:
            markup[rule] += count
    if "&" in line:
        plain = _ENTITY.sub(lambda entity: html.unescape(entity[0]), line)
        if plain != line:
            markup["entities"] += 1
            line = plain
    if _REMAINS.match(line):
        markup["remains"] += 1
        return ""
    line, count = _STRAY.subn("", line)
    if count:
        markup["stray_marks"] += count
    return line


def articles(lines: Iterator[str], name: str, reading: Reading) -> Lines:
    """Yields the text of WikiExtractor's `<doc id= url= title=>` ... `</doc>` blocks without the title line."""
    title: str | None = None
    inside, outside, blocks = False, 0, 0
    for line in lines:
        if line.startswith("<doc ") and (opening := _OPENING.match(line)):
            if inside:
                yield None
            inside, blocks = True, blocks + 1
            title = html.unescape(opening["title"] or "").strip()
        elif line.startswith("</doc>"):
            if inside:
                yield None
            inside = False
        elif not inside:
            outside += bool(line.strip())
        elif title and line.strip():
            if html.unescape(line).strip() != title:
                yield without_markup(line, reading.markup)
            title = None
        else:
            yield without_markup(line, reading.markup)
    if inside:
        reading.problems.add(f"{name}: the last <doc> has no </doc>, so the file may be truncated")
        yield None
    if outside:
        hint = "" if blocks else ": it has no <doc ...> blocks at all (is it a file of kind text?)"
        reading.problems.add(f"{name}: left out {outside:,} lines outside <doc> blocks{hint}")


def pages(lines: Iterator[str], name: str, reading: Reading) -> Lines:
    """Yields the prose of the articles of a MediaWiki XML dump, an article a document.

    Redirects, pages of other namespaces (talk, users, templates) and pages that aren't wikitext are left out and
    counted. Where a page has several revisions, the last one counts.
    """
    page: list[str] = []
    size = found = 0
    for line in lines:
        start = line.strip()
        if start.startswith("<page>"):
            if page:
                reading.problems.add(f"{name}: a page has no </page> and was left out")
            page, size = [], 0
        elif not page:
            continue
        if size <= READ:
            page.append(line)
        size += len(line)
        if start.endswith("</page>"):
            found += 1
            if size > READ:
                reading.problems.add(f"{name}: a page has over {READ:,} characters and was left out")
            else:
                yield from _page("\n".join(page), name, reading)
            page = []
    if page:
        reading.problems.add(f"{name}: the last page has no </page>, so the file may be truncated")
    if not found and not reading.problems.count:
        reading.problems.add(f"{name}: there is no <page> in it")


def _page(xml: str, name: str, reading: Reading) -> Lines:
    from mapnet_cli.prepare_corpus.wikitext import prose

    try:
        page = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        reading.problems.add(f"{name}: a page is not XML and was left out ({error})")
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
        reading.problems.add(f"{name}: {page.findtext('title')}: {len(text):,} characters, the page was left out")
    else:
        try:
            lines = list(prose(text))
        except ValueError as error:
            reading.problems.add(f"{name}: {page.findtext('title')} can't be parsed and was left out ({error})")
            return
        for line in lines:
            yield without_markup(line, reading.markup)
        yield None
