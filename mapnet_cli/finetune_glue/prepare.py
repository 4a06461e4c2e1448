"""The jobs before the grid: probe tasks, a task as token ids, and what it gives away without an encoder."""

import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mapnet_cli.core import Artifacts, Baseline, Baselines, CorpusManifest, Imported, Row, TaskFacts, publishing
from mapnet_cli.finetune_glue import tokenised
from mapnet_cli.finetune_glue.examples import check_count, read_examples
from mapnet_cli.finetune_glue.tokenised import Tokenised
from mapnet_cli.glue import TASKS, Floats, GlueTask, score
from mapnet_cli.jobs import Job, Output, Progress, ProgressCallback


class ProbeSizes(Row):
    """Result of `MakeProbes`: rows by task and split."""

    rows: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class MakeProbes(Job):
    """Makes the probe tasks in GLUE's file layout."""

    seed: int

    def run(self, artifacts: Artifacts, progress: ProgressCallback) -> Output:
        from mapnet_cli.finetune_glue.probes import make_probes

        with publishing(artifacts.path(self.key)) as temporary:
            rows = make_probes(temporary, self.seed)
        files = sorted(path for path in artifacts.path(self.key).rglob("*") if path.is_file())
        return Output(files, ProbeSizes(rows=rows))


@dataclass(frozen=True)
class TextSettings:
    """How the texts of a row of Table 3 become token ids."""

    tokenizer: str
    """Key of the corpus manifest or of the import that the tokenizer is from."""
    lowercase: str
    """As corpus.lowercase; "none" for an import, whose tokenizer takes plain text."""
    max_length: int


@dataclass(frozen=True, kw_only=True)
class PrepareTask(Job):
    """Reads a task's rows, checks them, and writes them as token ids."""

    task: str
    location: str | Path
    """Folder or zip file, or an id on the Hugging Face Hub."""
    probe: bool
    subset: bool
    text: TextSettings
    max_train_examples: int

    def run(self, artifacts: Artifacts, progress: ProgressCallback) -> Output:
        tokenizer = verified_tokenizer(artifacts, self.text.tokenizer)
        spec, max_length = TASKS[self.task], self.text.max_length
        notes: list[str] = []
        files: list[Path] = []
        counts: dict[str, int] = {}
        official = True
        splits = ("train", *spec.dev.values())
        for split in splits:
            examples = read_examples(self.location, spec, split)
            if examples.broken:
                notes.append(f"{split}: {examples.broken} broken lines left out")
            if not check_count(spec, split, examples, self.subset or self.probe):
                official = False
                if not self.probe:
                    notes.append(f"{split}: {len(examples):,} rows, officially {spec.splits[split].rows:,}")
            if split == "train" and 0 < self.max_train_examples < len(examples):
                notes.append(f"{split}: only the first {self.max_train_examples:,} of {len(examples):,} rows used")
                examples = examples.first(self.max_train_examples)
            data, cut = tokenised.tokenise(examples, tokenizer, self.text.lowercase, max_length)
            if cut:
                notes.append(f"{split}: {cut:,} rows cut to {max_length} tokens")
            files += tokenised.save(artifacts.path(f"{self.key}/{split}"), data)
            counts[split] = len(data)
            progress(Progress(len(counts), len(splits), split))
        facts = TaskFacts(
            task=self.task,
            train_examples=counts["train"],
            dev_examples=sum(counts.values()) - counts["train"],
            official=official,
            probe=self.probe,
            notes=notes,
        )
        return Output(files, facts)


def verified_tokenizer(artifacts: Artifacts, key: str) -> Path:
    """Returns the tokenizer of a corpus manifest or an import; raises DamagedError if the file is not what it was."""
    kind: type[Imported] | type[CorpusManifest] = Imported if key.startswith("import/") else CorpusManifest
    name = artifacts.read(key, kind).tokenizer
    artifacts.verify(key, only=name)
    return artifacts.path(name)


def load_task(artifacts: Artifacts, task: str, key: str) -> tuple[Any, dict[str, Any]]:
    """Returns a task's training set, and its dev sets by their metrics' suffix; raises DamagedError."""
    _verify(artifacts.root, key)
    dev = {suffix: tokenised.load(artifacts.path(f"{key}/{split}")) for suffix, split in TASKS[task].dev.items()}
    return tokenised.load(artifacts.path(f"{key}/train")), dev


@cache  # once per process and task: its runs are many
def _verify(root: Path, key: str) -> None:
    Artifacts(root).verify(key)


@dataclass(frozen=True, kw_only=True)
class ScoreBaselines(Job):
    """Scores the majority class and a bag of words on one task."""

    task: str
    data: str
    """Key of the tokenised task."""

    def run(self, artifacts: Artifacts, progress: ProgressCallback) -> Output:
        return Output([], Baselines(rows=baselines(TASKS[self.task], *load_task(artifacts, self.task, self.data))))


def baselines(task: GlueTask, train: Tokenised, dev: dict[str, Tokenised]) -> list[Baseline]:
    """Returns the two baselines' metrics. For regression "majority" is the mean, "bag of words" ridge regression."""
    majority: dict[str, float] = {}
    bag: dict[str, float] = {}
    constant = float(train.labels.mean()) if task.regression else float(np.bincount(train.labels.astype(int)).argmax())
    alone = len(np.unique(train.labels)) == 1  # nothing to tell apart: the words can't help
    predictor = (lambda data: np.full(len(data), constant, dtype=np.float32)) if alone else _fit(task, train)
    for suffix, data in dev.items():
        guesses = {"majority": np.full(len(data), constant, dtype=np.float32), "bag": predictor(data)}
        majority |= {name + suffix: v for name, v in score(task, guesses["majority"], data.labels).items()}
        bag |= {name + suffix: v for name, v in score(task, guesses["bag"], data.labels).items()}
    return [
        Baseline(task=task.name, name="majority", metrics=majority),
        Baseline(task=task.name, name="bag of words", metrics=bag),
    ]


def _fit(task: GlueTask, train: Tokenised) -> Any:
    """Returns a predictor: logistic (ridge) regression on token counts, each text's counted apart."""
    from sklearn.linear_model import LogisticRegression, Ridge

    width = int(train.tokens.max()) + 1
    model = Ridge(alpha=10.0) if task.regression else LogisticRegression(max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not converged in 1000 iterations: the fit stands as it is
        model.fit(_counts(train, width), train.labels)

    def predict(data: Tokenised) -> Floats:
        return np.asarray(model.predict(_counts(data, width)), dtype=np.float32)

    return predict


def _counts(data: Tokenised, width: int) -> Any:
    """Returns a sparse matrix [examples, 2 * width]: counts of the first text's tokens, then of the second's."""
    from scipy.sparse import csr_array

    rows = np.repeat(np.arange(len(data)), data.lengths)
    second = np.arange(len(data.tokens)) - data.offsets[rows] >= data.second[rows]
    known = data.tokens < width
    columns = data.tokens.astype(np.int64) + width * second
    shape = (len(data), 2 * width)
    return csr_array((np.ones(int(known.sum()), dtype=np.float32), (rows[known], columns[known])), shape=shape)
