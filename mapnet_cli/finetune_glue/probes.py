"""The demo's probe tasks: eight small tasks named after GLUE's, whose labels are known by construction.

They are not GLUE. Their sentences come from held-out docstrings of the running Python, so the encoder was not trained
on them; edits turn them into rows. docs/probes.md describes each task and lists typical scores.
"""

import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from random import Random

from mapnet_cli.core import InputError, derive_seed
from mapnet_cli.finetune_glue.probe_sentences import MAX_WORDS, Sentence, held_out_sentences, split_documents
from mapnet_cli.text import harvest

TRAIN_ROWS, DEV_ROWS = 1000, 300
TRAIN_ROUNDS = 3
"""Maximum number of rows made from one training sentence, each with a new edit; a dev sentence is used once."""
FEWEST_ROWS = 40
TRIES = 5  # maximum number of attempts at a row whose other sentence does not fit
Texts = tuple[str, ...]
ENTAILMENT = ("entailment", "not_entailment")
Row = tuple[str, Texts, str]  # document, texts, label
_LISTS = tomllib.loads((files(__package__) / "probe_words.toml").read_text("utf-8"))
COMMANDS, STATEMENTS, FUNCTION_WORDS, AUXILIARIES, _KEPT = (frozenset(words.split()) for words in _LISTS.values())
NEVER_DROPPED = AUXILIARIES | _KEPT


def text(words: Sequence[str], end: str = ".") -> str:
    """Returns the words as lower-cased text, so that a capital doesn't reveal where the sentence began."""
    return " ".join(words).rstrip(",;:").lower() + end


def halves_exchanged(words: Sequence[str]) -> list[str] | None:
    """Returns the second half, then the first. No punctuation may precede the split: at the end it would be a clue."""
    cut = next((i for i in range(len(words) // 2, len(words) - 1) if words[i - 1][-1].isalnum()), None)
    return None if cut is None else [*words[cut:], *words[:cut]]


def shortened(words: Sequence[str], less: int, rng: Random) -> list[str]:
    """Returns the words without `less` random ones. Keeps words that affect the meaning, and at least four in total."""
    droppable = [i for i, word in enumerate(words) if word.lower() not in NEVER_DROPPED]
    dropped = set(rng.sample(droppable, min(less, len(droppable), max(0, len(words) - 4))))
    return [word for i, word in enumerate(words) if i not in dropped]


def negated(words: Sequence[str]) -> list[str] | None:
    """Returns the words with a "not" removed, or added after the first auxiliary; None if there is neither."""
    words = list(words)
    if "not" in words:
        words.remove("not")
        return words
    index = next((i for i, word in enumerate(words) if word in AUXILIARIES), None)
    return None if index is None else [*words[: index + 1], "not", *words[index + 1 :]]


def content(words: Sequence[str]) -> set[str]:
    """Returns the content words (those that are not function words), lower-cased and without punctuation."""
    return {bare for word in words if (bare := word.strip(".,;:()'\"").lower()) and bare not in FUNCTION_WORDS}


@dataclass(frozen=True)
class Draw:
    """Inputs of a row: a sentence, a pool of other sentences, and a random generator."""

    sentence: Sentence
    pool: Sequence[Sentence]
    rng: Random

    @property
    def words(self) -> list[str]:
        return self.sentence.words

    def other_words(self, at_least: int = 0) -> list[str]:
        """Returns the words of one or more sentences of other documents, at least `at_least` words."""
        words: list[str] = []
        while not words or len(words) < at_least:
            other = self.rng.choice(self.pool)
            if other.document != self.sentence.document:
                words += other.words
        return words


def cola(draw: Draw, label: str) -> Texts | None:
    """Acceptable: the sentence; unacceptable: its second half stands before its first."""
    words = draw.words if label == "1" else halves_exchanged(draw.words)
    return (text(words),) if words else None


def sst2(draw: Draw, label: str) -> Texts | None:
    """Mood: the first word is cut off; it was a command (1: "Return ...") or began a statement (0: "The ...")."""
    first, *rest = draw.words
    return (text(rest),) if first in (COMMANDS if label == "1" else STATEMENTS) else None


def mrpc(draw: Draw, label: str) -> Texts | None:
    """Paraphrase: less one word; none: less one word, and the halves exchanged. Both have the same words."""
    shorter = shortened(draw.words, 1, draw.rng)
    other = shorter if label == "1" else halves_exchanged(shorter)
    return (text(other), text(draw.words)) if other else None


def stsb(draw: Draw, label: str) -> Texts | None:
    """The score is how many fifths of the words are kept; in the others' places stand another sentence's."""
    words = draw.words
    other = draw.other_words(len(words))
    kept = draw.rng.sample(range(len(words)), round(len(words) * int(label) / 5))
    return text(words), text([word if i in kept else other[i] for i, word in enumerate(words)])


def qqp(draw: Draw, label: str) -> Texts | None:
    """Duplicate: asks about the same sentence, less two words; else about another document's sentence."""
    asked = shortened(draw.words if label == "1" else draw.other_words(), 2, draw.rng)
    return text(draw.words, " ?"), text(["is", "it", "so", "that", *asked], " ?")


def mnli(draw: Draw, label: str) -> Texts | None:
    """Entailment: less two words; contradiction: that, negated; neutral: another document's, half of them negated."""
    premise = draw.words
    hypothesis = draw.other_words() if label == "neutral" else premise
    opposite = negated(hypothesis)
    if opposite is None or negated(premise) is None:
        return None
    negate = label == "contradiction" or (label == "neutral" and draw.rng.random() < 0.5)
    return text(premise), text(shortened(opposite if negate else hypothesis, 2, draw.rng))


def qnli(draw: Draw, label: str) -> Texts | None:
    """Entailment: the sentence has the question's words; else it is another document's and has none of them."""
    about = sorted(content(draw.words))
    if len(about) < 3:
        return None
    asked = draw.rng.sample(about, min(5, len(about)))
    answer = draw.words if label == "entailment" else draw.other_words()
    if label == "not_entailment" and content(answer) & set(asked):
        return None
    return text(["what", "is", "said", "of", *asked], " ?"), text(answer)


def rte(draw: Draw, label: str) -> Texts | None:
    """Entailment: the hypothesis is a stretch of the premise, of 60 % of its words; else of another document's."""
    source = draw.words if label == "entailment" else draw.other_words()
    length = max(4, round(0.6 * len(source)))
    start = draw.rng.randrange(len(source) - length + 1)
    return text(draw.words), text(source[start : start + length])


@dataclass(frozen=True)
class Probe:
    """One task: how the texts of its rows are generated, and its labels."""

    make: Callable[[Draw, str], Texts | None]
    labels: tuple[str, ...] = ("0", "1")
    longest: int = 14  # maximum number of words per sentence, so that pairs fit into the demo's short blocks


PROBES = {
    "CoLA": Probe(cola, longest=MAX_WORDS),
    "SST-2": Probe(sst2, longest=MAX_WORDS),
    "MRPC": Probe(mrpc),
    "STS-B": Probe(stsb, ("0", "1", "2", "3", "4", "5")),
    "QQP": Probe(qqp),
    "MNLI": Probe(mnli, ("contradiction", "entailment", "neutral"), longest=20),
    "QNLI": Probe(qnli, ENTAILMENT),
    "RTE": Probe(rte, ENTAILMENT),
}


def make_probes(folder: Path, seed: int) -> dict[str, dict[str, int]]:
    """Writes the eight tasks and returns {task: {file: rows}}. Raises InputError if there are too few docstrings."""
    found = held_out_sentences(harvest())
    training, testing = split_documents(found, Random(derive_seed(seed, "probe documents")))
    counts: dict[str, dict[str, int]] = {}
    for task, probe in PROBES.items():
        files = {"train.tsv": training, "dev.tsv": testing}
        if task == "MNLI":
            files = {
                "train.tsv": [name for name in training if not _is_topic(name)],
                "dev_matched.tsv": [name for name in testing if not _is_topic(name)],
                "dev_mismatched.tsv": sorted(filter(_is_topic, found)),
            }
        (folder / task).mkdir(parents=True)
        counts[task] = {}
        for file, names in files.items():
            sentences = [s for name in names for s in found[name] if len(s.words) <= probe.longest]
            rng = Random(derive_seed(seed, "probe rows", task, file))
            rounds, limit = (TRAIN_ROUNDS, TRAIN_ROWS) if file == "train.tsv" else (1, DEV_ROWS)
            rows = _balanced_rows(probe, sentences, rounds, limit, rng)
            if len(rows) < FEWEST_ROWS:
                raise InputError(
                    f"this Python's docstrings give only {len(rows)} rows for the probe task {task} ({file}): set "
                    "finetune.data to a folder with GLUE, or use a Python that includes the standard library's sources"
                )
            _write(folder / task / file, rows)
            counts[task][file] = len(rows)
    readme = "Probe tasks, not GLUE: made by mapnet from the docstrings of CPython. Texts are lower-case.\n"
    readme += "".join(f"{task}: {' '.join((probe.make.__doc__ or '').split())}\n" for task, probe in PROBES.items())
    (folder / "README.txt").write_text(readme, encoding="utf-8", newline="\n")
    return counts


def _balanced_rows(probe: Probe, sentences: Sequence[Sentence], rounds: int, limit: int, rng: Random) -> list[Row]:
    """Returns at most `limit` distinct rows with balanced labels; labels alternate, so prefixes are balanced too."""
    rows: dict[str, dict[Texts, Row]] = {label: {} for label in probe.labels}
    for _ in range(rounds):
        for sentence in rng.sample(sentences, len(sentences)):
            draw = Draw(sentence, sentences, rng)
            for label in sorted(probe.labels, key=lambda label: len(rows[label])):  # the rarest label first
                texts = next(filter(None, (probe.make(draw, label) for _ in range(TRIES))), None)
                if texts and not any(texts in made for made in rows.values()):
                    rows[label][texts] = (sentence.document, texts, label)
                    break
    each = min(limit // len(rows), *map(len, rows.values()))
    return [row for group in zip(*(list(made.values())[:each] for made in rows.values()), strict=True) for row in group]


def _write(path: Path, rows: Sequence[Row]) -> None:
    texts = ("sentence",) if len(rows[0][1]) == 1 else ("sentence1", "sentence2")
    lines = [("index", "document", *texts, "label")]
    lines += [(str(index), document, *texts, label) for index, (document, texts, label) in enumerate(rows)]
    path.write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8", newline="\n")


def _is_topic(document: str) -> bool:
    return document.startswith("topic ")
