"""Failures between the corpus phases: damaged files, mixed versions, input without text."""

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

import pytest

from mapnet_cli.config import Source
from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.core.console import Console
from mapnet_cli.core.errors import DamagedError, InputError
from mapnet_cli.core.records import SourceCounts
from mapnet_cli.jobs.job import is_done
from mapnet_cli.jobs.local import LocalEngine
from mapnet_cli.prepare_corpus.manifest import _thin_blocks
from mapnet_cli.prepare_corpus.slices import input_slices
from tests.prepare_corpus.corpora import corpus_config, plan, prepare, prose, text_folder


def test_a_damaged_deduplication_file_is_detected(tmp_path: Path, artifacts: Artifacts) -> None:
    config = corpus_config(Source(path=str(text_folder(tmp_path / "text", files=3))))
    phases = plan(config, artifacts, 1)
    engine = LocalEngine(artifacts, Console(quiet=True), 0)
    engine.run(phases[:2])
    victim = next(artifacts.root.glob("prepare-corpus/text-*/deduplicate-00001.npy"))
    victim.write_bytes(victim.read_bytes()[:-1] + b"\0")
    with pytest.raises(DamagedError, match=r"deduplicate-00001\.npy is damaged"):
        engine.run(phases[2:])
    assert not list(artifacts.root.glob("prepare-corpus/text-*/sentences-00001.*"))


def test_mixed_library_versions_are_a_problem(tmp_path: Path, artifacts: Artifacts) -> None:
    config = corpus_config(Source(path=str(text_folder(tmp_path / "text"))))
    phases = plan(config, artifacts, 1)
    engine = LocalEngine(artifacts, Console(quiet=True), 0)
    engine.run(phases[:3])
    job = phases[2].jobs[1]
    marker = artifacts.require(job.key)
    artifacts.publish(dataclasses.replace(marker, versions=marker.versions | {"spacy": "1.0"}))
    engine.run(phases)
    [problem] = prepare(config, artifacts).problems
    assert re.fullmatch(r"slices were prepared with spacy 1\.0 and [\d.]+: use --force to redo them", problem)


def test_file_names_that_are_not_utf8_are_accepted(tmp_path: Path, artifacts: Artifacts) -> None:
    folder = text_folder(tmp_path / "text")
    (folder / os.fsdecode(b"caf\xe9.txt")).write_bytes(prose(9).encode() + b"\xff\n")
    manifest = prepare(corpus_config(Source(path=str(folder))), artifacts)
    assert manifest.documents == 7
    assert re.search(r"caf(\\udce9|\udce9)\.txt: repaired invalid UTF-8 in 1 places", "".join(manifest.problems))


LINE = prose(1).encode() + b"\n"
ROW = b'{"text": "%s"}\n' % prose(1).encode()
NEARLY_ALL_PROBLEMS: dict[str, tuple[dict[str, str], list[bytes], str]] = {
    "numbers": ({"kind": "jsonl"}, [b'{"text": 5}\n' * 20], "20 of 20 rows yield no text"),
    "more than half": ({"kind": "jsonl"}, [ROW * 9, b'{"text": ""}\n' * 10], "10 of 19 rows yield no text"),
    "no JSON": ({"kind": "jsonl"}, [ROW, b"no row\n" * 2], "2 of 3 rows yield no text"),
    "a damaged array": ({"kind": "jsonl"}, [b"[" + ROW + b"oops" + ROW * 9], r".* of .* bytes yield no text"),
    "an overlong line": ({}, [LINE + b"x" * 20_000_000 + b"\n" + LINE], "20,000,000 of 20,.* bytes yield no text"),
    "other fields": ({"kind": "csv"}, [b"id,text\n1,Good.\n" + b"1,a,b\n" * 2], "2 of 3 rows yield no text"),
    "text as WikiExtractor's": ({"kind": "wikiextractor"}, [LINE * 9], ".* bytes yield no text"),
    "text as a dump": ({"kind": "mediawiki"}, [LINE * 9], ".* bytes yield no text"),
    "pages of invalid XML": ({"kind": "mediawiki"}, [b"<page>\n<a>\n</page>\n" * 9], ".* bytes yield no text"),
    "not Parquet": ({"kind": "parquet"}, [LINE], ".* bytes yield no text"),
    "not Arrow": ({"kind": "arrow"}, [LINE], ".* bytes yield no text"),
    "skipped files": ({}, [LINE, LINE[:-1] * 2 + b"\xff\n"], ".* bytes yield no text"),
}


@pytest.mark.parametrize("name", NEARLY_ALL_PROBLEMS)
def test_a_source_that_is_mostly_problems_is_an_error(name: str, tmp_path: Path, artifacts: Artifacts) -> None:
    source, contents, message = NEARLY_ALL_PROBLEMS[name]
    (tmp_path / "in").mkdir()
    suffix = {"mediawiki": "xml"}.get(source.get("kind", "text"), source.get("kind", "text"))
    for number, content in enumerate(contents):
        (tmp_path / "in" / f"{number}.{suffix}").write_bytes(content)
    config = corpus_config(Source(path=str(tmp_path / "in"), **source), on_bad_utf8="skip", slice_mb=0.0001)
    engine = LocalEngine(artifacts, Console(quiet=True), 0)
    with pytest.raises(InputError, match=rf"^corpus\.sources\.0: {message}: check(.|\n)*problems:"):
        engine.run(plan(config, artifacts, 1)[:2])
    allowed = config.corpus.sources[0].model_copy(update={"max_lost_share": 1.0})
    phases = plan(corpus_config(allowed, on_bad_utf8="skip", slice_mb=0.0001), artifacts, 1)
    assert all(is_done(job, artifacts) for job in phases[0].jobs), "slices aren't read again"
    engine.run(phases[:2])


def test_half_of_the_rows_may_be_problems(tmp_path: Path, artifacts: Artifacts) -> None:
    (tmp_path / "a.jsonl").write_bytes(ROW * 10 + b'{"text": null}\n' * 10)
    config = corpus_config(Source(kind="jsonl", path=str(tmp_path / "a.jsonl")))
    LocalEngine(artifacts, Console(quiet=True), 0).run(plan(config, artifacts, 1)[:2])


@pytest.mark.parametrize(
    ("settings", "cure"),
    [({}, "or corpus.cross_documents = true"), ({"blocks": "sentence"}, "or corpus.blocks to .complete."),
     ({"cross_documents": True}, "less than 100$")],
)  # fmt: skip
def test_mostly_empty_blocks_are_a_problem(settings: dict[str, Any], cure: str) -> None:
    def thin(tokens: int) -> str:
        made = SourceCounts(
            kind="text", documents=1, paragraphs=1, sentences=1, words=1, tokens=2 * tokens, train_sequences=18,
            validation_sequences=2, dropped={}, left_out={}, markup={},
        )  # fmt: skip
        return _thin_blocks(made, corpus_config(block_length=100, **settings).corpus)

    assert thin(180) == ""
    assert re.search(rf"blocks of 100 tokens are only 19% full on average: set corpus.block_length.*{cure}", thin(172))


def test_the_error_for_too_little_text_lists_the_rules(tmp_path: Path, artifacts: Artifacts) -> None:
    folder = text_folder(tmp_path / "text", files=2)
    with pytest.raises(
        InputError,
        match=r"2 non-empty documents, but only one in 3 is held out.*set corpus.validation_every to at most 2",
    ):
        prepare(corpus_config(Source(path=str(folder))), artifacts)
    (tmp_path / "short.txt").write_text("short\nLines\n")
    with pytest.raises(InputError, match=r"corpus.sources: no text is left.*cleanup.min_chars 2"):
        prepare(corpus_config(Source(path=str(tmp_path / "short.txt"))), artifacts)
    (tmp_path / "russian.txt").write_text("Река течёт через горы и долины к морю каждую весну и каждое лето. " * 3)
    with pytest.raises(InputError, match=r"count ASCII letters: set both to 0 for another script"):
        prepare(corpus_config(Source(path=str(tmp_path / "russian.txt"))), artifacts)
    (tmp_path / "empty.txt").touch()
    with pytest.raises(InputError, match=r"no text was found: check the path and kind of the sources\n1 problem"):
        prepare(corpus_config(Source(path=str(tmp_path / "empty.txt"))), artifacts)


def test_files_of_another_kind_are_not_read_as_text_silently(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.csv.gz", "c.txt"):
        (tmp_path / name).write_text("text\n")
    (first,) = input_slices(corpus_config(Source(path=str(tmp_path))))
    assert first.notes == (
        'corpus.sources.0: read 2 files as plain text, such as a.jsonl; set kind = "jsonl" or "csv" for them',
    )


def test_a_damaged_working_file_is_detected(tmp_path: Path, artifacts: Artifacts) -> None:
    source = Source(path=str(text_folder(tmp_path / "text", files=3)))
    prepare(corpus_config(source), artifacts)
    victim = next(artifacts.root.glob("prepare-corpus/text-*/sentences-00000.txt"))
    victim.write_text(victim.read_text() + "x")
    with pytest.raises(DamagedError, match=r"sentences-00000\.txt is damaged"):
        prepare(corpus_config(source, vocab_size=310), artifacts)
