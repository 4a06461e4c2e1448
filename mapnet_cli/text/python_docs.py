"""English prose from the Python installation: docstrings and `help()` topics.

The demo's corpus and probe tasks are made from it, so that no data is downloaded or shipped. About
every fifth document, chosen by a hash of its name, is held out of the corpus for the probe tasks.
"""

import ast
import hashlib
import inspect
import re
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HELD_OUT_EVERY = 5
SKIPPED_FOLDERS = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "lib2to3"}


@dataclass(frozen=True)
class Document:
    """A module's dedented docstrings in source order, or one `help()` topic."""

    name: str
    docstrings: tuple[str, ...]

    @property
    def held_out(self) -> bool:
        """Whether the document is used for the probe tasks instead of the corpus."""
        digest = hashlib.sha256(self.name.encode()).digest()
        return int.from_bytes(digest[:8], "big") % HELD_OUT_EVERY == 0


def harvest(part: int = 0, parts: int = 1) -> Iterator[Document]:
    """Yields the documents of the running Python in a fixed order: modules by path, then topics by name.

    With `parts` above 1, yields only the documents of one of `parts` consecutive parts. Modules of
    other parts aren't parsed, which takes most of the time.
    """
    from pydoc_data.topics import topics

    root = Path(sysconfig.get_path("stdlib"))
    modules = filter(_is_prose, (path.relative_to(root) for path in root.rglob("*.py")))
    items: list[Path | str] = [*sorted(modules, key=lambda path: path.as_posix()), *sorted(topics)]
    for item in items[len(items) * part // parts : len(items) * (part + 1) // parts]:
        if isinstance(item, str):
            yield Document(f"topic {item}", (_without_markup(topics[item]),))
            continue
        name = ".".join(item.with_suffix("").parts).removesuffix(".__init__")
        if docstrings := tuple(_docstrings(root / item)):
            yield Document(name, docstrings)


def paragraphs(text: str) -> list[str]:
    """Returns the prose paragraphs of a docstring, without code, doctests and tables."""
    blocks = (block.splitlines() for block in re.split(r"\n\s*\n", text))
    return [
        " ".join(" ".join(lines).split())
        for lines in blocks
        if not all(line.startswith("    ") for line in lines)  # nor empty
        and not any(line.lstrip().startswith((">>>", "...", "|", "+-")) for line in lines)
    ]


def _is_prose(relative: Path) -> bool:
    return SKIPPED_FOLDERS.isdisjoint(relative.parts[:-1]) and relative.parts[0] != "pydoc_data"


def _docstrings(path: Path) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escape sequences in the sources
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return  # intentionally broken, or written for another Python version
    yield from _walk(tree)


def _walk(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
        text := ast.get_docstring(node)
    ):
        yield text
    for child in ast.iter_child_nodes(node):
        yield from _walk(child)


def _without_markup(text: str) -> str:
    """Returns a topic without the underlines, emphasis and cross-reference marks of its source text."""
    text = inspect.cleandoc(text)
    text = re.sub(r"^[*=\-~^\"]{3,}\s*$", "", text, flags=re.MULTILINE)
    return re.sub(r"[*`]+|(?<=\s)\"|\"(?=[\s,.)])", "", text)
