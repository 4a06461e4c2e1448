"""Converts wiki markup to prose, in time and memory that are linear in the length of the page.

The steps and their order are those of MediaWiki's parser: comments, extension tags, templates and links
(`_expanded`), HTML tags (`_without_tags`), external links, and then tables, headings, lists and quotation marks, which
depend on the line (`_lines`). As in BERT, lists, tables and headings are left out (Devlin et al. 2019, section 3.1), as
are notes, pictures, categories and most templates.
"""

import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files

from mapnet_cli.prepare_corpus.sources.reading import unescaped
from mapnet_cli.prepare_corpus.sources.wiki_templates import template_text

DEEPEST = 200  # maximum levels of nested templates and links; the contents are read again at each level

_FORMULAS = {"math", "chem", "ce"}
_DATA: dict[str, str] = tomllib.loads((files(__package__) / "wikitext.toml").read_text("utf-8"))
EXTENSIONS, HIDDEN, BLOCKS, INLINE = (
    "|".join(_DATA[kind].split()) for kind in ("extensions", "hidden", "blocks", "inline")
)
_PREFIXES = frozenset(_DATA["prefixes"].split())
_TOKEN = re.compile(
    rf"<!--|(?P<open>\{{\{{+|\[\[+)|(?P<close>\}}\}}+|\]\]+)|<(?P<tag>{EXTENSIONS})(?=[\s/>])(?P<attributes>[^<>]*)>",
    re.IGNORECASE,
)
_TAG = re.compile(
    rf"<(?P<closing>/?)(?P<tag>(?P<hidden>{HIDDEN})|(?P<block>{BLOCKS})|br|hr|{INLINE}|{EXTENSIONS})"
    r"(?=[\s/>])[^<>]*?(?P<empty>/?)>",
    re.IGNORECASE,
)
"""Any other tag is literal text, as in MediaWiki."""
_SHOWN_TAGS = {"br": " ", "hr": " ", "q": '"', "sup": "\x01"}  # 10<sup>23</sup> is not 1023
_NOT_PROSE = re.compile(r"\s*(?:category|file|image|media)\s*:", re.IGNORECASE)
_LANGUAGE = re.compile(r"(?:[a-z]{2,3}(?:-[a-z-]+)?|simple):(?=\S)")
_SCHEME = r"(?:(?:https?|ftp|irc|news|mailto):|//)"
_EXTERNAL = re.compile(
    rf"\[{_SCHEME}[^\s\[\]<>]*[^\S\n]*((?:[^\[\]\n]++|\[(?!{_SCHEME}))*+)\]", re.IGNORECASE
)  # possessive: at a link without end, each character is read once
_ADDRESS = re.compile(r"\b(?:https?|ftp)://[^\s\[\]<>\x00-\x1f]*[^\s\[\]<>\x00-\x1f.,;:!?)]", re.IGNORECASE)
_QUOTES = re.compile(r"(''+)")
_SWITCHES = re.compile(r"__[A-Z]+__")

# Marks in the text while it is being assembled; XML can't contain these characters.
_REMOVED = "\x00"  # replaces a template, note or picture that is left out
_EDGE = "\x02"  # precedes and follows the text of a template
_FORMULA = "\x03"
_TAG_MARK = "\x06"  # separates the quotation marks before and after an inline tag
_INSIDE = str.maketrans({"|": "\x04", "=": "\x05"})
"""Protects the text of a template or link from the template around it."""
_OUTSIDE = str.maketrans({"\x04": "|", "\x05": "="})
_LITERAL = str.maketrans({char: chr(14 + number) for number, char in enumerate("'[]{}|=<>*#:;&")})
"""Protects characters that are not markup, although they look like it, until `literal`."""
_RESTORED = {ord(mark): chr(char) for char, mark in _LITERAL.items()}
_MARKS = re.compile(r"[\x00-\x02]")
_RAISED = re.compile(r"(?<=\d)\x02?\x01(?=[-−–+]?\d)")
_FRACTION = re.compile(r"(?<=\d)\x02(?=\d+/\d)")
_GLUED = re.compile(r"(?<=[^\W_])(?=\x03)|(?<=\x03)(?=[^\W_]|\x03)")
# Where _REMOVED leaves a space before punctuation, a stray comma or empty brackets, they are removed too.
_GAPS = (
    (re.compile(r"(?<![^\S\n])[^\S\n]*\((?:[^\S\n,;:]*\x00)+[^\S\n,;:]*\)"), ""),
    (re.compile(r"\((?:[^\S\n,;:]*\x00)+[^\S\n,;:]*(?:[,;:][^\S\n]*)*"), "("),
    (re.compile(r"(?<![^\S\n])(?<!\x00)(?:[,;:]?[^\S\n]*\x00)+[^\S\n]*(?=[,;)]|[.:](?!\w))"), ""),
)


def prose(wikitext: str) -> Iterator[str]:
    """Yields a page's lines of prose, for `literal` to restore. Raises ValueError beyond DEEPEST nested templates."""
    text = _without_tags(_expanded(wikitext))
    text = _ADDRESS.sub(_REMOVED, _EXTERNAL.sub(lambda link: link[1] or _REMOVED, text))
    text = "\n".join(_lines(text)).replace(_TAG_MARK, "")
    text = unescaped(text, lambda char: char.translate(_LITERAL))
    text = _FRACTION.sub(" ", _RAISED.sub("^", text))
    text = _GLUED.sub(" ", text).replace(_FORMULA, f"formula{_REMOVED}")
    for pattern, replacement in _GAPS:
        text = pattern.sub(replacement, text)
    yield from _SWITCHES.sub("", _MARKS.sub("", text)).split("\n")


def literal(line: str) -> str:
    """Returns a line of `prose` as it is shown."""
    return line if line.isprintable() else line.translate(_RESTORED)


def _expanded(text: str) -> str:
    """Returns the text with templates, links and extension tags as they are shown; unmatched marks are text."""
    shown: list[str] = []
    levels: list[tuple[str, int, int]] = []  # of each open run: its character, its length, its index in `shown`
    unclosed: set[str] = set()
    at = 0
    while token := _TOKEN.search(text, at):
        shown.append(text[at : token.start()])
        at = token.end()
        if mark := token["open"]:
            levels.append((mark[0], len(mark), len(shown)))
            shown.append("")
            if len(levels) > DEEPEST:
                raise ValueError(f"its templates and links are nested more than {DEEPEST} levels deep")
        elif mark := token["close"]:
            shown.append(mark[0] * _close(shown, levels, mark))
        elif tag := (token["tag"] or "").lower():
            end = None
            if not token["attributes"].endswith("/") and tag not in unclosed:
                end = re.compile(rf"</{tag}\s*>", re.IGNORECASE).search(text, at)
                if end is None:
                    unclosed.add(tag)
            inside = text[at : end.start()] if end else ""
            at = end.end() if end else at
            kept = unescaped(inside).translate(_LITERAL) if tag == "nowiki" else _REMOVED
            shown.append(_FORMULA if end and tag in _FORMULAS else kept)
        else:
            end_of_comment = text.find("-->", at)
            at = end_of_comment + 3 if end_of_comment >= 0 else len(text)
    for char, size, index in levels:
        shown[index] = char * size
    return "".join([*shown, text[at:]]).translate(_OUTSIDE)


def _close(shown: list[str], levels: list[tuple[str, int, int]], mark: str) -> int:
    """Replaces what the closing mark closes by what it shows; returns how many of its characters match nothing."""
    opening, left = "{" if mark[0] == "}" else "[", len(mark)
    while left > 1 and levels and levels[-1][0] == opening:
        _, size, index = levels.pop()
        used = min(left, size, 3 if opening == "{" else 2)
        inside = "".join(shown[index + 1 :])
        del shown[index + 1 :]
        left, size = left - used, size - used
        if size > 1:
            levels.append((opening, size, index))
        else:
            shown[index] = opening * size
        if opening == "[":
            text = _link(inside)
        elif used == 3:  # an argument of a template, with its default
            text = inside.partition("|")[2] or _REMOVED
        else:
            text = template_text(inside)
            text = f"{_EDGE}{text}{_EDGE}" if text else _REMOVED
        shown.append(text.translate(_INSIDE) if "|" in text or "=" in text else text)
    return left


def _link(inside: str) -> str:
    """Returns the text that a reader sees of [[inside]]."""
    title, _, label = inside.partition("|")
    if "\n" in title:
        return f"[[{inside}]]"
    title = unescaped(title).strip()
    if _NOT_PROSE.match(title):
        return _REMOVED
    if label.strip():
        return label
    inline = title.startswith(":")
    title = title.removeprefix(":")
    prefix, colon, rest = title.partition(":")
    if colon and prefix.lower() in _PREFIXES:
        return rest.strip()
    if _LANGUAGE.match(title):
        return rest if inline else _REMOVED  # an interlanguage link, which the sidebar shows
    return title.removeprefix("#")


def _without_tags(text: str) -> str:
    shown: list[str] = []
    opened: list[tuple[str, int]] = []
    count: Counter[str] = Counter()
    at = 0
    for tag in _TAG.finditer(text):
        shown.append(text[at : tag.start()])
        at = tag.end()
        name = tag["tag"].lower()
        if tag["hidden"]:
            if not tag["closing"] and not tag["empty"]:
                opened.append((name, len(shown)))
                count[name] += 1
            while tag["closing"] and count[name]:  # anything still open inside it is never closed
                inner, index = opened.pop()
                count[inner] -= 1
                if inner == name:
                    shown[index:] = [_REMOVED]
                    break
        elif tag["block"]:
            shown.append("\n")
        elif name != "sup" or not tag["closing"]:
            shown.append(_SHOWN_TAGS.get(name, _TAG_MARK))
    return "".join([*shown, text[at:]])


def _lines(text: str) -> Iterator[str]:
    """Yields lines of prose, which may be indented, without quotation marks; "" replaces headings and lists."""
    term = False
    for line in _without_tables(text.replace(f"\n{_EDGE}", "\n").split("\n")):
        indented = line.lstrip(":")
        if line.startswith(";"):
            term = True
        elif indented == line:
            term = False
        heading = line.startswith("=") and len(line) > 2 and line.rstrip(f" \t{_REMOVED}").endswith("=")
        if heading or (term and indented != line) or indented.startswith(("*", "#", ";")):
            yield ""
        else:
            line = indented.lstrip("-") if line.startswith("----") else indented
            yield _without_quotes(line) if "''" in line else line


def _without_tables(lines: list[str]) -> list[str]:
    """Returns the lines outside tables. Of a table that is never closed, only the lines that begin a row or cell."""
    kept: list[str] = []
    begins: list[int] = []
    for line in lines:
        start = line.lstrip(" \t:")
        if start.startswith("{|"):
            begins.append(len(kept))
            kept.append("|")
        elif begins and start.startswith("|}"):
            del kept[begins.pop() :]
            kept.append(start[2:])
        else:
            kept.append(line)
    if begins:
        kept[begins[0] :] = [line for line in kept[begins[0] :] if not line.lstrip().startswith(("|", "!"))]
    return kept


def _without_quotes(line: str) -> str:
    """Returns the line without the marks of italics and bold, by MediaWiki's rule for lines with odd numbers of both.

    Two marks are italics, three bold, five both; of four marks and of more than five, the first ones are apostrophes.
    If the line has an odd number of both, one of its bold marks is an apostrophe and italics: the first one after a
    single letter, or else after a longer word, or else after a space.
    """
    parts = _QUOTES.split(line)
    texts, sizes = parts[::2], [len(run) for run in parts[1::2]]
    for number, size in enumerate(sizes):
        texts[number] += "'" * (1 if size == 4 else max(size - 5, 0))
    bold = [number for number, size in enumerate(sizes) if size in (3, 4)]
    both = sum(size >= 5 for size in sizes)
    if (len(bold) + both) % 2 and (sizes.count(2) + both) % 2 and bold:
        texts[min(bold, key=lambda number: _rank(texts[number]))] += "'"
    return "".join(texts)


def _rank(before: str) -> int:
    """Returns the rank of a bold mark after the text, as MediaWiki compares bytes: a single letter is ASCII."""
    last = before.encode()[-2:]
    return 2 if last.endswith(b" ") else 0 if last.startswith(b" ") and len(last) == 2 else 1
