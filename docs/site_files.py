"""A hook of mkdocs: files of the repository to which pages link, such as ../CHANGELOG.md, are part of the site, too."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\]\(\.\./([^)#]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    linked = {name for file in files.documentation_pages() if "/" not in file.src_uri
              for name in LINK.findall(file.content_string)}  # fmt: skip
    for name in sorted(linked | {"CHANGELOG.md", "CONTRIBUTING.md"}):
        files.append(File.generated(config, name, content=(ROOT / name).read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    if (ROOT / page.file.src_uri).exists():  # a page of the root, which links to docs/
        return markdown.replace("](docs/", "](")
    return markdown if "/" in page.file.src_uri else LINK.sub(r"](\1", markdown)
