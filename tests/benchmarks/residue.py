"""Counts paragraphs with leftover markup and marks in prepared text, by one set of patterns.

The files are paragraph files of an artifact directory (prepare-corpus/text-*/clean-*.txt). The last line on stdout is
one JSON object.

    python -m tests.benchmarks.residue FILE ...
"""

import json
import re
import sys
from collections import Counter
from pathlib import Path

PATTERNS = {
    "brackets": r"\[\[|\]\]|\{\{|\}\}|\{\||\|\}",
    "tags": r"</?(?:ref|br|div|span|table|small|math|su[bp]|templatestyles|a|nowiki|blockquote|poem|i|b)\b[^<>]*>",
    "entities": r"&(?:#\d+|[a-z]+);",
    "quotation marks of wiki text": r"'''|(?<!\w)\"\"+(?=\w)|(?<=\w)\"\"(?!\w)",
    "headings and tables": r"^=+ .* =+$|^[|!]|\b(?:colspan|rowspan|style|align) ?=",
    "brackets left empty": r"\(\s*[;,:)]|\(\)(?= [a-z])",
    "placeholders": r"(?:formula|codice)_\d|[a-z](?:formula|codice)\b|\bformula(?![es]\b|t|ri|ic)[a-z0-9]",
    "gaps": r"(?<![.]) [,;](?=\s)|[,;] ?[,;]",
    "italics": r"(?<!\w)_(?=\w)|(?<=\w)_(?!\w)",
    "notes and illustrations": r"\[\d{1,3}\]|\[(?:Illustration|Footnote|Sidenote)",
    "licences": r"Project Gutenberg|\bEBOOK\b|\bEtext\b",
}


def main() -> None:
    found: Counter[str] = Counter()
    patterns = {name: re.compile(pattern) for name, pattern in PATTERNS.items()}
    paragraphs = words = residue = 0
    for file in sys.argv[1:]:
        for paragraph in filter(None, Path(file).read_text(encoding="utf-8").split("\n")):
            matched = [name for name, pattern in patterns.items() if pattern.search(paragraph)]
            found.update(matched)
            paragraphs, words = paragraphs + 1, words + paragraph.count(" ") + 1
            residue += bool(matched)
    for name in PATTERNS:
        print(f"{name}: {found[name]:,} paragraphs ({found[name] / max(1, paragraphs):.4%})")
    result = {"paragraphs": paragraphs, "words": words, "residue": residue, "share": residue / max(1, paragraphs)}
    print(json.dumps(result | {"by_pattern": {name: found[name] for name in PATTERNS}}))


if __name__ == "__main__":
    main()
