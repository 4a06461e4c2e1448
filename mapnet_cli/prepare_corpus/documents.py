"""Reading the sources: files to lines, with document boundaries and a list of what was wrong.

A stream of lines is `str | None`: a line, "" where a paragraph can't run on, None where a document
ends. Nothing larger than one paragraph is held in memory.
"""

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO

from mapnet_cli.config import Source
from mapnet_cli.errors import InputError
from mapnet_cli.text import cpython_prose

Lines = Iterator[str | None]

OVERLONG = 2_000_000
"""Characters of a line or paragraph that no clean-up setting lets through."""
READ = 8 * OVERLONG
"""Bytes of one line that are read; a longer line is overlong in any encoding's length."""
LISTED = 100
"""Problems kept by name, of a slice and of a corpus."""


@dataclass
class Problems:
    """What was repaired or left out. The first hundred are named, all are counted."""

    count: int = 0
    lines: list[str] = field(default_factory=list)

    def add(self, line: str) -> None:
        self.count += 1
        if len(self.lines) < LISTED:
            self.lines.append(line)

    def merge(self, lines: list[str], count: int) -> None:
        """Adds another list, of which only some may be named."""
        self.lines += lines[: LISTED - len(self.lines)]
        self.count += count


def read_file(path: Path, name: str, source: Source, on_bad_utf8: str, problems: Problems) -> Lines:
    """Yields one input file's lines; `name` is what a problem calls it.

    Raises InputError at bytes that are not UTF-8 if `on_bad_utf8` is "fail".
    """
    if source.kind == "dataset":
        yield from _rows(path, name, source.column, problems)
        return
    if on_bad_utf8 != "repair" and (place := _first_bad(path)):
        if on_bad_utf8 == "fail":
            raise InputError(f"{name}: not UTF-8 at {place}; corpus.on_bad_utf8 can also be repair or skip")
        problems.add(f"{name}: skipped, not UTF-8 at {place}")
        return
    lines = _decoded(path, name, problems)
    if source.kind == "wikiextractor":
        yield from _articles(lines, name, problems)
        return
    if source.paragraphs == "blank-lines":
        yield from _unwrapped(lines)
    elif source.documents == "blank-lines":
        yield from (line if line.strip() else None for line in lines)
    else:
        yield from lines
    yield None


def _rows(path: Path, name: str, column: str, problems: Problems) -> Lines:
    """Yields the lines of each row of an Arrow file that `datasets` wrote; Arrow's text is UTF-8 by its format."""
    from datasets import Dataset

    rows = Dataset.from_file(str(path))
    if column not in rows.column_names:
        raise InputError(
            f"{name}: there is no column {column!r}, only {', '.join(rows.column_names)}; set its `column`"
        )
    for number, row in enumerate(rows.select_columns(column)):
        text = row[column]
        if not isinstance(text, str) or not text.strip():
            problems.add(f"{name}: row {number:,} has no text")
            continue
        yield from text.replace("\0", "").splitlines()
        yield None


def read_cpython(part: int, parts: int, limit: int) -> Lines:
    """Yields the prose of a part of the running Python's documents that the probe tasks don't use."""
    corpus = (document for document in cpython_prose.harvest(part, parts) if not document.held_out)
    for document in islice(corpus, limit or None):
        for docstring in document.docstrings:
            for paragraph in cpython_prose.paragraphs(docstring.text):
                yield paragraph
                yield ""
        yield None


def _raw_lines(handle: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    """Yields each line, and how many bytes of it were left unread because it is endless."""
    while raw := handle.readline(READ):
        unread = 0
        if len(raw) == READ and not raw.endswith(b"\n"):
            while rest := handle.readline(READ):
                unread += len(rest)
                if rest.endswith(b"\n"):
                    break
            whole = next(back for back in range(1, 6) if back == 5 or raw[-back] & 0xC0 != 0x80)
            raw = raw[:-whole]  # the cut may have gone through a character
            unread += whole
        yield raw, unread


def _first_bad(path: Path) -> str:
    """Returns where the file's first bytes that are not UTF-8 stand, or "" if there are none."""
    offset = 0
    with path.open("rb") as handle:
        for number, (raw, unread) in enumerate(_raw_lines(handle), 1):
            try:
                raw.decode("utf-8")
            except UnicodeDecodeError as error:
                return _place(offset + error.start, number)
            offset += len(raw) + unread
    return ""


def _place(offset: int, line: int) -> str:
    return f"byte {offset:,} (line {line:,})"


def _decoded(path: Path, name: str, problems: Problems) -> Iterator[str]:
    """Yields the file's lines without BOM, NUL and line ends (LF, CRLF or CR); repairs bad UTF-8 with U+FFFD."""
    offset = bad = nuls = 0
    first_bad = first_nul = ""
    with path.open("rb") as handle:
        for number, (raw, unread) in enumerate(_raw_lines(handle), 1):
            if unread:
                problems.add(f"{name}: line {number:,} has over {READ:,} bytes and was left out")
            try:
                text = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                first_bad = first_bad or _place(offset + error.start, number)
                text = raw.decode("utf-8", errors="replace")
                bad += text.count("\ufffd") - raw.count("\ufffd".encode())
            if "\0" in text:
                first_nul = first_nul or _place(offset + raw.index(b"\0"), number)
                nuls += text.count("\0")
                text = text.replace("\0", "")
            if offset == 0:
                text = text.removeprefix("\ufeff")
            offset += len(raw) + unread
            yield from text.rstrip("\r\n").split("\r")
    if offset == 0:
        problems.add(f"{name}: empty file")
    if bad:
        problems.add(f"{name}: repaired {bad:,} places that are not UTF-8, the first at {first_bad}")
    if nuls:
        problems.add(f"{name}: removed {nuls:,} NUL bytes, the first at {first_nul}")


def _unwrapped(lines: Iterator[str]) -> Lines:
    """Yields hard-wrapped paragraphs as one line each: their lines up to the next blank line.

    A hyphen at a line's end stays (in books that have been through a proof-reader it is the
    word's own), without a space after it.
    """
    paragraph = ""
    for line in lines:
        line = line.strip()
        if not line:
            if paragraph:
                yield paragraph
            yield ""
            paragraph = ""
        elif len(paragraph) <= OVERLONG:
            hyphenated = line[0].islower() and len(paragraph) > 1 and paragraph[-1] == "-" and paragraph[-2].isalpha()
            paragraph += line if hyphenated or not paragraph else f" {line}"
    if paragraph:
        yield paragraph


_OPENING = re.compile(r'<doc\b[^>]*?(?:\btitle="(?P<title>[^"]*)"[^>]*)?>\s*$')


_NOTE = re.compile(r"<ref\b[^<>]*(?:/>|>[^<>]*</ref>)", re.IGNORECASE)
_TAG = re.compile(
    r"</?(?:(?P<inline>b|code|dfn|em|font|i|includeonly|noinclude|nowiki|onlyinclude|ref|s|small|span|strong|sub|sup|tt|u)"
    r"|blockquote|br|center|dd|div|dl|dt|gallery|hr|li|ol|p|poem|table|td|th|tr|ul)"
    r"(?:\s+[\w-]+\s*=[^<>]*)?\s*/?>",
    re.IGNORECASE,
)


def _without_tags(line: str) -> str:
    """Returns the line without the tags that WikiExtractor left in it; notes go, other contents stay."""
    if "<" not in line:
        return line
    return _TAG.sub(lambda tag: "" if tag["inline"] else " ", _NOTE.sub("", line))


def _articles(lines: Iterator[str], name: str, problems: Problems) -> Lines:
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
                yield _without_tags(line)
            title = None
        else:
            yield _without_tags(line)
    if inside:
        problems.add(f"{name}: the last <doc> has no </doc>, so the file may be truncated")
        yield None
    if outside:
        hint = "" if blocks else ": it has no <doc ...> blocks at all (is it a file of kind text?)"
        problems.add(f"{name}: left out {outside:,} lines outside <doc> blocks{hint}")
