"""Probe tasks for the demo: GLUE's eight tasks at toy scale, in GLUE's file layout, labels true by construction.

Made from sentences of the Python modules that are held out of the demo's corpus. They are not GLUE.
docs/probes.md shows an example of each, and what majority, a bag of words and the encoders score.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from mapnet_cli.artifacts import write_text
from mapnet_cli.finetune_glue.probe_sentences import Sentence, held_out_sentences, split_modules
from mapnet_cli.finetune_glue.tasks import TASKS, GlueTask
from mapnet_cli.seeds import derive_seed
from mapnet_cli.text.cpython_prose import harvest

TRAIN_ROWS, DEV_ROWS = 1200, 400
ROUNDS = 3
"""A training sentence is used up to so many times, each time with other random choices."""
STATEMENT_OPENINGS = frozenset("The This A An It These".split())
AUXILIARIES = frozenset("is are can may must should will does do has was were be could would".split())
SMALL_WORDS = frozenset(
    "the a an of in to for from by with on at as is are be was if and or not that this it its can will may should "
    "must which when where than then no all any each has have do does".split()
)

Row = tuple[tuple[str, ...], str]
"""The texts and the label."""
Builder = Callable[[Sequence[Sentence], Random], list[Row]]


@dataclass(frozen=True)
class Probe:
    """One task: how its rows are made, in words and in code."""

    description: str
    build: Builder


def make_probes(folder: Path, seed: int) -> dict[str, dict[str, int]]:
    """Writes FOLDER/TASK/*.tsv for all eight tasks; returns the row counts by task and file.

    The same Python and seed give the same bytes. Training and dev rows come from different modules;
    MNLI's mismatched set from the topics of `help()`, its other sets from docstrings.
    """
    found = held_out_sentences(tuple(harvest()))
    train, dev = split_modules(found, Random(derive_seed(seed, "probe modules")))
    counts: dict[str, dict[str, int]] = {}
    lines = ["probe tasks, not GLUE: made from this Python's docstrings; see docs/probes.md", ""]
    for name, probe in PROBES.items():
        task = TASKS[name]
        counts[name] = {}
        for file in (task.train, *task.dev.values()):
            training = file == task.train
            modules = _modules(task, file, train if training else dev)
            sentences = [sentence for module in modules for sentence in found[module]]
            rows = _rows(probe, sentences, ROUNDS if training else 1, seed, f"{name}/{file}")
            rows = rows[: TRAIN_ROWS if training else DEV_ROWS]
            write_text(folder / name / file, "".join(f"{line}\n" for line in _tsv(task, file, rows)))
            counts[name][file] = len(rows)
        lines.append(f"{name}: {probe.description}")
    write_text(folder / "README.txt", "\n".join(lines) + "\n")
    return counts


def _modules(task: GlueTask, file: str, modules: Sequence[str]) -> list[str]:
    if task.name != "MNLI":
        return list(modules)
    return [module for module in modules if module.startswith("topic ") == (file == "dev_mismatched.tsv")]


def _rows(probe: Probe, sentences: Sequence[Sentence], rounds: int, seed: int, name: str) -> list[Row]:
    """Returns the distinct rows of all rounds, labels as even as they come, in random order."""
    rows: dict[Row, None] = {}
    for number in range(rounds):
        draw = Random(derive_seed(seed, "probe rows", name, number))
        rows |= dict.fromkeys(probe.build(sentences, draw))
    by_label: dict[str, list[Row]] = {}
    for row in rows:
        by_label.setdefault(row[1], []).append(row)
    smallest = min(map(len, by_label.values()))
    if len(by_label) <= 3:  # STS-B's grades stay as they fall
        rows = dict.fromkeys(row for group in by_label.values() for row in group[:smallest])
    return Random(derive_seed(seed, "probe order", name)).sample(list(rows), len(rows))


def _order(sentences: Sequence[Sentence], draw: Random) -> list[Row]:
    rows: list[Row] = []
    for sentence in _short(sentences, 22):
        ordered = draw.random() < 0.5
        rows.append(((_text(sentence.bare if ordered else _swapped(sentence.bare)),), "1" if ordered else "0"))
    return rows


def _mood(sentences: Sequence[Sentence], draw: Random) -> list[Row]:
    rows: list[Row] = []
    for sentence in _short(sentences, 22):
        first, *rest = sentence.bare
        statement = first in STATEMENT_OPENINGS
        if statement or (sentence.opens and first.isalpha() and first.lower() not in SMALL_WORDS):
            rows.append(((_text(rest),), "0" if statement else "1"))
    return rows


def _paraphrase(sentences: Sequence[Sentence], draw: Random) -> list[Row]:
    rows: list[Row] = []
    for sentence in _short(sentences, 18):
        words = _without(sentence.bare, 1, draw)
        same = draw.random() < 0.5
        rows.append(((sentence.text, _text(words if same else _swapped(words))), "1" if same else "0"))
    return rows


def _similarity(sentences: Sequence[Sentence], draw: Random) -> list[Row]:
    short = _short(sentences, 16)
    pool = [word for sentence in short for word in sentence.bare]
    rows: list[Row] = []
    for sentence in short:
        words, grade = list(sentence.bare), draw.randint(0, 5)
        for place in draw.sample(range(len(words)), round((5 - grade) / 5 * len(words))):
            words[place] = draw.choice(pool)
        rows.append(((sentence.text, _text(words)), f"{grade}.000"))
    return rows


def _duplicate(sentences: Sequence[Sentence], draw: Random) -> list[Row]:
    rows: list[Row] = []
    for sentence, other, same in _pairs(_short(sentences, 16), draw):
        question = f"Is it so that {' '.join(_without(other.bare, 2, draw))} ?"
        rows.append(((f"Is it so that {' '.join(sentence.bare)} ?", question), "1" if same else "0"))
    return rows


def _inference(sentences: Sequence[Sentence], draw: Random) -> list[Row]:
    able = [sentence for sentence in _short(sentences, 18) if _negated(sentence.bare)]
    rows: list[Row] = []
    for sentence in able:
        label = draw.choice(TASKS["MNLI"].labels)
        words = list(draw.choice(able).bare if label == "neutral" else sentence.bare)
        if label == "contradiction" or (label == "neutral" and draw.random() < 0.5):
            words = _negated(words)
        for _ in range(2):
            free = [place for place, word in enumerate(words) if word not in AUXILIARIES and word != "not"]
            if len(free) > 4:
                words.pop(draw.choice(free))
        rows.append(((sentence.text, _text(words)), label))
    return rows


def _answer(sentences: Sequence[Sentence], draw: Random) -> list[Row]:
    rows: list[Row] = []
    for sentence, other, same in _pairs(_short(sentences, 18), draw):
        words = dict.fromkeys(word.strip(".,;:()'\"").lower() for word in sentence.bare)
        telling = [word for word in words if word and word not in SMALL_WORDS]
        if len(telling) >= 3:
            asked = ", ".join(draw.sample(telling, min(4, len(telling))))
            rows.append(((f"What is said of {asked} ?", other.text), "entailment" if same else "not_entailment"))
    return rows


def _entailment(sentences: Sequence[Sentence], draw: Random) -> list[Row]:
    rows: list[Row] = []
    for sentence, other, same in _pairs(_short(sentences, 18), draw):
        length = max(4, round(0.6 * len(other.bare)))
        start = draw.randrange(max(1, len(other.bare) - length + 1))
        part = _text(other.bare[start : start + length])
        rows.append(((sentence.text, part), "entailment" if same else "not_entailment"))
    return rows


PROBES = {
    "CoLA": Probe("1: a sentence as it stands; 0: its second half before its first", _order),
    "SST-2": Probe("the first word is taken away; 1: it told you to do something, 0: it was The, This, A, It", _mood),
    "MRPC": Probe("1: the same sentence less a word; 0: less a word, and its halves swapped", _paraphrase),
    "STS-B": Probe("how many fifths of the words are kept, the others replaced by random ones", _similarity),
    "QQP": Probe("1: the same question less two words; 0: another question less two words", _duplicate),
    "MNLI": Probe(
        "less two words: the same sentence (entailment), with 'not' put in or taken out (contradiction), "
        "another sentence (neutral)",
        _inference,
    ),
    "QNLI": Probe("a question made of a sentence's words; is it answered by that sentence or by another?", _answer),
    "RTE": Probe("three fifths of the sentence in a row (entailment), or of another sentence", _entailment),
}


def _short(sentences: Sequence[Sentence], most: int) -> list[Sentence]:
    return [sentence for sentence in sentences if len(sentence.bare) <= most]


def _pairs(sentences: Sequence[Sentence], draw: Random) -> list[tuple[Sentence, Sentence, bool]]:
    """Returns each sentence with itself or, as often, with another one."""
    drawn = [(s, s if draw.random() < 0.5 else draw.choice(sentences)) for s in sentences]
    return [(sentence, other, other is sentence) for sentence, other in drawn]


def _swapped(words: Sequence[str]) -> list[str]:
    half = len(words) // 2
    return [*words[half:], *words[:half]]


def _without(words: Sequence[str], count: int, draw: Random) -> list[str]:
    dropped = set(draw.sample(range(len(words)), min(count, len(words) - 1)))
    return [word for place, word in enumerate(words) if place not in dropped]


def _negated(words: Sequence[str]) -> list[str]:
    """Returns the words with "not" taken out, or put behind the first auxiliary; [] if there is none."""
    if "not" in words:
        place = list(words).index("not")
        return [*words[:place], *words[place + 1 :]]
    place = next((i for i, word in enumerate(words) if word in AUXILIARIES), -1)
    return [*words[: place + 1], "not", *words[place + 1 :]] if place >= 0 else []


def _text(words: Sequence[str]) -> str:
    return " ".join(words) + "."


def _tsv(task: GlueTask, file: str, rows: Sequence[Row]) -> list[str]:
    """Returns the lines of a file with the official columns in their order."""
    columns = task.columns or _COLUMNS[task.name]
    if task.name == "MNLI":
        labellers = 1 if file == task.train else 5
        columns = (*columns, *(f"label{number + 1}" for number in range(labellers)), "gold_label")
    lines = [] if task.columns else ["\t".join(columns)]
    for number, (texts, label) in enumerate(rows):
        values = dict(zip(task.texts, texts, strict=True))
        cells = [values.get(column, label if column.startswith((task.label, "label")) else "") for column in columns]
        if columns[0] in ("index", "id"):
            cells[0] = str(number)
        lines.append("\t".join(cells))
    return lines


_COLUMNS = {
    "SST-2": ("sentence", "label"),
    "MRPC": ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"),
    "STS-B": tuple("index genre filename year old_index source1 source2 sentence1 sentence2 score".split()),
    "QQP": ("id", "qid1", "qid2", "question1", "question2", "is_duplicate"),
    "MNLI": tuple(
        "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse "
        "sentence1 sentence2".split()
    ),
    "QNLI": ("index", "question", "sentence", "label"),
    "RTE": ("index", "sentence1", "sentence2", "label"),
}
"""The official header lines; MNLI's goes on with its labels."""
