"""The corpus card: its numbers match the manifest and the shards."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from mapnet_cli.config import Cleanup, Source
from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.core.records import CorpusManifest
from mapnet_cli.jobs.job import is_done
from mapnet_cli.lineage.graph import Lineage
from mapnet_cli.prepare_corpus.card import token_counts
from mapnet_cli.text.bpe import encode_lines, load_tokenizer
from tests.prepare_corpus.corpora import corpus_config, plan, prepare, prose, sentence_lines, text_folder
from tests.prepare_corpus.test_deduplicate import silent


class Reader(HTMLParser):
    """Records the resources that a page would load, and checks that its tags match."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [
            value or "" for name, value in attrs if name in ("src", "href") and not (value or "").startswith("#")
        ]
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def made(tmp_path: Path, artifacts: Artifacts) -> Path:
    folder = text_folder(tmp_path / "text")
    (folder / "a-<b>.txt").write_text(f"short | line\n{prose(0, 1)}\n{prose(77)}\n")
    source = Source(path=str(folder), licence="CC0 <1.0>")
    config = corpus_config(source, Source(kind="cpython", limit=3), cleanup=Cleanup(min_letter_share=0.6))
    prepare(config, artifacts)
    return artifacts.path(f"{Lineage(config, artifacts).corpus.key}/card")


def test_markdown_and_html_have_all_tables(made: Path) -> None:
    markdown, page = made.with_suffix(".md").read_text(), made.with_suffix(".html").read_text()
    assert re.search(r"\| text \| text \| CC0 \\<1.0> \| 7 \|", markdown)
    for text in ("Fertility (tokens per word)", "Unknown tokens", "min", "deduplicate", "most frequent", "cpython"):
        assert text in markdown
        assert text in page
    assert "short \\| line" in markdown
    assert "CC0 &lt;1.0&gt;" in page
    assert "![Sentence lengths and token frequencies](card.svg)" in markdown
    reader = Reader()
    reader.feed(page)
    assert reader.loads == []
    assert reader.open == []
    assert "<svg" in page


def test_numbers_match_the_files(made: Path, artifacts: Artifacts) -> None:
    manifest = artifacts.read(made.relative_to(artifacts.root).with_name("manifest").as_posix(), CorpusManifest)
    tokenizer = load_tokenizer(artifacts.path(manifest.tokenizer))
    lines = [line for line in sentence_lines(artifacts) if line]
    expected = np.bincount([token for ids in encode_lines(tokenizer, lines) for token in ids], minlength=320)
    shards = [artifacts.path(name) for name in (*manifest.train, *manifest.validation)]
    assert token_counts(shards, 320, silent).tolist() == expected.tolist()
    lengths = np.bincount([min(len(line.split()), 200) for line in lines], minlength=201)
    assert manifest.sentence_lengths == lengths.tolist()
    assert f"| Fertility (tokens per word) | {expected.sum() / sum(len(line.split()) for line in lines):.3f} |" in (
        made.with_suffix(".md").read_text()
    )
    assert manifest.sources[0].dropped == {"deduplicate": 1, "min_chars": 1}
    assert manifest.examples["deduplicate"] == [prose(0, 1)[:200]]
    assert manifest.examples["min_chars"][0] == "short | line"


def test_sources_of_the_same_name_have_columns_of_their_own(tmp_path: Path, artifacts: Artifacts) -> None:
    sources = [Source(path=str(text_folder(tmp_path / name / "train"))) for name in ("a", "b")]
    config = corpus_config(*sources)
    prepare(config, artifacts)
    markdown = artifacts.path(f"{Lineage(config, artifacts).corpus.key}/card.md").read_text()
    assert re.search(r"\| train \(1\) \| text .*\n\| train \(2\) \| text ", markdown)
    dropped = [
        source.dropped.get("deduplicate", 0)
        for source in artifacts.read(Lineage(config, artifacts).manifest, CorpusManifest).sources
    ]
    assert "| Rule | train (1) | train (2) |" in markdown
    assert re.search(rf"\| deduplicate \| {dropped[0]:,} \| {dropped[1]:,} \|", markdown)


def test_a_new_licence_only_rewrites_the_card(tmp_path: Path, artifacts: Artifacts) -> None:
    source = Source(path=str(text_folder(tmp_path / "text")))
    prepare(corpus_config(source), artifacts)
    licensed = corpus_config(source.model_copy(update={"licence": "MIT"}))
    open_jobs = [job for phase in plan(licensed, artifacts, 1) for job in phase.jobs if not is_done(job, artifacts)]
    assert [job.key.rpartition("/")[2] for job in open_jobs] == ["card"]
    prepare(licensed, artifacts)
    (card,) = artifacts.root.rglob("card.md")
    assert "| text | text | MIT |" in card.read_text()
