"""Tiny handmade GLUE folders in the official layout."""

from itertools import product
from pathlib import Path

ROWS = {
    "CoLA": ([], [["x", "1", "", 'He said "go.'], ["x", "0", "*", "Go said he him"]]),
    "SST-2": (["sentence", "label"], [["a fine film", "1"], ["dull , NA", "0"]]),
    "MRPC": (
        ["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"],
        [["1", "1", "2", "It rained.", "Rain fell."], ["0", "3", "4", '"It" rained.', "It snowed."]],
    ),
    "STS-B": (
        ["index", "genre", "filename", "year", "old_index", "source1", "source2", "sentence1", "sentence2", "score"],
        [["0", "g", "f", "y", "0", "n", "n", "A dog.", "A dog.", "5.000"],
         ["1", "g", "f", "y", "1", "n", "n", "A dog.", "Two cats sit.", "0.500"]],
    ),
    "QQP": (
        ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"],
        [["1", "1", "2", "How old?", "What age?", "1"], ["2", "3", "4", "How old?", "How tall?", "0"]],
    ),
    "QNLI": (
        ["index", "question", "sentence", "label"],
        [["0", "Who?", "He did.", "entailment"], ["1", "Who?", "It is red.", "not_entailment"]],
    ),
    "RTE": (
        ["index", "sentence1", "sentence2", "label"],
        [["0", "It rained.", "It was wet.", "entailment"], ["1", "It rained.", "It was dry.", "not_entailment"]],
    ),
}  # fmt: skip
MNLI = ["index", "promptID", "pairID", "genre", "s1b", "s2b", "s1p", "s2p", "sentence1", "sentence2"]


def write_glue(folder: Path, repeat: int = 4) -> Path:
    """Writes all eight tasks with a few rows each; returns the folder."""
    for task, (header, rows) in ROWS.items():
        lines = ["\t".join(row) for row in ([header] if header else []) + rows * repeat]
        for file in ("train.tsv", "dev.tsv"):
            write(folder / task / file, lines)
    labels = ("entailment", "neutral", "contradiction")
    for file, labellers in (("train.tsv", 1), ("dev_matched.tsv", 5), ("dev_mismatched.tsv", 5)):
        header = MNLI + [f"label{i + 1}" for i in range(labellers)] + ["gold_label"]
        rows = [[str(number), "p", "q", "g", "", "", "", "", f"It {n} rained.", f"Wet {n}."] + [label] * (labellers + 1)
                for number, (n, label) in enumerate(product(range(repeat), labels))]  # fmt: skip
        write(folder / "MNLI" / file, ["\t".join(row) for row in [header, *rows]])
    return folder


def write(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_tests(folder: Path) -> None:
    """Writes unlabelled test sets with the dev sets' texts; AX has the texts of the mismatched MNLI dev set."""
    for task, (header, _) in ROWS.items():
        dev = [line.split("\t") for line in (folder / task / "dev.tsv").read_text(encoding="utf-8").splitlines()]
        header, dev = (dev[0], dev[1:]) if header else (["source", "label", "star", "sentence"], dev)
        unlabelled = [n for n, name in enumerate(header) if name not in LABELS]
        lines = [["index", *(header[n] for n in unlabelled)]]
        lines += [[str(number), *(row[n] for n in unlabelled)] for number, row in enumerate(dev)]
        write(folder / task / "test.tsv", ["\t".join(line) for line in lines])
    for dev_file, test in (("dev_matched", "MNLI/test_matched"), ("dev_mismatched", "MNLI/test_mismatched"),
                           ("dev_mismatched", "AX/AX")):  # fmt: skip
        lines = (folder / "MNLI" / f"{dev_file}.tsv").read_text(encoding="utf-8").splitlines()
        write(folder / f"{test}.tsv", ["\t".join(line.split("\t")[:10]) for line in lines])


LABELS = ("label", "Quality", "score", "is_duplicate", "index")
