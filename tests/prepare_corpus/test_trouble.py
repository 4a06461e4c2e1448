"""Failures between the corpus phases: damaged files, mixed versions, input without text."""

import dataclasses
import os
import re
from pathlib import Path

import pytest

from mapnet_cli.config import Source
from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.core.console import Console
from mapnet_cli.core.errors import DamagedError, InputError
from mapnet_cli.jobs.local import LocalEngine
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


def test_the_error_for_no_text_lists_the_first_problems(tmp_path: Path, artifacts: Artifacts) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": 5}\n' * 20)
    with pytest.raises(InputError, match=r"no text is left(.|\n)*20 problems, starting with:\n  .*a\.jsonl: row 0"):
        prepare(corpus_config(Source(kind="jsonl", path=str(tmp_path / "a.jsonl"))), artifacts)


def test_the_error_for_too_little_text_lists_the_rules(tmp_path: Path, artifacts: Artifacts) -> None:
    folder = text_folder(tmp_path / "text", files=2)
    with pytest.raises(
        InputError, match=r"2 non-empty documents, but only one in 3 is held out.*lower corpus.validation_every"
    ):
        prepare(corpus_config(Source(path=str(folder))), artifacts)
    (tmp_path / "short.txt").write_text("short\nLines\n")
    with pytest.raises(InputError, match=r"corpus.sources: no text is left.*cleanup.min_chars 2"):
        prepare(corpus_config(Source(path=str(tmp_path / "short.txt"))), artifacts)


def test_a_damaged_working_file_is_detected(tmp_path: Path, artifacts: Artifacts) -> None:
    source = Source(path=str(text_folder(tmp_path / "text", files=3)))
    prepare(corpus_config(source), artifacts)
    victim = next(artifacts.root.glob("prepare-corpus/text-*/sentences-00000.txt"))
    victim.write_text(victim.read_text() + "x")
    with pytest.raises(DamagedError, match=r"sentences-00000\.txt is damaged"):
        prepare(corpus_config(source, vocab_size=310), artifacts)
