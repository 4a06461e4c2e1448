"""The probe tasks: GLUE's layout, balanced labels, no leakage, and labels checked by an independent derivation."""

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from mapnet_cli.core.errors import InputError
from mapnet_cli.finetune_glue import probes
from mapnet_cli.finetune_glue.examples import Examples, read_examples
from mapnet_cli.finetune_glue.probe_sentences import held_out_sentences, split_documents
from mapnet_cli.finetune_glue.probes import DEV_ROWS, TRAIN_ROWS, make_probes
from mapnet_cli.glue.grid import TRAINED
from mapnet_cli.glue.tasks import TASKS
from mapnet_cli.text.python_docs import Document, harvest, paragraphs

COLUMNS = {"CoLA": 4, "SST-2": 2, "MRPC": 5, "STS-B": 10, "QQP": 6, "MNLI": 12, "QNLI": 4, "RTE": 4}
SPLITS = {"train.tsv": "train", "dev.tsv": "dev", "dev_matched.tsv": "dev", "dev_mismatched.tsv": "dev-mm"}


def dev_files(name: str) -> list[str]:
    return ["dev_matched.tsv", "dev_mismatched.tsv"] if name == "MNLI" else ["dev.tsv"]


FILES = [(name, file) for name in TRAINED for file in ("train.tsv", *dev_files(name))]


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    return list(harvest())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, documents: list[Document]) -> tuple[Path, dict[str, dict[str, int]]]:
    folder = tmp_path_factory.mktemp("probe")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probes, "harvest", lambda: documents)
        return folder, make_probes(folder, 1)


@pytest.fixture(scope="module")
def originals(documents: list[Document]) -> dict[str, str]:
    """The document of every held-out sentence, by lower-cased text without the full stop."""
    found = held_out_sentences(documents)
    return {s.text.lower().removesuffix("."): name for name, sentences in found.items() for s in sentences}


def examples(folder: Path, name: str, file: str) -> Examples:
    return read_examples(folder / name, TASKS[name], SPLITS[file])


def bare(text: str) -> list[str]:
    return text.removesuffix(" ?").removesuffix(".").split()


def within(part: Sequence[str], whole: Sequence[str]) -> bool:
    """Returns whether `part` is `whole` without some words; trailing punctuation may differ."""
    rest = iter(word.rstrip(",;:") for word in whole)
    return all(word.rstrip(",;:") in rest for word in part)


@pytest.mark.parametrize(("name", "file"), FILES)
def test_rows_columns_and_balance(made: tuple[Path, dict[str, dict[str, int]]], name: str, file: str) -> None:
    folder, counts = made
    data = examples(folder, name, file)
    assert len(data.labels) == counts[name][file] <= (TRAIN_ROWS if file == "train.tsv" else DEV_ROWS)
    # docstrings differ between Python versions, so the lower bounds are loose
    assert counts[name][file] >= (300 if file == "train.tsv" else 60)
    shares = Counter(data.labels).values()
    assert len(shares) == (len(TASKS[name].labels) or 6) and len(set(shares)) == 1
    assert len(set(data.texts)) == len(data.texts)
    lines = (folder / name / file).read_text(encoding="utf-8").splitlines()
    width = COLUMNS[name] + (4 if file.startswith("dev_") else 0)
    assert {line.count("\t") + 1 for line in lines} == {width}
    assert len(lines) == len(data.labels) + (name != "CoLA")


def test_readme_states_that_the_tasks_are_not_glue(made: tuple[Path, dict[str, dict[str, int]]]) -> None:
    text = (made[0] / "README.txt").read_text(encoding="utf-8")
    assert text.startswith("Probe tasks, not GLUE")
    assert re.findall(r"^([\w-]+):", text, re.MULTILINE) == list(TRAINED)


def test_no_sentence_is_in_the_corpus(documents: list[Document], originals: dict[str, str]) -> None:
    corpus = " ".join(p for d in documents if not d.held_out for x in d.docstrings for p in paragraphs(x)).lower()
    assert originals and not [text for text in originals if text in corpus]
    assert set(originals.values()) <= {document.name for document in documents if document.held_out}


@pytest.mark.parametrize("name", ["CoLA", "STS-B", "QQP", "MNLI", "QNLI", "RTE"])
def test_training_and_dev_documents_differ(
    made: tuple[Path, dict[str, dict[str, int]]], originals: dict[str, str], name: str
) -> None:
    def sources(file: str) -> set[str]:
        texts = [
            text.removesuffix(" ?").removesuffix(".") for row in examples(made[0], name, file).texts for text in row
        ]
        return {originals[text] for text in texts if text in originals}

    train = sources("train.tsv")
    assert train and all((dev := sources(file)) and not train & dev for file in dev_files(name))


def test_mnli_genres(made: tuple[Path, dict[str, dict[str, int]]]) -> None:
    for file, genre in {"train": "docstring", "dev_matched": "docstring", "dev_mismatched": "topic"}.items():
        lines = (made[0] / f"MNLI/{file}.tsv").read_text(encoding="utf-8").splitlines()[1:]
        assert {line.split("\t")[3] for line in lines} == {genre}


def test_cola_negatives_have_exchanged_halves(
    made: tuple[Path, dict[str, dict[str, int]]], originals: dict[str, str]
) -> None:
    data = examples(made[0], "CoLA", "dev.tsv")
    bags = {" ".join(sorted(text.split())) for text in originals}
    for (sentence,), label in zip(data.texts, data.labels, strict=True):
        words = bare(sentence)
        back = {" ".join(words[i:] + words[:i]) for i in range(len(words))}
        assert (" ".join(words) in originals) == (label == 1)
        assert back & originals.keys()
        assert " ".join(sorted(words)) in bags  # a bag of words has no information


def test_sst2_first_words(made: tuple[Path, dict[str, dict[str, int]]], originals: dict[str, str]) -> None:
    data = examples(made[0], "SST-2", "dev.tsv")
    first: dict[str, set[str]] = {}
    for text in originals:
        word, _, rest = text.partition(" ")
        first.setdefault(rest, set()).add(word)
    subjects = re.findall(r"\w+", "a all an any each every if it its no some the there these they this those you")
    for (sentence,), label in zip(data.texts, data.labels, strict=True):
        assert bool(first[sentence.removesuffix(".")] & {*subjects}) == (label == 0)


def test_mrpc_texts_differ_in_one_word_and_order(made: tuple[Path, dict[str, dict[str, int]]]) -> None:
    data = examples(made[0], "MRPC", "dev.tsv")
    for (edited, original), label in zip(data.texts, data.labels, strict=True):
        assert not Counter(bare(edited)) - Counter(bare(original))
        assert len(bare(original)) - len(bare(edited)) == 1 or len(bare(original)) <= 5
        assert label == 0 or within(bare(edited), bare(original))


def test_stsb_score_is_the_share_of_words_in_place(made: tuple[Path, dict[str, dict[str, int]]]) -> None:
    data = examples(made[0], "STS-B", "dev.tsv")
    for (left, right), score in zip(data.texts, data.labels, strict=True):
        words, mixed = bare(left), bare(right)
        assert len(words) == len(mixed)
        same = sum(a.rstrip(",") == b.rstrip(",") for a, b in zip(words, mixed, strict=True))
        assert round(score * len(words)) <= same  # the other sentence may share a word, such as "the"
    assert all(left == right for (left, right), score in zip(data.texts, data.labels, strict=True) if score == 1)


def test_qqp_rte_and_qnli_pairs_match_their_labels(
    made: tuple[Path, dict[str, dict[str, int]]], originals: dict[str, str]
) -> None:
    for (one, two), label in _labelled(made[0], "QQP"):
        assert one.removesuffix(" ?") in originals
        if label == 1:
            assert within(bare(two)[4:], bare(one))
    for (premise, hypothesis), label in _labelled(made[0], "RTE"):
        span = f" {' '.join(bare(hypothesis))}"
        assert (span.rstrip(",;:") in f" {' '.join(bare(premise))}") == (label == 0), (premise, hypothesis)
    for (question, sentence), label in _labelled(made[0], "QNLI"):
        asked = set(bare(question)[4:])
        words = {word.strip(".,;:()'\"") for word in bare(sentence)}
        assert asked <= words if label == 0 else not asked & words
        assert sentence.removesuffix(".") in originals


def test_mnli_labels(made: tuple[Path, dict[str, dict[str, int]]]) -> None:
    entailment, neutral, contradiction = 0, 1, 2
    kept = {neutral: 0, entailment: 0, contradiction: 0}
    for (premise, hypothesis), label in _labelled(made[0], "MNLI", "dev_matched.tsv"):
        without = [[word for word in bare(text) if word != "not"] for text in (premise, hypothesis)]
        odd = abs(bare(premise).count("not") - bare(hypothesis).count("not")) == 1
        kept[int(label)] += within(without[1], without[0])
        assert label == neutral or odd == (label == contradiction)
        assert label == neutral or within(without[1], without[0])
    assert kept[neutral] == 0


def _labelled(folder: Path, name: str, file: str = "dev.tsv") -> list[tuple[tuple[str, ...], float]]:
    data = examples(folder, name, file)
    return list(zip(data.texts, data.labels, strict=True))


@pytest.mark.slow
def test_same_bytes_with_another_hash_seed(made: tuple[Path, dict[str, dict[str, int]]], tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from mapnet_cli.finetune_glue.probes import make_probes; "
        "make_probes(pathlib.Path(sys.argv[1]), 1)"
    )
    environment = os.environ | {"PYTHONHASHSEED": "4321", "LC_ALL": "C"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "again")], check=True, env=environment)
    assert _bytes(tmp_path / "again") == _bytes(made[0])


def test_the_seed_matters(
    made: tuple[Path, dict[str, dict[str, int]]],
    tmp_path: Path,
    documents: list[Document],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probes, "harvest", lambda: documents)
    make_probes(tmp_path, 2)
    assert _bytes(tmp_path)["RTE/dev.tsv"] != _bytes(made[0])["RTE/dev.tsv"]


def test_a_python_without_docstrings_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "harvest", lambda: iter([Document("codecs", ("Nothing here.",))]))
    with pytest.raises(InputError, match="only 0 rows for the probe task CoLA"):
        make_probes(tmp_path, 1)


def test_documents_are_not_split(documents: list[Document]) -> None:
    found = held_out_sentences(documents)
    training, dev = split_documents(found, Random(3))
    assert sorted(training + dev) == sorted(found)
    assert 0.2 < sum(len(found[name]) for name in dev) / sum(map(len, found.values())) <= 0.35


def _bytes(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
