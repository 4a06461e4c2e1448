import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mapnet_cli.config import Source
from mapnet_cli.core.artifacts import Artifacts
from mapnet_cli.core.errors import InputError, UsageError
from mapnet_cli.jobs.job import is_done
from mapnet_cli.text.bpe import encode_lines, load_tokenizer
from mapnet_cli.text.shards import Sequences
from mapnet_cli.text.words import CLS, SEP
from tests.prepare_corpus.corpora import corpus_config, plan, prepare, prose, sentence_lines, text_folder

pytestmark = pytest.mark.slow


def test_prepare_corpus_end_to_end(tmp_path: Path, artifacts: Artifacts) -> None:
    config = corpus_config(Source(path=str(text_folder(tmp_path / "text"))))
    manifest = prepare(config, artifacts)
    assert (manifest.documents, manifest.paragraphs, manifest.sentences) == (6, 24, 60)
    assert (manifest.vocab_size, manifest.block_length, manifest.problems, manifest.dropped) == (320, 32, [], {})
    lines = [line for line in sentence_lines(artifacts) if line]
    assert manifest.words == sum(len(line.split()) for line in lines)
    tokenizer = load_tokenizer(artifacts.path(manifest.tokenizer))
    assert manifest.tokens == sum(len(ids) for ids in encode_lines(tokenizer, lines))
    train = Sequences([artifacts.path(name) for name in manifest.train])
    validation = Sequences([artifacts.path(name) for name in manifest.validation])
    assert (len(train), len(validation)) == (manifest.train_sequences, manifest.validation_sequences)
    assert int(train.lengths.sum() + validation.lengths.sum()) == manifest.tokens + 2 * (len(train) + len(validation))
    for sequence in (*train, *validation):
        assert (sequence[0], sequence[-1]) == (CLS, SEP)
        assert len(sequence) <= 32


def test_every_third_document_of_the_whole_corpus_is_held_out(tmp_path: Path, artifacts: Artifacts) -> None:
    folder = text_folder(tmp_path / "text", files=7, paragraphs=1)
    (folder / "part0" / "03-empty.txt").write_text("too short to be a document")  # not counted
    manifest = prepare(corpus_config(Source(path=str(folder)), slice_mb=0.0001, block_length=128), artifacts)
    tokenizer = load_tokenizer(artifacts.path(manifest.tokenizer))
    validation = Sequences([artifacts.path(name) for name in manifest.validation])
    text = " ".join(tokenizer.decode(ids[1:-1].tolist()) for ids in validation)
    documents = [line for line in sentence_lines(artifacts) if line]
    assert manifest.documents == len(documents) == 7
    assert text == f"{documents[2]} {documents[5]}"


def snapshot(root: Path) -> dict[str, Any]:
    """Returns the bytes of every output; markers without the fields that depend on time."""
    files: dict[str, Any] = {}
    for path in sorted((root / "prepare-corpus").rglob("*.*")):
        content: Any = path.read_bytes()
        if path.suffix == ".json" and not path.name.startswith("tokenizer"):
            content = {key: value for key, value in json.loads(content).items() if key not in ("seconds", "checksum")}
        files[path.relative_to(root).as_posix()] = content
    return files


def every_kind(root: Path) -> list[Source]:
    """Creates a source of every kind of file, each with its own text and cut into several slices."""
    import bz2
    import gzip

    import pyarrow as pa
    from datasets import Dataset
    from pyarrow import parquet

    texts = [[prose(1000 * kind + number, 3) for number in range(12)] for kind in range(6)]
    root.mkdir()
    rows = ["".join(json.dumps({"text": text}) + "\n" for text in texts[kind]).encode() for kind in (0, 1)]
    (root / "a.jsonl.bz2").write_bytes(bz2.compress(rows[0], 1))
    (root / "b.jsonl.gz").write_bytes(gzip.compress(rows[1], mtime=0))
    parquet.write_table(pa.table({"text": texts[2]}), root / "c.parquet", row_group_size=3)
    Dataset.from_dict({"text": texts[3]}).save_to_disk(str(root / "d"))
    page = "<page>\n<title>T</title>\n<ns>0</ns>\n<revision><text>{}</text></revision>\n</page>\n"
    (root / "e.xml").write_text("".join(map(page.format, texts[4])))
    (root / "f.txt").write_text("\n\n".join(texts[5]))
    return [
        Source(kind="jsonl", path=str(root / "a.jsonl.bz2")),
        Source(kind="jsonl", path=str(root / "b.jsonl.gz")),
        Source(kind="parquet", path=str(root / "c.parquet")),
        Source(kind="dataset", path=str(root / "d")),
        Source(kind="mediawiki", path=str(root / "e.xml")),
        Source(path=str(root / "f.txt"), documents="blank-lines"),
    ]


def test_sources_of_all_kinds_can_be_mixed(tmp_path: Path, artifacts: Artifacts) -> None:
    config = corpus_config(*every_kind(tmp_path / "kinds"))
    manifest = prepare(config, artifacts)
    assert [source.kind for source in manifest.sources] == [source.kind for source in config.corpus.sources]
    assert [source.documents for source in manifest.sources] == [12] * 6
    assert all(source.sentences > 30 for source in manifest.sources)
    assert manifest.problems == []
    for name in ("documents", "sentences", "words", "tokens", "train_sequences"):
        assert getattr(manifest, name) == sum(getattr(source, name) for source in manifest.sources)
    assert sum(manifest.sentence_lengths) == manifest.sentences
    slices = plan(config, artifacts, 1)[0].jobs
    assert len(slices) > 12, "large files are read in shares"
    part = next(job.part for job in slices if job.part.source.kind == "mediawiki")
    assert part.name(part.pieces[0]).startswith("corpus.sources.4: e.xml (part 1 of ")


def test_limit_mb_reads_part_of_a_source(tmp_path: Path, artifacts: Artifacts) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps({"text": prose(n, 3)}) + "\n" for n in range(40)))
    source = Source(kind="jsonl", path=str(file))
    documents = []
    for limit_mb in (0.0, 0.002, 0.004, 0.001):
        manifest = prepare(corpus_config(source.model_copy(update={"limit_mb": limit_mb})), artifacts)
        documents.append(manifest.documents)
    whole, two, four, one = documents
    assert whole == 40
    assert 0 < one < two < four < whole
    with pytest.raises(ValueError, match="limit_mb applies only to files"):
        Source(kind="cpython", limit_mb=1.0)
    with pytest.raises(ValueError, match='kind = "dataset"'):
        Source(kind="parquet", path="hub:some/set")


def test_bytes_do_not_depend_on_workers_or_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every_kind(tmp_path / "kinds")
    bad = text_folder(tmp_path / "text") / "part1" / "bad.txt"
    bad.write_bytes(prose(9).encode() + b"\xff\n")
    snapshots = []
    for workers in (0, 1, 2, 3):
        here = Path() if workers == 2 else tmp_path
        if workers == 2:
            monkeypatch.chdir(tmp_path)
        packed = Source(kind="jsonl", path=str(here / "kinds" / "a.jsonl.bz2"))
        dump = Source(kind="mediawiki", path=str(here / "kinds" / "e.xml"), licence="CC BY-SA")
        config = corpus_config(
            Source(path=str(here / "text")), Source(kind="cpython", limit=4), packed, dump, vocab_size=400
        )
        artifacts = Artifacts(tmp_path / f"artifacts{workers}")
        manifest = prepare(config, artifacts, workers)
        snapshots.append(snapshot(artifacts.root))
    assert len(manifest.train) > 2
    assert len(manifest.problems) == 1
    assert len(snapshots[0]) > 20
    assert all(snapshot == snapshots[0] for snapshot in snapshots)


def test_output_does_not_depend_on_hash_seed_and_locale(tmp_path: Path, artifacts: Artifacts) -> None:
    folder = text_folder(tmp_path / "text", files=4)
    prepare(corpus_config(Source(path=str(folder))), artifacts)
    code = (
        "import sys; from pathlib import Path;"
        "from mapnet_cli.core.artifacts import Artifacts; from mapnet_cli.config import Source;"
        "from tests.prepare_corpus.corpora import corpus_config, plan, prepare;"
        "prepare(corpus_config(Source(path=sys.argv[1])), Artifacts(Path(sys.argv[2])))"
    )
    root = Path(__file__).parents[2]
    environment = {"PYTHONHASHSEED": "7", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", code, folder, tmp_path / "other"], check=True, env=environment, cwd=tmp_path)
    assert snapshot(tmp_path / "other") == snapshot(artifacts.root)


def test_another_vocabulary_reuses_the_text(tmp_path: Path, artifacts: Artifacts) -> None:
    source = Source(path=str(text_folder(tmp_path / "text", files=3)))
    prepare(corpus_config(source), artifacts)
    phases = plan(corpus_config(source, vocab_size=310), artifacts, 2)
    done = {phase.name: all(is_done(job, artifacts) for job in phase.jobs) for phase in phases}
    assert done == {
        "clean": True, "deduplicate": True, "sentences": True, "vocabulary": False, "encode": False, "manifest": False,
        "card": False,
    }  # fmt: skip
    prepare(corpus_config(source, vocab_size=310), artifacts)
    assert len(list(artifacts.root.glob("prepare-corpus/text-*"))) == 1
    assert len(list(artifacts.root.glob("prepare-corpus/corpus-*"))) == 2


def test_the_first_of_equal_paragraphs_is_kept(tmp_path: Path, artifacts: Artifacts) -> None:
    for number, lines in enumerate([[1, 2, 1], [2], [3, 1, 4]]):
        (tmp_path / f"{number}.txt").write_text("\n".join(prose(line, 1) for line in lines))
    source = (
        Source(path=str(tmp_path / "0.txt")),
        Source(path=str(tmp_path / "1.txt")),
        Source(path=str(tmp_path / "2.txt")),
    )
    manifest = prepare(corpus_config(*source, validation_every=2), artifacts)
    assert manifest.documents == 2, "documents that consist of duplicates are not counted"
    assert manifest.dropped == {"deduplicate": 3}
    assert len([line for line in sentence_lines(artifacts) if line]) == 4
    config = corpus_config(*source, validation_every=2)
    cleanup = config.corpus.cleanup.model_copy(update={"deduplicate": False})
    assert prepare(corpus_config(*source, validation_every=2, cleanup=cleanup), artifacts).paragraphs == 7


def test_problems_are_listed_in_the_manifest(tmp_path: Path, artifacts: Artifacts) -> None:
    folder = text_folder(tmp_path / "text", files=3)
    (folder / "a-bad.txt").write_bytes(b"\xe9" + prose(99).encode())
    (folder / "empty.txt").touch()
    manifest = prepare(corpus_config(Source(path=str(folder)), vocab_size=5000), artifacts)
    assert manifest.problems[0].startswith("corpus.vocab_size is 5,000, but the text yields")
    assert manifest.problems[1:] == [
        "corpus.sources.0: a-bad.txt: repaired invalid UTF-8 in 1 places, the first at byte 0 (line 1)",
        "corpus.sources.0: empty.txt: empty file",
    ]
    assert manifest.documents == 4
    skipped = prepare(corpus_config(Source(path=str(folder)), on_bad_utf8="skip"), artifacts)
    assert skipped.documents == 3
    with pytest.raises(InputError, match=r"a-bad\.txt: not UTF-8 at byte 0"):
        prepare(corpus_config(Source(path=str(folder)), on_bad_utf8="fail"), artifacts)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "corpus.sources.0.path: .*gone does not exist"),
        (lambda root: root.mkdir(), "corpus.sources.0.path: .*gone has no files"),
    ],
)
def test_missing_input_is_an_error_with_its_key(
    tmp_path: Path, artifacts: Artifacts, make: Callable[[Path], None], message: str
) -> None:
    make(tmp_path / "gone")
    with pytest.raises(InputError, match=message):
        plan(corpus_config(Source(path=str(tmp_path / "gone"))), artifacts, 1)


def test_invalid_settings_are_errors_before_anything_runs(tmp_path: Path, artifacts: Artifacts) -> None:
    with pytest.raises(UsageError, match=r"corpus\.sources is empty"):
        plan(corpus_config(), artifacts, 1)
    source = Source(path=str(text_folder(tmp_path / "text")))
    with pytest.raises(UsageError, match=r"corpus\.spacy_pipeline: 'en_nowhere_sm' is not installed"):
        plan(corpus_config(source, spacy_pipeline="en_nowhere_sm"), artifacts, 1)


def test_artifacts_remain_valid_without_their_input(tmp_path: Path, artifacts: Artifacts) -> None:
    folder = text_folder(tmp_path / "text", files=3)
    config = corpus_config(Source(path=str(folder)))
    manifest = prepare(config, artifacts)
    folder.rename(tmp_path / "elsewhere")
    assert plan(config, artifacts, 1) == []
    assert prepare(config, artifacts) == manifest
    with pytest.raises(InputError, match="does not exist"):
        plan(corpus_config(Source(path=str(folder)), vocab_size=310), artifacts, 1)


def test_a_finished_corpus_does_not_need_its_working_files(tmp_path: Path, artifacts: Artifacts) -> None:
    source = Source(path=str(text_folder(tmp_path / "text")))
    prepare(corpus_config(source), artifacts)
    [working] = artifacts.root.glob("prepare-corpus/text-*")
    shutil.rmtree(working)
    assert plan(corpus_config(source), artifacts, 1) == []
    assert len(plan(corpus_config(source, vocab_size=330), artifacts, 1)) == 7, "another vocabulary needs them"


def test_slices_depend_only_on_file_sizes(tmp_path: Path, artifacts: Artifacts) -> None:
    folder = text_folder(tmp_path / "text", files=6)
    source = Source(path=str(folder))
    counts = [len(plan(corpus_config(source, slice_mb=size), artifacts, 4)[0].jobs) for size in (0.00001, 0.004, 8.0)]
    assert counts[0] == 6
    assert 1 < counts[1] < 6
    assert counts[2] == 1
    assert len(plan(corpus_config(source.model_copy(update={"limit": 2}), slice_mb=0.00001), artifacts, 4)[0].jobs) == 2


def test_planning_imports_no_heavy_libraries() -> None:
    code = (
        "import sys; from mapnet_cli.prepare_corpus import stage;"
        "print([name for name in ('torch', 'spacy', 'sacremoses') if name in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=root)
    assert done.stdout.strip() == "[]"


def test_real_text(tmp_path: Path, artifacts: Artifacts, shared_data: Path) -> None:
    import tarfile

    with tarfile.open(shared_data / "wikipedia.tar.xz") as archive:
        member = next(member for member in archive if member.isfile() and "wiki_" in member.name)
        handle = archive.extractfile(member)
        assert handle is not None
        (tmp_path / "wiki_00").write_bytes(handle.read(300_000).rpartition(b"<doc ")[0])
    source = Source(kind="wikiextractor", path=str(tmp_path / "wiki_00"))
    manifest = prepare(corpus_config(source, vocab_size=2000, block_length=128, slice_mb=0.1), artifacts)
    assert manifest.problems == []
    assert manifest.vocab_size == 2000
    assert manifest.unknown_tokens < 0.001 * manifest.tokens
    assert 15 < manifest.words / manifest.sentences < 35
